"""Scripted faults: what the double does instead of its duty (thingsboard-contract 10)."""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs
import msgspec


class Act(enum.Enum):
    """What happens to a PUBLISH, or to a CONNECT, that a Fault was meant for."""

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
    topic: exactly this one.
    device: its name stands in the payload.
    contains: this text stands in the payload.
    when: called with topic and payload.
    code: of REFUSE and REFUSE_CONNECT; the latter in MQTT 5 numbers, an MQTT 3 client gets its own.
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
    """How many packets it has met."""

    @property
    def stores(self) -> bool:
        return self.act not in _NOT_STORED if self.stored is None else self.stored

    @property
    def is_over(self) -> bool:
        return self.times is not None and self.hits >= self.times

    def matches(self, topic: str, payload: bytes) -> bool:
        """Whether it is meant for this PUBLISH."""
        return (
            (self.topic is None or self.topic == topic)
            and (self.device is None or msgspec.json.encode(self.device) in payload)
            and (self.contains is None or self.contains.encode() in payload)
            and (self.when is None or self.when(topic, payload))
        )


class Faults:
    """The faults that are still to come; each packet meets at most one, the oldest that fits."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, fault: Fault) -> Fault:
        """Let it happen from now on; returns it, so that its hits can be read."""
        self._waiting.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """End it; nothing happens when it is over already."""
        if fault in self._waiting:
            self._waiting.remove(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def for_publish(self, topic: str, payload: bytes) -> Fault | None:
        """The fault that this PUBLISH meets, counted as met."""
        for fault in self._waiting:
            if not fault.act.concerns_connect and fault.matches(topic, payload):
                return self._met(fault)
        return None

    def for_connect(self) -> Fault | None:
        """The fault that this CONNECT meets, counted as met."""
        for fault in self._waiting:
            if fault.act.concerns_connect:
                return self._met(fault)
        return None

    def _met(self, fault: Fault) -> Fault:
        fault.hits += 1
        if fault.is_over:
            self._waiting.remove(fault)
        return fault
