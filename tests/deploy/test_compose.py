"""The compose files: right by the Compose specification, and they agree with the gateway."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from contextlib import contextmanager

import compose_spec
import pytest
import yaml

import gateway

from .agreement import (
    ADMIN,
    CONFIG,
    DEPLOY,
    LEAVING_S,
    OCPP,
    STORE,
    VARIABLES,
    configured,
    parsed,
    pinned,
    seconds,
    secrets_in,
    variables,
)

FILES = ("compose.yaml", "compose.simulator.yaml")
OURS = f"ocpp-gateway:{gateway.__version__}"


def text(name: str) -> str:
    """The file with its variables at their defaults."""
    given = re.compile(r"\$\$|\$\{(\w+):-([^}]*)\}")
    filled = given.sub(lambda found: "$" if found[0] == "$$" else found[2],
                       (DEPLOY / name).read_text())  # fmt: skip
    assert "${" not in filled.replace('"${INSTALL_TB:-}"', "")
    return filled


def document(name: str = "compose.yaml") -> dict:
    return yaml.safe_load(text(name))


def services() -> dict:
    return document()["services"] | document("compose.simulator.yaml")["services"]


ALL = sorted(services())
GATEWAYS = [name for name in ALL if services()[name]["image"] == OURS]


def test_the_specification_takes_it():
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(document())).validate()


def test_the_specification_takes_it_with_the_simulator():
    both = document() | {"services": services()}
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(both)).validate()


def test_the_gateway_and_what_it_needs_are_there():
    assert GATEWAYS == ["gateway", "install", "simulator"]
    assert {"thingsboard", "postgres"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_image_is_pinned(name):
    assert pinned(services()[name]["image"])


@pytest.mark.parametrize("name", ALL)
def test_a_service_waits_for_what_it_needs_until_it_is_well(name):
    for needed, how in services()[name].get("depends_on", {}).items():
        one = services()[needed]
        if how["condition"] == "service_healthy":
            # the gateway's own check is in its image
            assert needed == "gateway" or "test" in one["healthcheck"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert one["restart"] == "no"  # or it would never complete


@pytest.mark.parametrize("name", GATEWAYS)
def test_what_runs_the_gateways_image_is_a_command_of_it_with_no_rights_but_its_own(name):
    service = services()[name]
    parsed(service["command"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"user", "privileged", "entrypoint"} & set(service)


@pytest.mark.parametrize("name", ["install", "simulator"])
def test_what_has_no_admin_port_is_not_asked_for_its_health(name):
    assert services()[name]["healthcheck"] == {"disable": True}


def test_the_gateway_is_given_time_to_leave():
    assert seconds(services()["gateway"]["stop_grace_period"]) > LEAVING_S


def test_chargers_reach_the_gateway_and_others_on_this_machine_alone():
    assert services()["gateway"]["ports"] == [f"9000:{OCPP}", f"127.0.0.1:{ADMIN}:{ADMIN}"]
    for name in ALL:
        for port in services()[name].get("ports", []) if name != "gateway" else []:
            assert port.startswith("127.0.0.1:")


def test_the_gateways_configuration_is_right(tmp_path):
    """Its token is where the install step writes it, on the volume of both."""
    gateway, install = services()["gateway"], services()["install"]
    assert parsed(gateway["command"]).config.as_posix() == CONFIG
    placed = {one["target"]: DEPLOY / document()["configs"][one["source"]]["file"]
              for one in gateway["configs"]}  # fmt: skip
    assert set(placed) == {CONFIG, "/etc/ocpp-gateway/tariffs.json"}
    (tmp_path / "tariffs.json").write_text(placed["/etc/ocpp-gateway/tariffs.json"].read_text())
    (tmp_path / "token").write_text("TOKEN\n")
    token = f"{STORE}/access_token"
    config = configured(placed[CONFIG], tmp_path, {token: str(tmp_path / "token")})
    assert config.thingsboard.access_token == "TOKEN"
    assert config.thingsboard.host in services()
    assert config.thingsboard.batch_devices  # the pinned ThingsBoard is from 4.2.1 on
    _, _, version = services()["thingsboard"]["image"].rpartition(":")
    assert tuple(map(int, version.split("."))) >= (4, 2, 1)
    assert f"--token-file={token}" in install["command"]
    assert gateway["volumes"] == install["volumes"] == [f"gateway:{STORE}"]


def test_the_install_step_speaks_to_thingsboard_as_the_tenant_with_a_password_from_a_file():
    request = parsed(services()["install"]["command"])
    assert request.url == "http://thingsboard:8080"
    assert request.password_file == "/run/secrets/tenant_password"
    assert request.password is None


def test_the_gateway_serves_also_when_the_install_step_has_failed():
    """Chargers do not depend on a password of ThingsBoard's."""
    assert services()["gateway"]["depends_on"]["install"]["required"] is False


@pytest.mark.parametrize("name", FILES)
def test_its_variables_are_keys_of_the_configuration(name):
    assert variables(text(name)) <= VARIABLES


@pytest.mark.parametrize("name", FILES)
def test_no_secret_stands_in_it(name):
    assert list(secrets_in(document(name))) == []


def test_secrets_are_files_that_git_does_not_take():
    for secret in document()["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "/deploy/secrets/" in ignored


def test_a_secret_in_clear_would_be_found():
    for bad in (
        {"environment": {"POSTGRES_PASSWORD": "postgres"}},
        {"command": ["--password=tenant"]},
        {"env": [{"name": "OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN", "value": "abc"}]},
    ):
        assert list(secrets_in(bad)), bad


# --- the scripts in it, run ------------------------------------------------------------------


def script(service: str) -> str:
    one = services()[service]
    return (one.get("entrypoint") or one["command"])[-1]


def placed(text: str, folder) -> str:
    """The script with its absolute paths in a folder of the test's."""
    (folder / "password").write_text("from-a-file\n")
    return text.replace("/run/secrets/postgres_password", f"{folder}/password").replace(
        "/var/lib/probe", str(folder)
    )


def bash(script: str, folder, **environment) -> subprocess.CompletedProcess:
    """With stand-ins first on the path."""
    return subprocess.run(
        ["bash", "-euc", script],
        env={"PATH": f"{folder}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def stand_in(folder, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("answer", "there"), [("t", True), ("f", False)])
def test_the_probe_finds_out_whether_thingsboard_is_in_the_database(tmp_path, answer, there):
    stand_in(tmp_path, "psql", f'test "$PGPASSWORD" = from-a-file && echo {answer}')
    (tmp_path / "installed").touch()  # from an earlier time, and another database
    assert bash(placed(script("probe"), tmp_path), tmp_path).returncode == 0
    assert (tmp_path / "installed").exists() is there


def test_a_probe_that_cannot_ask_the_database_fails(tmp_path):
    stand_in(tmp_path, "psql", "exit 2")
    assert bash(placed(script("probe"), tmp_path), tmp_path).returncode != 0


@pytest.mark.parametrize(
    ("service", "there", "started"),
    [
        ("thingsboard-database", False, "installed"),
        ("thingsboard-database", True, ""),
        ("thingsboard", True, "started"),
        ("thingsboard", False, "started"),
    ],
)
def test_thingsboard_is_installed_once_and_then_started(tmp_path, service, there, started):
    stand_in(
        tmp_path,
        "start-tb-node.sh",
        'test "$SPRING_DATASOURCE_PASSWORD" = from-a-file || exit 9\n'
        f'if [ "$INSTALL_TB" = true ]; then echo installed; else echo started; fi > {tmp_path}/did',
    )
    if there:
        (tmp_path / "installed").touch()
    environment = {
        key: value for key, value in services()[service]["environment"].items()
        if key in ("INSTALL_TB", "LOAD_DEMO")
    }  # fmt: skip
    ended = bash(placed(script(service), tmp_path), tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    did = (tmp_path / "did").read_text().strip() if (tmp_path / "did").exists() else ""
    assert did == started


@contextmanager
def answering(*lines: bytes):
    """A port where one client is sent that, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            visitor, _ = server.accept()
            with visitor:
                request = b""  # bash sends it line by line
                while not request.endswith(b"\r\n\r\n") and (part := visitor.recv(1_000)):
                    request += part
                visitor.sendall(b"".join(lines))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("lines", "well"),
    [
        ([b"HTTP/1.1 200 \r\n", b"\r\n", b"<html>"], True),
        ([b"HTTP/1.1 503 \r\n", b"\r\n"], False),
        ([], False),
    ],
)
def test_thingsboards_health_check_asks_for_its_first_page(tmp_path, lines, well):
    check = services()["thingsboard"]["healthcheck"]["test"]
    assert check[:3] == ["CMD", "bash", "-c"]
    with answering(*lines) as port:
        request = check[3].replace("/127.0.0.1/8080", f"/127.0.0.1/{port}")
        ended = subprocess.run(["bash", "-c", request], check=False, timeout=20)
    assert (ended.returncode == 0) is well
