"""A minimal raw MQTT 5 client, so that each byte a test sends and sees is its own."""

from __future__ import annotations

from contextlib import asynccontextmanager

import mqtt5
import msgspec
import trio
import trio.testing

TELEMETRY = "v1/gateway/telemetry"
CONNECT = "v1/gateway/connect"
RPC = "v1/gateway/rpc"
TS = 1_700_000_000_000


class RawClient:
    """Sends packets and gives those that come, oldest first."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self._buffer = bytearray()
        self._next_id = 0

    async def send(self, *packets) -> None:
        await self.stream.send_all(b"".join(packet.write() for packet in packets))

    async def receive(self, within: float = 20):
        """The next packet; None once the server has closed."""
        with trio.fail_after(within):
            while True:
                try:
                    packet, size = mqtt5.read(memoryview(self._buffer))
                except IndexError:
                    data = await self.stream.receive_some()
                    if not data:
                        return None
                    self._buffer += data
                else:
                    self._buffer = self._buffer[size:]
                    return packet

    async def silence(self, seconds: float) -> bool:
        """Whether nothing, not even an end, comes for so long."""
        with trio.move_on_after(seconds) as scope:
            await self.receive(seconds + 1)
        return scope.cancelled_caught

    async def connect(self, token: str = "token", **more):
        packet = mqtt5.ConnectPacket("client", username=token, clean_start=True, **more)
        await self.send(packet)
        return await self.receive()

    def packet(self, topic: str, value, *, qos: int = 1) -> mqtt5.PublishPacket:
        payload = value if isinstance(value, bytes) else msgspec.json.encode(value)
        self._next_id = self._next_id % 65_535 + 1
        packet_id = self._next_id if qos else None
        return mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS(qos), packet_id=packet_id)

    async def publish(self, topic: str, value, *, qos: int = 1) -> int:
        """Publish, and give the reason code of the PUBACK that must come next."""
        packet = self.packet(topic, value, qos=qos)
        await self.send(packet)
        ack = await self.receive()
        assert isinstance(ack, mqtt5.PubAckPacket), ack
        assert ack.packet_id == packet.packet_id
        return int(ack.reason_code)

    async def announce(self, *devices: str, kind: str = "EV charger") -> None:
        for device in devices:
            assert await self.publish(CONNECT, {"device": device, "type": kind}) == 0

    async def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        wanted = [mqtt5.TopicFilter(name, max_qos=mqtt5.QoS(qos)) for name in filters]
        await self.send(mqtt5.SubscribePacket(9, wanted))
        return [int(code) for code in (await self.receive()).reason_codes]

    async def message(self):
        """The next PUBLISH as (topic, decoded payload), acknowledged."""
        packet = await self.receive()
        assert isinstance(packet, mqtt5.PublishPacket), packet
        if packet.qos:
            await self.send(mqtt5.PubAckPacket(packet.packet_id))
        return packet.topic, msgspec.json.decode(packet.payload)


@asynccontextmanager
async def open_client(thingsboard, token: str | None = "token"):
    """A client of the double over a memory stream; connected unless the token is None."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thingsboard.serve_stream, theirs)
        client = RawClient(ours)
        if token is not None:
            assert (await client.connect(token)).reason_code == 0
        yield client
        nursery.cancel_scope.cancel()


def row(ts: int = TS, **values):
    """One row of telemetry."""
    return {"ts": ts, "values": values}
