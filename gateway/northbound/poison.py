"""Poison messages: which entry makes a server end the connection, found out by sending one
message at a time.

A server may end the connection at a message that it does not like, acknowledged or not.  If the
gateway sent everything again as before, that server would do so for ever, and nothing behind the
message would ever arrive.  But the end of a connection does not say which of up to fifty messages
on their way it was, nor whether it was one of them at all: a restart of the server looks the same.
So the search goes from link to link, and each link narrows it down.  `delivery_policy` decides what
the end of a link means for a message (laws 7 to 9); this module remembers it:
1. What was on its way when a link ended, or had just been acknowledged, is doubted: on the next
   link each message of a doubted entry is sent alone, with no other message on its way.
2. A message at which a link ended again makes each of its entries isolated: no two of them share a
   message.  Then what a link ends at is of one entry, and the loss counts against it.
3. What was sent alone and acknowledged is not sent again, value by value: a server that
   acknowledges and then ends the connection gets everything once, link by link.
4. A loss counts, and an isolated entry is tried again, only where the server has just acknowledged
   signs of life: while it acknowledges nothing, no entry is blamed.

An example: entries 11 to 16 are new, and the server closes the connection at entry 13.
  link 1: one message carries 11 to 16.  The link ends: 11 to 16 are doubted.
  link 2: the same message goes alone.  The link ends again: 11 to 16 are isolated.
  link 3: 11, 12 and 13 go in messages of their own, each after the PUBACK of the one before.
          11 and 12 arrive.  The link ends at 13, which is its first loss.
  links 4 and 5: 11 and 12 are left out.  The link ends at 13: its second and third loss.
  link 6: 13 is not sent any more but becomes a dead letter; 14, 15 and 16 arrive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

import attrs
import structlog
import trio

from .batching import RowPart, TelemetryMessage
from .deferrals import DeferralCounts
from .delivery_policy import (
    MAX_ATTEMPTS,
    QUOTA_EXCEEDED,
    Count,
    DeliveryOutcome,
    Evidence,
    count,
    decide,
    is_accepted,
)
from .mqtt import Delivery, Link, LinkLost, Publication, puback_codes
from .rate_limits import RateLimiter
from .statistics import DeliveryStatistics
from .telemetry import TelemetryRow

_LAST_ACKNOWLEDGED = 5  # messages before the end of a link, one of which may have been its cause
_CLOSE_WAIT_S = 0.3  # seconds in which a server that refuses and closes has closed
_REMEMBERED = 100  # messages on their way or just arrived

EntryRows = list[tuple[int, TelemetryRow]]  # rows, and the entry that each is of

log = structlog.get_logger(__name__)


class PoisonDetector:
    """Owns: which entries are doubted or isolated, over all links.  What it remembers is bounded by
    what was on its way when a link ended.
    """

    def __init__(self, rate_limiter: RateLimiter, deferral_counts: DeferralCounts) -> None:
        self.rate_limiter = rate_limiter
        self._deferral_counts = deferral_counts
        self._doubted: set[int] = set()  # entries
        self._isolated: set[int] = set()  # of which no two share a message
        self._delivered: dict[tuple[str, int | None, int], set[str]] = {}  # keys of a row
        self._losses: Counter[RowPart] = Counter()
        self._last_link: WatchedLink | None = None

    def watch_link(self, link: Link, statistics: DeliveryStatistics) -> WatchedLink:
        """A new link; what was on its way on the one before is examined."""
        if self._last_link is not None:
            self._examine(self._last_link)
        self._forget_done(statistics)
        self._last_link = WatchedLink(link, self, statistics)
        return self._last_link

    def _examine(self, link: WatchedLink) -> None:
        for seqs, evidence in link.evidence_of_end():
            match decide(evidence):
                case DeliveryOutcome.RETRY:
                    self._doubted |= seqs
                case DeliveryOutcome.RETRY_ALONE:
                    self._isolated |= seqs
            counts_as = count(evidence)
            if counts_as is not Count.NOTHING and link.sent_alone is not None:
                (seq,) = seqs
                if counts_as is Count.DEFERRAL:
                    self._deferral_counts.count(seq)
                else:
                    self._losses.update(link.sent_alone.parts)
                log.info("the link ended at a message", seq=seq)
            if evidence.code == QUOTA_EXCEEDED:
                self.rate_limiter.limit_exceeded()

    def _forget_done(self, statistics: DeliveryStatistics) -> None:
        is_done = statistics.tracker.is_done
        self._doubted = {seq for seq in self._doubted if not is_done(seq)}
        self._isolated = {seq for seq in self._isolated if not is_done(seq)}
        self._delivered = {
            row: keys for row, keys in self._delivered.items() if not is_done(row[2])
        }
        self._losses = Counter(
            {part: n for part, n in self._losses.items() if not is_done(part[2])}
        )

    def undelivered(self, entry_rows: EntryRows) -> EntryRows:
        """Without what is delivered already."""
        if not self._delivered:
            return entry_rows
        left = []
        for seq, row in entry_rows:
            delivered = self._delivered.get((row.device, row.ts, seq), ())
            values = {key: value for key, value in row.values.items() if key not in delivered}
            if values:
                left.append((seq, attrs.evolve(row, values=values)))
        return left

    def split(self, entry_rows: EntryRows) -> Iterator[EntryRows]:
        """What may share messages, in order: cut where doubted or isolated entries begin or end."""
        if not self._doubted and not self._isolated:
            yield entry_rows
            return
        for _, some in groupby(entry_rows, lambda item: self._group_of(item[0])):
            yield list(some)

    def _group_of(self, seq: int) -> int:
        """0 for none, -1 for a doubted entry, its number for one that is isolated."""
        if seq in self._isolated:
            return seq
        return -1 if seq in self._doubted else 0

    def is_doubted(self, message: TelemetryMessage) -> bool:
        return self.is_isolated(message) or not self._doubted.isdisjoint(message.seqs)

    def is_isolated(self, message: TelemetryMessage) -> bool:
        return not self._isolated.isdisjoint(message.seqs)

    def losses_of(self, message: TelemetryMessage) -> int:
        """How many links ended at a part of it that was sent alone."""
        if not self._losses:
            return 0
        return max((self._losses[part] for part in message.parts), default=0)

    def note_delivered(self, message: TelemetryMessage) -> None:
        for device, ts, seq, keys in message.parts:
            self._delivered.setdefault((device, ts, seq), set()).update(keys)
            self._losses.pop((device, ts, seq, keys), None)


@attrs.frozen
class SentMessage:
    """delivery: None for a message that was not sent, being too large or poison."""

    message: TelemetryMessage
    delivery: Delivery | None = None
    too_large: int = 0
    losses: int = 0

    @property
    def evidence(self) -> Evidence:
        code = None if self.delivery is None else self.delivery.code
        return Evidence(code=code, too_large=self.too_large, losses=self.losses)


class WatchedLink:
    """A link on which every message is tracked, and doubted ones are sent alone."""

    def __init__(
        self, link: Link, detector: PoisonDetector, statistics: DeliveryStatistics
    ) -> None:
        self.detector = detector
        self._link = link
        self._rate_limiter = detector.rate_limiter
        self._statistics = statistics
        self._in_flight: list[tuple[frozenset[int], Delivery]] = []
        self._alone_done: trio.Event | None = None  # set when what is sent alone is acknowledged
        self._ended_by_us = False
        self.sent_alone: TelemetryMessage | None = None  # the last message, where it was sent alone
        self.server_alive = trio.Event()  # the server has acknowledged signs of life

    def end_error(self, why: str) -> LinkLost:
        """The error to raise when we end the connection: no message made it end."""
        self._ended_by_us = True
        return LinkLost(why)

    async def send(self, publication: Publication) -> Delivery:
        """Send what is no entry's.  Raises LinkLost."""
        while self._alone_done is not None:
            await self._alone_done.wait()
        self.sent_alone = None
        delivery = await self._link.send(publication)
        self._remember(frozenset(), delivery)
        return delivery

    async def send_message(self, message: TelemetryMessage, *, urgent: bool = True) -> SentMessage:
        """Send as soon as the rate limits allow; alone, until its PUBACK, where it is doubted.

        urgent: before what is not.  Raises LinkLost.
        """
        size = len(message.publication.payload)
        if size > self._rate_limiter.max_bytes:
            return SentMessage(message, too_large=size)
        await self._rate_limiter.wait_to_send_telemetry(message.cost, urgent=urgent)
        doubted = self.detector.is_doubted(message)
        if doubted and (losses := self.detector.losses_of(message)) >= MAX_ATTEMPTS:
            return SentMessage(message, losses=losses)
        if doubted and self.detector.is_isolated(message):
            await self.server_alive.wait()
        while self._alone_done is not None:
            await self._alone_done.wait()
        if not doubted:
            self.sent_alone = None
            delivery = await self._link.send(message.publication)
            self._remember(message.seqs, delivery)
            return SentMessage(message, delivery)
        async with self._nothing_else_in_flight():
            delivery = await self._link.send(message.publication)
            self._remember(message.seqs, delivery)
            self.sent_alone = message
            (code,) = await puback_codes([delivery])
            if is_accepted(code):
                self.detector.note_delivered(message)
            else:
                await trio.sleep(_CLOSE_WAIT_S)
            return SentMessage(message, delivery)

    @asynccontextmanager
    async def _nothing_else_in_flight(self) -> AsyncIterator[None]:
        self._alone_done = trio.Event()
        try:
            # Not for a `connect`: some servers never answer one (thingsboard-contract section 9).
            await puback_codes([delivery for seqs, delivery in self._in_flight if seqs])
            yield
        finally:
            self._alone_done.set()
            self._alone_done = None

    async def undelivered_of(self, sent: Sequence[SentMessage]) -> list[SentMessage]:
        """Those that ThingsBoard did not take, once all have a PUBACK.  Raises LinkLost."""
        await puback_codes([one.delivery for one in sent if one.delivery is not None])
        undelivered = []
        for one in sent:
            evidence = one.evidence
            self._statistics.published += evidence.code is not None
            self._statistics.refused += evidence.refused
            if evidence.code == QUOTA_EXCEEDED:
                self._rate_limiter.limit_exceeded()
            if decide(evidence) is not DeliveryOutcome.DELIVERED:
                undelivered.append(one)
        return undelivered

    def evidence_of_end(self) -> Iterator[tuple[frozenset[int], Evidence]]:
        """Each message that may have been the cause of this link's end: its
        entries, and the evidence.
        """
        acknowledged = [
            delivery for seqs, delivery in self._in_flight if seqs and delivery.code is not None
        ]
        just_acknowledged = acknowledged[-_LAST_ACKNOWLEDGED:]
        for seqs, delivery in self._in_flight:
            is_last = delivery is self._in_flight[-1][1]
            yield (
                seqs,
                Evidence(
                    code=delivery.code,
                    link_ended=True,
                    sent_alone=is_last and self.sent_alone is not None and not self._ended_by_us,
                    one_entry=len(seqs) == 1,
                    just_acknowledged=delivery in just_acknowledged,
                    server_alive=self.server_alive.is_set(),
                ),
            )

    def _remember(self, seqs: frozenset[int], delivery: Delivery) -> None:
        self._in_flight.append((seqs, delivery))
        if len(self._in_flight) > _REMEMBERED:
            last = self._in_flight[-_LAST_ACKNOWLEDGED:]
            before = self._in_flight[:-_LAST_ACKNOWLEDGED]
            self._in_flight = [item for item in before if item[1].code is None] + last
