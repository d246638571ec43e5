"""The event bus: what the journal has made durable goes to every subscriber.

Publishing waits for the disk and for nothing else.  A subscriber that falls behind is
not waited for; what then happens is its own choice, its Overflow.  There is no third choice
that holds the publisher up: the slowest reader would hold a charge point's socket, and a
reader that also publishes could wait for itself.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import trio

from .domain.events import Event
from .domain.fleet import Fleet
from .journal import Checkpoint, Entry, Journal, JournalError
from .observability.lag import LagClock

__all__ = ["Entry", "EventBus", "JournalError", "Overflow", "Subscription"]

_PAGE = 2_000  # entries read from the journal at once


class Overflow(enum.Enum):
    """What a subscriber gets for being slow."""

    REREAD = "every entry, in order: what memory has no room for comes from the journal"
    DROP_OLDEST = "the newest entries: the oldest unread one makes room"


class Subscription:
    """One subscriber's view.  Read it from one task only.

    Its laws: every wanted entry after its checkpoint is delivered once, in journal order (REREAD);
    restart, outage and lag are one state, being behind the journal.
    """

    def __init__(
        self,
        wanted: tuple[type[Event], ...],
        journal: Journal,
        overflow: Overflow,
        after: int,
        capacity: int,
    ) -> None:
        self._wanted = wanted
        self._journal = journal
        self._overflow = overflow
        self._last = after
        self._page: deque[Entry] = deque()
        self._send_new, self._inbox = trio.open_memory_channel[Entry](capacity)
        self._behind = overflow is Overflow.REREAD  # a start is a lag
        self.dropped = 0

    @property
    def delivered_seq(self) -> int:
        """The sequence number up to which everything was delivered or passed over."""
        return self._last

    def offer(self, entry: Entry) -> None:
        if self._behind or not isinstance(entry.event, self._wanted):
            return  # a subscriber that is behind reads it from the journal
        try:
            self._send_new.send_nowait(entry)
        except trio.WouldBlock:
            if self._overflow is Overflow.REREAD:
                self._behind = True
            else:
                self._inbox.receive_nowait()
                self._send_new.send_nowait(entry)
                self.dropped += 1

    def rewind(self, seq: int) -> None:
        """Deliver what follows `seq`, again or for the first time; memory holds nothing of it."""
        self._last = seq
        self._page.clear()
        self._behind = True
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._inbox.receive_nowait()

    def close(self) -> None:
        """No more entries will be offered; the iteration ends once all are delivered."""
        self._send_new.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Entry:
        while True:
            entry = self._next_ready()
            if entry is None and self._behind:
                await self._catch_up()
            elif entry is None:
                try:
                    entry = await self._inbox.receive()
                except trio.EndOfChannel:
                    raise StopAsyncIteration from None
                entry = self._unless_delivered(entry)
            if entry is not None:
                return entry

    async def take_batch(self, limit: int, within: float = 0.0) -> list[Entry]:
        """The entries that wait: at least one, at most `limit`; none once the iteration ends.

        within: seconds to wait, after the first entry, for others to come.
        """
        entries: list[Entry] = []
        async for entry in self:
            entries.append(entry)
            break
        if entries and within:
            await trio.sleep(within)
        while entries and len(entries) < limit and (more := self._next_ready()) is not None:
            entries.append(more)
        return entries

    def _next_ready(self) -> Entry | None:
        """The next entry that needs no waiting."""
        while self._page:
            if (entry := self._unless_delivered(self._page.popleft())) is not None:
                return entry
        while not self._behind:
            try:
                fresh = self._inbox.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return None
            if (entry := self._unless_delivered(fresh)) is not None:
                return entry
        return None

    def _unless_delivered(self, entry: Entry) -> Entry | None:
        if entry.seq <= self._last:  # the journal gave it already
            return None
        self._last = entry.seq
        return entry if isinstance(entry.event, self._wanted) else None

    async def _catch_up(self) -> None:
        self._behind = False  # before the read: what overflows meanwhile must raise it again
        try:
            page = await self._journal.read(after=self._last, limit=_PAGE)
        except BaseException:
            self._behind = True
            raise
        self._page.extend(page)
        self._behind |= len(page) == _PAGE


class EventBus:
    """Owns: the subscriptions, the fleet as the newest entry left it, and when entries came."""

    def __init__(self, journal: Journal, fleet: Fleet) -> None:
        self.journal = journal
        self.fleet = fleet
        self.lag_clock = LagClock()
        self._subscriptions: list[Subscription] = []
        journal.on_durable = self._fan_out

    async def publish(
        self, *events: Event, checkpoint: Checkpoint | None = None
    ) -> tuple[Entry, ...]:
        """Make events and a reader's checkpoint durable, then pass them to every subscriber.

        Returns when they are durable, as the journal completed them.  Raises JournalError when
        they are not.  A cancelled publisher's events are recorded all the same.
        """
        return await self.journal.append(*events, checkpoint=checkpoint)

    def publish_soon(self, *events: Event, checkpoint: Checkpoint | None = None) -> None:
        """Publish without waiting, for what need not be durable before an answer.

        Raises JournalError.
        """
        self.journal.append_soon(*events, checkpoint=checkpoint)

    def _fan_out(self, entries: Sequence[Entry]) -> None:
        # Called in the order of the journal, which owns it: there is no lock here.
        if entries:
            self.lag_clock.mark(entries[0].seq, trio.current_time())
        for entry in entries:
            self.fleet.apply(entry.event)
            for subscription in self._subscriptions:
                subscription.offer(entry)

    @contextmanager
    def subscribe(
        self, *wanted: type[Event], overflow: Overflow, after: int = 0, capacity: int = 64
    ) -> Iterator[Subscription]:
        """A view of all entries beyond `after` (REREAD), or of those from now on (DROP_OLDEST).

        capacity: entries kept in memory for a reader that is slow.
        On leaving the block, the iteration ends once what was offered is delivered.
        """
        subscription = Subscription(wanted or (Event,), self.journal, overflow, after, capacity)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            subscription.close()
