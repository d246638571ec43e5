"""Throttling of inbound frames: a charge point that sends too fast is read more slowly.

What is not read stays in the peer's own socket (TCP holds it back there), so nothing is lost and
nothing is kept here.  Every frame counts, whatever is in it: pings, pieces and garbage too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import structlog
import trio

BURST_S = 5.0  # seconds' worth of frames that may come at once: what was queued in an outage
_FRAME_BYTES = 8_192  # a long message counts as several: it takes as long to read

log = structlog.get_logger(__name__)


class Throttle:
    """Counts what one connection has sent against what it may send.

    max_messages_per_s: frames a second in the long run; `BURST_S` times as many may come at once.
    on_throttled: is called with how many frames came before each pause.
    name: of the charge point or its address, for logs.
    """

    def __init__(
        self, max_messages_per_s: float, on_throttled: Callable[[int], None], name: str
    ) -> None:
        self.name = name
        self._each = 1 / max_messages_per_s
        self._max_messages_per_s = max_messages_per_s
        self._on_throttled = on_throttled
        self._frames = 0  # since the last look at the clock
        self._paid_until = -math.inf  # Trio's time up to which the rate allows what came
        self._warned = False

    def count(self) -> None:
        """A frame was read."""
        self._frames += 1

    def resume_at(self, now: float, received: int) -> float | None:
        """When to read on, in Trio's time; None for at once.  received: bytes of the last read."""
        frames, self._frames = self._frames, 0
        cost = (frames + received / _FRAME_BYTES) * self._each
        self._paid_until = max(self._paid_until, now) + cost
        resume = self._paid_until - BURST_S
        if resume <= now:
            return None
        self._on_throttled(frames)
        if not self._warned:
            self._warned = True
            log.warning("charge point slowed: it sends too much", charge_point=self.name,
                        frames_per_s=self._max_messages_per_s)  # fmt: skip
        return resume


class ThrottledStream(trio.abc.Stream):
    """A stream that is read no faster than its throttle allows."""

    def __init__(self, stream: trio.abc.Stream, throttle: Throttle) -> None:
        self._stream = stream
        self._throttle = throttle
        self._received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        resume = self._throttle.resume_at(trio.current_time(), self._received)
        if resume is not None:
            await trio.sleep_until(resume)
        data = await self._stream.receive_some(max_bytes)
        self._received = len(data)
        return data

    async def send_all(self, data: Any) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()
