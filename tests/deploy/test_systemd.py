"""gateway.service: what systemd says of it, and that it agrees with the gateway."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest

from .agreement import CONFIG, DEPLOY, LEAVING_S, PROGRAM, STORE, VARIABLES, parsed, variables

UNIT = (DEPLOY / "gateway.service").read_text()


def values(key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", UNIT)


def the(key: str) -> str:
    (value,) = values(key)
    return value


@pytest.fixture
def unit(tmp_path):
    """The unit where systemd-analyze can judge it: the program need not be installed here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    placed = tmp_path / "ocpp-gateway.service"
    placed.write_text(UNIT.replace(PROGRAM, "/bin/true"))
    return placed


def analyze(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_systemd_understands_all_of_it(unit):
    judged = analyze("verify", unit)
    assert (judged.returncode, judged.stderr) == (0, "")


def test_systemd_would_name_a_key_that_it_does_not_know(unit):
    unit.write_text(unit.read_text().replace("RestartSec=", "RestartSeconds="))
    assert "RestartSeconds" in analyze("verify", unit).stderr


def test_it_is_exposed_little_by_systemds_own_measure(unit):
    """From 0 to 10; a service without any of this has 9.6."""
    judged = analyze("security", "--offline=true", "--threshold=20", unit)
    assert judged.returncode == 0, judged.stdout


def test_it_runs_the_gateway_and_reloads_its_tariffs():
    program, *arguments = shlex.split(the("ExecStart"))
    assert program == PROGRAM
    assert parsed(arguments).config.as_posix() == CONFIG
    assert the("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_its_state_is_where_the_store_is_by_default():
    assert the("DynamicUser") == "yes"
    assert f"/var/lib/{the('StateDirectory')}" == STORE
    assert the("ProtectSystem") == "strict"


def test_its_token_is_a_credential_that_the_configuration_is_given():
    name, _, source = the("LoadCredential").partition(":")
    assert source == "/etc/ocpp-gateway/access_token"
    assert the("Environment") == f"OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN_FILE=%d/{name}"
    assert variables(UNIT) <= VARIABLES


def test_it_comes_back_always_but_for_a_configuration_that_must_be_mended():
    assert the("Restart") == "always"
    assert the("RestartPreventExitStatus") == "2"
    assert the("StartLimitIntervalSec") == "0"


def test_it_is_given_time_to_leave_and_as_many_files_as_a_fleet_needs():
    assert float(the("TimeoutStopSec")) > LEAVING_S
    assert int(the("LimitNOFILE")) >= 65_536
