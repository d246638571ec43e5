"""The admin port: what probes and Prometheus get, and that no visitor can harm."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

import h11
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from gateway.accountant import AccountingStatistics
from gateway.admin.server import open_admin, respond
from gateway.admin.trace import is_local
from gateway.app import RunningGateway
from gateway.billing.ledger import Ledger
from gateway.bus import EventBus
from gateway.domain.events import ChargePointConnected
from gateway.domain.fleet import Fleet
from gateway.journal import JournalError
from gateway.journal.group_commit import open_sqlite
from gateway.northbound.statistics import DeliveryStatistics
from gateway.observability.frame_tap import MAX_SUBSCRIPTIONS, FrameTap
from gateway.southbound.registry import Registry
from gateway.southbound.statistics import ConnectionStatistics
from gateway.tariffs.tariff import TariffBook

from ..fakes import now
from ..real.processes import get, http
from ..southbound.raw_websocket import dial


def metrics_of(running):
    status, kind, body = respond("GET", "/metrics", running)
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    return list(text_string_to_metric_families(body.decode()))


def value_of(families, name, **labels):
    (sample,) = [
        sample
        for family in families
        for sample in family.samples
        if (sample.name, sample.labels) == ("ocpp_gateway_" + name, labels)
    ]
    return sample.value


async def test_health_is_that_the_process_turns(gateway):
    assert respond("GET", "/healthz", gateway.running)[::2] == (200, b"ok\n")
    assert respond("HEAD", "/healthz?probe=1", gateway.running)[0] == 200


async def test_ready_also_while_thingsboard_is_away(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.settled()
        status, kind, body = respond("GET", "/readyz", gateway.running)
        answer = json.loads(body)
        assert (status, kind) == (200, "application/json")
        assert (answer["ready"], answer["mqtt"], answer["charge_points"]) == (True, "connected", 1)
        gateway.thingsboard.up = False
        await charger.status("Available")
        await gateway.settled()
        status, _, body = respond("GET", "/readyz", gateway.running)
        answer = json.loads(body)
        assert (status, answer["ready"]) == (200, True)
        assert answer["mqtt"] == "behind: gone"
        assert answer["behind_entries"] > 0
        gateway.thingsboard.up = True


@pytest.mark.real_time
async def test_not_ready_once_the_store_has_failed(tmp_path):
    async with open_sqlite(tmp_path / "gateway.db") as journal:
        bus = EventBus(journal, Fleet())
        running = RunningGateway(
            bus,
            Registry(),
            Ledger(TariffBook.empty()),
            DeliveryStatistics(),
            ConnectionStatistics(),
            AccountingStatistics(),
            FrameTap(now),
        )
        assert respond("GET", "/readyz", running)[0] == 200
        journal._store._writer.execute("pragma query_only = on")  # as a disk that went read-only
        with pytest.raises(JournalError):
            await bus.publish(
                ChargePointConnected(
                    charge_point_id="CP-1",
                    received_at=now(),
                    remote_address="x",
                    security_profile=0,
                )
            )
        status, _, body = respond("GET", "/readyz", running)
        assert status == 503
        assert json.loads(body)["ready"] is False
        assert "readonly" in json.loads(body)["store"]
        assert respond("GET", "/healthz", running)[0] == 200
        assert respond("GET", "/metrics", running)[0] == 200


async def test_metrics_are_prometheus_text_with_the_promised_prefix(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.start(0)
        await charger.send("no JSON")
        await charger.send([2, "1", "Explode", {}])
        await charger.answer_to("1")
        await gateway.settled()
        families = metrics_of(gateway.running)
    assert all(family.name.startswith("ocpp_gateway_") for family in families)
    assert all(family.documentation for family in families)
    assert value_of(families, "connected_charge_points") == 1
    assert value_of(families, "known_charge_points") == 1
    assert value_of(families, "open_transactions") == 1
    assert value_of(families, "requests_total", action="BootNotification", outcome="answered") == 1
    assert value_of(families, "requests_total", action="StartTransaction", outcome="answered") == 1
    assert value_of(families, "rejected_frames_total", code="NotImplemented") == 1
    assert value_of(families, "north_connected") == 1
    assert value_of(families, "north_publishes_total", result="delivered") > 0
    assert value_of(families, "journal_commits_total") > 0


async def test_other_paths_are_404_and_other_methods_405(gateway):
    for path in ("/", "/metrics/", "/healthz/x", "/.%2e/etc/passwd", "*"):
        assert respond("GET", path, gateway.running)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        assert respond(method, "/metrics", gateway.running)[0] == 405
        assert respond(method, "/nowhere", gateway.running)[0] == 404


# --- over a socket ---------------------------------------------------------------------------


@asynccontextmanager
async def admin_port(running):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with open_admin([listener], running):
        yield listener.socket.getsockname()[1]


@pytest.mark.real_time
async def test_over_http_each_answer_has_its_length_and_ends_the_connection(gateway):
    async with admin_port(gateway.running) as port:
        assert await get(port, "/healthz") == (200, b"ok\n")
        assert (await get(port, "/readyz"))[0] == 200
        assert (await get(port, "/metrics"))[1].startswith(b"# HELP ocpp_gateway_")
        assert (await get(port, "/elsewhere"))[0] == 404
        assert (await http(port, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == (200, b"")
        post = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        assert (await http(port, post))[0] == 405
        assert (await http(port, b"GET /healthz HTTP/1.0\r\n\r\n")) == (200, b"ok\n")


@pytest.mark.real_time
@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00", b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
     b"GET /" + b"x" * 100_000, b"\r\n" * 5_000, "GET /ü HTTP/1.1\r\nHost: x\r\n\r\n".encode()],
)  # fmt: skip
async def test_garbage_is_refused_and_harms_nobody(gateway, garbage):
    async with admin_port(gateway.running) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            with trio.move_on_after(5) as waiting:
                try:
                    await stream.send_all(garbage)
                    await stream.send_eof()
                    answer = b"".join([data async for data in stream])
                except (trio.BrokenResourceError, OSError):
                    answer = b""
        assert not waiting.cancelled_caught
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert await get(port, "/healthz") == (200, b"ok\n")


@pytest.mark.real_time
async def test_slow_visitors_keep_nobody_waiting(gateway):
    async with admin_port(gateway.running) as port, AsyncExitStack() as visits:
        for _ in range(120):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await visits.enter_async_context(stream)
            await stream.send_all(b"GET /hea")
        with trio.fail_after(3):
            assert await get(port, "/healthz") == (200, b"ok\n")


# --- the trace -------------------------------------------------------------------------------


class Watcher:
    """One who looks on: a GET /trace, its lines as they come."""

    def __init__(self, stream):
        self._stream = stream
        self._lines = []
        self._rest = b""
        self._connection = h11.Connection(h11.CLIENT)

    async def ask(self, target):
        request = h11.Request(method="GET", target=target, headers=[("host", "x")])
        await self._stream.send_all(self._connection.send(request))
        return (await self._event()).status_code

    async def _event(self):
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self._stream.receive_some(65_536))
        return event

    async def line(self):
        with trio.fail_after(20):
            while not self._lines:
                event = await self._event()
                *whole, self._rest = (self._rest + event.data).split(b"\n")
                self._lines += [line for line in whole if line]
            return json.loads(self._lines.pop(0))


@asynccontextmanager
async def watching(port, target="/trace"):
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        watcher = Watcher(stream)
        watcher.status = await watcher.ask(target)
        yield watcher


@pytest.mark.real_time
async def test_who_looks_on_sees_a_charge_point_come_speak_and_go(gateway):
    async with admin_port(gateway.running) as port, watching(port) as viewer:
        assert viewer.status == 200
        async with gateway.charger("CP-1") as charger:
            await charger.ask("Heartbeat")
            await charger.send("no JSON")
        lines = [await viewer.line() for _ in range(5)]
    assert {item["charge_point"] for item in lines} == {"CP-1"}
    assert all(datetime.fromisoformat(item["at"]).utcoffset() is not None for item in lines)
    assert [item.get("way") or item["event"] for item in lines] == [
        "connected", "in", "out", "in", "disconnected",
    ]  # fmt: skip
    assert json.loads(lines[1]["frame"])[2] == "Heartbeat"
    assert lines[3]["reason"].startswith("FormationViolation")
    assert "memory" in lines[0]["reason"]


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("query", "expected"),
    [("charge_point=CP-1", ["CP-1"]), ("charge_point=CP-1&charge_point=X%202", ["CP-1", "X 2"]),
     ("charge_point=CP-*", ["CP-1", "CP-9"]), ("charge_point=Y&charge_point=*", None)],
)  # fmt: skip
async def test_who_looks_on_may_say_at_whom(gateway, query, expected):
    everybody = ["CP-1", "X 2", "CP-9"]
    async with admin_port(gateway.running) as port, watching(port, f"/trace?{query}") as viewer:
        for name in everybody:
            async with gateway.charger(name, path="/ocpp/" + name.replace(" ", "%20")):
                pass
        seen = [
            (await viewer.line())["charge_point"] for _ in expected or everybody for _ in (1, 2)
        ]
    assert list(dict.fromkeys(seen)) == (expected or everybody)


@pytest.mark.real_time
async def test_handshakes_that_are_refused_are_seen_also_of_nobody(gateway):
    async with admin_port(gateway.running) as port, watching(port) as viewer:
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/")).status == 404
        line = await viewer.line()
    assert (line["event"], line["charge_point"]) == ("refused", "")
    assert line["reason"].startswith("404 no charge point id")


@pytest.mark.real_time
async def test_only_so_many_look_on_and_none_is_left_behind(gateway):
    async with admin_port(gateway.running) as port, AsyncExitStack() as viewers:
        for _ in range(MAX_SUBSCRIPTIONS):
            viewer = await viewers.enter_async_context(watching(port))
            assert viewer.status == 200
        async with watching(port) as one_too_many:
            assert one_too_many.status == 503
        assert (await get(port, "/trace"))[0] == 503
        assert await get(port, "/healthz") == (200, b"ok\n")
        await viewers.aclose()
        with trio.fail_after(10):
            while gateway.running.frame_tap.is_watched:  # noqa: ASYNC110  that a socket was closed tells nobody
                await trio.sleep(0.01)
        async with watching(port) as viewer:
            assert viewer.status == 200


@pytest.mark.real_time
async def test_who_looks_on_does_not_make_room_for_other_visitors(gateway):
    async with admin_port(gateway.running) as port, AsyncExitStack() as visits:
        viewer = await visits.enter_async_context(watching(port))
        for _ in range(60):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await visits.enter_async_context(stream)
            await stream.send_all(b"GET /hea")
        async with gateway.charger("CP-1"):
            assert (await viewer.line())["event"] == "connected"


@pytest.mark.real_time
async def test_who_does_not_read_is_let_go_and_holds_up_nobody(gateway, monkeypatch):
    monkeypatch.setattr("gateway.admin.trace._SEND_TIMEOUT", 0.3)
    async with (
        admin_port(gateway.running) as port,
        watching(port),
        gateway.charger("CP-1") as charger,
    ):
        with trio.fail_after(30):
            while gateway.running.frame_tap.is_watched:
                await charger.send("x" * 16_000)
                await charger.ask("Heartbeat")


@pytest.mark.real_time
async def test_a_quiet_trace_shows_that_it_lives(gateway, monkeypatch):
    monkeypatch.setattr("gateway.admin.trace._MAX_SILENCE", 0.1)
    async with admin_port(gateway.running) as port, watching(port) as viewer:
        with trio.fail_after(10):
            assert (await viewer._event()).data == b"\n"
            assert (await viewer._event()).data == b"\n"


@pytest.mark.real_time
async def test_frames_are_shown_on_the_gateways_own_host_only(gateway, monkeypatch):
    monkeypatch.setattr("gateway.admin.server.is_local", lambda _: False)
    async with admin_port(gateway.running) as port:
        assert (await get(port, "/trace"))[0] == 403
        assert (await get(port, "/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("peer", "here"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True),
     ("10.0.0.7", False), ("192.0.2.1", False), ("::ffff:10.0.0.7", False), ("2001:db8::1", False)],
)  # fmt: skip
def test_the_own_host_is_known_by_its_address(peer, here):
    class Socket:
        def getpeername(self):
            return peer, 1

    class Stream:
        socket = Socket()

    assert is_local(Stream()) is here
