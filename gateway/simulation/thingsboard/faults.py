"""Faults that a test injects into the double (thingsboard-contract 10)."""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs
import msgspec


class Act(enum.Enum):
    """What happens to a PUBLISH or a CONNECT that a Fault matches."""

    CLOSE = "close before PUBACK"  # F1
    ACK_AND_CLOSE = "PUBACK, then close"  # F2
    NO_ACK = "no PUBACK"  # F3
    REFUSE = "PUBACK with a reason code"  # F4
    DUPLICATE_ACK = "the same PUBACK again"  # F5
    DELAY = "PUBACK late"  # F14
    RATE_LIMIT = "PUBACK 0x97, then close"  # F13
    REFUSE_CONNECT = "CONNACK with a reason code"  # F6
    DROP_CONNECT = "close instead of CONNACK"
    SILENT_CONNECT = "no CONNACK, connection open"

    @property
    def concerns_connect(self) -> bool:
        return self in _OF_CONNECT


_OF_CONNECT = frozenset({Act.REFUSE_CONNECT, Act.DROP_CONNECT, Act.SILENT_CONNECT})
_NOT_STORED = frozenset({Act.REFUSE, Act.RATE_LIMIT})


@attrs.define(kw_only=True, eq=False)
class Fault:
    """One fault, for the next `times` packets that match all that is given.

    times: None means until removed.
    topic: the topic equals this.
    device: the payload contains this device's name.
    contains: the payload contains this text.
    when: a predicate of topic and payload.
    code: of REFUSE and REFUSE_CONNECT; the latter in MQTT 5 numbers, an MQTT 3 client gets its
        counterpart.
    seconds: of DELAY.
    count: PUBACKs in all for DUPLICATE_ACK.
    closes: whether REFUSE also ends the connection, as where ThingsBoard's own code fails (BAD-R).
    stored: whether the message is stored all the same; None means not for REFUSE and RATE_LIMIT.
    """

    act: Act
    times: int | None = 1
    topic: str | None = None
    device: str | None = None
    contains: str | None = None
    when: Callable[[str, bytes], bool] | None = None
    code: int = 0x80
    seconds: float = 10.0
    count: int = 2
    closes: bool = False
    stored: bool | None = None
    hits: int = 0
    """How many packets it was applied to."""

    @property
    def stores(self) -> bool:
        return self.act not in _NOT_STORED if self.stored is None else self.stored

    @property
    def is_over(self) -> bool:
        return self.times is not None and self.hits >= self.times

    def matches(self, topic: str, payload: bytes) -> bool:
        """Whether all that is given matches this PUBLISH."""
        return (
            (self.topic is None or self.topic == topic)
            and (self.device is None or msgspec.json.encode(self.device) in payload)
            and (self.contains is None or self.contains.encode() in payload)
            and (self.when is None or self.when(topic, payload))
        )


class Faults:
    """The pending faults; at most one applies to a packet, the oldest that matches."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, fault: Fault) -> Fault:
        """Inject the fault from now on; returns it, so that a test can read its hits."""
        self._waiting.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """End the fault; one that is over already is ignored."""
        if fault in self._waiting:
            self._waiting.remove(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def for_publish(self, topic: str, payload: bytes) -> Fault | None:
        """The fault for this PUBLISH, with the hit counted; None without one."""
        for fault in self._waiting:
            if not fault.act.concerns_connect and fault.matches(topic, payload):
                return self._count_hit(fault)
        return None

    def for_connect(self) -> Fault | None:
        """The fault for this CONNECT, with the hit counted; None without one."""
        for fault in self._waiting:
            if fault.act.concerns_connect:
                return self._count_hit(fault)
        return None

    def _count_hit(self, fault: Fault) -> Fault:
        fault.hits += 1
        if fault.is_over:
            self._waiting.remove(fault)
        return fault
