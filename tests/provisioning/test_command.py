"""`ocpp-gateway thingsboard ...` over real HTTP: what is printed where, and the exit status."""

from __future__ import annotations

import io
import subprocess

import pytest

from gateway.cli.main import main

from ..real.processes import gateway_command
from .fake_rest_api import PASSWORD, USER, FakeRestApi, served

pytestmark = pytest.mark.real_time


@pytest.fixture
def thingsboard():
    return FakeRestApi()


@pytest.fixture
def url(thingsboard):
    with served(thingsboard) as url:
        yield url


@pytest.fixture
def command(url, capsys, monkeypatch):
    """Run a subcommand: exit status, lines of stdout, stderr."""
    monkeypatch.setenv("OCPP_GATEWAY_TB_PASSWORD", PASSWORD)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody types

    def run(action, *arguments):
        status = main(["thingsboard", action, f"--url={url}", f"--username={USER}", *arguments])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run


def test_a_process_installs_as_the_readme_says(thingsboard, url):
    done = subprocess.run(
        gateway_command(
            "thingsboard", "install", "--url", url, "--username", USER, "--password", PASSWORD
        ),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "ThingsBoard 4.2.1.1: [thingsboard] batch_devices may be true",
        "rule chain 'OCPP gateway': created",
        "nodes of 'OCPP gateway': created",
    ]
    (credentials,) = thingsboard.credentials.values()
    assert lines[-1] == f"access token: {credentials['credentialsId']}"


def test_install_then_check_then_uninstall(command, thingsboard, tmp_path):
    token_file = tmp_path / "token"
    status, lines, errors = command("check")
    assert status == 1
    assert "rule chain 'OCPP gateway': missing" in lines
    assert errors.endswith("of these to repair: `thingsboard install` does it\n")

    status, lines, errors = command("install", f"--token-file={token_file}")
    assert (status, errors) == (0, "")
    assert f"token file {token_file}: updated" in lines[-1]
    assert token_file.read_text().strip() not in "".join(lines)

    thingsboard.one("DEVICE_PROFILE", "EV charger")["description"] = "mine"
    status, lines, errors = command("check")
    assert status == 1
    assert "device profile 'EV charger': changed (description)" in lines
    assert errors.startswith("1 of these")

    assert command("install")[0] == 0
    assert command("check")[0] == 0
    assert command("uninstall")[0] == 0
    assert command("check")[0] == 1


def test_the_gateway_device_has_the_name_that_it_is_given(command, thingsboard):
    assert command("install", "--gateway-name=depot 7")[0] == 0
    assert thingsboard.names("DEVICE") == ["depot 7"]


def test_a_fault_is_one_line_and_exit_status_1(command):
    status, lines, errors = command("install", "--password=wr0ng")
    assert (status, lines) == (1, [])
    assert errors == f"ocpp-gateway: {USER} cannot log in: Invalid username or password\n"


def test_what_cannot_be_meant_is_exit_status_2(command, monkeypatch):
    assert command("install", "--url=thingsboard")[0] == 2
    assert command("install", "--password-file=/absent")[0] == 2
    monkeypatch.delenv("OCPP_GATEWAY_TB_PASSWORD")
    status, _, errors = command("install")
    assert status == 2
    assert errors.startswith("ocpp-gateway: no password: give --password-file")


def test_what_was_done_before_a_fault_is_reported(command, thingsboard):
    thingsboard.entities["DEVICE_PROFILE"]["broken"] = {
        "name": "EV charger"
    }  # an answer without an id
    status, lines, errors = command("install")
    assert status == 1
    assert "rule chain 'OCPP gateway': created" in lines
    assert errors.count("\n") == 1


def test_export_writes_files_and_needs_no_thingsboard(tmp_path, capsys):
    assert main(["thingsboard", "export", "--to", str(tmp_path / "out")]) == 0
    written = capsys.readouterr().out.splitlines()
    assert [line.rpartition("/")[2] for line in written][:4] == [
        "1-rule-chain-ocpp-gateway.json",
        "2-device-profile-ev-charger.json",
        "2-device-profile-ev-connector.json",
        "2-device-profile-ev-session-log.json",
    ]
    (tmp_path / "file").write_text("")
    assert main(["thingsboard", "export", "--to", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err
