"""One OCPP-J 1.6 connection from the charge point's side: calls in both directions, nothing else.

Frames are encoded and decoded here by hand.  A simulator that shared the gateway's codec would
repeat its faults, and so not find them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import attrs
import structlog
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import LocalProtocolError

log = structlog.get_logger()

Payload = dict[str, Any]
_SEND_TIMEOUT = 30.0


class ConnectionLost(Exception):
    """The connection is closed, or the central system did not answer a call in time."""


class CallError(Exception):
    """The central system answered with a CALLERROR, or with a result that cannot be used."""


class RequestError(Exception):
    """A request that a handler cannot accept: its call gets a CALLERROR (OCPP-J 1.6 table 7).

    code: the error code; why: its description, for people.
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(code, why)
        self.code = code
        self.why = why


@attrs.frozen
class Response:
    """The response to a call, and what the charge point does after it was sent."""

    payload: Payload
    then: Callable[[], Awaitable[None]] | None = None


@attrs.define(eq=False)
class _PendingCall:
    unique_id: str
    done: trio.Event = attrs.field(factory=trio.Event)
    result: Payload | None = None
    error: str = ""


class OcppConnection:
    """Owns: the one call that may be pending.

    handle_request: returns the response to one call of the central system, or raises RequestError.
    then: starts what follows a response; it is called after the response was sent.
    timeout: seconds from sending a call to its result.
    """

    def __init__(
        self,
        socket: WebSocketConnection,
        handle_request: Callable[[str, Payload], Response],
        then: Callable[[Callable[[], Awaitable[None]]], None],
        *,
        timeout: float,
    ) -> None:
        self._socket = socket
        self._handle_request = handle_request
        self._then = then
        self._timeout = timeout
        self._one_call = trio.Lock()
        self._pending: _PendingCall | None = None
        self._is_closed = False
        self._closed_event: trio.Event | None = None

    async def run(self) -> str:
        """Handle frames until the connection closes; returns why it closed."""
        try:
            while True:
                await self._handle_frame(await self._socket.get_message())
        except ConnectionClosed as exc:
            why = "broken off" if exc.reason is None else f"{exc.reason.code} {exc.reason.name}"
        except ConnectionLost as exc:
            why = str(exc)
        finally:
            self._is_closed = True
            if self._pending is not None:
                self._pending.done.set()
        if self._closed_event is not None:  # the close handshake needs this reader to the end
            await self._closed_event.wait()
        return why

    async def call(self, action: str, payload: Payload) -> Payload:
        """Call the central system, one call at a time (OCPP-J 4.1.1); returns the result's payload.

        Raises CallError, and ConnectionLost, also after `timeout`: a central system that does not
        answer is taken for lost, so the connection is closed.
        """
        async with self._one_call:
            if self._is_closed:
                raise ConnectionLost("not connected")
            pending = self._pending = _PendingCall(str(uuid.uuid4()))
            try:
                await self._send([2, pending.unique_id, action, payload])
                with trio.move_on_after(self._timeout):
                    await pending.done.wait()
            finally:
                self._pending = None
            if pending.error:
                raise CallError(f"{action}: {pending.error}")
            if pending.result is not None:
                return pending.result
            was_closed, self._is_closed = self._is_closed, True
            if not was_closed:
                log.info("call not answered", action=action, seconds=self._timeout)
                await self.close()
            raise ConnectionLost(f"{action} not answered")

    async def close(self) -> None:
        """Close with code 1000; waits at most 2 s for the peer's close frame."""
        self._is_closed = True
        if self._closed_event is not None:
            await self._closed_event.wait()
            return
        self._closed_event = trio.Event()
        try:
            with trio.move_on_after(2):
                await self._socket.aclose()
        finally:
            self._closed_event.set()

    async def _handle_frame(self, message: str | bytes) -> None:
        match _read(message):
            case [2, str(unique_id), str(action), *rest]:
                await self._handle_call(unique_id, action, rest[0] if rest else None)
            case [3, str(unique_id), result, *_]:
                self._complete_call(unique_id, result, "")
            case [4, str(unique_id), *rest]:
                self._complete_call(unique_id, None, " ".join(map(str, rest[:2])) or "CALLERROR")
            case frame:
                log.info("frame ignored", frame=str(frame)[:80])

    def _complete_call(self, unique_id: str, result: Any, error: str) -> None:
        pending = self._pending
        if pending is None or pending.unique_id != unique_id:
            log.info("result without a pending call ignored")
            return
        if isinstance(result, dict):
            pending.result = result
        else:
            pending.error = error or "the answer is no JSON object"
        pending.done.set()

    async def _handle_call(self, unique_id: str, action: str, payload: Any) -> None:
        payload = {} if payload is None else payload
        try:
            if not isinstance(payload, dict):
                raise RequestError("FormationViolation", "the payload is no JSON object")
            response = self._handle_request(action, payload)
        except RequestError as exc:
            await self._send([4, unique_id, exc.code, exc.why[:255], {}])
            return
        except Exception:  # one pure call: it leaves nothing half done
            log.exception("handling a call failed", action=action)
            await self._send([4, unique_id, "InternalError", "", {}])
            return
        await self._send([3, unique_id, response.payload])
        if response.then is not None:
            self._then(response.then)

    async def _send(self, frame: list[Any]) -> None:
        # Half a frame would corrupt every later one, so cancellation is shielded off.
        try:
            with trio.CancelScope(shield=True), trio.fail_after(_SEND_TIMEOUT):
                await self._socket.send_message(json.dumps(frame, separators=(",", ":")))
        except (ConnectionClosed, LocalProtocolError, trio.TooSlowError) as exc:
            raise ConnectionLost(f"not sent: {exc!r}") from exc


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _read(message: str | bytes) -> Any:
    """The frame as JSON; None where it is not JSON."""
    if isinstance(message, bytes):
        return None
    try:
        return json.loads(message, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
