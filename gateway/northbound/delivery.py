"""Delivery over one link: rows are packed and sent, and what ThingsBoard did not take is sent again
as `delivery_policy` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import structlog

from ..domain.fleet import Fleet
from ..journal import DeadLetter, Span
from .batching import TelemetryMessage, pack, topic_of
from .deferrals import DeferralCounts
from .delivery_policy import Decision, DeliveryOutcome, Evidence, decide_entry
from .device_sessions import DeviceSessions
from .poison import EntryRows, SentMessage, WatchedLink
from .rate_limits import RateLimiter
from .statistics import DeliveryStatistics
from .telemetry import TelemetryRow, attributes

log = structlog.get_logger(__name__)


@attrs.frozen
class Batch:
    """Entries on their way.

    span: the first and the last.  entry_rows: their rows.  sent: the same, packed.  withheld: those
    that are not sent, for their devices are not admitted, or they were deferred too often.
    attributes_due: devices whose client attributes are to be sent as they are now, and for which
        entry.
    """

    span: Span
    entry_rows: EntryRows
    sent: list[SentMessage]
    withheld: EntryRows
    attributes_due: dict[str, int] = attrs.field(factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.entry_rows and not self.attributes_due


@attrs.frozen
class BatchOutcome:
    """Which entries of a batch became dead letters, and which are deferred; the rest is
    delivered.
    """

    dead_letters: tuple[DeadLetter, ...] = ()
    deferred: frozenset[int] = frozenset()


class TelemetrySender:
    """Sends rows over one link, and settles what becomes of their entries."""

    def __init__(
        self,
        link: WatchedLink,
        device_sessions: DeviceSessions,
        fleet: Fleet,
        statistics: DeliveryStatistics,
        rate_limiter: RateLimiter,
        deferral_counts: DeferralCounts,
        *,
        batch_devices: bool,
    ) -> None:
        self._link = link
        self._device_sessions = device_sessions
        self._fleet = fleet
        self._statistics = statistics
        self._rate_limiter = rate_limiter
        self._deferral_counts = deferral_counts
        self._batch_devices = batch_devices

    async def send_batch(
        self, span: Span, entry_rows: EntryRows, *, backlog: bool = False
    ) -> Batch:
        """Send all, in order, as far as ThingsBoard takes it.  Raises LinkLost.

        backlog: it belongs to a backlog, and gives way to what is new.  Attributes have no time, so
            that old ones would replace new ones: of those, the present values are sent instead.
        """
        tracker = self._statistics.tracker
        with_time: EntryRows = []
        attributes_due: dict[str, int] = {}
        for seq, row in entry_rows:
            if row.ts is None and (backlog or tracker.is_overtaken(seq)):
                attributes_due[row.device] = seq
            else:
                with_time.append((seq, row))
        deliverable, withheld = await self._split_deliverable(with_time)
        sent = []
        for message in self._messages_of(deliverable):
            sent.append(  # noqa: PERF401  a comprehension is one more frame before Python 3.12
                await self._link.send_message(message, urgent=not backlog)
            )
        self._device_sessions.note_sent(row.device for _, row in with_time)
        return Batch(span, with_time, sent, withheld, attributes_due)

    async def send_unjournaled(self, rows: Sequence[TelemetryRow]) -> None:
        """Send rows that are no entries of the journal, when nothing else waits; returns when they
        are acknowledged.  Raises LinkLost.

        What is refused is not sent again.
        """
        deliverable, _ = await self._split_deliverable([(0, row) for row in rows])
        messages = self._messages_of(deliverable)
        sent = [await self._link.send_message(message, urgent=False) for message in messages]
        await self._link.undelivered_of(sent)

    async def _split_deliverable(self, entry_rows: EntryRows) -> tuple[EntryRows, EntryRows]:
        """The rows that can be sent once their devices are announced, and those that are withheld:
        the device is not admitted, or the entry was deferred too often.
        """
        await self._device_sessions.announce(dict.fromkeys(row.device for _, row in entry_rows))
        admitted, is_exhausted = self._device_sessions.admitted, self._deferral_counts.is_exhausted
        deliverable: EntryRows = []
        withheld: EntryRows = []
        for seq, row in entry_rows:
            may_be_sent = row.device in admitted and not is_exhausted(seq)
            (deliverable if may_be_sent else withheld).append((seq, row))
        return deliverable, withheld

    def _messages_of(
        self, entry_rows: EntryRows, *, batch_devices: bool | None = None
    ) -> list[TelemetryMessage]:
        """The rows that are not delivered yet, packed.  batch_devices: None for as configured."""
        detector = self._link.detector
        return [
            message
            for together in detector.split(detector.undelivered(entry_rows))
            for message in pack(
                together,
                batch_devices=self._batch_devices if batch_devices is None else batch_devices,
                max_bytes=self._rate_limiter.max_bytes,
                max_values=self._rate_limiter.max_values,
            )
        ]

    async def settle(self, batch: Batch) -> BatchOutcome:
        """Returns once all is delivered, deferred or a dead letter.  Raises LinkLost."""
        undelivered = await self._link.undelivered_of(batch.sent)
        rows = [
            *_rows_of(batch.entry_rows, undelivered),
            *batch.withheld,
            *await self._send_attributes(batch.attributes_due),
        ]
        dead_letters: list[DeadLetter] = []
        deferred: set[int] = set()
        for seq in dict.fromkeys(seq for seq, _ in rows):
            decision = await self._deliver_alone([item for item in rows if item[0] == seq])
            if decision.outcome is DeliveryOutcome.DEFER:
                deferred.add(seq)
            elif decision.outcome is DeliveryOutcome.DEAD_LETTER:
                log.warning("entry became a dead letter", seq=seq, why=decision.reason)
                self._statistics.dead_letters += 1
                dead_letters.append(DeadLetter(seq, decision.reason))
        return BatchOutcome(tuple(dead_letters), frozenset(deferred))

    async def _send_attributes(self, attributes_due: Mapping[str, int]) -> EntryRows:
        """Send client attributes as they are now, and again where they change meanwhile.

        Returns what was not delivered.
        """
        sent_rows: dict[str, TelemetryRow] = {}
        undelivered: dict[str, tuple[int, TelemetryRow]] = {}
        while changed := [
            (seq, row)
            for device, seq in attributes_due.items()
            if (row := attributes(device, self._fleet.state_of(device))).values
            and row != sent_rows.get(device)
        ]:
            deliverable, withheld = await self._split_deliverable(changed)
            messages = self._messages_of(deliverable)
            sent = [await self._link.send_message(message) for message in messages]
            rows = _rows_of(changed, await self._link.undelivered_of(sent))
            for _, row in changed:
                sent_rows[row.device] = row
                undelivered.pop(row.device, None)
            undelivered |= {row.device: (seq, row) for seq, row in (*rows, *withheld)}
        return list(undelivered.values())

    async def _deliver_alone(self, entry_rows: EntryRows) -> Decision:
        """Send one entry by itself until the policy decides on something else than RETRY_ALONE.

        Returns what that is, and notes a deferral.  Raises LinkLost.
        """
        seq = entry_rows[0][0]
        deferrals = self._deferral_counts.times(seq)
        decision = decide_entry([Evidence(deferrals=deferrals)])
        if decision.outcome is not DeliveryOutcome.RETRY_ALONE:
            return decision
        admitted = self._device_sessions.admitted
        messages = self._messages_of(
            [item for item in entry_rows if item[1].device in admitted], batch_devices=False
        )
        refusals = 0
        while decision.outcome is DeliveryOutcome.RETRY_ALONE:
            refusals += 1
            sent = [await self._link.send_message(message) for message in messages]
            undelivered = await self._link.undelivered_of(sent)
            rejected = [row.device for _, row in entry_rows if row.device not in admitted]
            decision = decide_entry(
                [
                    *(
                        attrs.evolve(one.evidence, refusals=refusals, deferrals=deferrals)
                        for one in undelivered
                    ),
                    *(
                        Evidence(admitted=False, deferrals=self._deferral_counts.times(device))
                        for device in rejected
                    ),
                ]
            )
            messages = [one.message for one in undelivered]
        if decision.outcome is DeliveryOutcome.DEFER:
            for key in (*rejected, *([seq] if undelivered else [])):
                self._device_sessions.deferrals.add(key)
        return decision


def _rows_of(entry_rows: EntryRows, messages: Iterable[SentMessage]) -> EntryRows:
    """The rows in these messages.

    What was accepted is not sent again: of attributes, which have no time, the last one stands.
    """
    concerned = {
        (one.message.publication.topic, seq) for one in messages for seq in one.message.seqs
    }
    return [(seq, row) for seq, row in entry_rows if (topic_of(row), seq) in concerned]
