"""The outbox: in which order entries are published, and how far that has come.

As long as little is waiting, entries go in the order of the journal.  After an outage of hours
operators need to see what is, and cannot wait for all that was.  So then new entries overtake: the
gateway publishes what comes from now on, and beside it the backlog, oldest first, in small batches
that give way to new ones.  This mixes nothing up:
1. Each row keeps its own time, and ThingsBoard's latest value only moves forward in time
   (thingsboard-contract section 6): an old value that arrives late changes the past only.
2. Attributes have no time, so an old one would replace a newer one.  Of a backlog the gateway does
   not send attributes as they were, but as they are now.
3. How far publishing has come is no longer one number.  The checkpoint is a low-water mark and the
   runs of entries beyond it that are done (see `checkpoint`); a restart goes on with what is left.
4. An alarm that an old value raised in ThingsBoard must not stand: after a backlog every device
   sends a sign of life.

An example: entries up to 100 are published, the link is gone for hours, and 101 to 9,000 wait when
it returns.  These are more than max_in_order, so entry 9,001 is published at once.  When 9,001 and
the first batch of the backlog, 101 to 1,100, are acknowledged, the checkpoint is 1,100, and ahead
of it the run 9,001 to 9,001.  If the gateway restarts now, it publishes 1,101 to 9,000 and what
comes from 9,002 on.  In the end the runs meet, and the checkpoint is one number again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from ..bus import Entry, EventBus, Subscription
from ..journal import Checkpoint
from .checkpoint import CheckpointTracker
from .delivery import Batch, TelemetrySender
from .device_sessions import DeviceSessions
from .poison import EntryRows
from .telemetry import TelemetryRow

READER = "thingsboard"
_MAX_BATCH = 1_000  # entries packed together
_ENTRIES_PER_TURN = 50  # entries translated without letting other tasks run
# Seconds in which new entries gather: a sample and what it costs, which the accountant publishes a
# moment later, are then one object in one message, and each object costs ThingsBoard.
_BATCH_INTERVAL = 0.05
_BACKLOG_PAUSE = 0.05  # seconds between two batches of a backlog, so that others have their turn
_MAX_BATCHES = 20  # batches of new entries on their way
_MAX_BACKLOG_BATCHES = 2  # and of a backlog, so that what is new never waits long behind it

log = structlog.get_logger(__name__)

Translate = Callable[[Entry], Sequence[TelemetryRow]]


class Outbox:
    """Owns: the checkpoint in the journal.

    entries: a subscription to all events, which only the outbox reads.
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
        """There is no link: new entries are in the journal, and memory need not hold them."""
        self._entries.rewind(self._tracker.seq)

    async def publish_all(
        self, sender: TelemetrySender, device_sessions: DeviceSessions, newest_seq: int
    ) -> None:
        """Publish until the subscription ends; returns when all of it is acknowledged.

        Messages leave while earlier ones are not acknowledged yet; the checkpoint moves when
        they are.  So the rate is bounded by the server, and not by the way to it and back.
        newest_seq: the entry up to which all that is not published yet is a backlog.
        Raises LinkLost.
        """
        overtake = (
            self._max_in_order is not None
            and self._tracker.count_remaining(newest_seq) > self._max_in_order
        )
        done = newest_seq if overtake else self._tracker.seq
        self._entries.rewind(done)
        async with trio.open_nursery() as nursery:
            if overtake:
                nursery.start_soon(self._publish_backlog, sender, device_sessions, newest_seq)
            async with self._settling(sender, _MAX_BATCHES) as sent:
                while entries := await self._entries.take_batch(_MAX_BATCH, _BATCH_INTERVAL):
                    span = done + 1, entries[-1].seq
                    await sent.send(await sender.send_batch(span, await self._rows(entries)))
                    done = entries[-1].seq

    async def _publish_backlog(
        self, sender: TelemetrySender, device_sessions: DeviceSessions, newest_seq: int
    ) -> None:
        log.info(
            "publishing a backlog beside new values",
            entries=self._tracker.count_remaining(newest_seq),
        )
        for first, last in self._tracker.remaining(newest_seq):
            done = first - 1
            async with self._settling(sender, _MAX_BACKLOG_BATCHES) as sent:
                while entries := await self._bus.journal.read(
                    after=done, limit=min(_MAX_BATCH, last - done)
                ):
                    span = done + 1, entries[-1].seq
                    rows = await self._rows(entries)
                    await sent.send(await sender.send_batch(span, rows, backlog=True))
                    done = entries[-1].seq
                    await trio.sleep(_BACKLOG_PAUSE)
        # The last values sent of each device were old ones.
        device_sessions.keep_alive_soon()
        log.info("backlog published")

    @asynccontextmanager
    async def _settling(
        self, sender: TelemetrySender, max_batches: int
    ) -> AsyncIterator[trio.MemorySendChannel[Batch]]:
        """A channel that takes batches on their way, at most `max_batches`, and settles each.

        The block is left once all are settled.
        """
        send_sent, sent = trio.open_memory_channel[Batch](max_batches)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._settle, sender, sent)
            async with send_sent:
                yield send_sent

    async def _settle(
        self, sender: TelemetrySender, sent: trio.MemoryReceiveChannel[Batch]
    ) -> None:
        """Move the checkpoint over what is acknowledged; what is refused for good becomes a dead
        letter.

        What is deferred stays undone behind it, and is sent on the next link.
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

    async def _rows(self, entries: Sequence[Entry]) -> EntryRows:
        entry_rows: EntryRows = []
        for count, entry in enumerate(entries, 1):
            if not self._tracker.is_done(entry.seq):
                entry_rows.extend([(entry.seq, row) for row in self._rows_of(entry)])
            if count % _ENTRIES_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
        return entry_rows

    def _rows_of(self, entry: Entry) -> Sequence[TelemetryRow]:
        try:
            return self._translate(entry)
        except Exception:
            # It is pure, so nothing is half published, and publishing must not stop charging.
            log.exception("event not published", seq=entry.seq)
            return ()
