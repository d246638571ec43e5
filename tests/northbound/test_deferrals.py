"""What ThingsBoard cannot take now is deferred: it holds up nothing, and the rest is delivered."""

from __future__ import annotations

import pytest
import trio

from gateway.northbound.outbox import READER
from gateway.northbound.rpc_messages import RPC_TOPIC

from ..fakes import ATTRIBUTES, CONNECT, TELEMETRY
from .builders import (
    assert_announced_first,
    connected,
    firmware,
    numbered,
    open_gateway_without_link,
    open_publisher_alone,
    rpc_payload,
    settled,
    wait_until,
)
from .faulty_board import Act, Fate, FaultyBoard


def not_admitted(name: str, code: int | None) -> Fate:
    """ThingsBoard refuses the `connect` of a device, or does not answer it (None)."""
    act = Act.LOSE if code is None else Act.REFUSE
    return Fate(act, f'"{name}"', topic=CONNECT, code=code or 0)


async def publish_and_wait(alone, status: str, within: float) -> None:
    """Publish a value of CP-1 now; it must arrive within so many seconds."""
    await alone.bus.publish(firmware(status, after=trio.current_time()))
    await wait_until(
        lambda: status in alone.thingsboard.values("CP-1", "firmware_status"), within=within
    )


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x80, 0x97, None])
async def test_a_device_that_is_let_in_late_is_told_of_whole_and_with_its_type(code):
    thingsboard = FaultyBoard()
    async with open_publisher_alone(thingsboard) as alone:
        await trio.sleep(60)
        thingsboard.fates = [not_admitted("NEW", code)]
        await alone.bus.publish(connected("NEW"))
        await trio.sleep(30)
        thingsboard.fates.clear()
        for n in range(60):
            await alone.bus.publish(firmware(f"S{n}", "NEW", 100 + n))
            await trio.sleep(10)
        await wait_until(lambda: alone.all_delivered)
        assert await alone.dead_letters() == set()
    assert {f"S{n}" for n in range(60)} == {*thingsboard.values("NEW", "firmware_status")}
    assert thingsboard.attributes("NEW")["remote_address"] == "x"
    assert_announced_first(thingsboard)


@pytest.mark.parametrize("code", [0x80, 0x97, None])
async def test_a_device_that_is_never_let_in_is_set_aside_after_minutes_and_holds_up_nobody(code):
    thingsboard = FaultyBoard()
    thingsboard.fates = [not_admitted("CP-9", code)]
    async with open_publisher_alone(thingsboard, "CP-1", "CP-9") as alone:
        for n in range(300):
            await alone.bus.publish(firmware(f"X{n}", "CP-9", 100 + n))
            await publish_and_wait(alone, f"S{n}", within=45)
            if trio.current_time() < 120:
                assert await alone.dead_letters() == set()
            await trio.sleep(5)
        await wait_until(lambda: alone.all_delivered)
        assert {
            "admit the device" in letter.why for letter in await alone.journal.dead_letters(READER)
        } == {True}
        assert len(await alone.dead_letters()) == 301
        assert thingsboard.links <= 5
        thingsboard.fates.clear()  # the tenant's limit was raised
        await trio.sleep(300)
        await alone.bus.publish(firmware("At last", "CP-9", 9_000))
        await settled()
        assert thingsboard.latest("CP-9")["firmware_status"] == "At last"
    assert_announced_first(thingsboard)


async def test_however_many_are_never_answered_all_others_go_on():
    thingsboard = FaultyBoard()
    others = [f"X-{n}" for n in range(130)]
    thingsboard.fates = [not_admitted(name, None) for name in others]
    async with open_publisher_alone(thingsboard, "CP-1", *others) as alone:
        await wait_until(lambda: alone.all_delivered, within=7_200)
        assert await alone.dead_letters() == {*range(2, 132)}
        for n in range(30):
            await publish_and_wait(alone, f"S{n}", within=300)
            await trio.sleep(60)


async def test_a_server_that_lets_nobody_in_keeps_out_no_device():
    """The transport is there, and its core is not: all is refused, after a while."""

    thingsboard = FaultyBoard()
    names = [f"CP-{n}" for n in range(1, 21)]
    async with open_publisher_alone(thingsboard, *names) as alone:
        await trio.sleep(60)
        thingsboard.fates = [
            Fate(Act.REFUSE, topic=topic, seconds=10) for topic in (CONNECT, TELEMETRY, ATTRIBUTES)
        ]
        thingsboard.cut()
        for n in range(60):
            await alone.bus.publish(firmware(f"S{n}", names[n % 20], 100 + n))
            await trio.sleep(10)
        thingsboard.fates.clear()
        await wait_until(lambda: alone.all_delivered)
        assert await alone.dead_letters() == set()


async def test_who_is_kept_out_slows_nobody_down_and_gets_no_answers_told():
    """Answers in its name would create it with no type (thingsboard-contract R1)."""
    thingsboard = FaultyBoard()
    thingsboard.fates = [not_admitted("CP-9", 0x97)]
    async with open_publisher_alone(thingsboard, "CP-1", "CP-9") as alone:
        await thingsboard.deliver(rpc_payload(device="CP-9"))
        await thingsboard.deliver(rpc_payload(device="CP-1"))
        for n in range(20):
            await alone.bus.publish(firmware(f"X{n}", "CP-9", n))
        await publish_and_wait(alone, "quick", within=2)
    assert [body["device"] for body in thingsboard.about(RPC_TOPIC)] == ["CP-1"]


# --- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x80, 0x97])
async def test_what_a_server_fails_at_each_time_is_set_aside_after_minutes(code):
    thingsboard = FaultyBoard()
    thingsboard.codes["Poison"] = code
    async with open_publisher_alone(thingsboard) as alone:
        (poison,) = await alone.bus.publish(firmware("Poison"))
        for n in range(30):
            await publish_and_wait(alone, f"S{n}", within=30)
            if trio.current_time() < 120:
                assert await alone.dead_letters() == set()
            await trio.sleep(10)
        (letter,) = await alone.journal.dead_letters(READER)
        assert letter.seq == poison.seq
        assert f"0x{code:02x}" in letter.why
        assert alone.all_delivered
        assert thingsboard.links == 4
        assert alone.statistics.dead_letters == 1


@pytest.mark.parametrize("code", [0x80, 0x97])
@pytest.mark.parametrize("seconds", [20, 900])
async def test_a_server_that_fails_at_all_telemetry_for_a_while_makes_nobody_guilty(code, seconds):
    thingsboard = FaultyBoard()
    async with open_publisher_alone(thingsboard, "CP-1", "CP-2") as alone:
        await trio.sleep(60)
        thingsboard.codes['"values"'] = code
        for n in range(30):
            await alone.bus.publish(firmware(f"S{n}", "CP-1", 100 + n))
            await trio.sleep(seconds / 30)
        thingsboard.codes.clear()
        await wait_until(lambda: alone.all_delivered)
        assert await alone.dead_letters() == set()
        assert {*thingsboard.values("CP-1", "firmware_status")} == {f"S{n}" for n in range(30)}


async def test_what_a_server_fails_and_closes_at_each_time_is_set_aside_after_minutes():
    """As its queue does at a record that is too large for it, whatever else it takes."""

    thingsboard = FaultyBoard(Fate(Act.REFUSE_AND_CLOSE, "Poison"))
    async with open_publisher_alone(thingsboard) as alone:
        (poison,) = await alone.bus.publish(firmware("Poison"))
        await alone.bus.publish(firmware("Behind", after=1))
        await trio.sleep(60)
        assert await alone.dead_letters() == set()
        await wait_until(lambda: alone.all_delivered)
        assert await alone.dead_letters() == {poison.seq}
        assert thingsboard.values("CP-1", "firmware_status") == ["Behind"]


async def test_a_rate_that_is_too_high_makes_nobody_guilty_however_often_the_link_ends():
    thingsboard = FaultyBoard(Fate(Act.REFUSE_AND_CLOSE, "S1", code=0x97))
    async with open_publisher_alone(thingsboard) as alone:
        await alone.bus.publish(firmware("S1"))
        await trio.sleep(900)
        thingsboard.fates.clear()
        await wait_until(lambda: alone.all_delivered)
        assert await alone.dead_letters() == set()
        assert thingsboard.values("CP-1", "firmware_status") == ["S1"]


async def test_many_that_a_server_fails_at_hold_up_nobody_for_good():
    thingsboard = FaultyBoard()
    thingsboard.codes["Poison"] = 0x80
    async with open_publisher_alone(thingsboard) as alone:
        entries = await alone.bus.publish(*(firmware(f"Poison{n}", "CP-1", n) for n in range(70)))
        for n in range(40):
            await publish_and_wait(alone, f"S{n}", within=300)
            await trio.sleep(10)
        await wait_until(lambda: alone.all_delivered)
        assert await alone.dead_letters() == {entry.seq for entry in entries}


# --- attributes ----------------------------------------------------------------------------------


async def test_attributes_that_were_put_off_are_told_as_they_are_by_then():
    thingsboard = FaultyBoard()
    async with open_publisher_alone(thingsboard) as alone:
        thingsboard.codes['"old"'] = 0x80
        await alone.bus.publish(connected(address="old"))
        await settled()
        thingsboard.codes.clear()
        await alone.bus.publish(connected(address="new"))
        await settled()
        assert thingsboard.attributes("CP-1")["remote_address"] == "new"
        await wait_until(lambda: alone.all_delivered)
        assert thingsboard.attributes("CP-1")["remote_address"] == "new"
        assert await alone.dead_letters() == set()


@pytest.mark.parametrize("code", [0x80, 0x99])
async def test_attributes_of_a_backlog_that_are_refused_are_told_again_or_set_aside(code):
    thingsboard = FaultyBoard()
    async with open_gateway_without_link(thingsboard) as gateway:
        thingsboard.codes['"remote_address":"bad"'] = code
        bus, delivery = gateway.running.bus, gateway.running.delivery
        (bad,) = await bus.publish(connected(address="bad"))
        await bus.publish(*(numbered(n) for n in range(1, 300)))
        thingsboard.up = True
        await wait_until(
            lambda: delivery.delivered_seq == 300 or only_deferred_is_left(thingsboard, code),
            within=900,
        )
        assert thingsboard.attributes("CP-1").get("remote_address") != "bad"
        if code == 0x99:
            assert {one.seq for one in await gateway.journal.dead_letters(READER)} == {bad.seq}
        else:
            assert await gateway.journal.dead_letters(READER) == ()
            thingsboard.codes.clear()
            await wait_until(lambda: delivery.delivered_seq == 300, within=900)
            assert thingsboard.attributes("CP-1")["remote_address"] == "bad"


def only_deferred_is_left(thingsboard, code: int) -> bool:
    """Whether what is deferred has had its first refusal, and all else is delivered."""
    return code == 0x80 and len(thingsboard.values("CP-1", "firmware_status")) == 299
