"""One client's MQTT connection: CONNECT, subscriptions, PUBLISHes in both directions.

Laws:
1. Packets are handled in order and in full; their values are stored before their PUBACK is queued.
2. Sending never blocks: it queues bytes, which a writer task sends.  The connection stops reading
   from a client that does not read its answers, so the queue stays bounded; no other client
   notices.
3. When the connection ends, however it ends, its device sessions end with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
import trio
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

from .faults import Act, Fault
from .profile import Budget
from .publish_handlers import handle_publish
from .publish_outcomes import PublishOutcome
from .store import Device
from .transport import Transport
from .wire import PINGRESP, MalformedPacket, PacketTooLarge, UnknownVersion, Wire

log = structlog.get_logger(__name__)

_SUBSCRIBABLE: Final = frozenset(
    {
        "v1/gateway/rpc",
        "v1/gateway/attributes",
        "v1/gateway/attributes/response",
        "v1/devices/me/attributes",
        "v1/devices/me/rpc/request/+",
        "v1/devices/me/rpc/response/+",
        "v1/devices/me/attributes/response/+",
    }
)  # ThingsBoard accepts exactly these: thingsboard-contract 3
_TOPIC_FILTER_INVALID: Final = 0x8F
_FAILURE_3: Final = 0x80
_MALFORMED: Final = 0x81
_PROTOCOL_ERROR: Final = 0x82
_UNSUPPORTED_VERSION: Final = 0x84
_UNSUPPORTED_VERSION_3: Final = 0x01
_QUOTA_EXCEEDED: Final = 0x97
# CONNACK codes of MQTT 5 and their counterparts in MQTT 3, thingsboard-contract C1
_CONNACK_3: Final = {0x84: 1, 0x85: 2, 0x86: 5, 0x87: 5, 0x88: 3, 0x9F: 3}

_IDLE_TIMEOUT: Final = 600.0  # seconds until a silent session is closed, thingsboard-contract B4
_QUEUE_LIMIT: Final = 64 * 1024
_MAX_IN_FLIGHT: Final = 100  # thingsboard-contract C4
_CLOSE_TIMEOUT: Final = 5.0  # seconds that a closing connection has to send what is queued


class MqttConnection:
    """A client's connection from accept to close."""

    own: Device
    budget: Budget

    def __init__(self, transport: Transport, stream: trio.abc.Stream) -> None:
        self.devices: dict[str, Device] = {}
        self.announced: set[str] = set()
        self.token: str | None = None
        self.is_open = False
        self._transport = transport
        self._stream = stream
        self._wire = Wire()
        self._queue = bytearray()
        self._queued = trio.Event()
        self._drained = trio.Event()
        self._closing = False
        self._scope = trio.CancelScope()
        self._subscriptions: dict[str, int] = {}
        self._next_id = transport.first_downlink_id
        self._unacked = 0
        self._ignores_packets = False
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serve the connection to its end; the stream remains to be closed."""
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._write)
                await self._read()
                self.close()

    # --- for the core --------------------------------------------------------------------------

    @property
    def sends_reason_codes(self) -> bool:
        """Whether this client gets MQTT 5 reason codes."""
        return self._wire.is_mqtt5 and self._transport.profile.reason_codes

    def send_json(self, topic: str, value: Any) -> None:
        self.publish(topic, msgspec.json.encode(value))

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a PUBLISH, subscribed or not; QoS 1 unless a subscription asked for 0 (B5)."""
        if self._granted_qos(topic) == 0:
            self._send(self._wire.publish(topic, payload, None))
            return
        packet_id, self._next_id = self._next_id & 0xFFFF, self._next_id + 1  # 0 is not skipped, B6
        self._send(self._wire.publish(topic, payload, packet_id))

    def close(self, reason: int | None = None) -> None:
        """Close it once the queued bytes are sent; with a DISCONNECT if there is a reason."""
        if self._closing:
            return
        if reason is not None and self.sends_reason_codes:
            self._send(self._wire.disconnect(reason))
        self._closing = True
        self._queued.set()
        self._scope.deadline = trio.current_time() + _CLOSE_TIMEOUT

    def abort(self) -> None:
        """Close it now; the queued bytes are lost."""
        self._scope.cancel()

    # --- reading -------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while not self._closing:
                with trio.move_on_after(_IDLE_TIMEOUT) as idle:
                    data = await self._stream.receive_some()
                if idle.cancelled_caught or not data:
                    return
                await self._transport.wait_thawed()
                self._handle_packets(data)
                if len(self._queue) > _QUEUE_LIMIT:
                    await self._wait_drained()
        except UnknownVersion as exc:
            log.info("client refused", why=str(exc))
            code = _UNSUPPORTED_VERSION if self._wire.is_mqtt5 else _UNSUPPORTED_VERSION_3
            self._send(self._wire.connack(code, session_present=False))
        except MalformedPacket as exc:
            assertion = "P1" if isinstance(exc, PacketTooLarge) else "MQTT"
            self._transport.report_violation(assertion, "FAIL", str(exc))
            self.close(_MALFORMED if self.is_open else None)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.debug("client disconnected", why=str(exc))

    def _handle_packets(self, data: bytes | bytearray) -> None:
        packets: list[Any] = []
        try:
            packets.extend(self._wire.packets(data))
        finally:
            # Packets that came before a malformed one are handled.
            self._count_in_flight(packets)
            for packet in packets:
                if not self._closing:
                    self._handle_packet(packet)

    def _count_in_flight(self, packets: Sequence[Any]) -> None:
        self._unacked += sum(
            isinstance(p, PublishPacket) and p.packet_id is not None for p in packets
        )
        if self._unacked > self._transport.publishes.max_in_flight:
            self._transport.publishes.max_in_flight = self._unacked
            if self._unacked > _MAX_IN_FLIGHT:
                self._transport.report_violation(
                    "C4", "FAIL", f"{self._unacked} messages in flight"
                )

    def _handle_packet(self, packet: Any) -> None:
        if self._ignores_packets:
            if self._unacked > _MAX_IN_FLIGHT:
                self.close(_QUOTA_EXCEEDED)
            return
        match packet:
            case ConnectPacket() if not self.is_open:
                self._connect(packet)
            case PublishPacket():
                self._handle_publish(packet)
            case PubAckPacket():
                self._transport.publishes.downlinks_acked += 1
            case SubscribePacket():
                codes = [self._subscribe(wanted) for wanted in packet.topic_filters]
                self._send(self._wire.suback(packet.packet_id, codes))
            case UnsubscribePacket():
                codes = [self._unsubscribe(pattern) for pattern in packet.patterns]
                self._send(self._wire.unsuback(packet.packet_id, codes))
            case PingReqPacket():
                self._send(PINGRESP)
            case DisconnectPacket():
                self.close()
            case _:
                self.close(_PROTOCOL_ERROR)

    # --- CONNECT and subscriptions -------------------------------------------------------------

    def _connect(self, packet: ConnectPacket) -> None:
        fault = self._transport.faults.for_connect()
        code = self._transport.connack_code(packet)
        match fault:
            case Fault(act=Act.SILENT_CONNECT):
                self._ignores_packets = True
                return
            case Fault(act=Act.DROP_CONNECT):
                self.close()
                return
            case Fault(act=Act.REFUSE_CONNECT):
                code = fault.code
        # ThingsBoard says "session present", yet it has kept nothing: thingsboard-contract B3
        answer = code if self.sends_reason_codes else _CONNACK_3.get(code, code)
        self._send(self._wire.connack(answer, session_present=not packet.clean_start))
        if code:
            self.close()
            return
        self.is_open, self.token = True, packet.username or ""
        self._transport.accept_client(self, self.token)

    def _subscribe(self, wanted: TopicFilter) -> int:
        if wanted.pattern not in _SUBSCRIBABLE:
            self._transport.report_violation(
                "3", "FAIL", f"subscription to {wanted.pattern} is refused"
            )
            return _TOPIC_FILTER_INVALID if self.sends_reason_codes else _FAILURE_3
        granted = min(int(wanted.max_qos), 1)
        self._subscriptions[wanted.pattern] = granted
        return granted

    def _unsubscribe(self, pattern: str) -> int:
        known = self._subscriptions.pop(pattern, None) is not None
        return 0 if known else 0x11

    def _granted_qos(self, topic: str) -> int:
        any_tail = topic.rpartition("/")[0] + "/+"
        return self._subscriptions.get(topic, self._subscriptions.get(any_tail, 1))

    # --- PUBLISH -------------------------------------------------------------------------------

    def _handle_publish(self, packet: PublishPacket) -> None:
        transport, topic = self._transport, packet.topic
        payload = packet.payload
        transport.count_publish(topic, payload, is_duplicate=packet.duplicate)
        if packet.qos != QoS.AT_LEAST_ONCE:
            transport.report_violation("P2", "FAIL", f"{topic}: QoS {int(packet.qos)}")
        fault = transport.faults.for_publish(topic, payload) if len(transport.faults) else None
        is_stored = fault is None or fault.stores
        outcome = handle_publish(transport, self, topic, payload) if is_stored else PublishOutcome()
        if fault is not None:
            outcome = _apply_fault(fault, outcome)
        transport.record_publish(topic, payload, outcome)
        transport.wake_waiters()
        # QoS 2 gets PUBACK, not PUBREC, and QoS 0 nothing: thingsboard-contract P2
        if outcome.delay and self._nursery is not None:
            self._nursery.start_soon(self._acknowledge_later, packet.packet_id, outcome)
        else:
            self._acknowledge(packet.packet_id, outcome)

    async def _acknowledge_later(self, packet_id: int | None, outcome: PublishOutcome) -> None:
        await trio.sleep(outcome.delay)
        self._acknowledge(packet_id, outcome)

    def _acknowledge(self, packet_id: int | None, outcome: PublishOutcome) -> None:
        if packet_id is not None and outcome.codes:
            self._unacked -= 1
            for code in outcome.codes:
                shown = code if self.sends_reason_codes else 0
                self._send(self._wire.puback(packet_id, shown))
        if outcome.close:
            self.close()

    # --- writing -------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if not self._closing:
            self._queue += data
            self._queued.set()

    async def _wait_drained(self) -> None:
        self._drained = trio.Event()
        await self._drained.wait()

    async def _write(self) -> None:
        try:
            while True:
                await self._queued.wait()
                self._queued = trio.Event()
                await self._transport.wait_thawed()
                is_last = self._closing
                data, self._queue = self._queue, bytearray()
                await self._stream.send_all(data)
                self._drained.set()
                if is_last:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.debug("client disconnected", why=str(exc))
        self._scope.cancel()


def _apply_fault(fault: Fault, outcome: PublishOutcome) -> PublishOutcome:
    match fault.act:
        case Act.CLOSE:
            return PublishOutcome((), close=True)
        case Act.ACK_AND_CLOSE:
            return PublishOutcome(outcome.codes, close=True)
        case Act.NO_ACK:
            return PublishOutcome(())
        case Act.REFUSE:
            return PublishOutcome((fault.code,), close=fault.closes)
        case Act.RATE_LIMIT:
            return PublishOutcome((_QUOTA_EXCEEDED,), close=True)
        case Act.DUPLICATE_ACK:
            return PublishOutcome(outcome.codes * fault.count)
        case Act.DELAY:
            return PublishOutcome(outcome.codes, outcome.close, fault.seconds)
    raise AssertionError(f"{fault.act} does not apply to a PUBLISH")
