"""An MQTT subscriber that counts what arrives: the proof that events were not only answered.

While the load runs it only keeps bytes (a thread of the otherwise idle parent process); what they
say is read afterwards.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import attrs
import msgspec

from .messages import RECORDED

CONNECT, SUBSCRIBE, PUBLISH = 0x10, 0x82, 0x30


class Sink:
    """Every message that the broker hears of, from opening to closing."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 5)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        # MQTT 3.1.1, clean session, no keep-alive; QoS 0 down, for TCP loses nothing here
        self._sock.sendall(_packet(CONNECT, b"\x00\x04MQTT\x04\x02\x00\x00" + _text("bench-sink")))
        self._sock.sendall(_packet(SUBSCRIBE, b"\x00\x01" + _text("#") + b"\x00"))
        self._chunks: list[tuple[bytes, float]] = []
        self._last_at = 0.0  # when something last arrived
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        self._sock.settimeout(None)
        with contextlib.suppress(OSError):
            while data := self._sock.recv(1 << 20):
                self._last_at = time.time()
                self._chunks.append((data, self._last_at))

    def wait_quiet(self, quiet: float, limit: float) -> bool:
        """Wait until nothing comes for `quiet` seconds; False where it still came after `limit`."""
        began = time.time()
        while time.time() - max(self._last_at, began) < quiet:
            if self._last_at - began > limit:
                return False
            time.sleep(0.02)
        return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._sock.close()

    def messages(self) -> Iterator[tuple[str, bytes, float]]:
        """Topic, payload and time of arrival of all that came."""
        data = memoryview(b"".join(chunk for chunk, _ in self._chunks))
        ends = list(accumulate(len(chunk) for chunk, _ in self._chunks))
        place = 0
        while place < len(data):
            head, place = data[place], place + 1
            size = shift = 0
            while True:
                byte, place = data[place], place + 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            body, place = data[place : place + size], place + size
            if head & 0xF0 == PUBLISH and len(body) == size:
                end = 2 + int.from_bytes(body[:2], "big")
                at = self._chunks[bisect_left(ends, place)][1]
                yield str(body[2:end], "utf-8"), bytes(body[end:]), at


def _packet(kind: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([kind]) + length + body


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


# --- what arrived of what was answered --------------------------------------------------------


@attrs.define
class Arrived:
    """Events that arrived, by action; when the last of them did; what it took to tell them."""

    counts: dict[str, int]
    last_at: float = 0.0
    took: dict[str, int] = attrs.field(factory=dict)


def at_topics(sink: Sink) -> Arrived:
    """Of the peers, who publish an event to events/<charger>/<action>."""
    arrived = Arrived(defaultdict(int))
    for topic, _, at in sink.messages():
        action = topic.rpartition("/")[2]
        arrived.counts[action] += 1
        if action in RECORDED:
            arrived.last_at = at
    return arrived


def at_thingsboard(sink: Sink, record: Path, prefix: str) -> Arrived:
    """Of the gateway: which recorded events arrived as telemetry of the charger's connector.

    A sample, a status and a start arrived if the connector has values at the charger's own
    timestamp; a stop, whose place in time may be moved by milliseconds to be unique, if there is a
    receipt for it.
    """
    came: dict[str, dict[int, float]] = defaultdict(dict)  # connector -> timestamp -> arrival
    receipts: dict[str, dict[int, float]] = defaultdict(dict)
    took = {"publishes": 0, "values": 0, "bytes": 0}
    for topic, payload, at in sink.messages():
        if topic != "v1/gateway/telemetry":
            continue
        took["publishes"] += 1
        took["bytes"] += len(payload)
        for device, entries in msgspec.json.decode(payload).items():
            for entry in entries:
                values = entry.get("values", {})
                took["values"] += len(values)
                came[device].setdefault(entry.get("ts", 0), at)
                if "receipt" in values:
                    receipts[device].setdefault(entry.get("ts", 0), at)
    arrived = Arrived(defaultdict(int), took=took)
    stops: dict[str, int] = defaultdict(int)
    recorded = array("q", record.read_bytes())
    for place in range(0, len(recorded), 3):
        action, charger, ms = recorded[place : place + 3]
        device = f"{prefix}-{charger:05d}/1"
        if RECORDED[action] == "StopTransaction":
            stops[device] += 1
        elif at := came[device].get(ms):
            arrived.counts[RECORDED[action]] += 1
            arrived.last_at = max(arrived.last_at, at)
    for device, count in stops.items():
        arrived.counts["StopTransaction"] += min(count, len(receipts[device]))
        arrived.last_at = max(arrived.last_at, *receipts[device].values(), 0.0)
    return arrived
