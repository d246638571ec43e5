"""The seam to WebSocket: receive text, send text, close.  trio-websocket behind it.

What is known to go wrong there is kept from everybody else in this module and in the guard
that `door` puts round each connection:

* its reader task can raise (a ping that comes after our Close: wsproto's LocalProtocolError),
  so it runs in the nursery of its own connection and nowhere else;
* a cancelled send leaves half a frame on the wire, so it ends the connection;
* its `ping` waits for the pong without limit, so ours only sends: any frame is a sign of life;
* `aclose` waits for the peer without limit, so whoever calls it sets a deadline;
* it never closes the stream of a handshake that it rejected; `trio.serve_listeners` does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, Event, Ping, TextMessage

from .pace import Pace, PacedStream

UNSUPPORTED_DATA, ABNORMAL, UNREADABLE = 1003, 1006, 1007


class SocketClosed(Exception):
    """The connection ended.  code: a WebSocket close code; 1006 where there was no close frame."""

    def __init__(self, code: int, reason: str | None) -> None:
        super().__init__(f"{reason or 'closed by the charge point'} ({code})")
        self.code = code


class Socket(Protocol):
    """One charge point's connection, as the session sees it."""

    @property
    def heard_at(self) -> float:
        """Trio's time at which the last whole frame of the peer came, of whatever kind."""

    async def receive(self) -> str:
        """The next text message.  Raises SocketClosed."""

    async def send(self, text: str) -> None:
        """Send a text message whole.  Raises SocketClosed.  Cancelled, it ends the connection."""

    async def ping(self) -> None:
        """Ask for a sign of life.  Raises SocketClosed.  Cancelled, it ends the connection."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye and wait for the peer's; may wait for ever."""

    async def abort(self) -> None:
        """End the connection now, whatever is under way."""


class _WatchedProtocol(WSConnection):
    """wsproto's connection, which notes when the peer last finished a frame, and counts them."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(ConnectionType.SERVER)
        self.heard_at = trio.current_time()
        self._pace = pace

    def events(self) -> Generator[Event, None, None]:
        for event in super().events():
            self._pace.count()
            # A frame that trickles in byte by byte is no sign of life until it is whole.
            if not isinstance(event, TextMessage | BytesMessage) or event.frame_finished:
                self.heard_at = trio.current_time()
            yield event


class TrioSocket:
    """A Socket on trio-websocket.  Owns: the stream."""

    def __init__(
        self, connection: WebSocketConnection, protocol: _WatchedProtocol, stream: trio.abc.Stream
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._stream = stream

    @property
    def heard_at(self) -> float:
        return self._protocol.heard_at

    async def receive(self) -> str:
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as exc:
            raise _closed(exc.reason) from exc
        if isinstance(message, str):
            return message
        await self.close(UNSUPPORTED_DATA, "OCPP-J is text")
        raise SocketClosed(UNSUPPORTED_DATA, "the charge point sent a binary message")

    async def send(self, text: str) -> None:
        await self._whole(self._connection.send_message(text))

    async def ping(self) -> None:
        if self._connection.closed is not None:
            raise _closed(self._connection.closed)
        await self._whole(self._connection._send(Ping()))  # noqa: SLF001  its own waits for a pong

    async def _whole(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except ConnectionClosed as exc:
            raise _closed(exc.reason) from exc
        except BaseException:  # cut in half: nothing that follows could be understood
            await self.abort()  # noqa: ASYNC102  it waits for nobody
            raise

    async def close(self, code: int, reason: str) -> None:
        await self._connection.aclose(code, reason)

    async def abort(self) -> None:
        await trio.aclose_forcefully(self._stream)


def _closed(reason: CloseReason | None) -> SocketClosed:
    if reason is None or reason.code == ABNORMAL:
        return SocketClosed(ABNORMAL, "connection lost")
    return SocketClosed(reason.code, reason.reason)


class Handshake:
    """A request to open a WebSocket, not answered yet."""

    def __init__(self, request: WebSocketRequest, finish: Callable[[Any], TrioSocket]) -> None:
        self._request = request
        self._finish = finish
        self.path: str = request.path
        self.subprotocols: tuple[str, ...] = tuple(request.proposed_subprotocols)

    def header(self, name: bytes) -> bytes | None:
        """The value of a header field, its name in lower case."""
        for field, value in self._request.headers:
            if field.lower() == name:
                return bytes(value)
        return None

    async def accept(self, subprotocol: str | None) -> TrioSocket:
        """Raises SocketClosed."""
        try:
            return self._finish(await self._request.accept(subprotocol=subprotocol))
        except ConnectionClosed as exc:
            raise _closed(exc.reason) from exc

    async def reject(self, status: int, why: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Raises SocketClosed."""
        text = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        try:
            await self._request.reject(status, extra_headers=text + headers, body=why.encode())
        except ConnectionClosed as exc:
            raise _closed(exc.reason) from exc


async def read_handshake(
    stream: trio.abc.Stream,
    tasks: trio.Nursery,
    *,
    max_message_bytes: int,
    pace: Pace,
    waiting: trio.CancelScope,
) -> Handshake:
    """The peer's request to open a WebSocket.

    tasks: where trio-websocket's reader goes on running.  It may raise: the nursery is to be
        the connection's own.
    pace: how fast the connection is read, from its first byte to its last.
    waiting: the scope that the handshake runs in; cancelled when the peer leaves before its end.
    """
    protocol = _WatchedProtocol(pace)
    connection = WebSocketConnection(
        PacedStream(stream, pace), protocol, max_message_size=max_message_bytes
    )

    async def read() -> None:
        # trio-websocket's own server runs its connections by these two calls as well; it
        # only does so in a nursery that all of them share.
        try:
            await connection._reader_task()  # noqa: SLF001
        except ConnectionClosed as exc:  # it left while a fault of its own was answered
            raise _closed(exc.reason) from exc
        except UnicodeError as exc:  # in a header; frames are judged by wsproto itself
            raise SocketClosed(UNREADABLE, "a handshake that is no text") from exc
        waiting.cancel()

    tasks.start_soon(read)
    request = await connection._get_request()  # noqa: SLF001
    return Handshake(request, lambda accepted: TrioSocket(accepted, protocol, stream))
