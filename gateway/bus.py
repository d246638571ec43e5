"""The event bus: what the journal has made durable goes to every subscriber.

Publishing waits for the disk and for nothing else: the bus never waits for a subscriber.  Each has
a memory channel of a fixed capacity, and it chooses once what happens when the channel is full, by
its Overflow:
* REREAD: the bus stops offering entries to it.  The subscriber reads the journal instead, page by
  page, from the last entry that it was given.  When a page is not full it has caught up, and the
  channel serves it again.  It gets every entry once and in order, however slow it is, and needs no
  more memory than the channel and one page.
* DROP_OLDEST: the oldest unread entry makes room for the new one, and is counted as dropped.  This
  is for a reader that needs what is now, and not what was.
There is no third choice, to wait: the slowest reader would then hold up a charge point's socket,
and a reader that also publishes, as the accountant does, could wait for itself.

Being behind is the only state besides being up to date.  REREAD starts behind, at the reader's
checkpoint; so a restart, an outage and a lag are caught up with by the same code.

An example of REREAD with a capacity of two: a subscriber was given entry 7 and is busy while 8, 9,
10 and 11 become durable.  8 and 9 wait in its channel.  10 finds no room: the subscriber is now
behind, and 11 is not even offered.  When it asks for more, it is marked as up to date and reads the
journal after 7: 8, 9, 10 and 11.  Then it finds 8 and 9 in the channel, and leaves them out, since
they are not newer than what it was given.  The mark is set before the read: entry 12, which becomes
durable during the read, may be missing in the page, but it is offered.  Here the channel is still
full, so the subscriber is behind again, and reads the journal after 11.
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
        """Publish without waiting, for what no caller was promised.  Raises JournalError."""
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
