"""`simulate`: exit status, events and display, over real sockets and sped up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from central_system import CentralSystem
from trio_websocket import serve_websocket

from gateway.simulation.simulate import SimulateOptions, describe, simulate
from gateway.simulation.websocket_client import websocket_opener

pytestmark = pytest.mark.real_time


@attrs.define
class Server:
    central: CentralSystem
    port: int = 0
    requests: list = attrs.field(factory=list)
    status: int | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ocpp/"

    async def serve(self, request):
        self.requests.append(request)
        if self.status is not None:
            await request.reject(self.status)
            return
        await self.central.serve_socket(await request.accept(subprotocol="ocpp1.6"))


@asynccontextmanager
async def serving(**responses):
    server = Server(CentralSystem(**responses))
    async with trio.open_nursery() as nursery:
        listen = partial(serve_websocket, ssl_context=None)
        listener = await nursery.start(listen, server.serve, "127.0.0.1", 0)
        server.port = listener.port
        yield server
        nursery.cancel_scope.cancel()


def run(server, report=None, **options):
    options = {"url": server.url, "speed": 20_000, "sessions": 1} | options
    return simulate(SimulateOptions(**options), report=report, handle_signals=False)


async def test_every_charger_makes_its_sessions_and_the_exit_status_is_0(capsys):
    events = []
    async with serving() as server:
        assert await run(server, events.append, chargers=3, sessions=2) == 0
    finished = Counter(e["charger"] for e in events if e["event"] == "session_finished")
    assert finished == {"SIM-0001": 2, "SIM-0002": 2, "SIM-0003": 2}
    assert len(server.central.payloads("StopTransaction")) == 6
    assert sorted(r.path for r in server.requests) == [f"/ocpp/SIM-000{n}" for n in (1, 2, 3)]
    assert capsys.readouterr().err == ""


async def test_json_is_one_object_a_line_with_id_and_energy(capsys):
    async with serving() as server:
        assert await run(server, json_lines=True) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == [
        "connected", "booted", "session_started", "session_finished",
    ]  # fmt: skip
    finished = events[-1]
    assert finished["charger"] == "SIM-0001"
    assert finished["connector"] == 1
    assert finished["tx_id"] == 1
    assert finished["energy_wh"] >= 0
    assert finished["reason"] == "Local"


async def test_without_a_terminal_events_are_plain_lines(capsys):
    async with serving() as server:
        assert await run(server) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "SIM-0001: connector 1: session 1 began" in captured.err
    assert "SIM-0001: connector 1: session 1 ended" in captured.err


async def test_on_a_terminal_there_is_a_progress_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    async with serving() as server:
        assert await run(server, chargers=2) == 0
    assert "2/2" in capsys.readouterr().err


async def test_nobody_there_is_one_line_and_exit_status_1(capsys):
    async with serving() as server:
        port = server.port
    options = SimulateOptions(url=f"ws://127.0.0.1:{port}", chargers=2, connect_timeout_s=0.1)
    assert await simulate(options, report=lambda _: None, handle_signals=False) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "SIM-000" in line
    assert "no connection" in line
    assert "1 more" in line


async def test_a_refused_upgrade_ends_at_once_with_the_http_status(capsys):
    async with serving() as server:
        server.status = 401
        assert await run(server, lambda _: None, password="wrong") == 1
    assert "HTTP 401" in capsys.readouterr().err
    headers = dict(server.requests[0].headers)
    assert headers[b"authorization"] == b"Basic U0lNLTAwMDE6d3Jvbmc="


async def test_a_refused_tag_is_a_failure(capsys):
    async with serving(Authorize={"idTagInfo": {"status": "Invalid"}}) as server:
        assert await run(server, lambda _: None) == 1
    assert "Invalid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sign", "sessions", "status"), [(signal.SIGINT, None, 0), (signal.SIGTERM, 1, 1)]
)
async def test_a_signal_ends_it_orderly(sign, sessions, status):
    async with serving() as server:
        options = {"url": server.url, "sessions": sessions, "chargers": 2}
        code = (
            "import sys, trio; from gateway.simulation.simulate import SimulateOptions, simulate; "
            f"sys.exit(trio.run(simulate, SimulateOptions(**{options!r})))"
        )
        process = await trio.lowlevel.open_process(
            [sys.executable, "-W", "error", "-c", code], stderr=subprocess.DEVNULL
        )
        await server.central.wait(lambda: len(server.central.payloads("BootNotification")) == 2)
        os.kill(process.pid, sign)
        with trio.fail_after(5):
            assert await process.wait() == status
        await server.central.wait(lambda: all(s.closed for s in server.central.sockets))
        assert [s.closed.code for s in server.central.sockets] == [1000, 1000]


async def test_an_id_is_one_escaped_segment_of_the_path():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    connect = websocket_opener(f"ws://127.0.0.1:{port}/a/", "Garage/1 ü")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect, nursery, None)
        stream = await listeners[0].accept()
        assert (await stream.receive_some()).startswith(b"GET /a/Garage%2F1%20%C3%BC HTTP/1.1")
        nursery.cancel_scope.cancel()
    await stream.aclose()
    await listeners[0].aclose()


@pytest.mark.parametrize("url", ["http://host/ocpp", "host:9000", "ws://", ""])
def test_another_url_than_a_websockets_is_refused(url):
    with pytest.raises(ValueError, match="ws://"):
        SimulateOptions(url=url)


def test_an_event_without_words_of_its_own_is_named():
    assert describe({"event": "booted", "charger": "X"}) == "X: booted"
    assert describe({"event": "disconnected", "charger": "X", "why": "1001 GOING_AWAY"}) == (
        "X: disconnected: 1001 GOING_AWAY"
    )
