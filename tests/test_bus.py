"""The bus under any interleaving of a fast publisher and a slow subscriber."""

from __future__ import annotations

from itertools import cycle

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.bus import EventBus, Overflow
from gateway.domain.events import ChargePointBooted, ChargePointDisconnected
from gateway.domain.fleet import Fleet
from tests.memory_journal import MemoryJournal

from .fakes import EPOCH


def boot(n):
    return ChargePointBooted(charge_point_id=str(n), received_at=EPOCH)


def left():
    return ChargePointDisconnected(charge_point_id="x", received_at=EPOCH, reason="r")


class SlowJournal(MemoryJournal):
    """Takes `delay` seconds around every append and read, as a disk does."""

    def __init__(self, delays):
        super().__init__()
        self._delays = cycle(delays)

    async def append(self, *events, checkpoint=None):
        entries = await super().append(*events, checkpoint=checkpoint)
        await trio.sleep(next(self._delays))
        return entries

    async def read(self, *, after, limit):
        page = await super().read(after=after, limit=limit)
        await trio.sleep(next(self._delays))
        return page


@given(
    publishers=st.lists(st.lists(st.integers(0, 3), max_size=60), min_size=1, max_size=3),
    pace=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    delays=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    capacity=st.integers(0, 5),
    before=st.integers(0, 130),
)
@settings(max_examples=200, deadline=None)
def test_reread_misses_nothing_and_repeats_nothing(publishers, pace, delays, capacity, before):
    """Whatever the pauses of publishers, subscriber and disk."""

    async def publish(bus, name, pauses):
        for n, pause in enumerate(pauses):
            await bus.publish(boot(f"{name}-{n}"), left())
            await trio.sleep(pause)

    async def subscriber(subscription, received):
        rhythm = cycle(pace)
        async for entry in subscription:
            received.append(entry)
            await trio.sleep(next(rhythm))

    async def main():
        bus = EventBus(SlowJournal(delays), Fleet())
        await bus.publish(*map(boot, range(before)))
        received = []
        async with trio.open_nursery() as listening:
            with bus.subscribe(
                ChargePointBooted, overflow=Overflow.REREAD, capacity=capacity
            ) as subscription:
                listening.start_soon(subscriber, subscription, received)
                async with trio.open_nursery() as publishing:
                    for name, pauses in enumerate(publishers):
                        publishing.start_soon(publish, bus, name, pauses)
        everything = await bus.journal.read(after=0, limit=10_000)
        assert received == [e for e in everything if isinstance(e.event, ChargePointBooted)]

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_forget_keeps_the_newest_and_counts_the_rest():
    bus = EventBus(MemoryJournal(), Fleet())
    with bus.subscribe(overflow=Overflow.DROP_OLDEST, capacity=2) as subscription:
        await bus.publish(*map(boot, range(5)))
    assert [entry.event.charge_point_id async for entry in subscription] == ["3", "4"]
    assert subscription.dropped == 3
