"""`ocpp-gateway tail`: what charge points say, in a second process."""

from __future__ import annotations

import json
import signal

import pytest
import trio

from gateway.cli.main import main
from gateway.cli.tail import TailError, as_text, tail
from gateway.config.values import Address

from ..admin.test_server import admin_port
from ..real.processes import Site, charger, free_port, gateway, gateway_command, running


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


@pytest.mark.real_time
async def test_a_charge_point_is_seen_on_a_terminal_and_by_programs(site, tmp_path):
    text = gateway_command("tail", "--config", site.config, "CP-*")
    lines = gateway_command("tail", "--admin", f"127.0.0.1:{site.admin}", "--json")
    async with (
        gateway(site) as served,
        running(text, tmp_path / "text.log") as for_eyes,
        running(lines, tmp_path / "json.log") as for_programs,
    ):
        # Who comes while they begin to look is not seen, so others come until one is.
        async with trio.open_nursery() as nursery:

            async def call_in() -> None:
                while True:
                    async with charger(site.url, "CP-0", tmp_path):
                        pass

            nursery.start_soon(call_in)
            await for_eyes.line(lambda line: "CP-0" in line)
            await for_programs.line(lambda line: "CP-0" in line)
            nursery.cancel_scope.cancel()
        async with charger(site.url, "CP-1", tmp_path) as visitor:
            await visitor.boot()
        async with charger(site.url, "OTHER", tmp_path) as visitor:
            await visitor.boot()
        shown = await for_eyes.line(lambda line: "BootNotification" in line)
        assert "  CP-1  in   [2," in shown
        await for_eyes.line(lambda line: "CP-1  --   connected: from 127.0.0.1:" in line)
        frame = json.loads(await for_programs.line(lambda line: "BootNotification" in line))
        assert (frame["charge_point"], frame["way"]) == ("CP-1", "in")
        assert json.loads(frame["frame"])[2] == "BootNotification"
        await for_programs.line(lambda line: '"OTHER"' in line and "Boot" in line)
        assert not any("OTHER" in line for line in for_eyes.lines)
        for_programs.process.send_signal(signal.SIGINT)
        assert await for_programs.end() == 130
        await served.stop()
        assert await for_eyes.end() == 1
        assert for_eyes.last_words() == "ocpp-gateway: the gateway has ended the connection"


def test_where_no_gateway_runs_is_said_in_a_line(site, capsys):
    assert main(["tail", "--config", str(site.config)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"ocpp-gateway: no gateway answers on 127.0.0.1:{site.admin}: ")
    assert err.count("\n") == 1


def test_a_port_that_only_run_knows_is_to_be_said(tmp_path, capsys):
    config = tmp_path / "gateway.toml"
    config.write_text('[admin]\nlisten = "127.0.0.1:0"\n')
    assert main(["tail", "--config", str(config)]) == 2
    assert "--admin" in capsys.readouterr().err


@pytest.mark.real_time
async def test_why_the_gateway_shows_nothing_is_said(gateway, monkeypatch):
    monkeypatch.setattr("gateway.admin.server.is_local", lambda _: False)
    async with admin_port(gateway.running) as port:
        with pytest.raises(TailError, match="says: frames are shown on the gateway's own host"):
            await tail(Address("127.0.0.1", port), [], print)


@pytest.mark.real_time
@pytest.mark.parametrize("host", ["0.0.0.0", "localhost"])
async def test_a_gateway_that_listens_everywhere_is_reached(gateway, host):
    async with admin_port(gateway.running) as port:
        shown, lines = trio.open_memory_channel(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tail, Address(host, port), ["A B", "CP-1"], shown.send_nowait)
            with trio.fail_after(10):
                while not gateway.running.frame_tap.is_watched:  # noqa: ASYNC110  another task's socket
                    await trio.sleep(0.01)
                async with gateway.charger("CP-1"):
                    assert (await lines.receive())["event"] == "connected"
            nursery.cancel_scope.cancel()


@pytest.mark.real_time
async def test_who_answers_something_else_is_no_gateway():
    async def answer(stream):
        await stream.receive_some()
        await stream.send_all(b"SSH-2.0-OpenSSH\r\n")

    port = free_port()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, answer, port)
        with pytest.raises(TailError):
            await tail(Address("127.0.0.1", port), [], print)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"way": "in", "frame": "[2]"}, "in   [2]"),
        ({"way": "out", "frame": "[3]", "missed": 4}, "(4 missed)  out  [3]"),
        ({"way": "in", "frame": "x", "reason": "not JSON"}, "in   x  <- not JSON"),
        ({"way": "in", "frame": "x", "cut_from": 9}, "in   x... (9 characters)"),
        ({"event": "refused", "reason": "404 no"}, "--   refused: 404 no"),
        ({"way": "in", "frame": "\x1b[2J\u202e\n"}, r"in   \x1b[2J\u202e\n"),
    ],
)  # fmt: skip
def test_a_line_for_people_is_one_line_that_no_terminal_obeys(record, line):
    """HC-140"""
    about = {"at": "2026-01-01T00:00:00.000Z", "charge_point": "CP-1"}
    assert as_text(about | record) == f"2026-01-01T00:00:00.000Z  CP-1  {line}"
