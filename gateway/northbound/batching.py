"""Rows -> publications: as few as the server's limits allow.  Pure.

One `{"ts", "values"}` object per device and instant, all objects of a device in one array,
and, where the server takes it, many devices in one message.  A row that is too large for a
message goes in several, each with some of its keys: the server keeps every key for itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from .mqtt import Publication
from .rate_limits import MOST_BYTES, Cost
from .telemetry import Row
from .telemetry_keys import CHARGE_POINT_TYPE, CONNECTOR_TYPE, SESSION_LOG_TYPE

TELEMETRY_TOPIC = "v1/gateway/telemetry"
ATTRIBUTES_TOPIC = "v1/gateway/attributes"
CONNECT_TOPIC = "v1/gateway/connect"

_AROUND_A_ROW = 64  # bytes: braces, brackets, "ts", "values", and the largest of instants

_encoder = msgspec.json.Encoder(decimal_format="number")


# A row, or what a message holds of it: its device, its instant, the entry it is of, and its keys.
Told = tuple[str, int | None, int, tuple[str, ...]]


@attrs.define
class Parcel:
    """A publication, which entries of the journal it carries, and what it counts for.

    told: their rows in it.
    """

    publication: Publication
    seqs: frozenset[int]
    cost: Cost
    told: frozenset[Told] = frozenset()


def connect(device: str, session_log: str) -> Publication:
    """Announces a device, with the type that it keeps for ever (thingsboard-contract R1)."""
    if device == session_log:
        kind = SESSION_LOG_TYPE
    else:
        kind = CONNECTOR_TYPE if "/" in device else CHARGE_POINT_TYPE
    return Publication(CONNECT_TOPIC, _encoder.encode({"device": device, "type": kind}))


def topic_of(row: Row) -> str:
    return ATTRIBUTES_TOPIC if row.ts is None else TELEMETRY_TOPIC


def parcels(
    told: Iterable[tuple[int, Row]],
    *,
    many_devices: bool,
    most_bytes: int = MOST_BYTES,
    most_values: int | None = None,
) -> list[Parcel]:
    """Everything that is told, packed.  told: (entry's sequence number, row), in order.

    many_devices: whether a message may carry more than one device (ThingsBoard 4.2.1 on).
    most_bytes, most_values: of one message, None for any number.  A value that is larger than a
        message may be goes alone; the caller is to refuse it.
    """
    items = _merged(told)
    packed: list[Parcel] = []
    for topic, is_ours in ((ATTRIBUTES_TOPIC, False), (TELEMETRY_TOPIC, True)):
        box = _Box(topic, many_devices, most_bytes, most_values)
        for (device, ts), (values, seqs) in items.items():
            if (ts is not None) is is_ours:
                packed.extend(box.take(device, ts, values, seqs))
        packed.extend(box.empty())
    return packed


_Items = dict[tuple[str, int | None], tuple[dict[str, Any], set[int]]]


def _merged(told: Iterable[tuple[int, Row]]) -> _Items:
    """By device, then instant; later values of a key win.  Devices in order of appearance."""
    by_device: dict[str, _Items] = {}
    for seq, row in told:
        items = by_device.setdefault(row.device, {})
        values, seqs = items.setdefault((row.device, row.ts), ({}, set()))
        values.update(row.values)
        seqs.add(seq)
    return {key: item for items in by_device.values() for key, item in items.items()}


def _parts(values: Mapping[str, Any], most: int, room: int) -> Iterator[dict[str, Any]]:
    """A row's values in rows of at most `most` values and `room` bytes, or of a single value."""
    part: dict[str, Any] = {}
    size = 0
    for key, value in values.items():
        cost = len(_encoder.encode({key: value}))  # its braces stand for the comma, and to spare
        if part and (size + cost > room or len(part) >= most):
            yield part
            part, size = {}, 0
        part[key] = value
        size += cost
    yield part


class _Box:
    """What goes into one message, until it is full."""

    def __init__(
        self, topic: str, many_devices: bool, most_bytes: int, most_values: int | None
    ) -> None:
        self._topic = topic
        self._many = many_devices
        self._most = most_bytes
        self._most_values = most_values
        self._values = 0
        self._devices: dict[str, list[bytes]] = {}
        self._seqs: set[int] = set()
        self._told: list[Told] = []
        self._size = 2

    def take(
        self, device: str, ts: int | None, values: Mapping[str, Any], seqs: Collection[int]
    ) -> Iterator[Parcel]:
        """Adds an item; gives the messages that had to make room for it, if any had."""
        body = self._body(ts, values)
        most_values = self._most_values or len(values)
        around = _AROUND_A_ROW + 6 * len(device)  # as JSON a character has no more than 6
        if len(values) > 1 and (len(body) + around > self._most or len(values) > most_values):
            for part in _parts(values, most_values, self._most - around):
                yield from self._put(device, ts, self._body(ts, part), tuple(part), seqs)
        else:
            yield from self._put(device, ts, body, tuple(values), seqs)

    @staticmethod
    def _body(ts: int | None, values: Mapping[str, Any]) -> bytes:
        return _encoder.encode(values if ts is None else {"ts": ts, "values": values})

    def _put(
        self, device: str, ts: int | None, body: bytes, keys: tuple[str, ...], seqs: Iterable[int]
    ) -> Iterator[Parcel]:
        here = device in self._devices
        # Of attributes a device has one object in a message, of telemetry a whole array.
        other = self._devices and (ts is None if here else not self._many)
        heavy = self._size + self._cost(device, body) > self._most
        many = self._values + len(keys) > (self._most_values or math.inf)
        if self._devices and (other or heavy or many):
            yield from self.empty()
        self._values += len(keys)
        self._size += self._cost(device, body)
        self._devices.setdefault(device, []).append(body)
        self._seqs.update(seqs)
        self._told.extend([(device, ts, seq, keys) for seq in seqs])

    def _cost(self, device: str, body: bytes) -> int:
        """Bytes that the item adds, with the device's name where it is the first of it."""
        name = 0 if device in self._devices else len(_encoder.encode(device)) + 4
        return len(body) + 1 + name

    def empty(self) -> Sequence[Parcel]:
        if not self._devices:
            return ()
        payload = b"{" + b",".join(map(self._member, self._devices.items())) + b"}"
        parcel = Parcel(
            Publication(self._topic, payload),
            frozenset(self._seqs),
            Cost(len(self._devices), self._values),
            frozenset(self._told),
        )
        self._devices, self._seqs, self._size, self._values = {}, set(), 2, 0
        self._told = []
        return (parcel,)

    def _member(self, item: tuple[str, list[bytes]]) -> bytes:
        device, bodies = item
        if self._topic == ATTRIBUTES_TOPIC:
            return _encoder.encode(device) + b":" + bodies[0]
        return _encoder.encode(device) + b":[" + b",".join(bodies) + b"]"
