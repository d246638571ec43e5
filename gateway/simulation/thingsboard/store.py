"""What the double stores: devices and their values, violations, counters of the traffic."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Any, Final, Literal, Protocol

import attrs

from .profile import Budget
from .rpc import PendingRpc
from .values import Stored

Severity = Literal["FAIL", "WARN"]


@attrs.frozen
class Violation:
    """A rule of the contract that the product broke.

    assertion: the contract's id, such as "J8", or "BAD-R" for a payload refused by section 5.
    severity: FAIL when ThingsBoard loses data, closes or never acknowledges; WARN when it stores
        the data and people see wrong values.
    """

    assertion: str
    severity: Severity
    what: str


@attrs.define
class Traffic:
    """How much was published; all counters begin at 0 and only grow."""

    messages: int = 0
    bytes: int = 0
    data_points: int = 0
    repeated_points: int = 0
    """Points equal in ts and value to one in the history: sent twice."""
    replaced_points: int = 0
    """Points with the ts of one in the history and another value: corrections."""
    duplicates: int = 0
    """PUBLISHes with the DUP flag."""
    downlinks_acked: int = 0
    """PUBACKs received for what was sent to the client."""
    rpc_answers: int = 0
    stale_rpc_answers: int = 0
    """RPC answers to no pending RPC (thingsboard-contract R7)."""
    max_in_flight: int = 0
    """Most QoS 1 PUBLISHes seen at once without a PUBACK.

    They are counted as they are read, so it is a lower bound.
    """
    by_topic: Counter[str] = attrs.Factory(Counter)


class ClientConnection(Protocol):
    """A connection as devices and handlers use it; `connection.MqttConnection` is one.

    own: the device of the gateway itself, whose access token the client showed.
    devices: the devices whose sessions this connection holds, by name.
    announced: the devices that it has named in `v1/gateway/connect`.
    token: the access token, None before CONNECT.
    """

    own: Device
    budget: Budget
    devices: dict[str, Device]
    announced: set[str]
    token: str | None

    @property
    def sends_reason_codes(self) -> bool:
        """Whether this client gets MQTT 5 reason codes."""

    def send_json(self, topic: str, value: Any) -> None: ...
    def publish(self, topic: str, payload: bytes) -> None: ...
    def close(self, reason: int | None = None) -> None: ...
    def abort(self) -> None: ...


@attrs.define(eq=False)
class Device:
    """A device as ThingsBoard stores it."""

    name: str
    type: str
    history: int | None = 10_000
    """Points kept for each key, the newest arrivals; 0 for none, None for all."""
    latest: dict[str, tuple[int, Stored]] = attrs.Factory(dict)
    """Key to (ts, value); moves only forward in ts (thingsboard-contract 6)."""
    attributes: dict[str, Stored] = attrs.Factory(dict)
    """Client attributes."""
    shared: dict[str, Stored] = attrs.Factory(dict)
    """Shared attributes."""
    connection: ClientConnection | None = attrs.field(default=None, repr=False)
    """The connection that holds its device session; None without a session."""
    active_at: float = 0.0
    """When its device session was last used, in seconds of Trio's clock."""
    pending: dict[int, PendingRpc] = attrs.field(factory=dict, repr=False)
    next_rpc_id: int = 0
    json_types: dict[str, str] = attrs.field(factory=dict, repr=False)
    """Key to the JSON type of its first value."""
    _series: dict[str, dict[int, Stored]] = attrs.field(factory=dict, repr=False)

    @property
    def connected(self) -> bool:
        """Whether a gateway holds a session for it."""
        return self.connection is not None

    def value(self, key: str) -> Stored | None:
        """The latest value of a key, None when there is none."""
        return self.latest[key][1] if key in self.latest else None

    def series(self, key: str) -> list[tuple[int, Stored]]:
        """The kept points of a key, by ts."""
        return sorted(self._series.get(key, {}).items(), key=lambda point: point[0])

    def rows(self) -> list[tuple[int, dict[str, Stored]]]:
        """The kept points of all keys, those of one ts together, by ts."""
        rows: dict[int, dict[str, Stored]] = {}
        for key, points in self._series.items():
            for ts, value in points.items():
                rows.setdefault(ts, {})[key] = value
        return sorted(rows.items(), key=lambda row: row[0])

    def save(self, ts: int, values: dict[str, Stored], traffic: Traffic) -> None:
        """Store a row: an upsert by key and ts (thingsboard-contract 6)."""
        latest = self.latest
        for key, value in values.items():
            known = latest.get(key)
            if known is None or ts >= known[0]:
                latest[key] = (ts, value)
        if self.history != 0:
            self._keep(ts, values, traffic)

    def _keep(self, ts: int, values: dict[str, Stored], traffic: Traffic) -> None:
        for key, value in values.items():
            points = self._series.setdefault(key, {})
            if ts in points:
                if points[ts] == value:
                    traffic.repeated_points += 1
                else:
                    traffic.replaced_points += 1
            points[ts] = value
            if self.history is not None and len(points) > self.history:
                del points[next(iter(points))]  # the oldest arrival, in O(1)


_RESERVED: Final = frozenset({"ts", "values", "metadata"})
_RECOMMENDED: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_HTML: Final = re.compile(r"<[A-Za-z/!?]|\{\{.*\}\}", re.DOTALL)
_MAX_NAME_LENGTH: Final = 255


@functools.lru_cache(maxsize=4096)
def fault_of_key(key: str) -> Violation | None:
    """What is wrong with a key's name (thingsboard-contract J7 to J9); None for a good one."""
    if key in _RESERVED:
        return Violation("J7", "FAIL", f"the key {key!r} is reserved")
    if not key.strip() or len(key) > _MAX_NAME_LENGTH or _HTML.search(key):
        return Violation("J8", "FAIL", f"the rule engine rejects the whole row with key {key!r}")
    if not _RECOMMENDED.fullmatch(key):
        return Violation("J9", "WARN", f"the key {key!r} cannot be used everywhere")
    return None


def is_device_name(name: str) -> bool:
    """Whether ThingsBoard can create a device of that name (thingsboard-contract 5)."""
    return bool(
        name.strip()
        and len(name) <= _MAX_NAME_LENGTH
        and "\0" not in name
        and not _HTML.search(name)
    )
