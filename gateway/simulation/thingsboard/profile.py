"""What differs between versions of ThingsBoard, and the limits that a tenant may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs


@attrs.frozen(kw_only=True)
class Profile:
    """How one version of ThingsBoard acknowledges (thingsboard-contract 9)."""

    ack_per_device: bool
    """A batch of N devices gets N PUBACKs with the same packet id, each as its device is done."""
    ack_on_failure: bool
    """A rate limit is answered with PUBACK before the close; older versions just close."""
    ack_on_connect_failure: bool
    """A device that cannot be created gets a PUBACK with the reason; older versions send none."""
    reason_codes: bool = True
    """MQTT 5 clients get reason codes; before 3.5 they were treated like 3.1.1."""
    session_limits: bool = True
    """`getSessionLimits` is answered."""


PROFILES: Mapping[str, Profile] = {
    "3.4": Profile(
        ack_per_device=True,
        ack_on_failure=False,
        ack_on_connect_failure=False,
        reason_codes=False,
        session_limits=False,
    ),
    "3.5": Profile(
        ack_per_device=True,
        ack_on_failure=False,
        ack_on_connect_failure=False,
        session_limits=False,
    ),
    "3.8": Profile(ack_per_device=True, ack_on_failure=False, ack_on_connect_failure=False),
    "4.2.1": Profile(ack_per_device=False, ack_on_failure=True, ack_on_connect_failure=False),
    "4.3": Profile(ack_per_device=False, ack_on_failure=True, ack_on_connect_failure=True),
}


@attrs.frozen(kw_only=True)
class TenantLimits:
    """Budgets as ThingsBoard writes them: "count:seconds,count:seconds"; empty means no limit."""

    messages: str = ""
    telemetry_messages: str = ""
    telemetry_data_points: str = ""

    def as_json(self) -> dict[str, str]:
        """These limits as the answer to `getSessionLimits` has them (thingsboard-contract 8)."""
        return {
            "messages": self.messages,
            "telemetryMessages": self.telemetry_messages,
            "telemetryDataPoints": self.telemetry_data_points,
        }


class Budget:
    """Counts messages and data points of one client against its TenantLimits.

    clock: seconds, never going back.
    """

    def __init__(self, limits: TenantLimits, clock: Callable[[], float]) -> None:
        self._messages = _buckets(limits.messages, clock)
        self._telemetry = _buckets(limits.telemetry_messages, clock)
        self._points = _buckets(limits.telemetry_data_points, clock)

    def allows(self, data_points: int = 0) -> bool:
        """Spend one message with so many data points; False when it exceeds the budget.

        A message without data points is of the class "messages", any other of "telemetry
        messages" (thingsboard-contract 8).
        """
        if not data_points:
            taken = [bucket.take(1) for bucket in self._messages]
            return all(taken)
        taken = [bucket.take(1) for bucket in self._telemetry]
        taken += [bucket.take(data_points) for bucket in self._points]
        return all(taken)


@attrs.define
class _Bucket:
    """A token bucket that refills evenly."""

    size: int
    seconds: float
    clock: Callable[[], float]
    level: float
    filled_at: float

    def take(self, tokens: int) -> bool:
        now = self.clock()
        flow = (now - self.filled_at) * self.size / self.seconds
        self.level, self.filled_at = min(self.size, self.level + flow), now
        if tokens > self.level:
            return False
        self.level -= tokens
        return True


def _buckets(limit: str, clock: Callable[[], float]) -> list[_Bucket]:
    buckets = []
    for part in filter(None, limit.split(",")):
        size, seconds = part.split(":")
        buckets.append(_Bucket(int(size), float(seconds), clock, int(size), clock()))
    return buckets
