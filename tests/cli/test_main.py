"""The command line: what is printed where, and the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import argon2
import pytest
import trio

from gateway import __version__
from gateway.cli.main import main

from ..real.processes import DAY, Site, charger, eventually, gateway, gateway_command
from ..real.test_process import START, STOP, open_thingsboard

EXAMPLES = Path(__file__).parents[1] / "data" / "billing" / "own.json"
ROOT = Path(__file__).parents[2]


def command(*arguments, stdin="", within=60):
    """The command as a process: exit status, stdout, stderr."""
    done = subprocess.run(
        gateway_command(*arguments), input=stdin, capture_output=True, text=True, timeout=within,
        cwd=ROOT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def command_beside(*arguments, within=60):
    """The same while this process has other things to do."""
    with trio.fail_after(within):
        done = await trio.run_process(
            gateway_command(*arguments), capture_stdout=True, capture_stderr=True, check=False,
            cwd=ROOT,
        )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


# --- usage -------------------------------------------------------------------------------------


def test_the_version_is_reported_by_both_spellings():
    assert command("--version") == (0, f"ocpp-gateway {__version__}\n", "")
    installed = Path(sys.executable).with_name("ocpp-gateway")
    done = subprocess.run([installed, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ocpp-gateway {__version__}\n"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    for name in ("run", "check", "demo", "simulate", "replay", "sessions", "hash-password"):
        assert f"  {name} " in out or f"  {name}\n" in out


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["run", "--port", "1"], ["simulate"], ["replay"], ["demo", "--seconds", "0"],
     ["demo", "--seconds", "nan"], ["demo", "--speed", "x"], ["demo", "--chargers", "-1"],
     ["simulate", "--url", "ws://h/o", "--chargers", "1.5"], ["run", "--log-level", "loud"]],
)  # fmt: skip
def test_wrong_usage_is_2_and_a_line_that_says_what(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "ocpp-gateway" in err
    assert "_positive" not in err
    assert "_count_rejected" not in err


def test_a_url_that_is_none_is_wrong_usage(capsys):
    assert main(["simulate", "--url", "http://127.0.0.1/ocpp"]) == 2
    assert capsys.readouterr().err.startswith("--url: ")


@pytest.mark.parametrize("name", ["run", "check", "sessions"])
def test_a_configuration_that_is_missing_is_2(name, tmp_path):
    missing = tmp_path / "none.toml"
    assert command(name, "--config", missing) == (2, "", f"{missing}: there is no such file\n")


# --- check ---------------------------------------------------------------------------------------


def test_check_is_0_where_all_is_fine(site):
    assert command("check", "--config", site.config) == (
        0,
        "configuration and tariffs are fine\n",
        "",
    )


def test_check_is_0_with_warnings_on_stderr(tmp_path, capsys):
    path = tmp_path / "gateway.toml"
    path.write_text("")
    assert main(["check", "--config", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == "configuration and tariffs are fine\n"
    assert err.startswith(f"{path}: thingsboard.access_token: warning: is missing")


def test_check_is_2_with_every_fault_on_a_line(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text('[ocpp]\nlisten = "x"\nlenient = 3\n[admin]\nport = 9\n')
    status, out, err = command("check", "--config", path)
    assert (status, out) == (2, "")
    faults = [line for line in err.splitlines() if ": warning: " not in line]
    assert [line.split(": ")[:2] for line in faults] == [
        [str(path), "ocpp.listen"],
        [str(path), "ocpp.lenient"],
        [str(path), "admin.port"],
    ]


@pytest.mark.parametrize(
    ("party", "what"),
    [
        ('country_code = "NL"\nparty_id = "TNM"', "location.id is missing"),
        (
            'country_code = "NLX"\nparty_id = "TNM"\nlocation = {id = "1", address = "a",'
            ' city = "c", country = "NLD", latitude = 1.0, longitude = 2.0}',
            "country_code must be like NL",
        ),
        ('country_code = "NL"\nparty_id = "TNM"\nzz = 1', "location.id is missing"),
    ],
)
def test_check_looks_at_the_party_of_cdrs_too(tmp_path, capsys, party, what):
    path = tmp_path / "gateway.toml"
    path.write_text(f"[party]\n{party}\n")
    assert main(["check", "--config", str(path)]) == 2
    assert f"{path}: party: " in (error := capsys.readouterr().err)
    assert what in error


def test_check_without_a_file_judges_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("OCPP_GATEWAY_ADMIN_LISTEN", "nowhere")
    assert main(["check"]) == 2
    assert "environment: OCPP_GATEWAY_ADMIN_LISTEN: must be" in capsys.readouterr().err


# --- hash-password -----------------------------------------------------------------------------


def test_a_password_from_stdin_is_hashed_as_argon2_without_its_line_end():
    status, out, err = command("hash-password", stdin="correct horse\r\n")
    assert (status, err) == (0, "")
    assert argon2.PasswordHasher().verify(out.strip(), "correct horse")
    assert "horse" not in out


def test_no_password_is_2():
    status, out, err = command("hash-password", stdin="\n")
    assert (status, out) == (2, "")
    assert err.startswith("no password")


# --- replay --------------------------------------------------------------------------------------


def test_replay_prints_a_line_for_each_example_and_0():
    status, out, err = command("replay", EXAMPLES)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == len(json.loads(EXAMPLES.read_text())["vectors"])
    assert all({"id", "sessions"} <= line.keys() for line in lines)


def test_replay_is_1_with_the_difference_on_stderr(tmp_path):
    document = json.loads(EXAMPLES.read_text())
    vector = next(v for v in document["vectors"] if v["expected"]["sessions"])
    vector["expected"]["sessions"][0]["energy_wh"] = "1"
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({**document, "vectors": [vector]}))
    status, out, err = command("replay", path)
    assert status == 1
    assert len(out.splitlines()) == 1
    assert err.startswith(f"{path}: {vector['id']}: ")


def test_output_that_nobody_reads_is_no_fault(site):
    """As in `ocpp-gateway sessions | head`, at its worst."""
    script = f"{' '.join(gateway_command('check', '--config', site.config))} | true"
    done = subprocess.run(
        ["bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# --- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [["--json"], []])
def test_a_demo_that_nobody_watches_any_more_ends_without_a_fault(how):
    arguments = ["demo", "--seconds", "6", "--speed", "500", *how]
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as demo:
        assert demo.stdout.readline()
        demo.stdout.close()
        assert demo.stderr.read() == b""
        assert demo.wait(30) == 0


@pytest.mark.parametrize("which", [[], ["--open"], ["--json"], ["--open", "--json"]])
def test_a_store_that_is_not_there_is_1_and_one_line(site, which, capsys):
    assert main(["sessions", "--config", str(site.config), *which]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"ocpp-gateway: {site.store}: there is no such store; has the gateway ever run?\n"
    )
    assert not site.store.exists()


def test_a_store_that_is_none_is_1_and_one_line(site, capsys):
    site.store.write_bytes(b"no database" * 1_000)
    assert main(["sessions", "--config", str(site.config), "--json"]) == 1
    advice = "restore a backup, or move the file away to begin anew"
    error = capsys.readouterr().err
    assert error == f"ocpp-gateway: {site.store}: file is not a database; {advice}\n"


@pytest.mark.real_time
async def test_sessions_are_reported_beside_a_gateway_that_runs_and_after_it(site):
    async with gateway(site) as program:
        config = ("--config", site.config)
        assert await command_beside("sessions", *config) == (0, "no sessions\n", "")
        assert await command_beside("sessions", *config, "--open", "--json") == (0, "", "")
        async with charger(site.url, "CP-1", site.folder) as one:
            first = await one.start(1_000, START, tag="FIRST")
            await one.stop(first, 3_000, STOP)
            second = await one.start(3_000, f"{DAY}T12:00:00Z", tag="SECOND")
            sample = {"value": "7000", "unit": "Wh"}
            await one.ask(
                "MeterValues",
                connector_id=1,
                transaction_id=second,
                meter_value=[{"timestamp": f"{DAY}T12:30:00Z", "sampled_value": [sample]}],
            )
            await eventually(lambda: site.rows("select count(*) from receipt") == [(1,)])
        for _ in range(2):
            status, out, err = await command_beside("sessions", *config, "--json")
            (closed,) = [json.loads(line) for line in out.splitlines()]
            assert (status, err) == (0, "")
            assert (closed["transaction_id"], closed["energy_wh"]) == (first, "2000")
            assert closed["stopped_at"] == STOP
            assert closed["total_incl_vat"] == "1.82"  # (0.50 + 1) * 1.21 = 1.815
            price = closed["tariff"]["elements"][0]["price_components"][0]["price"]
            assert price == 0.25  # a number, as the tariff file has it
            status, out, err = await command_beside("sessions", *config, "--open", "--json")
            (still,) = [json.loads(line) for line in out.splitlines()]
            assert (status, err) == (0, "")
            assert still.keys() == closed.keys() - {"stopped_at"}
            assert (still["transaction_id"], still["id_tag"]) == (second, "SECOND")
            assert (still["energy_wh"], still["duration_s"]) == ("4000", 1800)
            assert (still["total_incl_vat"], still["version"]) == ("2.42", 0)
            assert (still["stop_reason"], still["meter_stop_wh"]) == (None, None)
            for which, cost in (((), "1.82 EUR"), (("--open",), "2.42 EUR")):
                status, out, err = await command_beside("sessions", *config, *which)
                assert (status, err, len(out.splitlines())) == (0, "", 1)
                assert cost in out
                assert "CP-1/1" in out
            if program.process.returncode is None:  # once more without a gateway
                assert await program.stop() == 0


@pytest.mark.real_time
async def test_open_sessions_keep_the_tariff_with_which_they_began(site):
    async with gateway(site) as program, charger(site.url, "CP-1", site.folder) as one:
        transaction_id = await one.start(0, START)
        opened = "select 1 from entry where kind = 'TransactionOpened'"
        await eventually(lambda: site.rows(opened))
        assert transaction_id == 1
        await program.stop()
    tariffs = (site.folder / "tariffs.json").read_text()
    (site.folder / "tariffs.json").write_text(tariffs.replace("1.0,", "9.0,"))
    _, out, _ = await command_beside("sessions", "--config", site.config, "--open", "--json")
    assert json.loads(out)["total_incl_vat"] == "1.21"


# --- demo and simulate -----------------------------------------------------------------------


@pytest.mark.real_time
async def test_the_demo_tells_json_lines_and_nothing_else():
    status, out, err = await command_beside("demo", "--seconds", 8, "--json", "--speed", 600)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert all(row.keys() == {"device", "ts", "values"} for row in rows)
    assert any("receipt" in row["values"] for row in rows)


@pytest.mark.real_time
async def test_the_demo_without_a_terminal_reports_receipts_in_words():
    status, out, err = await command_beside("demo", "--seconds", 6, "--chargers", 1, "--speed", 600)
    assert (status, err) == (0, "")
    assert "SIM-0001" in out
    assert "each with a receipt" in out


@pytest.mark.real_time
async def test_simulated_charge_points_make_their_sessions_with_a_gateway(site):
    async with open_thingsboard(site), gateway(site):
        status, out, err = await command_beside(
            "simulate", "--url", site.url, "--chargers", 2, "--sessions", 1, "--json",
            "--speed", 3000,
        )  # fmt: skip
        assert (status, err) == (0, "")
        events = [json.loads(line) for line in out.splitlines()]
        finished = {e["charger"]: e for e in events if e["event"] == "session_finished"}
        assert sorted(finished) == ["SIM-0001", "SIM-0002"]
        _, out, _ = await command_beside("sessions", "--config", site.config, "--json")
        receipts = {r["charge_point"]: r for r in map(json.loads, out.splitlines())}
        assert {name: float(r["energy_wh"]) for name, r in receipts.items()} == {
            name: event["energy_wh"] for name, event in finished.items()
        }


@pytest.mark.real_time
async def test_simulate_against_nothing_is_1_and_says_so():
    status, out, err = await command_beside(
        "simulate", "--url", "ws://127.0.0.1:1/ocpp", "--sessions", 1, "--json"
    )
    assert status == 1
    assert all(json.loads(line)["event"] == "not_connected" for line in out.splitlines())
    assert err.startswith("simulate: SIM-0001: no connection: ")
    assert len(err.splitlines()) == 1


def test_the_environment_of_these_tests_is_clean():
    assert not [name for name in os.environ if name.startswith("OCPP_GATEWAY_")]
