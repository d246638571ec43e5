"""The hard cases' group F, the MQTT side, between the real gateway and real sockets.

HC-125 is among the faults (`test_thingsboard_faults`), HC-129 at the link (`test_mqtt_link`).
"""

from __future__ import annotations

import json
import statistics
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import trio

from gateway.app import AppSettings
from gateway.northbound import mqtt as link_module
from gateway.northbound.mqtt import Broker, Publication, open_link, publish
from gateway.northbound.publisher import TOPICS, NorthboundSettings
from gateway.northbound.rpc_messages import RPC_TOPIC
from gateway.simulation.thingsboard import ThingsBoard
from tests.memory_journal import MemoryJournal

from ..conftest import open_gateway
from ..fakes import now
from .brokers import free_port, open_mosquitto, wait_until
from .connected_gateway import LOG, TOKEN, ConnectedGateway, instant, open_connected_gateway, stamp

pytestmark = [pytest.mark.real_time, pytest.mark.waits]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("gateway.northbound.publisher._FIRST_RETRY_DELAY", 0.02)
    monkeypatch.setattr("gateway.northbound.publisher._MAX_RETRY_DELAY", 0.1)


@asynccontextmanager
async def open_gateway_at(port: int, journal: MemoryJournal | None = None):
    """The real gateway, with ThingsBoard on that port."""
    broker = Broker(host="127.0.0.1", port=port, access_token=TOKEN)
    link = SimpleNamespace(open_link=partial(open_link, broker, TOPICS))
    settings = AppSettings(northbound=NorthboundSettings(grace_s=0.2))
    parts = {"thingsboard": link, "settings": settings, "journal": journal or MemoryJournal()}
    async with open_gateway(**parts) as gateway:
        yield gateway


async def test_hc_120_with_no_broker_at_the_start_chargers_are_served_and_all_is_told_later():
    port = free_port()
    async with open_gateway_at(port) as gateway, trio.open_nursery() as nursery:
        setup = ConnectedGateway(gateway, ThingsBoard(now=now, kept_messages=10_000))
        await setup.charge("CP-1")
        await setup.charge("CP-2")
        assert setup.readiness()["mqtt"].startswith("behind: ")
        assert setup.behind() > 0
        nursery.start_soon(partial(setup.thingsboard.serve_tcp, port=port))
        await setup.all_stored()
        nursery.cancel_scope.cancel()


# --- HC-122 --------------------------------------------------------------------------------------


async def answer_times(setup: ConnectedGateway, charger, seconds: float) -> list[float]:
    """How long each answer took, over so many seconds of requests."""
    tx = await charger.start(meter_wh=0)
    times = []
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        began = trio.current_time()
        await charger.sample(tx, str(len(times)))
        times.append(trio.current_time() - began)
        await trio.sleep(0.005)  # values of one instant would replace each other
    return times


async def test_hc_122_a_broker_that_never_acknowledges_slows_no_charger_and_is_given_up(
    monkeypatch,
):
    monkeypatch.setattr(link_module, "PUBACK_TIMEOUT", 1.0)
    async with open_connected_gateway() as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        await setup.all_stored()
        with setup.thingsboard.frozen():
            times = await answer_times(setup, charger, 2.5)
            await wait_until(lambda: "no PUBACK" in setup.gateway.running.delivery.why)
        assert statistics.median(times) < 0.1
        assert max(times) < 1.0  # nobody waited for a PUBACK
        await setup.all_stored()
        assert setup.gateway.running.delivery.dead_letters == 0


async def test_hc_122_an_idle_link_to_a_broker_that_hangs_is_found_out_by_its_pings(monkeypatch):
    monkeypatch.setattr(link_module, "KEEP_ALIVE", 1)
    monkeypatch.setattr(link_module, "PUBACK_TIMEOUT", 60.0)
    async with open_connected_gateway() as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        await setup.all_stored()
        with setup.thingsboard.frozen():
            await wait_until(lambda: not setup.gateway.running.delivery.connected)
            assert "nothing was received" in setup.gateway.running.delivery.why
        await charger.status("Available")
        await setup.all_stored()


@asynccontextmanager
async def open_trickle(target: int, pause: float):
    """A way to the target on which every byte back takes `pause` seconds, until `fast` is set."""
    fast = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        async with (
            stream,
            await trio.open_tcp_stream("127.0.0.1", target) as there,
            trio.open_nursery() as nursery,
        ):

            async def back() -> None:
                async for data in there:
                    for n in range(len(data)):
                        if fast.is_set():
                            await stream.send_all(data[n:])
                            break
                        await stream.send_all(data[n : n + 1])
                        with trio.move_on_after(pause):
                            await fast.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(back)
            async for data in stream:
                await there.send_all(data)
            nursery.cancel_scope.cancel()

    async def guarded(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, guarded, listeners)
        yield listeners[0].socket.getsockname()[1], fast
        nursery.cancel_scope.cancel()


async def test_hc_122_a_broker_that_answers_by_the_byte_slows_no_charger():
    thingsboard = ThingsBoard(now=now, kept_messages=10_000)
    async with trio.open_nursery() as nursery:
        target = await nursery.start(thingsboard.serve_tcp)
        async with (
            open_trickle(target, pause=0.3) as (port, fast),
            open_gateway_at(port) as gateway,
        ):
            setup = ConnectedGateway(gateway, thingsboard)
            async with gateway.charger("CP-1") as charger:
                times = await answer_times(setup, charger, 3.0)
                assert statistics.median(times) < 0.1
                assert max(times) < 1.0
            assert setup.behind() > 0
            fast.set()
            await setup.all_stored()
        nursery.cancel_scope.cancel()


# --- after a reconnect ---------------------------------------------------------------------------


async def test_hc_124_after_a_reconnect_every_device_is_connected_again_also_of_chargers_away():
    """One that is away stays connected, so that orders to it are answered."""
    async with open_connected_gateway() as setup, setup.gateway.charger("CP-1") as here:
        await here.boot()
        await here.status("Preparing")
        async with setup.gateway.charger("CP-2") as away:
            await away.boot()
            await away.status("Available")
        await setup.all_stored()
        attributes = {d.name: dict(d.attributes) for d in setup.thingsboard.devices.values()}
        setup.thingsboard.restart()
        devices = ("CP-1", "CP-1/1", "CP-2", "CP-2/1", LOG)
        await wait_until(lambda: all(setup.thingsboard.devices[name].connected for name in devices))
        assert {d.name: d.attributes for d in setup.thingsboard.devices.values()} == attributes
        assert attributes["CP-1"]["charger"]["vendor"] == "Fake"
        for device, method in (("CP-2", "ClearCache"), ("CP-2/1", "unlock")):
            answer = await setup.thingsboard.rpc(device, method)
            assert answer["error"]["code"] == "NotConnected"
        assert "v1/gateway/disconnect" not in setup.thingsboard.publishes.by_topic
        await setup.all_stored()


# --- RPC -----------------------------------------------------------------------------------------


def order(number, device="CP-1", method="ClearCache", **params) -> bytes:
    data = {"id": number, "method": method, "params": params or None}
    return json.dumps({"device": device, "data": data}).encode()


async def test_hc_126_what_is_no_order_is_dropped_and_ten_at_once_are_ten():
    async with open_connected_gateway() as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        await setup.all_stored()
        for payload in (b"", b"\xff", b"{", b"[]", b"null", b'{"device":"CP-1"}', b'"x"',
                        b'{"device":"CP-1","data":{"method":"ClearCache"}}',
                        b'{"device":7,"data":{"id":1,"method":"ClearCache"}}',
                        b'{"device":"CP-1","data":{"id":1,"method":null}}',
                        order("0"), order(None), order(True), order(1.5), order(5, "CP-99"),
                        order(6, "")):  # fmt: skip
            setup.thingsboard.publish_unasked(RPC_TOPIC, payload)
        for number in range(10):
            setup.thingsboard.publish_unasked(RPC_TOPIC, order(number))
        for _ in range(10):
            unique_id, action, _ = await charger.next_call()
            assert action == "ClearCache"
            await charger.reply(unique_id, status="Accepted")
        await wait_until(lambda: setup.thingsboard.publishes.rpc_answers == 10)
        assert charger.calls.statistics().current_buffer_used == 0
        assert "CP-99" not in setup.thingsboard.devices
        await setup.all_stored()


async def test_hc_127_a_retained_order_is_an_old_one_and_is_not_carried_out(tmp_path):
    """A plain broker gives it to every new link; ThingsBoard keeps none, and dates none."""
    journal = MemoryJournal()
    async with open_mosquitto(tmp_path) as mosquitto:
        broker = Broker(host="127.0.0.1", port=mosquitto.port)
        async with open_gateway_at(mosquitto.port, journal) as gateway, gateway.charger("CP-1"):
            await wait_until(lambda: gateway.running.delivery.delivered_seq)
        async with open_link(broker, ()) as other:
            other._client._client.publish(RPC_TOPIC, order(0), qos=1, retain=True)
            async with (
                open_gateway_at(mosquitto.port, journal) as gateway,
                gateway.charger("CP-1") as charger,
            ):
                await wait_until(lambda: gateway.running.delivery.connected)
                fresh = order(1, method="Reset", type="Soft")
                await publish(other, [Publication(RPC_TOPIC, fresh)])
                unique_id, action, _ = await charger.next_call()
                await charger.reply(unique_id, status="Accepted")
                assert action == "Reset"  # and nothing before it


# --- time ----------------------------------------------------------------------------------------


async def test_hc_128_values_of_the_past_keep_their_time_in_whatever_order_they_come():
    async with open_connected_gateway() as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        sampled = []
        for seconds, soc in ((-10, 90), (-7_200, 10), (-86_400, 5), (-3_600, 50)):
            at = stamp(seconds)
            value = {"measurand": "SoC", "value": str(soc), "unit": "Percent"}
            await charger.ask(
                "MeterValues",
                connectorId=1,
                meterValue=[{"timestamp": at, "sampledValue": [value]}],
            )
            sampled.append((instant(at), soc))
        await setup.all_stored()
        connector = setup.thingsboard.devices["CP-1/1"]
        assert connector.series("soc_percent") == sorted(sampled)
        assert connector.value("soc_percent") == 90  # M4: the newest, not the last to come
