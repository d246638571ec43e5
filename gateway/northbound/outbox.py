"""The outbox: which entries are published in which order, and how far that has come.

In order, as long as little is waiting.  After an outage of hours operators need to see what is,
and cannot wait for all that was: then new values go first, and the backlog beside them, oldest
first.  ThingsBoard's latest value stays right, for that only moves forward in time
(thingsboard-contract section 6); attributes, which have no time, are sent as they are now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
import trio

from ..bus import Entry, EventBus, Subscription
from ..journal import Checkpoint
from .checkpoint import CheckpointTracker
from .delivery import Batch, TelemetrySender
from .telemetry import TelemetryRow

READER = "thingsboard"
_MAX_BATCH = 1_000  # entries packed together
_ROWS_PER_CHECKPOINT = 50  # entries translated without letting others run
# Seconds in which new entries gather: a sample and what it costs, which the accountant says a
# moment later, are then one object in one message, and each object costs ThingsBoard.
_BATCH_INTERVAL = 0.05
_BACKLOG_PAUSE = 0.05  # seconds between two batches of a backlog, so that others have their turn
_MAX_BATCHES = 20  # batches of new entries on their way
_MAX_BACKLOG_BATCHES = 2  # and of a backlog, so that what is new never waits long behind it

log = structlog.get_logger(__name__)

Translate = Callable[[Entry], Sequence[TelemetryRow]]
ReadBatch = Callable[[int], Awaitable[Sequence[Entry]]]


class Outbox:
    """Owns: the checkpoint in the journal.

    entries: a view of all that is published, read by nobody else.
    max_in_order: how many entries may be published before those that come now; a longer backlog is
        overtaken.  None: everything is published in order, however long it takes.
    """

    def __init__(
        self,
        bus: EventBus,
        entries: Subscription,
        tracker: CheckpointTracker,
        translate: Translate,
        max_in_order: int | None,
    ) -> None:
        self._bus = bus
        self._entries = entries
        self._tracker = tracker
        self._translate = translate
        self._max_in_order = max_in_order

    def disconnected(self) -> None:
        """There is no connection: new entries are in the journal, and memory need not hold them."""
        self._entries.rewind(self._tracker.seq)

    async def publish_all(self, sender: TelemetrySender, newest_seq: int) -> None:
        """Publish until the subscription ends; returns when all of it is acknowledged.

        newest_seq: the entry up to which all that is not published yet is a backlog.
        """
        overtake = (
            self._max_in_order is not None
            and self._tracker.count_remaining(newest_seq) > self._max_in_order
        )
        start = newest_seq if overtake else self._tracker.seq
        self._entries.rewind(start)
        async with trio.open_nursery() as nursery:
            if overtake:
                nursery.start_soon(self._publish_backlog, sender, newest_seq)
            await self._publish(
                sender, partial(self._entries.take_batch, within=_BATCH_INTERVAL), start + 1
            )

    async def _publish_backlog(self, sender: TelemetrySender, newest_seq: int) -> None:
        log.info(
            "publishing a backlog beside new values",
            entries=self._tracker.count_remaining(newest_seq),
        )
        for first, last in self._tracker.remaining(newest_seq):
            await self._publish(sender, self._journal_range(first, last), first, backlog=True)
        # The last values sent of each device were old ones.
        sender.keep_alive_soon()
        log.info("backlog published")

    def _journal_range(self, first: int, last: int) -> ReadBatch:
        """The entries from `first` to `last`, from the journal."""
        after = first - 1

        async def read_batch(limit: int) -> Sequence[Entry]:
            nonlocal after
            page = await self._bus.journal.read(after=after, limit=min(limit, last - after))
            after = page[-1].seq if page else last
            return page

        return read_batch

    async def _publish(
        self, sender: TelemetrySender, read_batch: ReadBatch, first: int, *, backlog: bool = False
    ) -> None:
        """Publish what is read, which begins with entry `first`, until there is no more.

        Messages leave while earlier ones are not acknowledged yet; the checkpoint moves when
        they are.  So the rate is bounded by the server, and not by the way to it and back.
        """
        max_batches = _MAX_BACKLOG_BATCHES if backlog else _MAX_BATCHES
        send_sent, sent = trio.open_memory_channel[Batch](max_batches)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._settle, sender, sent)
            async with send_sent:
                while entries := await read_batch(_MAX_BATCH):
                    last = entries[-1].seq
                    rows = await self._rows(entries)
                    await send_sent.send(
                        await sender.send_batch((first, last), rows, backlog=backlog)
                    )
                    first = last + 1
                    if backlog:
                        await trio.sleep(_BACKLOG_PAUSE)

    async def _settle(
        self, sender: TelemetrySender, sent: trio.MemoryReceiveChannel[Batch]
    ) -> None:
        """Move the checkpoint over what is acknowledged; what is refused for good becomes a dead
        letter.

        What is deferred stays undone behind it, and is sent on the next connection.
        """
        async for batch in sent:
            settled = await sender.settle(batch)
            tracker = self._tracker
            tracker.mark_done_except(*batch.span, settled.deferred)
            if (
                not batch.is_empty
            ):  # a step past entries without rows is saved with the next that has some
                checkpoint = Checkpoint(READER, tracker.seq, tracker.ahead, settled.dead_letters)
                self._bus.publish_soon(checkpoint=checkpoint)

    async def _rows(self, entries: Sequence[Entry]) -> list[tuple[int, TelemetryRow]]:
        entry_rows: list[tuple[int, TelemetryRow]] = []
        for count, entry in enumerate(entries, 1):
            if not self._tracker.is_done(entry.seq):
                entry_rows.extend([(entry.seq, row) for row in self._rows_of(entry)])
            if count % _ROWS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        return entry_rows

    def _rows_of(self, entry: Entry) -> Sequence[TelemetryRow]:
        try:
            return self._translate(entry)
        except Exception:
            # It is pure, so nothing is half published, and publishing must not stop charging.
            log.exception("event not published", seq=entry.seq)
            return ()
