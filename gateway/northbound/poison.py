"""Which entries may be what makes a server end the connection, found out by telling them alone.

A server may end the connection at a message that it does not like, acknowledged or not, and would
do so for ever if all were sent again as before.  Laws:
1. What was on its way when a link was lost, or had just arrived, is doubted: on the next link each
   message of a doubted entry flies alone, so that its fate is its own.
2. A message lost alone makes each of its entries go alone; what is of one entry and was lost alone
   as often as an entry may be refused is not sent any more, but refused here, and so set aside.
3. What flew alone and was acknowledged is not sent again, value by value: a server that
   acknowledges and then ends the connection is told everything once, link by link.
4. A loss counts, and an entry that was lost is tried again, only where the server has just
   acknowledged signs of life: one that takes nothing makes nobody guilty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import attrs
import structlog
import trio

from .batching import Parcel, Told
from .checkpoint import Place
from .deferrals import Patience
from .mqtt import (
    FAILED,
    QUOTA,
    REFUSED,
    Delivery,
    Link,
    LinkLost,
    Publication,
    confirmed,
    tells_of_server,
)
from .rate_limits import Pace
from .telemetry import Row

ATTEMPTS = 3  # at an entry that is refused, or lost alone, before it is set aside
_JUST_ARRIVED = 5  # messages acknowledged before the end, the last of which may have been its cause
_AFTERMATH = 0.3  # seconds in which a server that refuses and closes has closed
_REMEMBERED = 100  # messages on their way or just arrived

log = structlog.get_logger(__name__)


class Suspects:
    """Owns: the doubts, over all links.  What it remembers is bounded by what flew at a loss."""

    def __init__(self, pace: Pace, patience: Patience) -> None:
        self._pace = pace
        self._patience = patience
        self._doubted: set[int] = set()  # entries
        self._alone: set[int] = set()  # of which no two share a message
        self._arrived: dict[tuple[str, int | None, int], set[str]] = {}  # keys of a row
        self._lost: Counter[Told] = Counter()
        self._last: Watched | None = None

    def watch(self, link: Link, place: Place) -> Watched:
        """A new link; what the one before left unsaid is judged.  place: what is dealt with."""
        if self._last is not None:
            self._judge(self._last)
        self._forget(place)
        self._last = Watched(link, self)
        return self._last

    def _judge(self, last: Watched) -> None:
        lonely = last.lonely
        if lonely is not None and not last.given_up and _at_fault(last.flying[-1][1]):
            self._alone |= lonely.seqs
            if len(lonely.seqs) == 1 and last.alive.is_set():
                (seq,) = lonely.seqs
                if last.flying[-1][1].code == FAILED:  # it may be the server, so that takes longer
                    self._patience.count(seq)
                else:
                    self._lost.update(lonely.told)
                log.info("the link ended at a message", seq=seq)
        arrived = [seqs for seqs, delivery in last.flying if seqs and delivery.code is not None]
        for seqs, delivery in last.flying:
            if delivery.code is None:
                self._doubted |= seqs
            elif delivery.code == QUOTA:
                self._pace.hit()
            elif delivery.code >= REFUSED and not tells_of_server(delivery.code):
                self._alone |= seqs
        self._doubted.update(*arrived[-_JUST_ARRIVED:])

    def _forget(self, place: Place) -> None:
        self._doubted = {seq for seq in self._doubted if not place.has(seq)}
        self._alone = {seq for seq in self._alone if not place.has(seq)}
        self._arrived = {row: keys for row, keys in self._arrived.items() if not place.has(row[2])}
        self._lost = Counter({told: n for told, n in self._lost.items() if not place.has(told[2])})

    def untold(self, told: Iterable[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """Without what has arrived already."""
        if not self._arrived:
            return list(told)
        left = []
        for seq, row in told:
            arrived = self._arrived.get((row.device, row.ts, seq), ())
            values = {key: value for key, value in row.values.items() if key not in arrived}
            if values:
                left.append((seq, attrs.evolve(row, values=values)))
        return left

    def apart(self, told: Sequence[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
        """In order, cut where what is doubted begins or ends."""
        if not self._doubted and not self._alone:
            yield list(told)
            return
        for _, some in groupby(told, lambda item: self._doubt(item[0])):
            yield list(some)

    def _doubt(self, seq: int) -> int:
        """0 for none, -1 for a doubted entry, its number for one that goes alone."""
        if seq in self._alone:
            return seq
        return -1 if seq in self._doubted else 0

    def doubts(self, parcel: Parcel) -> bool:
        return not (self._doubted.isdisjoint(parcel.seqs) and self._alone.isdisjoint(parcel.seqs))

    def has_lost(self, parcel: Parcel) -> bool:
        return not self._alone.isdisjoint(parcel.seqs)

    def condemned(self, parcel: Parcel) -> bool:
        return any(self._lost[told] >= ATTEMPTS for told in parcel.told)

    def acquit(self, parcel: Parcel) -> None:
        for device, ts, seq, keys in parcel.told:
            self._arrived.setdefault((device, ts, seq), set()).update(keys)
            self._lost.pop((device, ts, seq, keys), None)


class Watched:
    """A link on which every message is seen, and some fly alone."""

    def __init__(self, link: Link, suspects: Suspects) -> None:
        self._link = link
        self._suspects = suspects
        self._over: trio.Event | None = None  # set when the message that flies alone has arrived
        self.flying: list[tuple[frozenset[int], Delivery]] = []
        self.lonely: Parcel | None = None  # the last message, where it flew alone
        self.alive = trio.Event()  # the server has acknowledged signs of life
        self.given_up = False  # by us: no message made it end

    def give_up(self, why: str) -> LinkLost:
        """To be raised by who ends the link."""
        self.given_up = True
        return LinkLost(why)

    def untold(self, told: Iterable[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """Without what has arrived already."""
        return self._suspects.untold(told)

    def apart(self, told: Iterable[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
        """What may share messages, in order."""
        return self._suspects.apart(list(told))

    async def send(self, publication: Publication) -> Delivery:
        """What is no entry's.  Raises LinkLost."""
        return await self._sent(publication, frozenset())

    async def send_parcel(self, parcel: Parcel) -> Delivery:
        """Raises LinkLost."""
        if not self._suspects.doubts(parcel):
            return await self._sent(parcel.publication, parcel.seqs)
        if self._suspects.condemned(parcel):
            return refusal(f"the connection ended {ATTEMPTS} times when it was told")
        if self._suspects.has_lost(parcel):
            await self.alive.wait()
        return await self._sent_alone(parcel)

    async def _sent(self, publication: Publication, seqs: frozenset[int]) -> Delivery:
        while self._over is not None:
            await self._over.wait()
        self.lonely = None
        delivery = await self._link.send(publication)
        self._remember(seqs, delivery)
        return delivery

    async def _sent_alone(self, parcel: Parcel) -> Delivery:
        while self._over is not None:
            await self._over.wait()
        self._over = trio.Event()
        try:
            # Not for a `connect`: some servers never answer one (thingsboard-contract section 9).
            await confirmed([delivery for seqs, delivery in self.flying if seqs])
            delivery = await self._link.send(parcel.publication)
            self._remember(parcel.seqs, delivery)
            self.lonely = parcel
            (code,) = await confirmed([delivery])
            if code < REFUSED:
                self._suspects.acquit(parcel)
            else:
                await trio.sleep(_AFTERMATH)
            return delivery
        finally:
            self._over.set()
            self._over = None

    def _remember(self, seqs: frozenset[int], delivery: Delivery) -> None:
        self.flying.append((seqs, delivery))
        if len(self.flying) > _REMEMBERED:
            last = self.flying[-_JUST_ARRIVED:]
            before = self.flying[:-_JUST_ARRIVED]
            self.flying = [item for item in before if item[1].code is None] + last


def _at_fault(delivery: Delivery) -> bool:
    """Whether the end of the link that followed may be laid at the message's door."""
    return delivery.code is None or (delivery.code >= REFUSED and delivery.code != QUOTA)


def refusal(why: str) -> Delivery:
    """As a server's that would have none of it."""
    delivery = Delivery(REFUSED, why=why)
    delivery.acknowledged.set()
    return delivery
