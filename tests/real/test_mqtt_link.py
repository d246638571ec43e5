"""One link, and the publisher above it, against real brokers and the double over TCP."""

from __future__ import annotations

import gc
import json
import ssl
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import attrs
import pytest
import trio
import trustme

from gateway.bus import EventBus
from gateway.domain.commands import Done
from gateway.domain.events import ChargePointConnected, FirmwareStatusChanged
from gateway.domain.fleet import Fleet
from gateway.northbound import mqtt as link_module
from gateway.northbound.mqtt import Broker, LinkLost, Publication, open_link, puback_codes, publish
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import TOPICS, NorthboundSettings, open_publisher
from gateway.northbound.statistics import DeliveryStatistics
from gateway.simulation.thingsboard import Act, Fault, TenantLimits, ThingsBoard
from tests.memory_journal import MemoryJournal

from .brokers import open_mosquitto, open_mute_broker, wait_until

pytestmark = [pytest.mark.real_time, pytest.mark.waits]

CONNECT = Publication("v1/gateway/connect", b'{"device":"CP-1","type":"EV charger"}')
NOW = datetime.now(UTC)
CONNECTED = ChargePointConnected(charge_point_id="CP-1", received_at=NOW, remote_address="x")


def row(value: int = 1) -> Publication:
    ts = int(NOW.timestamp() * 1000) + value
    return Publication(
        "v1/gateway/telemetry",
        json.dumps({"CP-1": [{"ts": ts, "values": {"n": value}}]}).encode(),
    )


def firmware(n: int, name: str = "CP-1") -> FirmwareStatusChanged:
    at = NOW + timedelta(milliseconds=n)
    return FirmwareStatusChanged(charge_point_id=name, received_at=at, status=f"S-{n}")


@asynccontextmanager
async def open_thingsboard(**how):
    thingsboard = ThingsBoard(**how)
    async with trio.open_nursery() as nursery:
        await nursery.start(thingsboard.serve_tcp)
        yield thingsboard
        nursery.cancel_scope.cancel()


def reasons(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [reason for inner in exc.exceptions for reason in reasons(inner)]
    return [exc]


async def why_not(broker: Broker) -> str:
    """What is said when no link can be had."""
    found: list[BaseException] = []
    with trio.fail_after(20):
        try:
            async with open_link(broker, TOPICS):
                pass
        except* LinkLost as group:
            found = reasons(group)
    (reason,) = found
    return str(reason)


@attrs.define
class RunningPublisher:
    bus: EventBus
    journal: MemoryJournal
    statistics: DeliveryStatistics
    commands: list = attrs.field(factory=list)


@asynccontextmanager
async def open_publisher_alone(port: int, **settings):
    journal = MemoryJournal()
    bus = EventBus(journal, Fleet())
    commands: list = []

    async def carry_out(command):
        commands.append(command)
        return Done({"status": "Accepted", "count": len(commands)})

    opening = partial(open_link, Broker(host="127.0.0.1", port=port, access_token="secret"), TOPICS)
    async with open_publisher(
        opening, bus, carry_out, lambda: datetime.now(UTC), NorthboundSettings(**settings)
    ) as statistics:
        yield RunningPublisher(bus, journal, statistics, commands)


@pytest.fixture
def quick(monkeypatch):
    """Attempts follow each other without long pauses."""
    monkeypatch.setattr("gateway.northbound.publisher._FIRST_RETRY_DELAY", 0.05)
    monkeypatch.setattr("gateway.northbound.publisher._MAX_RETRY_DELAY", 0.2)


# --- one link ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_messages_arrive_and_are_acknowledged(tmp_path, protocol):
    async with open_mosquitto(tmp_path) as mosquitto:
        broker = Broker(host="127.0.0.1", port=mosquitto.port, protocol=protocol)
        received = []
        with trio.fail_after(20):
            async with open_link(broker, ["a/b"]) as link:
                codes = await publish(link, [Publication("a/b", b"%d" % n) for n in range(120)])
                async with aclosing(link.messages()) as messages:
                    async for message in messages:
                        received.append((message.topic, message.payload))
                        if len(received) == 120:
                            break
    assert all(code < 0x80 for code in codes)
    assert len(codes) == 120
    assert received == [("a/b", b"%d" % n) for n in range(120)]


async def test_the_code_of_each_puback_is_reported():
    async with open_thingsboard() as thingsboard:
        thingsboard.faults.add(
            Fault(act=Act.REFUSE, code=0x99, contains='"n":'.replace(":", ": 2"))
        )
        async with open_link(
            Broker(host="127.0.0.1", port=thingsboard.port, access_token="x"), ()
        ) as link:
            deliveries = [await link.send(each) for each in (CONNECT, row(1), row(2), row(3))]
            assert await puback_codes(deliveries) == [0, 0, 0x99, 0]


async def test_a_wrong_token_is_reported_in_words():
    async with open_thingsboard(access_tokens=["right"]) as thingsboard:
        why = await why_not(Broker(host="127.0.0.1", port=thingsboard.port, access_token="wrong"))
    assert "user name" in why.lower() or "not authorized" in why.lower()
    assert "wrong" not in why  # a token is never shown


async def test_nobody_there_is_reported_in_words():
    async with open_mute_broker() as port:
        pass
    assert "refused" in (await why_not(Broker(host="127.0.0.1", port=port))).lower()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_server_that_closes_instead_of_answering_is_not_waited_for(protocol):
    async with open_thingsboard() as thingsboard:
        thingsboard.faults.add(Fault(act=Act.DROP_CONNECT))
        broker = Broker(
            host="127.0.0.1", port=thingsboard.port, access_token="x", protocol=protocol
        )
        began = trio.current_time()
        assert "before it was answered" in await why_not(broker)
        assert trio.current_time() - began < link_module.CONNECT_TIMEOUT / 2


@pytest.mark.parametrize("kind", ["mute", "double"])
async def test_a_broker_that_never_answers_is_given_up(monkeypatch, kind):
    monkeypatch.setattr(link_module, "CONNECT_TIMEOUT", 0.5)
    if kind == "mute":
        async with open_mute_broker() as port:
            why = await why_not(Broker(host="127.0.0.1", port=port))
    else:
        async with open_thingsboard() as thingsboard:
            thingsboard.faults.add(Fault(act=Act.SILENT_CONNECT))
            why = await why_not(Broker(host="127.0.0.1", port=thingsboard.port, access_token="x"))
    assert "timed out" in why.lower()


async def test_a_device_that_is_no_gateway_is_named_as_the_likely_cause(monkeypatch, quick):
    monkeypatch.setattr(link_module, "PUBACK_TIMEOUT", 0.3)
    async with (
        open_thingsboard(gateway_flag=False) as thingsboard,
        open_publisher_alone(thingsboard.port, grace_s=0.1) as publisher,
    ):
        await wait_until(lambda: "marked as a gateway" in publisher.statistics.why)
        assert not publisher.statistics.connected


async def test_who_is_displaced_by_another_client_says_so_and_comes_back(quick, quiet_logs):
    async with (
        open_thingsboard() as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        await wait_until(lambda: publisher.statistics.connected)
        thingsboard.take_over()
        await wait_until(lambda: any(log["event"] == "link lost" for log in quiet_logs))
        await wait_until(lambda: publisher.statistics.connected)
        await publisher.bus.publish(firmware(1))
        await wait_until(
            lambda: "CP-1" in thingsboard.devices and thingsboard.devices["CP-1"].latest
        )
    (lost,) = [log for log in quiet_logs if log["event"] == "link lost"]
    assert "taken over" in lost["why"].lower()


async def test_a_broker_that_goes_is_reported_in_words(tmp_path, quick):
    async with (
        open_mosquitto(tmp_path) as mosquitto,
        open_publisher_alone(mosquitto.port, grace_s=0) as publisher,
    ):
        await wait_until(lambda: publisher.statistics.connected)
        await mosquitto.kill()
        await wait_until(lambda: not publisher.statistics.connected)
        assert publisher.statistics.why in (
            "the broker closed the connection",
            "[Errno 111] Connection refused",
        )


async def test_a_publish_on_a_topic_that_nobody_asked_for_does_no_harm():
    async with (
        open_thingsboard() as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        await publisher.bus.publish(CONNECTED)
        await wait_until(
            lambda: "CP-1" in thingsboard.devices and thingsboard.devices["CP-1"].latest
        )
        thingsboard.publish_unasked("v1/gateway/disconnect", '{"device":"CP-1"}')
        thingsboard.publish_unasked("v1/gateway/attributes", b"\xff\x00")
        thingsboard.publish_unasked("v1/gateway/rpc", b"{")
        thingsboard.set_shared("CP-1", {"a": 1})
        assert await thingsboard.rpc("CP-1", "Reset") == {"status": "Accepted", "count": 1}
        await wait_until(lambda: thingsboard.publishes.downlinks_acked == 6)  # and the limits
        assert publisher.statistics.connected
    assert thingsboard.violations == []


# --- faults --------------------------------------------------------------------------------------


async def test_no_death_of_the_broker_under_load_loses_anything_or_fells_the_gateway(
    tmp_path, quick, quiet_logs
):
    """EBADF and its like come out of paho and trio-asyncio when a broker dies under them."""
    total, received, listening = 4_000, Counter(), trio.Event()
    # What Mosquitto had acknowledged and not passed on it forgets when it is killed; what came
    # after its last death, when somebody listened again, has to be heard.
    last = {f"S-{n}" for n in range(total - 200, total)}
    async with open_mosquitto(tmp_path) as mosquitto, trio.open_nursery() as nursery:

        async def listen() -> None:
            nonlocal listening
            broker = Broker(host="127.0.0.1", port=mosquitto.port, client_id="listener")
            while True:
                try:
                    async with (
                        open_link(broker, ["v1/gateway/telemetry"]) as link,
                        aclosing(link.messages()) as messages,
                    ):
                        listening.set()
                        async for message in messages:
                            for rows in json.loads(message.payload).values():
                                received.update(
                                    row["values"].get("firmware_status") for row in rows
                                )
                except* Exception:  # noqa: BLE001
                    await trio.sleep(0.01)

        nursery.start_soon(listen)
        async with open_publisher_alone(mosquitto.port, grace_s=20) as publisher:
            await wait_until(lambda: publisher.statistics.connected)
            for n in range(total):
                await publisher.bus.publish(firmware(n, f"CP-{n % 50}"))
                if n % 500 == 250:
                    await trio.sleep(0.03)
                    listening = trio.Event()
                    await wait_until(lambda: publisher.statistics.connected)
                    await mosquitto.kill()
                    await mosquitto.start()
                    with trio.fail_after(20):
                        await listening.wait()
            await wait_until(lambda: publisher.statistics.delivered_seq >= total)
            assert publisher.statistics.connected
            assert publisher.statistics.dead_letters == 0
            assert await publisher.journal.dead_letters(READER) == ()
            await wait_until(lambda: set(received) >= last)
        nursery.cancel_scope.cancel()
    assert len([log for log in quiet_logs if log["event"].startswith("link lost")]) >= 4


async def test_a_double_that_dies_at_every_turn_has_everything_in_the_end(quick):
    """Its store outlives its connections, so that what is missing was never sent again."""
    total = 2_000
    async with (
        open_thingsboard() as thingsboard,
        open_publisher_alone(thingsboard.port, grace_s=20, batch_devices=True) as publisher,
    ):
        await wait_until(lambda: publisher.statistics.connected)
        for n in range(total):
            await publisher.bus.publish(firmware(n))
            if n % 200 == 100:
                await trio.sleep(0.02)
                thingsboard.restart()
            if n % 200 == 150:
                thingsboard.faults.add(Fault(act=Act.CLOSE, stored=n % 400 == 150))
        await wait_until(lambda: publisher.statistics.delivered_seq >= total)
        points = thingsboard.devices["CP-1"].series("firmware_status")
    assert [value for _, value in points] == [f"S-{n}" for n in range(total)]
    assert thingsboard.failures() == []
    assert thingsboard.publishes.replaced_points == 0  # sent again as it was


@pytest.mark.parametrize("code", [0x83, 0x99])
async def test_what_the_double_refuses_is_set_aside_with_its_code(code):
    async with (
        open_thingsboard() as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        thingsboard.faults.add(Fault(act=Act.REFUSE, code=code, contains="S-3", times=None))
        await publisher.bus.publish(*[firmware(n) for n in range(6)])
        await wait_until(lambda: publisher.statistics.delivered_seq == 6)
        (dead_letter,) = await publisher.journal.dead_letters(READER)
        points = thingsboard.devices["CP-1"].series("firmware_status")
    assert (dead_letter.seq, f"0x{code:02x}" in dead_letter.why) == (4, True)
    assert [value for _, value in points] == ["S-0", "S-1", "S-2", "S-4", "S-5"]


async def test_a_rate_limit_that_closes_the_connection_loses_nothing(quick):
    async with (
        open_thingsboard() as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        thingsboard.faults.add(Fault(act=Act.RATE_LIMIT, contains="S-", times=4))
        await publisher.bus.publish(*[firmware(n) for n in range(6)])
        await wait_until(lambda: publisher.statistics.delivered_seq == 6)
        assert await publisher.journal.dead_letters(READER) == ()
        assert len(thingsboard.devices["CP-1"].series("firmware_status")) == 6


async def test_duplicate_pubacks_of_old_servers_do_no_harm():
    async with (
        open_thingsboard(profile="3.8") as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        thingsboard.faults.add(Fault(act=Act.DUPLICATE_ACK, count=3, times=None))
        for n in range(300):
            await publisher.bus.publish(firmware(n))
        await wait_until(lambda: publisher.statistics.delivered_seq == 300)
        assert len(thingsboard.devices["CP-1"].series("firmware_status")) == 300
        assert publisher.statistics.connected


async def test_never_too_many_messages_are_on_their_way_at_once():
    async with (
        open_thingsboard() as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        with thingsboard.frozen():
            await publisher.bus.publish(*[firmware(n, f"CP-{n}") for n in range(400)])
            await trio.sleep(0.3)
        await wait_until(lambda: publisher.statistics.delivered_seq == 400)
        assert thingsboard.publishes.max_in_flight <= 50
    assert thingsboard.violations == []


async def test_a_plain_broker_echoes_our_answers_and_nothing_comes_of_it(tmp_path):
    """Mosquitto sends `v1/gateway/rpc` back to who published there; ThingsBoard does not."""
    async with (
        open_mosquitto(tmp_path) as mosquitto,
        open_publisher_alone(mosquitto.port) as publisher,
    ):
        await publisher.bus.publish(CONNECTED)
        await wait_until(lambda: publisher.statistics.delivered_seq == 1)
        broker = Broker(host="127.0.0.1", port=mosquitto.port)
        async with open_link(broker, ["v1/gateway/rpc"]) as asking:
            request = b'{"device":"CP-1","data":{"id":0,"method":"Reset","params":null}}'
            await publish(asking, [Publication("v1/gateway/rpc", request)])
            received = []
            with trio.move_on_after(1):
                async with aclosing(asking.messages()) as messages:
                    async for message in messages:
                        received += [json.loads(message.payload)]
        answered = {"device": "CP-1", "id": 0, "data": {"status": "Accepted", "count": 1}}
        assert received == [json.loads(request), answered]
        assert len(publisher.commands) == 1


# --- TLS -----------------------------------------------------------------------------------------


@asynccontextmanager
async def open_tls_broker(folder, name: str = "localhost"):
    authority = trustme.CA()
    certificate = authority.issue_cert(name)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    lines = (f"certfile {folder}/cert.pem", f"keyfile {folder}/key.pem")
    async with open_mosquitto(folder, *lines) as mosquitto:
        yield mosquitto, authority


unclosed = pytest.mark.filterwarnings(
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning",  # paho leaves it to the collector
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_broker_behind_tls_is_reached(tmp_path):
    async with open_tls_broker(tmp_path) as (mosquitto, authority):
        broker = Broker(host="localhost", port=mosquitto.port, tls=trusting(authority))
        with trio.fail_after(20):
            async with open_link(broker, TOPICS) as link:
                assert len(await publish(link, [row(n) for n in range(60)])) == 60


@unclosed
async def test_a_broker_with_a_certificate_of_somebody_else_is_refused(tmp_path):
    """HC-129"""
    async with open_tls_broker(tmp_path) as (mosquitto, _):
        stranger = trusting(trustme.CA())
        why = await why_not(Broker(host="localhost", port=mosquitto.port, tls=stranger))
    gc.collect()
    assert "certificate verify failed" in why.lower()


@unclosed
async def test_a_broker_with_another_name_in_its_certificate_is_refused(tmp_path):
    """HC-129"""
    async with open_tls_broker(tmp_path, "elsewhere.example") as (mosquitto, authority):
        why = await why_not(Broker(host="localhost", port=mosquitto.port, tls=trusting(authority)))
    gc.collect()
    assert "hostname mismatch" in why.lower()


@unclosed
async def test_a_plain_broker_where_tls_was_meant_gets_no_plain_connection(tmp_path):
    """HC-129: no fallback to plain."""
    async with open_mosquitto(tmp_path) as mosquitto:
        why = await why_not(
            Broker(host="localhost", port=mosquitto.port, tls=ssl.create_default_context())
        )
    gc.collect()
    assert why


async def test_a_server_with_rate_limits_is_never_made_to_close_the_connection(quiet_logs):
    """20 messages a second: 60 devices are announced and published slowly, on one connection."""
    limits = TenantLimits(messages="20:1", telemetry_messages="20:1", telemetry_data_points="50:1")
    async with (
        open_thingsboard(gateway_rate_limits=limits) as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        await wait_until(lambda: any(log["event"] == "link up" for log in quiet_logs))
        await wait_until(lambda: thingsboard.publishes.downlinks_acked)  # the limits have come
        for n in range(60):
            await publisher.bus.publish(firmware(n, f"CP-{n}"))
        await wait_until(lambda: publisher.statistics.delivered_seq == 60)
        assert all(thingsboard.devices[f"CP-{n}"].value("firmware_status") for n in range(60))
    assert [log for log in quiet_logs if log["event"] == "link lost"] == []
    assert thingsboard.violations == []
