"""The admin port: what probes and Prometheus get, and that no visitor can harm."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin import respond, serve_admin
from gateway.app import House
from gateway.bus import EventBus
from gateway.domain.accounting import Ledger
from gateway.domain.events import ChargePointConnected
from gateway.domain.fleet import Fleet
from gateway.domain.tariff import TariffBook
from gateway.journal import JournalError
from gateway.journal.groupcommit import open_sqlite
from gateway.northbound.north import Statistics
from gateway.southbound.registry import Registry
from gateway.southbound.session import Tally

from .doors import now
from .real.processes import get, http


def metrics_of(house):
    status, kind, body = respond("GET", "/metrics", house)
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
    assert respond("GET", "/healthz", gateway.house)[::2] == (200, b"ok\n")
    assert respond("HEAD", "/healthz?probe=1", gateway.house)[0] == 200


async def test_ready_also_while_thingsboard_is_away(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.settled()
        status, kind, body = respond("GET", "/readyz", gateway.house)
        told = json.loads(body)
        assert (status, kind) == (200, "application/json")
        assert (told["ready"], told["mqtt"], told["charge_points"]) == (True, "connected", 1)
        gateway.board.up = False
        await charger.status("Available")
        await gateway.settled()
        status, _, body = respond("GET", "/readyz", gateway.house)
        told = json.loads(body)
        assert (status, told["ready"]) == (200, True)
        assert told["mqtt"] == "behind: gone"
        assert told["behind_entries"] > 0
        gateway.board.up = True


@pytest.mark.real_time
async def test_not_ready_once_the_store_has_failed(tmp_path):
    async with open_sqlite(tmp_path / "gateway.db") as journal:
        bus = EventBus(journal, Fleet())
        house = House(bus, Registry(), Ledger(TariffBook.empty()), Statistics(), Tally())
        assert respond("GET", "/readyz", house)[0] == 200
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
        status, _, body = respond("GET", "/readyz", house)
        assert status == 503
        assert json.loads(body)["ready"] is False
        assert "readonly" in json.loads(body)["store"]
        assert respond("GET", "/healthz", house)[0] == 200
        assert respond("GET", "/metrics", house)[0] == 200


async def test_metrics_are_prometheus_text_with_the_promised_prefix(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.start(0)
        await charger.send("no JSON")
        await charger.send([2, "1", "Explode", {}])
        await charger.answer_to("1")
        await gateway.settled()
        families = metrics_of(gateway.house)
    assert all(family.name.startswith("ocpp_gateway_") for family in families)
    assert all(family.documentation for family in families)
    assert value_of(families, "connected_charge_points") == 1
    assert value_of(families, "known_charge_points") == 1
    assert value_of(families, "open_transactions") == 1
    assert value_of(families, "requests_total", action="BootNotification") == 1
    assert value_of(families, "requests_total", action="StartTransaction") == 1
    assert value_of(families, "rejected_frames_total", code="NotImplemented") == 1
    assert value_of(families, "north_connected") == 1
    assert value_of(families, "north_published_total") > 0
    assert value_of(families, "journal_commits_total") > 0


async def test_other_paths_are_404_and_other_methods_405(gateway):
    for path in ("/", "/metrics/", "/healthz/x", "/.%2e/etc/passwd", "*"):
        assert respond("GET", path, gateway.house)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        assert respond(method, "/metrics", gateway.house)[0] == 405
        assert respond(method, "/nowhere", gateway.house)[0] == 404


# --- over a socket ---------------------------------------------------------------------------


@asynccontextmanager
async def open_admin(house):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_admin, listener, lambda: house)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.real_time
async def test_over_http_each_answer_has_its_length_and_ends_the_connection(gateway):
    async with open_admin(gateway.house) as port:
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
    async with open_admin(gateway.house) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            with trio.move_on_after(5) as patience:
                try:
                    await stream.send_all(garbage)
                    await stream.send_eof()
                    answer = b"".join([data async for data in stream])
                except (trio.BrokenResourceError, OSError):
                    answer = b""
        assert not patience.cancelled_caught
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert await get(port, "/healthz") == (200, b"ok\n")


@pytest.mark.real_time
async def test_slow_visitors_keep_nobody_waiting(gateway):
    async with open_admin(gateway.house) as port, AsyncExitStack() as visits:
        for _ in range(120):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await visits.enter_async_context(stream)
            await stream.send_all(b"GET /hea")
        with trio.fail_after(3):
            assert await get(port, "/healthz") == (200, b"ok\n")
