"""Poison messages: which entry makes a server end the connection, found out by sending suspects
alone.

A server may end the connection at a message that it does not like, acknowledged or not, and would
do so for ever if all were sent again as before.  Laws:
1. What was in flight when a link was lost, or had just been acknowledged, is suspected: on the
   next link each message of a suspected entry is sent alone, so that its result is its own.
2. A message lost alone makes each of its entries go alone; what is of one entry and was lost alone
   as often as an entry may be refused is not sent any more, but refused here, and so becomes a dead
   letter.
3. What was sent alone and acknowledged is not sent again, value by value: a server that
   acknowledges and then ends the connection gets everything once, link by link.
4. A loss counts, and an entry that was lost is tried again, only where the server has just
   acknowledged signs of life: while it acknowledges nothing, no entry is blamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import attrs
import structlog
import trio

from .batching import RowPart, TelemetryMessage
from .checkpoint import CheckpointTracker
from .deferrals import DeferralCounts
from .mqtt import (
    QUOTA_EXCEEDED,
    REFUSED,
    UNSPECIFIED_ERROR,
    Delivery,
    Link,
    LinkLost,
    Publication,
    is_server_state,
    puback_codes,
)
from .rate_limits import RateLimiter
from .telemetry import TelemetryRow

ATTEMPTS = 3  # at an entry that is refused, or lost alone, before it becomes a dead letter
_LAST_ACKNOWLEDGED = (
    5  # messages acknowledged before the end, the last of which may have been its cause
)
_CLOSE_WAIT_S = 0.3  # seconds in which a server that refuses and closes has closed
_REMEMBERED = 100  # messages on their way or just arrived

log = structlog.get_logger(__name__)


class PoisonDetector:
    """Owns: the suspicions, over all links.  What it remembers is bounded by what was in flight
    at a loss.
    """

    def __init__(self, rate_limiter: RateLimiter, deferral_counts: DeferralCounts) -> None:
        self._rate_limiter = rate_limiter
        self._deferral_counts = deferral_counts
        self._suspected: set[int] = set()  # entries
        self._isolated: set[int] = set()  # of which no two share a message
        self._delivered: dict[tuple[str, int | None, int], set[str]] = {}  # keys of a row
        self._losses: Counter[RowPart] = Counter()
        self._last_link: WatchedLink | None = None

    def watch_link(self, link: Link, tracker: CheckpointTracker) -> WatchedLink:
        """A new link; what was in flight on the one before is examined.  tracker: what is dealt
        with.
        """
        if self._last_link is not None:
            self._examine(self._last_link)
        self._forget(tracker)
        self._last_link = WatchedLink(link, self)
        return self._last_link

    def _examine(self, link: WatchedLink) -> None:
        alone = link.sent_alone
        if (
            alone is not None
            and not link.ended_by_us
            and _may_have_ended_link(link.in_flight[-1][1])
        ):
            self._isolated |= alone.seqs
            if len(alone.seqs) == 1 and link.server_alive.is_set():
                (seq,) = alone.seqs
                if (
                    link.in_flight[-1][1].code == UNSPECIFIED_ERROR
                ):  # it may be the server, so that takes longer
                    self._deferral_counts.count(seq)
                else:
                    self._losses.update(alone.parts)
                log.info("the link ended at a message", seq=seq)
        acknowledged = [
            seqs for seqs, delivery in link.in_flight if seqs and delivery.code is not None
        ]
        for seqs, delivery in link.in_flight:
            if delivery.code is None:
                self._suspected |= seqs
            elif delivery.code == QUOTA_EXCEEDED:
                self._rate_limiter.limit_exceeded()
            elif delivery.code >= REFUSED and not is_server_state(delivery.code):
                self._isolated |= seqs
        self._suspected.update(*acknowledged[-_LAST_ACKNOWLEDGED:])

    def _forget(self, tracker: CheckpointTracker) -> None:
        self._suspected = {seq for seq in self._suspected if not tracker.is_done(seq)}
        self._isolated = {seq for seq in self._isolated if not tracker.is_done(seq)}
        self._delivered = {
            row: keys for row, keys in self._delivered.items() if not tracker.is_done(row[2])
        }
        self._losses = Counter(
            {part: n for part, n in self._losses.items() if not tracker.is_done(part[2])}
        )

    def undelivered(
        self, entry_rows: Iterable[tuple[int, TelemetryRow]]
    ) -> list[tuple[int, TelemetryRow]]:
        """Without what is delivered already."""
        if not self._delivered:
            return list(entry_rows)
        left = []
        for seq, row in entry_rows:
            delivered = self._delivered.get((row.device, row.ts, seq), ())
            values = {key: value for key, value in row.values.items() if key not in delivered}
            if values:
                left.append((seq, attrs.evolve(row, values=values)))
        return left

    def split_suspected(
        self, entry_rows: Sequence[tuple[int, TelemetryRow]]
    ) -> Iterator[list[tuple[int, TelemetryRow]]]:
        """In order, cut where suspected entries begin or end."""
        if not self._suspected and not self._isolated:
            yield list(entry_rows)
            return
        for _, some in groupby(entry_rows, lambda item: self._group_of(item[0])):
            yield list(some)

    def _group_of(self, seq: int) -> int:
        """0 for none, -1 for a suspected entry, its number for one that goes alone."""
        if seq in self._isolated:
            return seq
        return -1 if seq in self._suspected else 0

    def is_suspected(self, message: TelemetryMessage) -> bool:
        return not (
            self._suspected.isdisjoint(message.seqs) and self._isolated.isdisjoint(message.seqs)
        )

    def must_go_alone(self, message: TelemetryMessage) -> bool:
        return not self._isolated.isdisjoint(message.seqs)

    def is_poison(self, message: TelemetryMessage) -> bool:
        return any(self._losses[part] >= ATTEMPTS for part in message.parts)

    def note_delivered(self, message: TelemetryMessage) -> None:
        for device, ts, seq, keys in message.parts:
            self._delivered.setdefault((device, ts, seq), set()).update(keys)
            self._losses.pop((device, ts, seq, keys), None)


class WatchedLink:
    """A link on which every message is tracked, and suspected ones are sent alone."""

    def __init__(self, link: Link, detector: PoisonDetector) -> None:
        self._link = link
        self._detector = detector
        self._alone_done: trio.Event | None = (
            None  # set when the message that was sent alone is acknowledged
        )
        self.in_flight: list[tuple[frozenset[int], Delivery]] = []
        self.sent_alone: TelemetryMessage | None = None  # the last message, where it was sent alone
        self.server_alive = trio.Event()  # the server has acknowledged signs of life
        self.ended_by_us = False  # by us: no message made it end

    def end_error(self, why: str) -> LinkLost:
        """The error to raise when we end the connection."""
        self.ended_by_us = True
        return LinkLost(why)

    def undelivered(
        self, entry_rows: Iterable[tuple[int, TelemetryRow]]
    ) -> list[tuple[int, TelemetryRow]]:
        """Without what is delivered already."""
        return self._detector.undelivered(entry_rows)

    def split_suspected(
        self, entry_rows: Iterable[tuple[int, TelemetryRow]]
    ) -> Iterator[list[tuple[int, TelemetryRow]]]:
        """What may share messages, in order."""
        return self._detector.split_suspected(list(entry_rows))

    async def send(self, publication: Publication) -> Delivery:
        """What is no entry's.  Raises LinkLost."""
        return await self._send(publication, frozenset())

    async def send_message(self, message: TelemetryMessage) -> Delivery:
        """Raises LinkLost."""
        if not self._detector.is_suspected(message):
            return await self._send(message.publication, message.seqs)
        if self._detector.is_poison(message):
            return refused_delivery(f"the connection ended {ATTEMPTS} times when it was sent")
        if self._detector.must_go_alone(message):
            await self.server_alive.wait()
        return await self._send_alone(message)

    async def _send(self, publication: Publication, seqs: frozenset[int]) -> Delivery:
        while self._alone_done is not None:
            await self._alone_done.wait()
        self.sent_alone = None
        delivery = await self._link.send(publication)
        self._remember(seqs, delivery)
        return delivery

    async def _send_alone(self, message: TelemetryMessage) -> Delivery:
        while self._alone_done is not None:
            await self._alone_done.wait()
        self._alone_done = trio.Event()
        try:
            # Not for a `connect`: some servers never answer one (thingsboard-contract section 9).
            await puback_codes([delivery for seqs, delivery in self.in_flight if seqs])
            delivery = await self._link.send(message.publication)
            self._remember(message.seqs, delivery)
            self.sent_alone = message
            (code,) = await puback_codes([delivery])
            if code < REFUSED:
                self._detector.note_delivered(message)
            else:
                await trio.sleep(_CLOSE_WAIT_S)
            return delivery
        finally:
            self._alone_done.set()
            self._alone_done = None

    def _remember(self, seqs: frozenset[int], delivery: Delivery) -> None:
        self.in_flight.append((seqs, delivery))
        if len(self.in_flight) > _REMEMBERED:
            last = self.in_flight[-_LAST_ACKNOWLEDGED:]
            before = self.in_flight[:-_LAST_ACKNOWLEDGED]
            self.in_flight = [item for item in before if item[1].code is None] + last


def _may_have_ended_link(delivery: Delivery) -> bool:
    """Whether the message may have caused the end of the link that followed."""
    return delivery.code is None or (delivery.code >= REFUSED and delivery.code != QUOTA_EXCEEDED)


def refused_delivery(why: str) -> Delivery:
    """A delivery as if the server had refused the message."""
    delivery = Delivery(REFUSED, why=why)
    delivery.acknowledged.set()
    return delivery
