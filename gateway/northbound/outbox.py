"""What ThingsBoard is to be told, in which order, and how far it has been told.

In order, as long as little is waiting.  After an outage of hours operators need to see what is,
and cannot wait for all that was: then new values go first, and the backlog beside them, oldest
first.  ThingsBoard's latest value stays right, for that only moves forward in time
(thingsboard-contract section 6); attributes, which have no time, are told as they are now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
import trio

from ..bus import Entry, EventBus, Subscription
from ..journal import Bookmark
from .checkpoint import Place
from .delivery import Batch, Teller
from .telemetry import Row

READER = "thingsboard"
_MOST_AT_ONCE = 1_000  # entries packed together
_AT_A_STRETCH = 50  # entries translated without letting others run
# Seconds in which new entries gather: a sample and what it costs, which the accountant says a
# moment later, are then one object in one message, and each object costs ThingsBoard.
_GATHER = 0.05
_REST = 0.05  # seconds between two batches of a backlog, so that others have their turn
_MOST_BATCHES = 20  # batches of new entries on their way
_MOST_OLD_BATCHES = 2  # and of a backlog, so that what is new never waits long behind it

log = structlog.get_logger(__name__)

Translate = Callable[[Entry], Sequence[Row]]
Gathered = Callable[[int], Awaitable[Sequence[Entry]]]


class Outbox:
    """Owns: the place in the journal.

    entries: a view of all that is published, read by nobody else.
    in_order: how many entries may be told before those that come now; a longer backlog is
        overtaken.  None: everything is told in order, however long it takes.
    """

    def __init__(
        self,
        bus: EventBus,
        entries: Subscription,
        place: Place,
        translate: Translate,
        in_order: int | None,
    ) -> None:
        self._bus = bus
        self._entries = entries
        self._place = place
        self._translate = translate
        self._in_order = in_order

    def rest(self) -> None:
        """There is no link: what comes is in the journal, and memory need not hold it."""
        self._entries.rewind(self._place.seq)

    async def tell(self, teller: Teller, newest: int) -> None:
        """Tell until nothing more will be published; returns when all of it is acknowledged.

        newest: the entry up to which all that is not told yet is a backlog.
        """
        overtake = self._in_order is not None and self._place.behind(newest) > self._in_order
        start = newest if overtake else self._place.seq
        self._entries.rewind(start)
        async with trio.open_nursery() as nursery:
            if overtake:
                nursery.start_soon(self._tell_backlog, teller, newest)
            await self._tell(teller, partial(self._entries.gathered, within=_GATHER), start + 1)

    async def _tell_backlog(self, teller: Teller, newest: int) -> None:
        log.info("telling a backlog beside new values", entries=self._place.behind(newest))
        for first, last in self._place.left(newest):
            await self._tell(teller, self._stretch(first, last), first, old=True)
        # What each device was told last was not what is true of it now.
        teller.show_again()
        log.info("backlog told")

    def _stretch(self, first: int, last: int) -> Gathered:
        """The entries from `first` to `last`, from the journal."""
        after = first - 1

        async def gathered(most: int) -> Sequence[Entry]:
            nonlocal after
            page = await self._bus.journal.read(after=after, limit=min(most, last - after))
            after = page[-1].seq if page else last
            return page

        return gathered

    async def _tell(
        self, teller: Teller, gathered: Gathered, first: int, *, old: bool = False
    ) -> None:
        """Tell what is gathered, which begins with entry `first`, until there is no more.

        Messages leave while earlier ones are not acknowledged yet; the place moves when they
        are.  So what is told is bounded by the server, and not by the way to it and back.
        """
        most = _MOST_OLD_BATCHES if old else _MOST_BATCHES
        on_their_way, told = trio.open_memory_channel[Batch](most)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._settle, teller, told)
            async with on_their_way:
                while entries := await gathered(_MOST_AT_ONCE):
                    last = entries[-1].seq
                    rows = await self._rows(entries)
                    await on_their_way.send(await teller.send((first, last), rows, old=old))
                    first = last + 1
                    if old:
                        await trio.sleep(_REST)

    async def _settle(self, teller: Teller, told: trio.MemoryReceiveChannel[Batch]) -> None:
        """Move the place over what is acknowledged, and aside what is refused.

        What is put off stays undone behind it, and is told on the next link.
        """
        async for batch in told:
            settled = await teller.settle(batch)
            place = self._place
            place.done_but(*batch.span, settled.put_off)
            if not batch.is_empty:  # a step past what nobody is told is saved with the next that is
                bookmark = Bookmark(READER, place.seq, place.ahead, settled.aside)
                self._bus.publish_soon(bookmark=bookmark)

    async def _rows(self, entries: Sequence[Entry]) -> list[tuple[int, Row]]:
        told: list[tuple[int, Row]] = []
        for count, entry in enumerate(entries, 1):
            if not self._place.has(entry.seq):
                told.extend([(entry.seq, row) for row in self._rows_of(entry)])
            if count % _AT_A_STRETCH == 0:
                await trio.lowlevel.checkpoint()
        return told

    def _rows_of(self, entry: Entry) -> Sequence[Row]:
        try:
            return self._translate(entry)
        except Exception:
            # It is pure, so nothing is half told, and telling must not stop charging.
            log.exception("event not told", seq=entry.seq)
            return ()
