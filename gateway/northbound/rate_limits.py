"""Rate limits towards ThingsBoard: its answer to getSessionLimits, and a limiter that keeps to it.

ThingsBoard closes the session of a client that sends more (thingsboard-contract section 8),
so the gateway slows down by itself.  Where it never answers (a version before 3.8, a plain
broker), there is no limit but those that every server has.  A limiter outlives its connection: what
was spent on the one before is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec
import trio

from ..domain import json_codec
from .mqtt import Publication

LIMITS_REQUEST = Publication(
    "v1/devices/me/rpc/request/1", b'{"method":"getSessionLimits","params":{}}'
)
LIMITS_RESPONSE_TOPIC = "v1/devices/me/rpc/response/+"
LIMITS_RESPONSE = "v1/devices/me/rpc/response/1"

MAX_BYTES = 60_000  # ThingsBoard closes the connection beyond 65,536
_ANSWER_WITHIN = 5.0  # seconds; then there are no limits but the usual ones
_ROOM = 5_000  # bytes of a message that are not payload, with a margin
_SLOWEST, _FASTEST = (
    5.0,
    0.05,
)  # seconds between messages, after a limit that the server did not announce
_SPEED_UP_AFTER = 60.0  # seconds without a further one
_ROUNDING = 1e-6  # seconds: a bucket is never quite as full as it was computed to be
_YIELD_S = 0.05  # seconds until a message of the backlog looks again whether an urgent one waits
_SHARE = 0.8  # of a rate: others may spend from the tenant's, too


@attrs.define
class _Bucket:
    """So many in so many seconds; what was not spent adds up to one bucket and no more."""

    size: float
    seconds: float
    level: float = attrs.field(init=False)
    filled_at: float = attrs.field(factory=trio.current_time)

    def __attrs_post_init__(self) -> None:
        self.level = self.size

    def wait_for(self, amount: int, now: float) -> float:
        """Seconds until so much may be spent; more than a bucketful needs a full one."""
        flow = (now - self.filled_at) * self.size / self.seconds
        self.level, self.filled_at = min(self.size, self.level + flow), now
        missing = min(amount, self.size) - self.level
        return max(0.0, missing * self.seconds / self.size)


@attrs.frozen
class MessageCost:
    """What a message counts for: entries of devices, and values that have a time."""

    devices: int
    values: int


class RateLimiter:
    """Owns: the buckets.  max_bytes, max_values: of one message; None for any number."""

    def __init__(self) -> None:
        self.max_bytes = MAX_BYTES
        self.max_values: int | None = None
        self._calls: list[_Bucket] = []
        self._telemetry: list[_Bucket] = []
        self._values: list[_Bucket] = []
        self._urgent = 0  # messages that wait
        self._known = trio.Event()
        self._interval = 0.0  # between messages; the server does not announce a tenant's own limits
        self._hit_at = 0.0

    def limit_exceeded(self) -> None:
        """A limit is exceeded, which the server need not have announced: treat all buckets as
        empty, and slow down.
        """
        now = trio.current_time()
        for bucket in (*self._calls, *self._telemetry, *self._values):
            bucket.level, bucket.filled_at = 0.0, now
        self._interval = min(_SLOWEST, max(_FASTEST, self._interval * 2))
        self._hit_at = now

    async def wait_limits_known(self) -> None:
        """Wait until the server has sent its limits, once and not per connection; it may never
        send any.
        """
        with trio.move_on_after(_ANSWER_WITHIN):
            await self._known.wait()
        self._known.set()

    def apply_limits(self, payload: bytes) -> None:
        """Keep to the limits in a response of the server; what cannot be read changes nothing."""
        try:
            limits = json_codec.decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return
        if not isinstance(limits, dict):
            return
        self._known.set()
        size = limits.get("maxPayloadSize")
        if isinstance(size, int) and size > 2 * _ROOM:
            self.max_bytes = min(MAX_BYTES, size - _ROOM)
        rates = limits.get("gatewayRateLimits")
        if not isinstance(rates, dict):
            rates = limits.get("rateLimits")
        if isinstance(rates, dict):
            self._calls = _buckets(rates, "messages", self._calls)
            self._telemetry = _buckets(rates, "telemetryMessages", self._telemetry)
            self._values = _buckets(rates, "telemetryDataPoints", self._values)
        sizes = [bucket.size for bucket in self._values]
        self.max_values = max(1, int(min(sizes))) if sizes else None

    async def wait_to_send(self) -> None:
        """Wait until one message that is no telemetry may be sent."""
        await _spend([(bucket, 1) for bucket in self._calls], lambda: True)

    async def wait_to_send_telemetry(self, cost: MessageCost, *, urgent: bool = True) -> None:
        """Wait until a message of telemetry or attributes may be sent; the urgent go first."""
        if self._interval:
            await self._slow_down()
        if not self._telemetry and not self._values:
            return
        amounts = [
            *((bucket, cost.devices) for bucket in self._telemetry),
            *((bucket, cost.values) for bucket in self._values),
        ]
        if urgent:
            self._urgent += 1
        try:
            await _spend(amounts, lambda: urgent or not self._urgent)
        finally:
            if urgent:
                self._urgent -= 1

    async def _slow_down(self) -> None:
        if trio.current_time() - self._hit_at >= _SPEED_UP_AFTER:
            self._hit_at = trio.current_time()
            self._interval = self._interval / 2 if self._interval > _FASTEST else 0.0
        await trio.sleep(self._interval)


async def _spend(amounts: Sequence[tuple[_Bucket, int]], my_turn: Callable[[], bool]) -> None:
    while amounts:
        now = trio.current_time()
        wait = max(bucket.wait_for(amount, now) for bucket, amount in amounts)
        if wait < _ROUNDING and my_turn():
            break
        await trio.sleep(max(wait, _ROUNDING if my_turn() else _YIELD_S))
    for bucket, amount in amounts:
        bucket.level -= amount


def _buckets(rates: Mapping[str, Any], name: str, before: Iterable[_Bucket]) -> list[_Bucket]:
    """`"20:1,600:60"` is 20 in a second and 600 in a minute; empty is no limit.

    before: the buckets until now; one of the same rate stays as full as it is.
    """
    kept = {(bucket.size, bucket.seconds): bucket for bucket in before}
    found = []
    text = rates.get(name)
    for part in text.split(",") if isinstance(text, str) else ():
        count, _, seconds = part.strip().partition(":")
        if count.isdecimal() and seconds.isdecimal() and int(count) and int(seconds):
            rate = max(1.0, int(count) * _SHARE), float(seconds)
            found.append(kept.pop(rate) if rate in kept else _Bucket(*rate))
    return found
