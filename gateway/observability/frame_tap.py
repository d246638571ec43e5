"""The frame tap: raw OCPP frames in both directions, for `tail` and traces in ThingsBoard.

Frames are kept in memory only, and a subscriber that reads too slowly misses the oldest.
While there is no subscriber, the tap costs its callers one `if`.
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

MAX_TRACE_S = 24 * 3600.0  # seconds that a trace may last
MAX_TRACED = 20  # charge points traced at a time
MAX_SUBSCRIPTIONS = 8  # subscribers at a time, ThingsBoard not counted
_MAX_CHARACTERS = 16_384  # of a frame; more is cut
_MAX_WAITING = 500  # frames that wait for one subscriber
_MAX_CHARACTERS_WAITING = 1_000_000

IN, OUT = "in", "out"
CONNECTED, DISCONNECTED, REFUSED = "connected", "disconnected", "refused"


class TooManyTraces(Exception):
    """There are as many subscribers or traces as there may be."""


@attrs.frozen(kw_only=True)
class TappedFrame:
    """One thing that happened on the connection of a charge point.

    charge_point_id: empty where a handshake named none.
    what: IN or OUT for a frame; CONNECTED, DISCONNECTED or REFUSED.
    frame: as it came but for secrets and what cannot be printed, cut; empty where it is none.
    cut_from: characters of the whole frame, where it is cut.
    reason: why a frame was not taken, or what else there is to say.
    missed: so many of this charge point's frames were dropped before it, because the subscriber was
        slow.
    """

    charge_point_id: str
    at: datetime
    what: str
    frame: str = ""
    cut_from: int = 0
    reason: str = ""
    missed: int = 0

    def as_json(self, max_characters: int = _MAX_CHARACTERS) -> dict[str, Any]:
        """As a JSON object.  max_characters: characters of the frame."""
        if self.what in (IN, OUT):
            found: dict[str, Any] = {"way": self.what, "frame": self.frame[:max_characters]}
            if self.cut_from or len(self.frame) > max_characters:
                found["cut_from"] = self.cut_from or len(self.frame)
        else:
            found = {"event": self.what}
        if self.reason:
            found["reason"] = self.reason
        if self.missed:
            found["missed"] = self.missed
        return found


class FrameSubscription:
    """The frames that one subscriber has not read yet.  Read it from one task only."""

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self.wants = wants
        self._waiting: deque[TappedFrame] = deque()
        self._characters = 0
        self._missed: Counter[str] = Counter()
        self._arrived = trio.Event()

    def offer(self, traced: TappedFrame) -> None:
        self._waiting.append(traced)
        self._characters += len(traced.frame)
        while len(self._waiting) > _MAX_WAITING or self._characters > _MAX_CHARACTERS_WAITING:
            dropped = self._take().charge_point_id
            # A client may give any charge point id: beyond so many, the ids share one count.
            known = dropped in self._missed or len(self._missed) < _MAX_WAITING
            self._missed[dropped if known else ""] += 1
        self._arrived.set()

    def _take(self) -> TappedFrame:
        traced = self._waiting.popleft()
        self._characters -= len(traced.frame)
        return traced

    async def take_batch(self, limit: int) -> list[TappedFrame]:
        """The frames that wait, oldest first and at most `limit`, once there is one."""
        while not self._waiting:
            self._arrived = trio.Event()
            await self._arrived.wait()
        taken = [self._take() for _ in range(min(limit, len(self._waiting)))]
        return [
            attrs.evolve(traced, missed=missed)
            if (missed := self._missed.pop(traced.charge_point_id, 0))
            else traced
            for traced in taken
        ]


class FrameTap:
    """Owns: the subscribers, and which charge points are traced for ThingsBoard, until when.

    is_watched: whether there is any subscriber or trace; callers of `record` ask this first.
    for_thingsboard: what the traces give.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.is_watched = False
        self._now = now
        self._subscriptions: list[FrameSubscription] = []
        self._until: dict[str, float] = {}
        self.for_thingsboard = FrameSubscription(self._until.__contains__)

    def record(self, charge_point_id: str, what: str, frame: str = "", reason: str = "") -> None:
        """Give a frame to every subscriber that wants this charge point."""
        self._end_expired()
        subscriptions = [
            subscription
            for subscription in (self.for_thingsboard, *self._subscriptions)
            if subscription.wants(charge_point_id)
        ]
        if subscriptions:
            redacted = frame_without_secrets(frame)
            tapped = TappedFrame(
                charge_point_id=charge_point_id,
                at=self._now(),
                what=what,
                frame=printable(redacted[:_MAX_CHARACTERS])[:_MAX_CHARACTERS],
                cut_from=len(redacted) if len(redacted) > _MAX_CHARACTERS else 0,
                reason=printable(without_secrets(reason[:500])),
            )
            for subscription in subscriptions:
                subscription.offer(tapped)

    def start_trace(self, charge_point_id: str, seconds: float) -> datetime:
        """Publish a charge point's frames to ThingsBoard for so long; returns until when.

        A trace under way gets the new end.  Raises TooManyTraces.
        """
        self._end_expired()
        if charge_point_id not in self._until and len(self._until) >= MAX_TRACED:
            raise TooManyTraces(f"{MAX_TRACED} charge points are traced already")
        self._until[charge_point_id] = trio.current_time() + seconds
        self._update_is_watched()
        return self._now() + timedelta(seconds=seconds)

    def end_trace(self, charge_point_id: str) -> None:
        self._until.pop(charge_point_id, None)
        self._update_is_watched()

    def count_traces(self) -> int:
        """How many charge points are traced for ThingsBoard."""
        self._end_expired()
        return len(self._until)

    @contextmanager
    def subscribe(self, wants: Callable[[str], bool]) -> Iterator[FrameSubscription]:
        """Subscribe to the frames of the charge points that `wants` picks while the block runs.

        Raises TooManyTraces.
        """
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise TooManyTraces(f"there are {MAX_SUBSCRIPTIONS} subscribers already")
        subscription = FrameSubscription(wants)
        self._subscriptions.append(subscription)
        self._update_is_watched()
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            self._update_is_watched()

    def _end_expired(self) -> None:
        now = trio.current_time()
        ended = [name for name, until in self._until.items() if until <= now]
        for name in ended:
            self.end_trace(name)

    def _update_is_watched(self) -> None:
        self.is_watched = bool(self._subscriptions or self._until)
