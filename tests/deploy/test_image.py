"""The Dockerfile agrees with the gateway; that it builds and runs: tests/real/test_container.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gateway

from .agreement import ADMIN, DEPLOY, OCPP, PROGRAM, STORE, VARIABLES, parsed, pinned, variables

ROOT = DEPLOY.parent


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (DEPLOY / "Dockerfile").read_text()))
    return [(word, " ".join(rest.split())) for word, _, rest in
            (line.partition(" ") for line in text.splitlines() if line.strip())]  # fmt: skip


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    begins = max(n for n, (word, _) in enumerate(found) if word == "FROM")
    return found[begins:]


def the(word: str) -> str:
    (rest,) = [rest for name, rest in last_stage() if name == word]
    return rest


def test_it_starts_the_gateway_itself_so_that_signals_reach_it():
    assert json.loads(the("ENTRYPOINT")) == [PROGRAM]
    assert parsed(json.loads(the("CMD"))).config is None
    assert the("STOPSIGNAL") == "SIGTERM"


def test_its_health_check_is_a_command_of_the_gateway_that_needs_no_shell():
    options, check = the("HEALTHCHECK").split(" CMD ")
    program, *arguments = json.loads(check)
    assert program == PROGRAM
    assert not parsed(arguments).ready
    assert "--timeout=5s" in options


def test_it_tells_the_ports_and_the_place_of_the_store():
    assert the("EXPOSE").split() == [str(OCPP), str(ADMIN)]
    assert the("VOLUME") == the("WORKDIR") == STORE


def test_its_variables_are_keys_of_the_configuration():
    named = variables((DEPLOY / "Dockerfile").read_text())
    assert named == {"OCPP_GATEWAY_ADMIN_LISTEN"} <= VARIABLES
    assert f'OCPP_GATEWAY_ADMIN_LISTEN="0.0.0.0:{ADMIN}"' in the("ENV")


def test_it_runs_as_somebody_who_is_not_root_by_number():
    uid, _, gid = the("USER").partition(":")
    assert int(uid) >= 10_000
    assert ("COPY", f"--from=build --chown={uid}:{gid} /build/state {STORE}") in last_stage()


def test_its_label_has_the_version_of_the_gateway():
    assert ("ARG", f"VERSION={gateway.__version__}") in last_stage()
    assert 'org.opencontainers.image.version="${VERSION}"' in the("LABEL")


def test_every_stage_is_built_from_the_base_that_was_asked_for_and_it_is_pinned():
    found = instructions()
    assert found[0][0] == "ARG"
    name, _, image = found[0][1].partition("=")
    assert name == "BASE"
    assert pinned(image)
    stages = [rest for word, rest in found if word == "FROM"]
    assert [stage.split()[0] for stage in stages] == ["${BASE}"] * 2


def test_nothing_runs_in_the_last_stage_so_that_no_cache_or_tool_stays_in_it():
    assert not [rest for word, rest in last_stage() if word == "RUN"]


def test_the_context_is_what_is_copied_and_no_more():
    """A store, a token or a virtual environment beside the project gets into no image."""
    kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line and not line.startswith("#")]  # fmt: skip
    assert kept[0] == "*"
    allowed = {line[1:] for line in kept if line.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in instructions()
              if word == "COPY" and not rest.startswith("--from")]  # fmt: skip
    assert allowed == {name for names in copied for name in names}
    assert all(Path(ROOT / name).exists() for name in allowed)
