"""MQTT bytes of one connection: MQTT 5 by the mqtt5 package, 3.1 and 3.1.1 by hand.

Whatever the version, packets come in as mqtt5's classes; the encoders write for the version that
CONNECT named, as ThingsBoard's server does (no properties at all: thingsboard-contract B2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import mqtt5
from mqtt5 import (
    ConnectPacket,
    DisconnectPacket,
    PingReqPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubscribePacket,
    TopicFilter,
    UnsubscribePacket,
)

MAX_PACKET_SIZE: Final = 65_536  # remaining length, thingsboard-contract P1
PINGRESP: Final = b"\xd0\x00"

_CONNECT: Final = 1
_MQTT_5: Final = 5


class MalformedPacket(Exception):
    """The client sent bytes that are not MQTT of the version that it began with."""


class PacketTooLarge(MalformedPacket):
    """The client announced a packet larger than ThingsBoard accepts (thingsboard-contract P1)."""


class UnknownVersion(MalformedPacket):
    """CONNECT names a protocol level other than 3, 4 and 5."""


class Wire:
    """Bytes in, packets out; packets in, bytes out.  No I/O."""

    def __init__(self) -> None:
        self.level = _MQTT_5
        self._buffer = bytearray()
        self._connected = False

    @property
    def is_mqtt5(self) -> bool:
        return self.level == _MQTT_5

    # --- in --------------------------------------------------------------------------------------

    def packets(self, data: bytes | bytearray) -> Iterator[mqtt5.Packet]:
        """Add received bytes; yields the packets that are complete by now."""
        self._buffer += data
        while (frame := self._next_frame()) is not None:
            yield self._parse(*frame)

    def _next_frame(self) -> tuple[bytes, int] | None:
        buffer, length = self._buffer, 0
        for at in range(1, 5):
            if at >= len(buffer):
                return None
            length |= (buffer[at] & 0x7F) << 7 * (at - 1)
            if buffer[at] < 0x80:
                break
        else:
            raise MalformedPacket("remaining length of more than four bytes")
        if length > MAX_PACKET_SIZE:
            raise PacketTooLarge(f"a packet of {length} bytes")
        header, end = at + 1, at + 1 + length
        if len(buffer) < end:
            return None
        frame = bytes(buffer[:end])
        del buffer[:end]
        return frame, header

    def _parse(self, frame: bytes, header: int) -> mqtt5.Packet:
        try:
            if not self._connected:
                self._connected, self.level = True, _level(frame, header)
            if self.is_mqtt5:
                return mqtt5.read(memoryview(frame))[0]
            return _read_3(frame, header)
        except (ValueError, IndexError, struct.error) as exc:
            raise MalformedPacket(str(exc)) from exc

    # --- out -------------------------------------------------------------------------------------

    def connack(self, code: int, *, session_present: bool) -> bytes:
        if self.is_mqtt5:
            return bytes((0x20, 3, session_present, code, 0))
        return bytes((0x20, 2, session_present, code))

    def publish(self, topic: str, payload: bytes, packet_id: int | None) -> bytes:
        """A PUBLISH of QoS 1, or of QoS 0 where the packet id is None."""
        name = topic.encode()
        body = struct.pack("!H", len(name)) + name
        if packet_id is not None:
            body += struct.pack("!H", packet_id)
        if self.is_mqtt5:
            body += b"\0"
        size = len(body) + len(payload)
        head = bytes((0x30 if packet_id is None else 0x32,)) + _varint(size)
        return head + body + payload

    def puback(self, packet_id: int, code: int) -> bytes:
        if code and self.is_mqtt5:
            return struct.pack("!BBHBB", 0x40, 4, packet_id, code, 0)
        return struct.pack("!BBH", 0x40, 2, packet_id)

    def suback(self, packet_id: int, codes: Sequence[int]) -> bytes:
        return self._answer(0x90, packet_id, codes)

    def unsuback(self, packet_id: int, codes: Sequence[int]) -> bytes:
        return self._answer(0xB0, packet_id, codes if self.is_mqtt5 else ())

    def _answer(self, kind: int, packet_id: int, codes: Sequence[int]) -> bytes:
        body = struct.pack("!H", packet_id) + (b"\0" if self.is_mqtt5 else b"") + bytes(codes)
        return bytes((kind,)) + _varint(len(body)) + body

    def disconnect(self, code: int) -> bytes:
        """Empty for MQTT 3, whose servers send no DISCONNECT."""
        return bytes((0xE0, 2, code, 0)) if self.is_mqtt5 else b""


def _varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def _level(frame: bytes, header: int) -> int:
    if frame[0] >> 4 != _CONNECT:
        raise MalformedPacket("the first packet is not CONNECT")
    name, at = _text(frame, header)
    level = frame[at]
    if (name, level) not in {("MQIsdp", 3), ("MQTT", 4), ("MQTT", _MQTT_5)}:
        raise UnknownVersion(f"{name} level {level}")
    return level


def _text(frame: bytes, at: int) -> tuple[str, int]:
    raw, at = _binary(frame, at)
    return raw.decode(), at


def _binary(frame: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("!H", frame, at)
    end = at + 2 + length
    if end > len(frame):
        raise MalformedPacket("a field is longer than its packet")
    return frame[at + 2 : end], end


def _read_3(frame: bytes, at: int) -> mqtt5.Packet:
    """One packet of MQTT 3.1 or 3.1.1, as far as a client of ThingsBoard sends them."""
    match frame[0] >> 4:
        case 1:
            return _connect_3(frame, at)
        case 3:
            qos = QoS(frame[0] >> 1 & 3)
            topic, at = _text(frame, at)
            packet_id = None
            if qos != QoS.AT_MOST_ONCE:
                (packet_id,) = struct.unpack_from("!H", frame, at)
                at += 2
            return PublishPacket(
                topic, frame[at:], qos=qos, packet_id=packet_id, duplicate=bool(frame[0] & 8)
            )
        case 4:
            return PubAckPacket(*struct.unpack_from("!H", frame, at))
        case 8:
            (packet_id,) = struct.unpack_from("!H", frame, at)
            at, filters = at + 2, []
            while at < len(frame):
                pattern, at = _text(frame, at)
                filters.append(TopicFilter(pattern, max_qos=QoS(frame[at])))
                at += 1
            return SubscribePacket(packet_id, filters)
        case 10:
            (packet_id,) = struct.unpack_from("!H", frame, at)
            at, patterns = at + 2, []
            while at < len(frame):
                pattern, at = _text(frame, at)
                patterns.append(pattern)
            return UnsubscribePacket(packet_id, patterns)
        case 12:
            return PingReqPacket()
        case 14:
            return DisconnectPacket()
    raise MalformedPacket(f"packet type {frame[0] >> 4} from a client")


def _connect_3(frame: bytes, at: int) -> ConnectPacket:
    _, at = _text(frame, at)
    flags = frame[at + 1]
    client_id, at = _text(frame, at + 4)
    username = password = None
    if flags & 0x04:  # the will is ignored, thingsboard-contract B2
        _, at = _text(frame, at)
        _, at = _binary(frame, at)
    if flags & 0x80:
        username, at = _text(frame, at)
    if flags & 0x40:
        password, at = _binary(frame, at)
    return ConnectPacket(
        client_id, username=username, password=password, clean_start=bool(flags & 0x02)
    )
