"""What ThingsBoard cannot take now is put off: it holds up nobody, and the innocent are told."""

from __future__ import annotations

import json

import pytest
import trio

from gateway.domain.events import ChargePointConnected
from gateway.northbound.mqtt import Delivery
from gateway.northbound.outbox import READER
from gateway.northbound.rpc_messages import RPC_TOPIC

from ..fakes import ATTRIBUTES, CONNECT, TELEMETRY, FakeThingsBoard, now
from .test_outbox import away, told
from .test_poison import all_told, open_publisher_alone
from .test_publisher import assert_announced_first, firmware, order, settled, wait_until


class Choosy(FakeThingsBoard):
    """Answers a `connect` of a device with its code in `rejected`; with None it does not answer.

    codes: what is said of all other messages.  dropped: topics where it says 0x80 to all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept_out: dict[str, int | None] = {}
        self.failing: set[str] = set()

    async def send(self, publication):
        name = ""
        if publication.topic == CONNECT:
            name = json.loads(publication.payload)["device"]
        if name not in self.kept_out and publication.topic not in self.failing:
            return await super().send(publication)
        await trio.lowlevel.checkpoint()
        code = self.kept_out.get(name, 0x80)
        delivery = Delivery(code)
        if code is not None:
            delivery.acknowledged.set()
        return delivery


def arrived(name: str, address: str = "x") -> ChargePointConnected:
    return ChargePointConnected(charge_point_id=name, received_at=now(), remote_address=address)


async def is_told_soon(thingsboard, bus, status: str, within: float) -> None:
    await bus.publish(firmware(status, after=trio.current_time()))
    await wait_until(lambda: status in thingsboard.values("CP-1", "firmware_status"), within=within)


async def asides_of(journal) -> set[int]:
    return {aside.seq for aside in await journal.dead_letters(READER)}


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x80, 0x97, None])
async def test_a_device_that_is_let_in_late_is_told_of_whole_and_with_its_type(code):
    thingsboard = Choosy()
    async with open_publisher_alone(thingsboard) as (bus, journal, statistics):
        await trio.sleep(60)
        thingsboard.kept_out["NEW"] = code
        await bus.publish(arrived("NEW"))
        await trio.sleep(30)
        thingsboard.kept_out.clear()
        for n in range(60):
            await bus.publish(firmware(f"S{n}", "NEW", 100 + n))
            await trio.sleep(10)
        await wait_until(lambda: all_told(statistics, journal))
        assert await journal.dead_letters(READER) == ()
    assert {f"S{n}" for n in range(60)} == {*thingsboard.values("NEW", "firmware_status")}
    assert thingsboard.attributes("NEW")["remote_address"] == "x"
    assert_announced_first(thingsboard)


@pytest.mark.parametrize("code", [0x80, 0x97, None])
async def test_a_device_that_is_never_let_in_is_set_aside_after_minutes_and_holds_up_nobody(code):
    thingsboard = Choosy()
    thingsboard.kept_out["CP-9"] = code
    async with open_publisher_alone(thingsboard, "CP-1", "CP-9") as (bus, journal, statistics):
        for n in range(300):
            await bus.publish(firmware(f"X{n}", "CP-9", 100 + n))
            await is_told_soon(thingsboard, bus, f"S{n}", within=45)
            if trio.current_time() < 120:
                assert await journal.dead_letters(READER) == ()
            await trio.sleep(5)
        await wait_until(lambda: all_told(statistics, journal))
        assert {
            "admit the device" in aside.why for aside in await journal.dead_letters(READER)
        } == {True}
        assert len(await asides_of(journal)) == 301
        assert thingsboard.links <= 5
        thingsboard.kept_out.clear()  # the tenant's limit was raised
        await trio.sleep(300)
        await bus.publish(firmware("At last", "CP-9", 9_000))
        await settled()
        assert thingsboard.latest("CP-9")["firmware_status"] == "At last"
    assert_announced_first(thingsboard)


async def test_however_many_are_never_answered_all_others_go_on():
    thingsboard = Choosy()
    others = [f"X-{n}" for n in range(130)]
    thingsboard.kept_out = dict.fromkeys(others)
    async with open_publisher_alone(thingsboard, "CP-1", *others) as (bus, journal, statistics):
        await wait_until(lambda: all_told(statistics, journal), within=7_200)
        assert await asides_of(journal) == {*range(2, 132)}
        for n in range(30):
            await is_told_soon(thingsboard, bus, f"S{n}", within=300)
            await trio.sleep(60)


async def test_a_server_that_lets_nobody_in_keeps_out_no_device():
    """The transport is there, and its core is not: all is refused, after a while."""

    class Board(Choosy):
        async def send(self, publication):
            if self.failing:
                await trio.sleep(10)
            return await super().send(publication)

    thingsboard = Board()
    names = [f"CP-{n}" for n in range(1, 21)]
    async with open_publisher_alone(thingsboard, *names) as (bus, journal, statistics):
        await trio.sleep(60)
        thingsboard.failing = {CONNECT, TELEMETRY, ATTRIBUTES}
        thingsboard.cut()
        for n in range(60):
            await bus.publish(firmware(f"S{n}", names[n % 20], 100 + n))
            await trio.sleep(10)
        thingsboard.failing = set()
        await wait_until(lambda: all_told(statistics, journal))
        assert await journal.dead_letters(READER) == ()


async def test_who_is_kept_out_slows_nobody_down_and_gets_no_answers_told():
    """Answers in its name would create it with no type (thingsboard-contract R1)."""
    thingsboard = Choosy()
    thingsboard.kept_out["CP-9"] = 0x97
    async with open_publisher_alone(thingsboard, "CP-1", "CP-9") as (bus, _, _):
        await thingsboard.deliver(order(device="CP-9"))
        await thingsboard.deliver(order(device="CP-1"))
        for n in range(20):
            await bus.publish(firmware(f"X{n}", "CP-9", n))
        await is_told_soon(thingsboard, bus, "quick", within=2)
    assert [body["device"] for body in thingsboard.about(RPC_TOPIC)] == ["CP-1"]


# --- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x80, 0x97])
async def test_what_a_server_fails_at_each_time_is_set_aside_after_minutes(code):
    thingsboard = Choosy()
    thingsboard.codes["Poison"] = code
    async with open_publisher_alone(thingsboard) as (bus, journal, statistics):
        (poison,) = await bus.publish(firmware("Poison"))
        for n in range(30):
            await is_told_soon(thingsboard, bus, f"S{n}", within=30)
            if trio.current_time() < 120:
                assert await journal.dead_letters(READER) == ()
            await trio.sleep(10)
        (aside,) = await journal.dead_letters(READER)
        assert aside.seq == poison.seq
        assert f"0x{code:02x}" in aside.why
        assert all_told(statistics, journal)
        assert thingsboard.links == 4
        assert statistics.dead_letters == 1


@pytest.mark.parametrize("code", [0x80, 0x97])
@pytest.mark.parametrize("seconds", [20, 900])
async def test_a_server_that_fails_at_all_telemetry_for_a_while_makes_nobody_guilty(code, seconds):
    thingsboard = Choosy()
    async with open_publisher_alone(thingsboard, "CP-1", "CP-2") as (bus, journal, statistics):
        await trio.sleep(60)
        thingsboard.codes['"values"'] = code
        for n in range(30):
            await bus.publish(firmware(f"S{n}", "CP-1", 100 + n))
            await trio.sleep(seconds / 30)
        thingsboard.codes.clear()
        await wait_until(lambda: all_told(statistics, journal))
        assert await journal.dead_letters(READER) == ()
        assert {*thingsboard.values("CP-1", "firmware_status")} == {f"S{n}" for n in range(30)}


async def test_what_a_server_fails_and_closes_at_each_time_is_set_aside_after_minutes():
    """As its queue does at a record that is too large for it, whatever else it takes."""

    class Board(Choosy):
        async def send(self, publication):
            delivery = await super().send(publication)
            if delivery.code == 0x80:
                self.cut()
            return delivery

    thingsboard = Board()
    thingsboard.codes["Poison"] = 0x80
    async with open_publisher_alone(thingsboard) as (bus, journal, statistics):
        (poison,) = await bus.publish(firmware("Poison"))
        await bus.publish(firmware("Behind", after=1))
        await trio.sleep(60)
        assert await journal.dead_letters(READER) == ()
        await wait_until(lambda: all_told(statistics, journal))
        assert await asides_of(journal) == {poison.seq}
        assert thingsboard.values("CP-1", "firmware_status") == ["Behind"]


async def test_a_rate_that_is_too_high_makes_nobody_guilty_however_often_the_link_ends():
    class Board(Choosy):
        async def send(self, publication):
            delivery = await super().send(publication)
            if delivery.code == 0x97:
                self.cut()
            return delivery

    thingsboard = Board()
    thingsboard.codes["S1"] = 0x97
    async with open_publisher_alone(thingsboard) as (bus, journal, statistics):
        await bus.publish(firmware("S1"))
        await trio.sleep(900)
        thingsboard.codes.clear()
        await wait_until(lambda: all_told(statistics, journal))
        assert await journal.dead_letters(READER) == ()
        assert thingsboard.values("CP-1", "firmware_status") == ["S1"]


async def test_many_that_a_server_fails_at_hold_up_nobody_for_good():
    thingsboard = Choosy()
    thingsboard.codes["Poison"] = 0x80
    async with open_publisher_alone(thingsboard) as (bus, journal, statistics):
        entries = await bus.publish(*(firmware(f"Poison{n}", "CP-1", n) for n in range(70)))
        for n in range(40):
            await is_told_soon(thingsboard, bus, f"S{n}", within=300)
            await trio.sleep(10)
        await wait_until(lambda: all_told(statistics, journal))
        assert await asides_of(journal) == {entry.seq for entry in entries}


# --- attributes ----------------------------------------------------------------------------------


async def test_attributes_that_were_put_off_are_told_as_they_are_by_then():
    thingsboard = Choosy()
    async with open_publisher_alone(thingsboard) as (bus, journal, statistics):
        thingsboard.codes['"old"'] = 0x80
        await bus.publish(arrived("CP-1", "old"))
        await settled()
        thingsboard.codes.clear()
        await bus.publish(arrived("CP-1", "new"))
        await settled()
        assert thingsboard.attributes("CP-1")["remote_address"] == "new"
        await wait_until(lambda: all_told(statistics, journal))
        assert thingsboard.attributes("CP-1")["remote_address"] == "new"
        assert await journal.dead_letters(READER) == ()


@pytest.mark.parametrize("code", [0x80, 0x99])
async def test_attributes_of_a_backlog_that_are_refused_are_told_again_or_set_aside(code):
    thingsboard = Choosy()
    async with away(thingsboard) as gateway:
        thingsboard.codes['"remote_address":"bad"'] = code
        bus, north = gateway.running.bus, gateway.running.delivery
        (bad,) = await bus.publish(arrived("CP-1", "bad"))
        await bus.publish(*(told(n) for n in range(1, 300)))
        thingsboard.up = True
        await wait_until(
            lambda: north.delivered_seq == 300 or await_no_more(thingsboard, code), within=900
        )
        assert thingsboard.attributes("CP-1").get("remote_address") != "bad"
        if code == 0x99:
            assert await asides_of(gateway.journal) == {bad.seq}
        else:
            assert await gateway.journal.dead_letters(READER) == ()
            thingsboard.codes.clear()
            await wait_until(lambda: north.delivered_seq == 300, within=900)
            assert thingsboard.attributes("CP-1")["remote_address"] == "bad"


def await_no_more(thingsboard, code: int) -> bool:
    """Whether what is only put off has had its first refusal, and all else is told."""
    return code == 0x80 and len(thingsboard.values("CP-1", "firmware_status")) == 299
