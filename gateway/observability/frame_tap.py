"""The tap on the line: raw frames both ways, for who looks on.

Nothing here is promised to anybody: frames are kept in memory only, and whoever reads too
slowly misses the oldest.  While nobody looks on, it costs its callers one `if`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import attrs
import trio

from ..domain.redaction import frame_without_secrets, printable, without_secrets

LONGEST = 24 * 3600.0  # seconds that a trace may last
MOST_TRACED = 20  # charge points traced at a time
MOST_WATCHES = 8  # who may look on at a time, ThingsBoard not counted
_MOST_CHARACTERS = 16_384  # of a frame; more is cut
_MOST_WAITING = 500  # frames that wait for one who looks on
_MOST_CHARACTERS_WAITING = 1_000_000

IN, OUT = "in", "out"
CONNECTED, DISCONNECTED, REFUSED = "connected", "disconnected", "refused"


class TooManyTraces(Exception):
    """As many look on, or are looked at, as may."""


@attrs.frozen(kw_only=True)
class Traced:
    """One thing that happened on the line of a charge point.

    charge_point_id: empty where a handshake named none.
    what: IN or OUT for a frame; CONNECTED, DISCONNECTED or REFUSED.
    frame: as it came but for secrets and what cannot be printed, cut; empty where it is none.
    cut_from: characters of the whole frame, where it is cut.
    reason: why a frame was not taken, or what else there is to say.
    missed: so many of this charge point's were dropped before it, because the reader was slow.
    """

    charge_point_id: str
    at: datetime
    what: str
    frame: str = ""
    cut_from: int = 0
    reason: str = ""
    missed: int = 0

    def told(self, most: int = _MOST_CHARACTERS) -> dict[str, Any]:
        """As a JSON object.  most: characters of the frame."""
        if self.what in (IN, OUT):
            told: dict[str, Any] = {"way": self.what, "frame": self.frame[:most]}
            if self.cut_from or len(self.frame) > most:
                told["cut_from"] = self.cut_from or len(self.frame)
        else:
            told = {"event": self.what}
        if self.reason:
            told["reason"] = self.reason
        if self.missed:
            told["missed"] = self.missed
        return told


class Watch:
    """What one who looks on has not read yet.  Read it from one task only."""

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self.wants = wants
        self._waiting: deque[Traced] = deque()
        self._characters = 0
        self._missed: Counter[str] = Counter()
        self._something = trio.Event()

    def offer(self, traced: Traced) -> None:
        self._waiting.append(traced)
        self._characters += len(traced.frame)
        while len(self._waiting) > _MOST_WAITING or self._characters > _MOST_CHARACTERS_WAITING:
            dropped = self._take().charge_point_id
            # A stranger may call itself anything: beyond so many names they share one.
            known = dropped in self._missed or len(self._missed) < _MOST_WAITING
            self._missed[dropped if known else ""] += 1
        self._something.set()

    def _take(self) -> Traced:
        traced = self._waiting.popleft()
        self._characters -= len(traced.frame)
        return traced

    async def gathered(self, most: int) -> list[Traced]:
        """What there is, oldest first, once there is something; at most so many."""
        while not self._waiting:
            self._something = trio.Event()
            await self._something.wait()
        taken = [self._take() for _ in range(min(most, len(self._waiting)))]
        return [
            attrs.evolve(traced, missed=missed)
            if (missed := self._missed.pop(traced.charge_point_id, 0))
            else traced
            for traced in taken
        ]


class Tap:
    """Owns: who looks on, and which charge points are traced for ThingsBoard, until when.

    looked_at: whether anybody wants anything; who would `note` asks this first.
    for_thingsboard: what the traces give.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.looked_at = False
        self._now = now
        self._watches: list[Watch] = []
        self._until: dict[str, float] = {}
        self.for_thingsboard = Watch(self._until.__contains__)

    def note(self, charge_point_id: str, what: str, frame: str = "", reason: str = "") -> None:
        """Show it to whoever wants it."""
        self._forget_ended()
        wanting = [
            watch
            for watch in (self.for_thingsboard, *self._watches)
            if watch.wants(charge_point_id)
        ]
        if wanting:
            whole = frame_without_secrets(frame)
            traced = Traced(
                charge_point_id=charge_point_id,
                at=self._now(),
                what=what,
                frame=printable(whole[:_MOST_CHARACTERS])[:_MOST_CHARACTERS],
                cut_from=len(whole) if len(whole) > _MOST_CHARACTERS else 0,
                reason=printable(without_secrets(reason[:500])),
            )
            for watch in wanting:
                watch.offer(traced)

    def trace(self, charge_point_id: str, seconds: float) -> datetime:
        """Tell ThingsBoard of a charge point for so long; returns until when.

        Instead of how long it was before.  Raises TooManyTraces.
        """
        self._forget_ended()
        if charge_point_id not in self._until and len(self._until) >= MOST_TRACED:
            raise TooManyTraces(f"{MOST_TRACED} charge points are traced already")
        self._until[charge_point_id] = trio.current_time() + seconds
        self._judge()
        return self._now() + timedelta(seconds=seconds)

    def end_trace(self, charge_point_id: str) -> None:
        self._until.pop(charge_point_id, None)
        self._judge()

    def traces(self) -> int:
        """How many charge points are traced for ThingsBoard."""
        self._forget_ended()
        return len(self._until)

    @contextmanager
    def watch(self, wants: Callable[[str], bool]) -> Iterator[Watch]:
        """Look on while the block runs.  wants: charge point id -> bool.  Raises TooManyTraces."""
        if len(self._watches) >= MOST_WATCHES:
            raise TooManyTraces(f"{MOST_WATCHES} look on already")
        watch = Watch(wants)
        self._watches.append(watch)
        self._judge()
        try:
            yield watch
        finally:
            self._watches.remove(watch)
            self._judge()

    def _forget_ended(self) -> None:
        now = trio.current_time()
        ended = [name for name, until in self._until.items() if until <= now]
        for name in ended:
            self.end_trace(name)

    def _judge(self) -> None:
        self.looked_at = bool(self._watches or self._until)
