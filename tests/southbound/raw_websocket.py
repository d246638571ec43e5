"""A charge point's end of the wire, byte by byte: what no WebSocket library would send."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
from trio.testing import memory_stream_one_way_pair, memory_stream_pair, wait_all_tasks_blocked

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x01\x02\x03\x04"
UPGRADE = (
    "Host: gateway",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
OCPP = "Sec-WebSocket-Protocol: ocpp1.6"


class NarrowPipe(trio.abc.SendStream, trio.abc.ReceiveStream):
    """One direction of a stream, with room for `room` bytes that nobody has read yet."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._bytes = bytearray()
        self._closed = False
        self._changed = trio.lowlevel.ParkingLot()

    async def send_all(self, data: Any) -> None:
        await trio.lowlevel.checkpoint()
        for byte in bytes(data):
            while len(self._bytes) >= self._room and not self._closed:
                await self._changed.park()
            if self._closed:
                raise trio.ClosedResourceError
            self._bytes.append(byte)
            self._changed.unpark_all()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._bytes and not self._closed:
            await self._changed.park()
        data = bytes(self._bytes[:max_bytes])
        del self._bytes[:max_bytes]
        self._changed.unpark_all()
        return data

    async def aclose(self) -> None:
        self._closed = True
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()


def clogged_pair(room: int) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """(client, server): `room` bytes that the client has not read hold the server's sends up."""
    to_server = memory_stream_one_way_pair()
    to_client = NarrowPipe(room)
    return (
        trio.StapledStream(to_server[0], to_client),
        trio.StapledStream(to_client, to_server[1]),
    )


async def until(holds: Callable[[], object], within: float = 120) -> float:
    """Seconds until something holds that nobody tells of."""
    before = trio.current_time()
    with trio.fail_after(within):
        while not holds():  # noqa: ASYNC110  there is no event to wait for
            await trio.sleep(0.05)
    return trio.current_time() - before


def request(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", *UPGRADE, *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True) -> bytes:
    """One WebSocket frame as a client sends it (RFC 6455 section 5.2)."""
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    key = (MASK * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + MASK + hidden.to_bytes(size, "big")


def call(action: str, unique_id: str = "m", **payload: Any) -> bytes:
    return frame(TEXT, json.dumps([2, unique_id, action, payload]).encode())


@attrs.define
class Response:
    """What an HTTP server says before it may be a WebSocket."""

    status: int
    headers: dict[str, str]
    body: bytes


@attrs.define(eq=False)
class Peer:
    """The stream, and what came of it beyond what was read."""

    stream: trio.abc.Stream
    _rest: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def upgrade(self, path: str, *headers: str) -> Response:
        await self.send(request(path, *headers))
        return await self.response()

    async def response(self) -> Response:
        """The head of a response, and what belongs to it."""
        while b"\r\n\r\n" not in self._rest:
            await self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        size = int(headers.get("content-length", 0))
        return Response(int(first.split()[1]), headers, await self._exactly(size))

    async def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame; none of ours is masked or in pieces."""
        first, second = await self._exactly(2)
        assert (first & 0xF0, second & 0x80) == (0x80, 0), "garbage"
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", await self._exactly(2))
        elif second == 127:
            (size,) = struct.unpack("!Q", await self._exactly(8))
        return first & 0x0F, await self._exactly(size)

    async def message(self) -> Any:
        """The next OCPP-J message, whatever pings come before it."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                return json.loads(payload)
            assert opcode in (PING, PONG), (opcode, payload)

    async def close_code(self) -> int | None:
        """Of the Close that comes next; None where the stream ends without one."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except EOFError:
            return None

    async def end(self) -> bytes:
        """All that comes until the other side ends the stream."""
        while True:
            try:
                await self._more()
            except EOFError:
                return self._rest

    async def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            await self._more()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise EOFError
        self._rest += data


@asynccontextmanager
async def dial(gateway: Any, *, clogged: bool = False, room: int = 8) -> AsyncIterator[Peer]:
    """A connection of which nothing is said yet; it ends with the block."""
    pair = partial(clogged_pair, room) if clogged else memory_stream_pair
    stream = await gateway.listener.connect(pair)
    try:
        yield Peer(stream)
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def opened(
    gateway: Any, charge_point_id: str, *headers: str, **how: Any
) -> AsyncIterator[Peer]:
    """A WebSocket by hand."""
    async with dial(gateway, **how) as peer:
        response = await peer.upgrade(f"/ocpp/{charge_point_id}", *(headers or (OCPP,)))
        assert response.status == 101, response
        await wait_all_tasks_blocked()
        yield peer
