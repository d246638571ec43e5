"""Rows -> MQTT messages: as few as the server's limits allow.  Pure.

One `{"ts", "values"}` object per device and instant, all objects of a device in one array,
and, where the server takes it, many devices in one message.  A row that is too large for a
message goes in several, each with some of its keys: the server keeps every key for itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from ..domain import json_codec
from .mqtt import Publication
from .rate_limits import MAX_BYTES, MessageCost
from .telemetry import TelemetryRow
from .telemetry_keys import CHARGE_POINT_TYPE, CONNECTOR_TYPE, SESSION_LOG_TYPE

TELEMETRY_TOPIC = "v1/gateway/telemetry"
ATTRIBUTES_TOPIC = "v1/gateway/attributes"
CONNECT_TOPIC = "v1/gateway/connect"

_AROUND_A_ROW = 64  # bytes: braces, brackets, "ts", "values", and the largest of instants


# A row, or what a message holds of it: its device, its instant, the entry it is of, and its keys.
RowPart = tuple[str, int | None, int, tuple[str, ...]]


@attrs.define
class TelemetryMessage:
    """A publication, which entries of the journal it carries, and what it counts for.

    parts: their rows in it.
    """

    publication: Publication
    seqs: frozenset[int]
    cost: MessageCost
    parts: frozenset[RowPart] = frozenset()


def connect_message(device: str, session_log: str) -> Publication:
    """Announces a device, with the type that it keeps for ever (thingsboard-contract R1)."""
    if device == session_log:
        kind = SESSION_LOG_TYPE
    else:
        kind = CONNECTOR_TYPE if "/" in device else CHARGE_POINT_TYPE
    return Publication(CONNECT_TOPIC, json_codec.encode({"device": device, "type": kind}))


def topic_of(row: TelemetryRow) -> str:
    return ATTRIBUTES_TOPIC if row.ts is None else TELEMETRY_TOPIC


def pack(
    entry_rows: Iterable[tuple[int, TelemetryRow]],
    *,
    batch_devices: bool,
    max_bytes: int = MAX_BYTES,
    max_values: int | None = None,
) -> list[TelemetryMessage]:
    """Every row, packed into messages.  entry_rows: (entry's sequence number, row), in order.

    batch_devices: whether a message may carry more than one device (ThingsBoard 4.2.1 on).
    max_bytes, max_values: of one message, None for any number.  A value that is larger than a
        message may be goes alone; the caller is to refuse it.
    """
    items = _merged(entry_rows)
    packed: list[TelemetryMessage] = []
    for topic, has_time in ((ATTRIBUTES_TOPIC, False), (TELEMETRY_TOPIC, True)):
        builder = _MessageBuilder(topic, batch_devices, max_bytes, max_values)
        for (device, ts), (values, seqs) in items.items():
            if (ts is not None) is has_time:
                packed.extend(builder.add(device, ts, values, seqs))
        packed.extend(builder.finish())
    return packed


_Items = dict[tuple[str, int | None], tuple[dict[str, Any], set[int]]]


def _merged(entry_rows: Iterable[tuple[int, TelemetryRow]]) -> _Items:
    """By device, then instant; later values of a key win.  Devices in order of appearance."""
    by_device: dict[str, _Items] = {}
    for seq, row in entry_rows:
        items = by_device.setdefault(row.device, {})
        values, seqs = items.setdefault((row.device, row.ts), ({}, set()))
        values.update(row.values)
        seqs.add(seq)
    return {key: item for items in by_device.values() for key, item in items.items()}


def _parts(values: Mapping[str, Any], max_values: int, max_bytes: int) -> Iterator[dict[str, Any]]:
    """A row's values in rows of at most `max_values` values and `max_bytes` bytes, or of a
    single value.
    """
    part: dict[str, Any] = {}
    size = 0
    for key, value in values.items():
        cost = len(json_codec.encode({key: value}))  # its braces stand for the comma, and to spare
        if part and (size + cost > max_bytes or len(part) >= max_values):
            yield part
            part, size = {}, 0
        part[key] = value
        size += cost
    yield part


class _MessageBuilder:
    """What goes into one message, until it is full."""

    def __init__(
        self, topic: str, batch_devices: bool, max_bytes: int, max_values: int | None
    ) -> None:
        self._topic = topic
        self._batch_devices = batch_devices
        self._max_bytes = max_bytes
        self._max_values = max_values
        self._values = 0
        self._devices: dict[str, list[bytes]] = {}
        self._seqs: set[int] = set()
        self._row_parts: list[RowPart] = []
        self._size = 2

    def add(
        self, device: str, ts: int | None, values: Mapping[str, Any], seqs: Collection[int]
    ) -> Iterator[TelemetryMessage]:
        """Adds an item; gives the messages that had to make room for it, if any had."""
        body = self._body(ts, values)
        max_values = self._max_values or len(values)
        around = _AROUND_A_ROW + 6 * len(device)  # as JSON a character has no more than 6
        if len(values) > 1 and (len(body) + around > self._max_bytes or len(values) > max_values):
            for part in _parts(values, max_values, self._max_bytes - around):
                yield from self._add_part(device, ts, self._body(ts, part), tuple(part), seqs)
        else:
            yield from self._add_part(device, ts, body, tuple(values), seqs)

    @staticmethod
    def _body(ts: int | None, values: Mapping[str, Any]) -> bytes:
        return json_codec.encode(values if ts is None else {"ts": ts, "values": values})

    def _add_part(
        self, device: str, ts: int | None, body: bytes, keys: tuple[str, ...], seqs: Iterable[int]
    ) -> Iterator[TelemetryMessage]:
        here = device in self._devices
        # Of attributes a device has one object in a message, of telemetry a whole array.
        other = self._devices and (ts is None if here else not self._batch_devices)
        heavy = self._size + self._cost(device, body) > self._max_bytes
        many = self._values + len(keys) > (self._max_values or math.inf)
        if self._devices and (other or heavy or many):
            yield from self.finish()
        self._values += len(keys)
        self._size += self._cost(device, body)
        self._devices.setdefault(device, []).append(body)
        self._seqs.update(seqs)
        self._row_parts.extend([(device, ts, seq, keys) for seq in seqs])

    def _cost(self, device: str, body: bytes) -> int:
        """Bytes that the item adds, with the device's name where it is the first of it."""
        name = 0 if device in self._devices else len(json_codec.encode(device)) + 4
        return len(body) + 1 + name

    def finish(self) -> Sequence[TelemetryMessage]:
        if not self._devices:
            return ()
        payload = b"{" + b",".join(map(self._member, self._devices.items())) + b"}"
        message = TelemetryMessage(
            Publication(self._topic, payload),
            frozenset(self._seqs),
            MessageCost(len(self._devices), self._values),
            frozenset(self._row_parts),
        )
        self._devices, self._seqs, self._size, self._values = {}, set(), 2, 0
        self._row_parts = []
        return (message,)

    def _member(self, item: tuple[str, list[bytes]]) -> bytes:
        device, bodies = item
        if self._topic == ATTRIBUTES_TOPIC:
            return json_codec.encode(device) + b":" + bodies[0]
        return json_codec.encode(device) + b":[" + b",".join(bodies) + b"]"
