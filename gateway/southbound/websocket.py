"""The seam to WebSocket: receive text, send text, close.  trio-websocket behind it.

What is known to go wrong there is dealt with in this module, and in the guard that `server` puts
round each connection:

* its reader task can raise (a ping that comes after our Close: wsproto's LocalProtocolError),
  so it runs in the nursery of its own connection and nowhere else;
* a cancelled send leaves half a frame on the wire, so it ends the connection;
* its `ping` waits for the pong without limit, so ours only sends: any frame is a sign of life;
* `aclose` waits for the peer without limit, so the caller sets a deadline;
* what breaks RFC 6455 ends the connection without a Close; ours says 1002, 1007 or 1009, and then
  reads on for a while: closed with bytes unread, TCP would reset it and the peer lose our Close;
* it counts a message in characters, and knows one limit for all of them (see `message_size`);
* a request that is no WebSocket handshake gets a bare status; ours gets a sentence;
* it never closes the stream of a handshake that it rejected; `trio.serve_listeners` does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Protocol

import trio
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    WebSocketRequest,
)
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .authentication import ADDRESS
from .message_size import STOP_TRANSACTION_BYTES, Incoming
from .tcp import has_left
from .throttle import Throttle, ThrottledStream

UNSUPPORTED_DATA, ABNORMAL, TOO_BIG = 1003, 1006, 1009
MESSAGE_TOO_LARGE, VIOLATION = "MessageTooLarge", "WebSocketViolation"
ENDS_CONNECTION = frozenset({MESSAGE_TOO_LARGE, VIOLATION})
"""The codes of rejected frames that end their connection, as metrics name them."""
_HEAD = b"HEAD "
WHAT_THIS_IS = (
    "This is the port of a central system for charge points: it speaks OCPP 1.6J over WebSocket,"
    f" at {ADDRESS}, and nothing else."
)


class SocketClosed(Exception):
    """The connection ended.  code: a WebSocket close code; 1006 where there was no close frame."""

    def __init__(self, code: int, reason: str | None) -> None:
        super().__init__(f"{reason or 'closed by the charge point'} ({code})")
        self.code = code


class ProtocolViolation(SocketClosed):
    """The charge point broke WebSocket, or sent what is not taken, and got `code` for it."""

    @property
    def word(self) -> str:
        """The code of the rejected frame, as metrics name it."""
        return MESSAGE_TOO_LARGE if self.code == TOO_BIG else VIOLATION


PROTOCOL_FAULTS = (HandshakeError, LocalProtocolError, SocketClosed)
"""What ends a connection, from the handshake on, by the peer's fault or its leaving."""


class Socket(Protocol):
    """One charge point's WebSocket, as `connection` sees it."""

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it: no Close, no end of the stream, no reset was seen."""

    @property
    def last_frame_at(self) -> float:
        """Trio's time at which the last whole frame of the peer came, of whatever kind."""

    async def receive(self) -> str:
        """The next text message.  Raises SocketClosed."""

    async def send(self, text: str) -> None:
        """Send a text message whole.  Raises SocketClosed.  Cancelled, it ends the connection."""

    async def ping(self) -> None:
        """Ask for a sign of life.  Raises SocketClosed.  Cancelled, it ends the connection."""

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the peer's; may wait for ever."""

    async def abort(self) -> None:
        """End the connection now, whatever is under way."""


class _WatchedProtocol(WSConnection):
    """wsproto's connection, which notes when the peer last finished a frame, and counts them.

    fault: what the peer did against the protocol; the connection ends with it.
    """

    def __init__(self, throttle: Throttle, incoming: Incoming) -> None:
        super().__init__(ConnectionType.SERVER)
        self.last_frame_at = trio.current_time()
        self.fault: ProtocolViolation | None = None
        self._throttle = throttle
        self._incoming = incoming
        self._method = b""  # the first bytes of the request
        self._no_handshake = ""

    def events(self) -> Generator[Event, None, None]:
        for event in super().events():
            self._throttle.count()
            if isinstance(event, TextMessage | BytesMessage):
                # A frame that trickles in byte by byte is no sign of life until it is whole.
                if event.frame_finished:
                    self.last_frame_at = trio.current_time()
                if self.state is not ConnectionState.OPEN:
                    continue  # we have sent a close frame, and nothing reads it
                why = self._incoming.add(event.data, finished=event.message_finished)
                if why is not None:
                    yield self._violated(TOO_BIG, why)
                    return
            else:
                self.last_frame_at = trio.current_time()
                if isinstance(event, CloseConnection) and self.state is ConnectionState.OPEN:
                    # No Close came, or the state would say so: wsproto found what it cannot read.
                    yield self._violated(int(event.code), event.reason or "")
                    return
            yield event

    def _violated(self, code: int, why: str) -> CloseConnection:
        """What has trio-websocket answer with a Close and end the connection."""
        assert self.connection is not None  # noqa: S101  for the type checker: frames came of it
        self.fault = ProtocolViolation(code, why)
        self.connection._state = ConnectionState.REMOTE_CLOSING  # noqa: SLF001  so that it answers
        return CloseConnection(code=code, reason=why)

    def receive_data(self, data: bytes | None) -> None:
        if self.connection is None and data:
            self._method = (self._method + data)[: len(_HEAD)]
        try:
            super().receive_data(data)
        except RemoteProtocolError as exc:
            self._no_handshake = str(exc)
            raise
        except UnicodeError as exc:  # in a header; frames are judged as they are read
            self._no_handshake = "A header is no text"
            raise RemoteProtocolError(self._no_handshake, event_hint=RejectConnection()) from exc

    def send(self, event: Event) -> bytes:
        if not isinstance(event, RejectConnection) or event.has_body:
            return super().send(event)
        body = f"{WHAT_THIS_IS}\n{self._no_handshake}.\n".encode()
        headers = [
            *event.headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = RejectConnection(status_code=event.status_code, headers=headers, has_body=True)
        if self._method == _HEAD:  # RFC 9110 section 9.3.2: its answer has no body
            return super().send(head)
        return super().send(head) + super().send(RejectData(data=body))


class _OpenStream(trio.abc.Stream):
    """The stream as trio-websocket has it: read where there is room for what comes, and not
    closed for a fault of the peer, which has our Close still to read."""

    def __init__(
        self, stream: trio.abc.Stream, protocol: _WatchedProtocol, incoming: Incoming
    ) -> None:
        self._stream = stream
        self._protocol = protocol
        self._incoming = incoming

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._protocol.fault is not None:
            raise trio.ClosedResourceError
        await self._incoming.wait_for_room()
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: Any) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        if self._protocol.fault is None:
            await self._stream.aclose()
        else:
            await trio.lowlevel.checkpoint()


class TrioSocket:
    """A Socket on trio-websocket.  Owns: the stream."""

    def __init__(
        self,
        connection: WebSocketConnection,
        protocol: _WatchedProtocol,
        incoming: Incoming,
        throttled: ThrottledStream,
        stream: trio.abc.Stream,
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._incoming = incoming
        self._throttled = throttled
        self._stream = stream

    @property
    def is_open(self) -> bool:
        return (
            self._connection.closed is None
            and self._protocol.fault is None
            and not has_left(self._stream)
        )

    @property
    def last_frame_at(self) -> float:
        return self._protocol.last_frame_at

    async def receive(self) -> str:
        self._incoming.handled()
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as exc:
            raise self._closed(exc.reason) from exc
        self._incoming.take()
        if isinstance(message, str):
            return message
        await self.close(UNSUPPORTED_DATA, "OCPP-J is text")
        raise ProtocolViolation(UNSUPPORTED_DATA, "the charge point sent a binary message")

    async def send(self, text: str) -> None:
        await self._send_whole(self._connection.send_message(text))

    async def ping(self) -> None:
        if self._connection.closed is not None:
            raise self._closed(self._connection.closed)
        await self._send_whole(self._connection._send(Ping()))  # noqa: SLF001  its own waits for a pong

    async def _send_whole(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except ConnectionClosed as exc:
            raise self._closed(exc.reason) from exc
        except BaseException:  # cut in half: nothing that follows could be understood
            await self.abort()  # noqa: ASYNC102  it does not wait for the peer
            raise

    def _closed(self, reason: CloseReason | None) -> SocketClosed:
        return self._protocol.fault or _closed(reason)

    async def close(self, code: int, reason: str) -> None:
        await self._connection.aclose(code, reason)
        if self._protocol.fault is not None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                while await self._throttled.receive_some():
                    pass

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
        # An empty field names none.
        self.subprotocols: tuple[str, ...] = tuple(filter(None, request.proposed_subprotocols))

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
    large_messages: trio.Semaphore,
    throttle: Throttle,
    waiting: trio.CancelScope,
) -> Handshake:
    """The peer's request to open a WebSocket.

    tasks: where trio-websocket's reader goes on running.  It may raise: the nursery is to be
        the connection's own.
    max_message_bytes, large_messages: see `message_size.Incoming`.
    throttle: how fast the connection is read, from its first byte to its last.
    waiting: the scope that the handshake runs in; cancelled when the peer leaves before its end.
    """
    incoming = Incoming(max_message_bytes, large_messages)
    protocol = _WatchedProtocol(throttle, incoming)
    throttled = ThrottledStream(stream, throttle)
    connection = WebSocketConnection(
        _OpenStream(throttled, protocol, incoming),
        protocol,
        max_message_size=max(max_message_bytes, STOP_TRANSACTION_BYTES),
    )

    async def read() -> None:
        # trio-websocket's own server runs its connections by these two calls as well; it
        # only does so in a nursery that all of them share.
        try:
            await connection._reader_task()  # noqa: SLF001
        except ConnectionClosed as exc:  # it left while a fault of its own was answered
            raise _closed(exc.reason) from exc
        finally:
            incoming.close()
        waiting.cancel()

    tasks.start_soon(read)
    request = await connection._get_request()  # noqa: SLF001
    return Handshake(
        request, lambda accepted: TrioSocket(accepted, protocol, incoming, throttled, stream)
    )
