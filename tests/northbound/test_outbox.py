"""After an outage of hours: what is goes before what was, and nothing is lost or mixed up."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.bus import EventBus
from gateway.domain.fleet import Fleet
from gateway.journal import Checkpoint
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import NorthboundSettings, open_publisher
from tests.memory_journal import MemoryJournal

from ..conftest import open_gateway
from ..fakes import ATTRIBUTES, FakeThingsBoard, now
from .builders import (
    FEW,
    FakeCommandRunner,
    assert_announced_first,
    connected,
    numbered,
    open_gateway_without_link,
    settled,
    wait_until,
)
from .faulty_board import Fate, FaultyBoard


def numbers(thingsboard: FakeThingsBoard, name: str = "CP-1") -> list[int]:
    """The numbers in the order in which they arrived."""
    return [int(text[2:]) for text in thingsboard.values(name, "firmware_status")]


async def publish(bus: EventBus, first: int, last: int, name: str = "CP-1") -> None:
    for n in range(first, last + 1):
        await bus.publish(numbered(n, name))


@pytest.mark.parametrize("batch_devices", [True, False])
async def test_new_values_go_before_a_long_backlog_which_goes_oldest_first(batch_devices):
    async with open_gateway_without_link(
        FaultyBoard(Fate(seconds=0.3)), batch_devices=batch_devices
    ) as gateway:
        bus = gateway.running.bus
        await publish(bus, 1, 20_000)
        gateway.thingsboard.up = True
        await wait_until(lambda: gateway.running.delivery.connected)
        began = trio.current_time()
        await bus.publish(numbered(90_000))
        await wait_until(lambda: 90_000 in numbers(gateway.thingsboard))
        assert trio.current_time() - began < 2
        at_first = numbers(gateway.thingsboard)
        assert 20_000 not in at_first
        await wait_until(lambda: len(numbers(gateway.thingsboard)) >= 20_001)
        sent = [n for n in numbers(gateway.thingsboard) if n <= 20_000]
        assert sent == list(range(1, 20_001))
        assert gateway.thingsboard.latest("CP-1")["firmware_status"] == "S-90000"


async def test_a_short_backlog_is_told_in_order():
    async with open_gateway_without_link() as gateway:
        await publish(gateway.running.bus, 1, FEW)
        gateway.thingsboard.up = True
        await publish(gateway.running.bus, FEW + 1, FEW + 20)
        await wait_until(lambda: len(numbers(gateway.thingsboard)) >= FEW + 20)
    assert numbers(gateway.thingsboard) == list(range(1, FEW + 21))


async def test_attributes_are_told_as_they_are_now_and_not_as_they_were():
    """They have no time, so an old one that comes late would stand."""
    async with open_gateway_without_link() as gateway:
        bus, thingsboard = gateway.running.bus, gateway.thingsboard
        await bus.publish(connected(address="first"))
        await publish(bus, 1, 2_500)
        await bus.publish(connected(address="second"))
        thingsboard.up = True
        await wait_until(lambda: thingsboard.links)
        await bus.publish(connected(address="third"))
        await wait_until(lambda: len(numbers(thingsboard)) >= 2_500)
        await settled()
        addresses = [
            body["CP-1"]["remote_address"]
            for body in thingsboard.about(ATTRIBUTES)
            if "remote_address" in body.get("CP-1", {})
        ]
    assert addresses[-1] == "third"
    assert "first" not in addresses


async def test_attributes_that_change_while_they_are_told_are_told_again():
    # What is sent after it arrives before it.
    thingsboard = FaultyBoard(Fate(contains='"second"', seconds=5))
    async with open_gateway_without_link(thingsboard) as gateway:
        bus = gateway.running.bus
        await bus.publish(connected(address="second"))
        await publish(bus, 1, 5 * FEW)
        thingsboard.up = True
        await wait_until(lambda: numbers(thingsboard))
        await bus.publish(connected(address="third"))
        await settled()
        await trio.sleep(10)
        assert thingsboard.attributes("CP-1")["remote_address"] == "third"


async def test_what_went_ahead_is_not_told_again():
    journal = MemoryJournal()
    await journal.append(*(numbered(n) for n in range(1, 11)))
    await journal.append(checkpoint=Checkpoint(READER, 2, ahead=((4, 6), (9, 9))))
    async with open_gateway_without_link(journal=journal) as gateway:
        gateway.thingsboard.up = True
        await wait_until(lambda: gateway.running.delivery.delivered_seq == 10)
    assert numbers(gateway.thingsboard) == [3, 7, 8, 10]


async def test_after_a_backlog_each_device_is_shown_as_it_is():
    """An alarm that an old value raised must not stand until the device has news."""
    async with open_gateway_without_link() as gateway, gateway.charger("CP-1"):
        await publish(gateway.running.bus, 1, 5 * FEW)
        gateway.thingsboard.up = True
        await wait_until(lambda: len(numbers(gateway.thingsboard)) >= 5 * FEW)
        count = len(gateway.thingsboard.rows("CP-1"))
        await trio.sleep(60)
        later = gateway.thingsboard.rows("CP-1")[count - 1 :]
    assert {"connected": True} in [values for _, values in later]


async def test_a_restart_amid_a_backlog_goes_on_with_what_is_left():
    journal = MemoryJournal()
    async with open_gateway_without_link(
        FaultyBoard(Fate(seconds=3.0)), journal, grace_s=0
    ) as gateway:
        await publish(gateway.running.bus, 1, 9_000)
        gateway.thingsboard.up = True
        await wait_until(lambda: len(numbers(gateway.thingsboard)) > 1_000)
        await publish(gateway.running.bus, 9_001, 9_010)
        await wait_until(lambda: 9_010 in numbers(gateway.thingsboard))
        await settled()
    checkpoint = await journal.checkpoint(READER)
    assert checkpoint.seq < 9_000
    assert checkpoint.ahead
    first = numbers(gateway.thingsboard)
    async with open_gateway_without_link(journal=journal) as gateway:
        gateway.thingsboard.up = True
        await wait_until(lambda: gateway.running.delivery.tracker.count_remaining(9_010) == 0)
        second = numbers(gateway.thingsboard)
    assert {*first, *second} == {*range(1, 9_011)}
    assert len(second) < 9_000
    assert not {*range(9_001, 9_011)} & {*second}
    assert (await journal.checkpoint(READER)).ahead == ()


async def test_another_outage_amid_a_backlog_leaves_two_and_the_older_goes_first():
    async with open_gateway_without_link(FaultyBoard(Fate(seconds=3.0))) as gateway:
        bus, thingsboard = gateway.running.bus, gateway.thingsboard
        await publish(bus, 1, 5_000)
        thingsboard.up = True
        await wait_until(lambda: len(numbers(thingsboard)) > 1_000)
        await publish(bus, 5_001, 5_010)
        await wait_until(lambda: 5_010 in numbers(thingsboard))
        await settled()
        thingsboard.up = False
        thingsboard.cut()
        await publish(bus, 5_011, 9_000)
        links = thingsboard.links
        thingsboard.up = True
        await wait_until(lambda: thingsboard.links > links)
        await publish(bus, 9_001, 9_010)
        await wait_until(lambda: {*range(1, 9_011)} <= {*numbers(thingsboard)})
        again = [
            int(row["values"]["firmware_status"][2:])
            for topic, body in thingsboard.by_link[-1]
            if topic.endswith("telemetry")
            for row in body.get("CP-1", ())
            if "firmware_status" in row["values"]
        ]
    old = [n for n in again if n <= 9_000]
    assert old == sorted(old)
    assert not {*range(5_001, 5_011)} & {*old}
    assert again.index(9_010) < again.index(9_000)


async def test_no_link_no_memory():
    """What comes while ThingsBoard is away is in the journal, and nowhere else."""
    async with open_gateway() as gateway:
        await settled()
        gateway.thingsboard.up = False
        gateway.thingsboard.cut()
        await settled()
        await publish(gateway.running.bus, 1, 1_000)
        (outbox,) = [
            view
            for view in gateway.running.bus._subscriptions
            if view._overflow.name == "REREAD" and len(view._wanted) == 1
        ]
        assert outbox._inbox.statistics().current_buffer_used == 0


# --- any misfortune ------------------------------------------------------------------------------

_HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 2)),
        st.tuples(st.just("many"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["cut", "down", "up", "hold", "release", "restart"]), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.06, 1.0, 25.0])),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(_HAPPENINGS, st.booleans())
def test_whatever_happens_all_is_told_and_the_latest_is_the_newest(happenings, batch_devices):
    """New values overtake any backlog of more than three entries here."""
    trio.run(_live_through, happenings, batch_devices, clock=MockClock(autojump_threshold=0))


async def _live_through(happenings, batch_devices) -> None:
    journal, thingsboard = MemoryJournal(), FakeThingsBoard()
    northbound = NorthboundSettings(batch_devices=batch_devices, max_in_order=3, grace_s=0)
    published: dict[str, list[int]] = {}
    count = 0
    left = [*happenings, ("end", 0)]
    while left:
        bus = EventBus(journal, Fleet())
        async with open_publisher(
            thingsboard.open_link, bus, FakeCommandRunner().carry_out, now, northbound
        ) as statistics:
            while left:
                what, how = left.pop(0)
                if what == "restart":
                    break
                for _ in range({"publish": 1, "many": 20}.get(what, 0)):
                    count += 1
                    published.setdefault(f"CP-{how}", []).append(count)
                    await bus.publish(numbered(count, f"CP-{how}"))
                if what == "wait":
                    await trio.sleep(how)
                elif what == "cut" and thingsboard.links:
                    thingsboard.cut()
                elif what == "down":
                    thingsboard.up = False
                    thingsboard.held.clear()
                    thingsboard.cut()
                elif what in ("up", "end"):
                    thingsboard.up = True
                elif what == "hold":
                    thingsboard.holding = True
                if what in ("release", "end"):
                    thingsboard.release()
                if what == "end":
                    await trio.sleep(300)
                    assert statistics.connected
                    assert statistics.delivered_seq == len(journal._entries)
    for name, expected in published.items():
        received = numbers(thingsboard, name)
        assert {*received} == {*expected}
        assert thingsboard.latest(name)["firmware_status"] == f"S-{expected[-1]}"
    assert_announced_first(thingsboard)
