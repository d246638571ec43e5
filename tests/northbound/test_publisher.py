"""The publisher on virtual time: a link that comes and goes, and orders that repeat."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.app import AppSettings
from gateway.bus import EventBus
from gateway.domain.commands import Done
from gateway.domain.event_values import Progress
from gateway.domain.events import (
    ChargePointConnected,
    ConnectorStatusChanged,
    FirmwareStatusChanged,
    TransactionSettled,
)
from gateway.domain.fleet import Fleet
from gateway.journal import Checkpoint
from gateway.northbound.mqtt import Message
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import NorthboundSettings, open_publisher
from gateway.northbound.rate_limits import LIMITS_REQUEST, LIMITS_RESPONSE
from gateway.northbound.rpc_messages import RPC_TOPIC
from tests.memory_journal import MemoryJournal

from ..conftest import Gateway, open_gateway
from ..fakes import CONNECT, EPOCH, TELEMETRY, FakeThingsBoard, now

LOG = "ocpp-gateway sessions"
A_MOMENT = 2.0  # seconds in which all that has been gathered is told


async def settled() -> None:
    await trio.sleep(A_MOMENT)
    await wait_all_tasks_blocked()


async def charge(charger, energy_wh: int = 50, seconds: float = 600) -> int:
    tx = await charger.start(meter_wh=0)
    await trio.sleep(seconds)
    await charger.stop(tx, meter_wh=energy_wh)
    return tx


async def wait_until(true, within: float = 300) -> None:
    with trio.fail_after(within):
        while not true():  # noqa: ASYNC110  virtual time: it costs nothing
            await trio.sleep(0.5)


def firmware(status: str, name: str = "CP-1", after: float = 0) -> FirmwareStatusChanged:
    at = EPOCH + timedelta(seconds=after)
    return FirmwareStatusChanged(charge_point_id=name, received_at=at, status=status)


def devices_of(topic: str, body) -> list[str]:
    if topic in (CONNECT, RPC_TOPIC):
        return [body["device"]]
    return [] if topic == LIMITS_REQUEST.topic else list(body)


def assert_announced_first(thingsboard: FakeThingsBoard) -> None:
    """On each link, `connect` before anything else about a device (thingsboard-contract R1)."""
    for heard in thingsboard.by_link:
        announced = set()
        for topic, body in heard:
            if topic == CONNECT:
                announced.add(body["device"])
            else:
                assert set(devices_of(topic, body)) <= announced, (topic, body)


# --- devices -----------------------------------------------------------------------------------


async def test_each_device_is_announced_before_anything_is_said_of_it_and_with_its_type(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Available", 1)
        await charge(charger)
        await settled()
    assert_announced_first(gateway.thingsboard)
    kinds = {body["device"]: body["type"] for body in gateway.thingsboard.about(CONNECT)}
    assert kinds == {"CP-1": "EV charger", "CP-1/1": "EV connector", LOG: "EV session log"}
    assert "v1/gateway/disconnect" not in {topic for topic, _ in gateway.thingsboard.published}


async def test_after_a_new_link_every_device_is_announced_again_and_told_as_it_is(gateway):
    async with gateway.charger("CP-1") as here:
        await here.boot()
        await here.status("Preparing")
        async with gateway.charger("CP-2") as away:
            await away.status("Finishing", 2)
        await settled()
        gateway.thingsboard.cut()
        await wait_until(lambda: gateway.thingsboard.links == 2)
        await settled()
        heard = list(gateway.thingsboard.by_link[1])
    assert_announced_first(gateway.thingsboard)
    announced = {body["device"] for topic, body in heard if topic == CONNECT}
    assert announced == {"CP-1", "CP-1/1", "CP-2", "CP-2/2", LOG}
    told: dict = {}
    for topic, body in heard:
        if topic == TELEMETRY:
            for device, rows in body.items():
                for row in rows:
                    told.setdefault(device, {}).update(row["values"])
    assert told["CP-1"]["connected"] is True
    assert told["CP-2"]["connected"] is False
    assert told["CP-1/1"]["status"] == "Preparing"
    assert told["CP-2/2"]["status"] == "Finishing"


async def test_a_silent_device_gives_a_sign_of_life_every_few_minutes(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await charger.status("Unavailable", 0)
        await trio.sleep(3605)
    for device, key, value in (("CP-1", "connected", True), ("CP-1/1", "status", "Available")):
        times = [ts for ts, values in gateway.thingsboard.rows(device) if key in values]
        gaps = [(later - earlier) / 1000 for earlier, later in pairwise(times)]
        assert len(gaps) >= 11
        assert max(gaps) <= 300
        told = gateway.thingsboard.values(device, key)
        assert set(told[:-1] if key == "connected" else told) == {value}
    assert len([body for body in gateway.thingsboard.about(CONNECT) if body["device"] == LOG]) >= 11


async def test_a_connector_is_told_whether_its_charge_point_can_be_reached(gateway):
    """Its status stays what it last was; "Available" alone would promise too much."""

    def reached(device: str) -> object:
        return gateway.thingsboard.latest(device).get("connected")

    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await charger.status("Available", 3)
        await settled()
        assert reached("CP-1/1") is True
        assert reached("CP-1/3") is True
    await settled()
    assert [reached(f"CP-1/{n}") for n in (1, 3)] == [False, False]
    async with gateway.charger("CP-1"):
        await settled()
        assert [reached(f"CP-1/{n}") for n in (1, 3)] == [True, True]


async def test_at_a_start_each_known_charge_point_is_gone_until_it_returns():
    first = Gateway()
    async with open_gateway(journal=first.journal):
        pass
    await first.journal.append(
        ChargePointConnected(charge_point_id="CP-1", received_at=EPOCH, remote_address="x"),
        ChargePointConnected(charge_point_id="CP-2", received_at=EPOCH, remote_address="x"),
    )
    await trio.sleep(60)
    async with open_gateway(journal=first.journal) as gateway:
        await settled()
        assert gateway.thingsboard.latest("CP-1")["connected"] is False
        assert gateway.thingsboard.latest("CP-2")["connected"] is False
        async with gateway.charger("CP-1"):
            await settled()
            assert gateway.thingsboard.latest("CP-1")["connected"] is True
            assert gateway.thingsboard.latest("CP-2")["connected"] is False


# --- outages -----------------------------------------------------------------------------------


async def test_an_hour_without_thingsboard_loses_nothing_and_mixes_nothing_up(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await settled()
        gateway.thingsboard.up = False
        gateway.thingsboard.cut()
        tx = await charger.start(meter_wh=0)
        for minute in range(1, 61):
            await trio.sleep(60)
            await charger.sample(tx, str(minute * 100))
        await trio.sleep(60)
        await charger.stop(tx, meter_wh=6_100)
        assert gateway.thingsboard.values("CP-1/1", "meter_wh") == []
        gateway.thingsboard.up = True
        await wait_until(lambda: gateway.thingsboard.values(LOG, "receipt"))
        await settled()
        await trio.sleep(60)
    rows = gateway.thingsboard.rows("CP-1/1")
    told = list(dict.fromkeys(v["tx_energy_wh"] for _, v in rows if "tx_energy_wh" in v))
    assert told == [0, *(n * 100 for n in range(1, 62))]
    history = [ts for ts, values in rows if "tx_energy_wh" in values]
    assert history == sorted(history)
    assert gateway.thingsboard.latest("CP-1/1")["tx_active"] is False
    assert_announced_first(gateway.thingsboard)


async def test_the_place_moves_when_thingsboard_has_acknowledged_and_not_before(gateway):
    journal: MemoryJournal = gateway.journal
    async with gateway.charger("CP-1") as charger:
        await settled()
        before = (await journal.checkpoint(READER)).seq
        gateway.thingsboard.holding = True
        await charger.status("Charging")
        await settled()
        assert gateway.thingsboard.values("CP-1/1", "status") == []  # it waits for its `connect`
        gateway.thingsboard.holding = False
        gateway.thingsboard.release()
        await settled()
        gateway.thingsboard.holding = True
        await charger.status("Finishing")
        await settled()
        assert gateway.thingsboard.values("CP-1/1", "status")[-1] == "Finishing"
        assert (await journal.checkpoint(READER)).seq == len(journal._entries) - 1 > before
        gateway.thingsboard.release()
        await settled()
        assert (await journal.checkpoint(READER)).seq == len(journal._entries)


async def test_what_was_not_acknowledged_is_sent_again_exactly_as_it_was(gateway):
    thingsboard = gateway.thingsboard
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Available")
        await settled()
        thingsboard.holding = True
        await charge(charger, seconds=5)
        await settled()
        thingsboard.cut()
        thingsboard.holding = False
        await wait_until(lambda: thingsboard.links == 2)
        await settled()
    unacknowledged, again = (
        [
            (device, row["ts"], row["values"])
            for topic, body in heard
            if topic == TELEMETRY
            for device, rows in body.items()
            for row in rows
            if "tx_id" in row["values"] or "receipt" in row["values"]
        ]
        for heard in thingsboard.by_link[:2]
    )
    assert unacknowledged
    assert unacknowledged == again[: len(unacknowledged)]


async def test_a_restart_between_publish_and_puback_loses_nothing():
    gateway = Gateway(settings=AppSettings(northbound=NorthboundSettings(grace_s=1)))
    async with open_gateway(journal=gateway.journal, settings=gateway.settings) as first:
        await settled()
        first.thingsboard.holding = True
        await first.running.bus.publish(firmware("Installing", after=1))
        await settled()
        first.stop.set()
    async with open_gateway(journal=gateway.journal) as second:
        await settled()
        assert second.thingsboard.values("CP-1", "firmware_status") == ["Installing"]


async def test_nothing_is_told_before_the_limits_are_known_or_do_not_come():
    """Else a backlog would break them at once, and ThingsBoard close the connection."""
    for answered_after, told_from in ((2, 2), (None, 5)):
        thingsboard = FakeThingsBoard()
        thingsboard.limits = None
        began = trio.current_time()
        async with open_gateway(thingsboard=thingsboard) as gateway:
            await gateway.running.bus.publish(firmware("x"))
            if answered_after:
                await trio.sleep(answered_after)
                assert thingsboard.about(TELEMETRY) == []
                thingsboard._send.send_nowait(Message(LIMITS_RESPONSE, b"{}"))
            await wait_until(lambda thingsboard=thingsboard: thingsboard.about(TELEMETRY))
            assert told_from <= trio.current_time() - began <= told_from + 1


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x83, 0x99])
@pytest.mark.parametrize("many_devices", [True, False])
async def test_what_is_refused_is_set_aside_for_people_and_blocks_nobody(code, many_devices):
    settings = AppSettings(northbound=NorthboundSettings(batch_devices=many_devices))
    async with open_gateway(settings=settings) as gateway:
        gateway.thingsboard.codes["Poison"] = code
        bus = gateway.running.bus
        told = [firmware("Poison" if n == 3 else f"S{n}", f"CP-{n % 2}", n) for n in range(6)]
        entries = await bus.publish(*told)
        await settled()
        (aside,) = await gateway.journal.dead_letters(READER)
        assert aside.seq == entries[3].seq
        assert f"0x{code:02x}" in aside.why
        assert gateway.thingsboard.latest("CP-0")["firmware_status"] == "S4"
        assert gateway.thingsboard.latest("CP-1")["firmware_status"] == "S5"
        assert {*gateway.thingsboard.values("CP-0", "firmware_status")} == {"S0", "S2", "S4"}
        assert {*gateway.thingsboard.values("CP-1", "firmware_status")} == {"S1", "S5"}
        tries = [heard for heard in gateway.thingsboard.by_link[0] if "Poison" in json.dumps(heard)]
        assert len(tries) == 4  # with others, and then three times alone
        assert (await gateway.journal.checkpoint(READER)).seq == entries[-1].seq
        assert gateway.running.delivery.dead_letters == 1
        assert gateway.thingsboard.links == 1


async def test_attributes_that_were_taken_are_not_told_again_over_newer_ones():
    """They have no time of their own, so the last that is told is the one that stands."""

    def connected(address: str, after: float) -> ChargePointConnected:
        at = EPOCH + timedelta(seconds=after)
        return ChargePointConnected(charge_point_id="CP-1", received_at=at, remote_address=address)

    async with open_publisher_alone(Desk()) as north:
        north.thingsboard.codes["Poison"] = 0x99
        north.thingsboard.holding = True
        await north.bus.publish(connected("old", 1), firmware("Poison", after=2))
        await settled()
        await north.bus.publish(connected("new", 3))
        await settled()
        north.thingsboard.release()
        await settled()
        assert north.thingsboard.attributes("CP-1")["remote_address"] == "new"
        assert north.statistics.dead_letters == 1


async def test_a_refusal_that_passes_loses_nothing():
    class Relents(FakeThingsBoard):
        async def send(self, publication):
            delivery = await super().send(publication)
            if delivery.code:
                self.codes.clear()
            return delivery

    async with open_gateway(thingsboard=Relents()) as gateway:
        gateway.thingsboard.codes["Again"] = 0x80
        await gateway.running.bus.publish(firmware("Again"))
        await settled()
        assert gateway.running.delivery.refused == 1
        assert gateway.thingsboard.values("CP-1", "firmware_status") == ["Again"]
        assert await gateway.journal.dead_letters(READER) == ()


async def test_a_row_that_no_message_can_hold_is_set_aside(gateway):
    """Texts are cut; signed meter values are not."""
    nothing = Progress(as_of=EPOCH, energy_wh=Decimal(0), duration_s=0, charging_s=0, idle_s=0)
    signed = TransactionSettled(
        charge_point_id="CP-1",
        received_at=EPOCH,
        transaction_id=1,
        connector_id=1,
        started_at=EPOCH,
        progress=nothing,
        receipt={"receipt_id": "R", "signed": ["x" * 70_000]},
        published_ms=1,
    )
    entries = await gateway.running.bus.publish(
        firmware("before"), signed, firmware("after", after=2)
    )
    await settled()
    (aside,) = await gateway.journal.dead_letters(READER)
    assert aside.seq == entries[1].seq
    assert "bytes" in aside.why
    assert gateway.thingsboard.values("CP-1", "firmware_status") == ["before", "after"]
    assert (await gateway.journal.checkpoint(READER)).seq == entries[-1].seq


async def test_an_event_that_cannot_be_told_stops_nobody(gateway, quiet_logs):
    also = NorthboundSettings(extra_rows=lambda entry: 1 / 0 if "bad" in str(entry) else ())
    async with open_gateway(settings=AppSettings(northbound=also)) as other:
        await other.running.bus.publish(firmware("bad"), firmware("good", after=1))
        await settled()
        assert other.thingsboard.values("CP-1", "firmware_status") == ["good"]
    assert [log for log in quiet_logs if log["event"] == "event not published"]


# --- RPC ---------------------------------------------------------------------------------------


@attrs.define
class Desk:
    """In place of the charge points: carries out nothing, and counts."""

    seconds: float = 0.0
    carried_out: list = attrs.field(factory=list)

    async def carry_out(self, command):
        self.carried_out.append(command)
        await trio.sleep(self.seconds)
        return Done({"status": "Accepted", "count": len(self.carried_out)})


@attrs.define
class North:
    """The publisher alone, with a fake that carries commands out."""

    desk: Desk
    thingsboard: FakeThingsBoard
    nursery: trio.Nursery
    statistics: object
    bus: EventBus


@asynccontextmanager
async def open_publisher_alone(desk: Desk, **settings):
    thingsboard, journal = FakeThingsBoard(), MemoryJournal()
    bus = EventBus(journal, Fleet())
    await bus.publish(
        ChargePointConnected(charge_point_id="CP-1", received_at=now(), remote_address="x")
    )
    async with (
        trio.open_nursery() as nursery,
        open_publisher(
            thingsboard.open_link, bus, desk.carry_out, now, NorthboundSettings(**settings)
        ) as statistics,
    ):
        await settled()
        yield North(desk, thingsboard, nursery, statistics, bus)


def order(number: int = 0, method: str = "Reset", params=None, device: str = "CP-1") -> bytes:
    data = {"id": number, "method": method, "params": params}
    return json.dumps({"device": device, "data": data}).encode()


def answers(thingsboard: FakeThingsBoard) -> list:
    return [(body["id"], body["data"]) for body in thingsboard.about(RPC_TOPIC)]


async def test_a_repeated_order_is_carried_out_once_and_answered_alike():
    async with open_publisher_alone(Desk(seconds=5)) as north:
        for _ in range(3):
            await north.thingsboard.deliver(order())
            await trio.sleep(1)
        await trio.sleep(10)
        first = (0, {"status": "Accepted", "count": 1})
        assert answers(north.thingsboard) == [first]  # three times while under way: one answer
        await north.thingsboard.deliver(order())
        await settled()
        assert answers(north.thingsboard) == [first, first]
        assert len(north.desk.carried_out) == 1


async def test_later_the_same_order_is_a_new_one():
    async with open_publisher_alone(Desk()) as north:
        await north.thingsboard.deliver(order())
        await trio.sleep(29)
        await north.thingsboard.deliver(order())
        await trio.sleep(32)
        await north.thingsboard.deliver(order())
        await settled()
        assert [data["count"] for _, data in answers(north.thingsboard)] == [1, 1, 2]


async def test_orders_that_differ_in_anything_are_different_orders():
    async with open_publisher_alone(Desk()) as north:
        for payload in (order(0), order(1), order(0, "Other"), order(0, params={"a": 1})):
            await north.thingsboard.deliver(payload)
        await settled()
        assert len(north.desk.carried_out) == 4


async def test_an_order_for_an_unknown_device_gets_no_answer_for_that_would_create_it():
    async with open_publisher_alone(Desk()) as north:
        for device in ("CP-9", "CP-9/1", "CP-1/2", "CP-1/0", "", LOG, "CP-1/x"):
            await north.thingsboard.deliver(order(device=device))
        await settled()
        assert answers(north.thingsboard) == []
        assert north.desk.carried_out == []


async def test_connector_1_takes_orders_from_the_connection_on_and_only_while_no_other_is_known():
    """A charge point that tells nothing of itself, as the prototype's simulator, has it, too."""
    async with open_publisher_alone(Desk()) as north:
        await north.thingsboard.deliver(order(1, device="CP-1/1"))
        await settled()
        assert [command.connector_id for command in north.desk.carried_out] == [1]
        assert [number for number, _ in answers(north.thingsboard)] == [1]
        about = {"charge_point_id": "CP-1", "received_at": EPOCH}
        await north.bus.publish(ConnectorStatusChanged(**about, connector_id=2, status="X"))
        await north.thingsboard.deliver(order(2, device="CP-1/1"))
        await settled()
        assert [number for number, _ in answers(north.thingsboard)] == [1]


async def test_beyond_two_hundred_orders_at_once_the_next_is_told_so():
    async with open_publisher_alone(Desk(seconds=50)) as north:
        for number in range(205):
            await north.thingsboard.deliver(order(number))
        await settled()
        busy = answers(north.thingsboard)
        assert [number for number, _ in busy] == [200, 201, 202, 203, 204]
        assert {data["error"]["code"] for _, data in busy} == {"Busy"}
        await trio.sleep(60)
        assert len(answers(north.thingsboard)) == 205
        await north.thingsboard.deliver(order(205))
        await trio.sleep(60)
        assert answers(north.thingsboard)[-1][1]["status"] == "Accepted"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[",
        b"{}",
        b"[" * 99_999,
        order(device="\0"),
        b'{"device":{},"data":{"id":0}}',
    ],
)
async def test_no_garbage_fells_the_door(payload):
    async with open_publisher_alone(Desk()) as north:
        await north.thingsboard.deliver(payload)
        await north.thingsboard.deliver(order(7))
        await settled()
        assert [number for number, _ in answers(north.thingsboard)] == [7]
        assert north.thingsboard.links == 1


async def test_an_order_that_breaks_our_own_code_fells_nobody(quiet_logs):
    class Broken(Desk):
        async def carry_out(self, command):
            if command.method == "Reset":
                raise ZeroDivisionError
            return await super().carry_out(command)

    async with open_publisher_alone(Broken()) as north:
        await north.thingsboard.deliver(order(1))
        await north.thingsboard.deliver(order(2, "Other"))
        await settled()
        assert [number for number, _ in answers(north.thingsboard)] == [2]
    assert [log for log in quiet_logs if log["event"] == "RPC dropped"]


async def test_an_order_outlives_the_link_that_brought_it():
    async with open_publisher_alone(Desk(seconds=20)) as north:
        await north.thingsboard.deliver(order(3))
        await trio.sleep(5)
        north.thingsboard.up = False
        north.thingsboard.cut()
        await trio.sleep(60)
        assert answers(north.thingsboard) == []
        north.thingsboard.up = True
        await wait_until(lambda: answers(north.thingsboard))
        assert answers(north.thingsboard) == [(3, {"status": "Accepted", "count": 1})]
        assert_announced_first(north.thingsboard)


async def test_an_answer_without_a_puback_is_given_again_on_the_next_link():
    async with open_publisher_alone(Desk()) as north:
        north.thingsboard.holding = True
        await north.thingsboard.deliver(order(3))
        await settled()
        north.thingsboard.cut()
        north.thingsboard.holding = False
        await wait_until(lambda: north.thingsboard.links == 2)
        await settled()
        answered = (3, {"status": "Accepted", "count": 1})
        assert answers(north.thingsboard) == [answered, answered]
        assert_announced_first(north.thingsboard)


async def test_a_request_that_thingsboard_repeats_on_a_new_link_is_not_carried_out_again():
    async with open_publisher_alone(Desk(seconds=5)) as north:
        await north.thingsboard.deliver(order(0))
        await trio.sleep(1)
        north.thingsboard.cut()
        await wait_until(lambda: north.thingsboard.links == 2)
        await north.thingsboard.deliver(order(0))
        await trio.sleep(10)
        assert len(north.desk.carried_out) == 1
        assert {data["count"] for _, data in answers(north.thingsboard)} == {1}


async def test_messages_on_other_topics_and_our_own_echoes_are_ignored():
    async with open_publisher_alone(Desk()) as north:
        await north.thingsboard.deliver(b'{"device":"CP-1","id":0,"data":{"status":"Accepted"}}')
        await settled()
        assert (answers(north.thingsboard), north.desk.carried_out) == ([], [])


# --- the end -----------------------------------------------------------------------------------


async def test_at_the_stop_the_outbox_is_emptied():
    async with open_gateway() as gateway:
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
            await charge(charger)
        gateway.stop.set()
    assert gateway.thingsboard.latest("CP-1")["connected"] is False
    assert len(gateway.thingsboard.values(LOG, "receipt")) == 1
    assert (await gateway.journal.checkpoint(READER)).seq >= len(gateway.journal._entries) - 1


async def test_the_stop_waits_for_acknowledgements_no_longer_than_the_grace():
    gateway = Gateway(settings=AppSettings(northbound=NorthboundSettings(grace_s=7)))
    async with open_gateway(settings=gateway.settings) as gateway:
        await settled()
        gateway.thingsboard.holding = True
        await gateway.running.bus.publish(firmware("x"))
        await settled()
        began = trio.current_time()
        gateway.stop.set()
    assert 5 < trio.current_time() - began < 6


async def test_with_thingsboard_away_the_stop_does_not_wait():
    thingsboard = FakeThingsBoard()
    thingsboard.up = False
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await gateway.running.bus.publish(firmware("x"))
        await trio.sleep(1_000)  # the pauses are long by now
        began = trio.current_time()
        gateway.stop.set()
    assert trio.current_time() - began < 1
    assert await gateway.journal.checkpoint(READER) == Checkpoint(READER)


async def test_orders_under_way_do_not_hold_the_stop_up():
    """Nothing can come of them: the charge points have left before."""
    async with open_publisher_alone(Desk(seconds=600)) as north:
        await north.thingsboard.deliver(order())
        await settled()
        began = trio.current_time()
    assert trio.current_time() - began < 1
    assert len(north.desk.carried_out) == 1


async def test_what_is_answered_when_the_house_closes_is_told_still():
    async with open_gateway() as gateway, gateway.charger("CP-1") as charger:
        await settled()
        await gateway.thingsboard.deliver(order(4, "ClearCache"))
        await charger.next_call()
        gateway.stop.set()
        await charger.closed.wait()
    assert [(number, data["error"]["code"]) for number, data in answers(gateway.thingsboard)] == [
        (4, "NotConnected")
    ]


async def test_answers_that_still_wait_for_their_turn_are_told_before_the_house_closes():
    async with open_publisher_alone(Desk()) as north:
        north.thingsboard.holding = True
        for number in range(3):
            await north.thingsboard.deliver(order(number))
        await settled()
        assert [number for number, _ in answers(north.thingsboard)] == [0]

        async def release():
            await trio.sleep(1)
            north.thingsboard.release()

        north.nursery.start_soon(release)
    assert [number for number, _ in answers(north.thingsboard)] == [0, 1, 2]


async def test_pauses_between_attempts_grow_and_a_link_ends_them():
    thingsboard = FakeThingsBoard()
    thingsboard.up = False
    attempts: list[float] = []
    open_link = thingsboard.open_link

    @asynccontextmanager
    async def watched():
        attempts.append(trio.current_time())
        async with open_link() as link:
            yield link

    thingsboard.open_link = watched
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await trio.sleep(600)
        gaps = [later - earlier for earlier, later in pairwise(attempts)]
        assert gaps[0] <= 1
        assert all(gap <= 60 for gap in gaps)
        assert max(gaps) >= 30
        assert gateway.running.delivery.why == "no route"
        assert gateway.running.delivery.connected is False
        thingsboard.up = True
        await trio.sleep(60 + 26)
        assert (gateway.running.delivery.connected, gateway.running.delivery.why) == (True, "")
        thingsboard.cut()
        await trio.sleep(1.1)  # the first pause again
        assert (thingsboard.links, gateway.running.delivery.connected) == (2, True)


async def test_a_link_that_is_lost_at_once_is_not_tried_every_second():
    """Two gateways with one access token throw each other out as soon as they are in."""
    thingsboard = FakeThingsBoard()
    async with open_gateway(thingsboard=thingsboard):
        for _ in range(600):
            await trio.sleep(1)
            thingsboard.cut()
    assert 5 < thingsboard.links < 40


async def test_whatever_a_link_throws_it_is_one_attempt():
    class Odd(FakeThingsBoard):
        @asynccontextmanager
        async def open_link(self):
            self.tried = getattr(self, "tried", 0) + 1
            if self.tried == 1:
                raise OSError(9, "Bad file descriptor")
            if self.tried == 2:
                raise ExceptionGroup("x", [ExceptionGroup("y", [OSError(9, "Bad"), ValueError()])])
            async with super().open_link() as link:
                yield link

    thingsboard = Odd()
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await trio.sleep(10)
        assert gateway.running.delivery.connected
    assert thingsboard.tried == 3


# --- any misfortune ----------------------------------------------------------------------------

_HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.integers(0, 3)),
        st.tuples(
            st.sampled_from(["cut", "down", "up", "hold", "release", "refuse", "accept"]),
            st.just(0),
        ),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.06, 1.0, 25.0])),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(_HAPPENINGS, st.booleans())
def test_whatever_happens_to_the_link_all_is_told_once_it_stays(happenings, many_devices):
    """Nothing is lost, nothing overtakes within a device, and the guilty alone are set aside."""
    trio.run(_live_through, happenings, many_devices, clock=MockClock(autojump_threshold=0))


async def _live_through(happenings, many_devices) -> None:
    thingsboard, journal = FakeThingsBoard(), MemoryJournal()
    bus, told, guilty = EventBus(journal, Fleet()), {}, set()
    publisher = open_publisher(
        thingsboard.open_link,
        bus,
        Desk().carry_out,
        now,
        NorthboundSettings(batch_devices=many_devices),
    )
    async with publisher as statistics:
        for number, (what, how) in enumerate(happenings):
            match what:
                case "tell":
                    name, status = f"CP-{how}", f"S-{number}"
                    if "refused" in thingsboard.codes:
                        status += "-refused" if number % 3 == 0 else ""
                    (entry,) = await bus.publish(firmware(status, name, after=number / 1000))
                    if status.endswith("refused"):
                        guilty.add(entry.seq)
                    else:
                        told.setdefault(name, []).append(status)
                case "cut" if thingsboard.links:
                    thingsboard.cut()
                case "down":
                    thingsboard.up = False
                    thingsboard.held.clear()
                    thingsboard.cut()
                case "up":
                    thingsboard.up = True
                case "hold":
                    thingsboard.holding = True
                case "release":
                    thingsboard.release()
                case "refuse":
                    thingsboard.codes["refused"] = 0x99
                case "wait":
                    await trio.sleep(how)
        thingsboard.codes["refused"] = 0x99
        thingsboard.up = True
        thingsboard.release()
        await trio.sleep(200)
        assert statistics.connected
        assert statistics.delivered_seq == len(journal._entries)
    for name, statuses in told.items():
        heard = thingsboard.values(name, "firmware_status")
        assert set(heard) == set(statuses)
        assert list(dict.fromkeys(heard)) == statuses  # in order, where first heard
        assert heard[-1] == statuses[-1]
    assert {aside.seq for aside in await journal.dead_letters(READER)} == guilty
    assert_announced_first(thingsboard)
