"""One OCPP-J 1.6 connection as a charge point sees it: calls out, calls in, nothing else.

Frames are built and read here by hand: what a central system is tried with must not share its
codec, or a fault could hide in its own mirror.
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


class ConnectionGone(Exception):
    """The connection is over, or the central system left a call unanswered."""


class CallRefused(Exception):
    """The central system answered with a CALLERROR, or with what is no answer at all."""


class Unanswerable(Exception):
    """Raised by what answers a call: it gets a CALLERROR (OCPP-J 1.6 table 7).

    code: the error code; why: its description, for people.
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(code, why)
        self.code = code
        self.why = why


@attrs.frozen
class Reply:
    """The answer to a call, and what the charge point does once it has given it."""

    payload: Payload
    then: Callable[[], Awaitable[None]] | None = None


@attrs.define(eq=False)
class _Pending:
    unique_id: str
    answered: trio.Event = attrs.field(factory=trio.Event)
    result: Payload | None = None
    refusal: str = ""


class OcppConnection:
    """Owns: the one call that may be under way.

    answer: gives the reply to one call of the central system; it may raise Unanswerable.
    then: starts what a reply is followed by; called after the reply was sent.
    timeout: seconds from a call's sending to its answer.
    """

    def __init__(
        self,
        socket: WebSocketConnection,
        answer: Callable[[str, Payload], Reply],
        then: Callable[[Callable[[], Awaitable[None]]], None],
        *,
        timeout: float,
    ) -> None:
        self._socket = socket
        self._answer = answer
        self._then = then
        self._timeout = timeout
        self._one_call = trio.Lock()
        self._pending: _Pending | None = None
        self._gone = False
        self._left: trio.Event | None = None

    async def run(self) -> str:
        """Take frames until the connection ends; returns why it ended."""
        try:
            while True:
                await self._take(await self._socket.get_message())
        except ConnectionClosed as exc:
            why = "broken off" if exc.reason is None else f"{exc.reason.code} {exc.reason.name}"
        except ConnectionGone as exc:
            why = str(exc)
        finally:
            self._gone = True
            if self._pending is not None:
                self._pending.answered.set()
        if self._left is not None:  # closing needs the reader until it is done
            await self._left.wait()
        return why

    async def call(self, action: str, payload: Payload) -> Payload:
        """Ask the central system, one call at a time (OCPP-J 4.1.1); returns its answer.

        Raises CallRefused; ConnectionGone, also after `timeout`: the connection is closed then, for
        a central system that is silent is taken for gone.
        """
        async with self._one_call:
            if self._gone:
                raise ConnectionGone("not connected")
            pending = self._pending = _Pending(str(uuid.uuid4()))
            try:
                await self._send([2, pending.unique_id, action, payload])
                with trio.move_on_after(self._timeout):
                    await pending.answered.wait()
            finally:
                self._pending = None
            if pending.refusal:
                raise CallRefused(f"{action}: {pending.refusal}")
            if pending.result is not None:
                return pending.result
            was_gone, self._gone = self._gone, True
            if not was_gone:
                log.info("call not answered", action=action, seconds=self._timeout)
                await self.close()
            raise ConnectionGone(f"{action} not answered")

    async def close(self) -> None:
        """Take leave with 1000; a peer that does not answer that is left within 2 s."""
        self._gone = True
        if self._left is not None:
            await self._left.wait()
            return
        self._left = trio.Event()
        try:
            with trio.move_on_after(2):
                await self._socket.aclose()
        finally:
            self._left.set()

    async def _take(self, message: str | bytes) -> None:
        match _read(message):
            case [2, str(unique_id), str(action), *rest]:
                await self._serve(unique_id, action, rest[0] if rest else None)
            case [3, str(unique_id), result, *_]:
                self._settle(unique_id, result, "")
            case [4, str(unique_id), *rest]:
                self._settle(unique_id, None, " ".join(map(str, rest[:2])) or "CALLERROR")
            case frame:
                log.info("frame ignored", frame=str(frame)[:80])

    def _settle(self, unique_id: str, result: Any, refusal: str) -> None:
        pending = self._pending
        if pending is None or pending.unique_id != unique_id:
            log.info("answer to no call ignored")
            return
        if isinstance(result, dict):
            pending.result = result
        else:
            pending.refusal = refusal or "the answer is no JSON object"
        pending.answered.set()

    async def _serve(self, unique_id: str, action: str, payload: Any) -> None:
        payload = {} if payload is None else payload
        try:
            if not isinstance(payload, dict):
                raise Unanswerable("FormationViolation", "the payload is no JSON object")
            reply = self._answer(action, payload)
        except Unanswerable as exc:
            await self._send([4, unique_id, exc.code, exc.why[:255], {}])
            return
        except Exception:  # one pure call: nothing is half done
            log.exception("call not answered for a fault of ours", action=action)
            await self._send([4, unique_id, "InternalError", "", {}])
            return
        await self._send([3, unique_id, reply.payload])
        if reply.then is not None:
            self._then(reply.then)

    async def _send(self, frame: list[Any]) -> None:
        # A frame cut in half would garble all that follow, so no cancellation reaches in here.
        try:
            with trio.CancelScope(shield=True), trio.fail_after(_SEND_TIMEOUT):
                await self._socket.send_message(json.dumps(frame, separators=(",", ":")))
        except (ConnectionClosed, LocalProtocolError, trio.TooSlowError) as exc:
            raise ConnectionGone(f"not sent: {exc!r}") from exc


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _read(message: str | bytes) -> Any:
    """The frame as JSON; None where there is none to be read."""
    if isinstance(message, bytes):
        return None
    try:
        return json.loads(message, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
