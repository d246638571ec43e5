"""One charge point's connection: its requests get responses in order, our calls go one at a time.

OCPP-J 4.1.1 allows one unanswered CALL in each direction.  So the next frame is received only when
the response to a request has left, and a call of ours waits for the one before it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import outcome
import structlog
import trio

from ..observability.frame_tap import IN, OUT, FrameTap
from .errors import (
    ChargePointGone,
    ChargePointRefused,
    ChargePointSilent,
    NotApproved,
    TooManyCalls,
    Unanswerable,
)
from .message_size import decode_any
from .messages import (
    CallError,
    CallResult,
    FrameError,
    InvalidResponse,
    Request,
    ValidResponse,
    check_call,
    encode_call,
    encode_error,
    encode_result,
    read_result,
)
from .statistics import ConnectionStatistics
from .websocket import ProtocolViolation, Socket, SocketClosed

MAX_CALLS = 20  # calls that may wait for one charge point
NORMAL = 1000  # WebSocket close code
_NOT_WHILE_PENDING = frozenset({"RemoteStartTransaction", "RemoteStopTransaction"})
_ANSWERED = frozenset({"answered", "refused", "invalid"})

log = structlog.get_logger(__name__)


@attrs.define
class _PendingCall:
    unique_id: str
    action: str
    completed: trio.Event = attrs.field(factory=trio.Event)
    result: outcome.Outcome[dict[str, Any]] | None = None

    def complete(self, result: outcome.Outcome[dict[str, Any]]) -> None:
        """The first result counts: a response may come while the connection is being ended."""
        if self.result is None:
            self.result = result
            self.completed.set()


@attrs.frozen
class CloseReason:
    """Why we end a connection: a WebSocket close code, and words for people."""

    code: int
    reason: str


class ChargePointConnection:
    """Owns: the one call that may be under way, and the numbering of calls.

    handle: gives the response to one request, or raises Unanswerable.  It is awaited between two
        receives, so it must be short.  It does not know this connection: the response to a call
        made from there could never be received.
    frame_rejected: is called for each frame that broke the protocol, with their number so far.
    deviated: is called for each frame that broke its schema but was read: its action, the first
        deviation, and the number of such frames so far.
    statistics, frame_tap: shared by all connections.
    tasks: the connection's own nursery; what is started in it ends with the connection.
    call_timeout_s: seconds that the charge point has to respond to a call.
    pending: whether the charge point waits for approval.
    """

    def __init__(
        self,
        charge_point_id: str,
        socket: Socket,
        handle: Callable[[Request], Awaitable[Mapping[str, Any]]],
        frame_rejected: Callable[[FrameError, int], None],
        deviated: Callable[[str, str, int], None],
        tasks: trio.Nursery,
        *,
        statistics: ConnectionStatistics,
        frame_tap: FrameTap,
        lenient: bool,
        call_timeout_s: float,
        pending: bool = False,
    ) -> None:
        self.charge_point_id = charge_point_id
        self._statistics = statistics
        self._frame_tap = frame_tap
        self._rejected_frames = 0
        self._schema_deviations = 0
        self.tasks = tasks
        self._call_timeout_s = call_timeout_s
        self._pending_approval = pending
        self._socket = socket
        self._handle_request = handle
        self._frame_rejected = frame_rejected
        self._deviated = deviated
        self._lenient = lenient
        self._one_call = trio.Lock()
        self._calls_waiting = 0
        self._pending_call: _PendingCall | None = None
        self._call_numbers = itertools.count(1)
        self._close_reason: CloseReason | None = None
        self._gone = False
        self._receiving = False
        self._loop = trio.CancelScope()
        self._sends = 0
        self._sent_at = 0.0  # when a send was last begun with no other under way, or finished
        self.pinged_at = -math.inf  # Trio's time of the newest ping

    # --- receiving ---------------------------------------------------------------------------

    async def run(self) -> str:
        """Serve the charge point until its connection ends; returns why it ended."""
        try:
            with self._loop:
                while self._close_reason is None:
                    self._receiving = True
                    text = await self._socket.receive()
                    self._receiving = False
                    await self._handle(text)
        except SocketClosed as exc:
            if isinstance(exc, ProtocolViolation):
                self._count_rejected(FrameError(exc.word, str(exc)))
            if self._close_reason is None:
                return str(exc)
        finally:
            self._gone = True
            self._fail_call()
        return self.why()

    def end(self, code: int, reason: str) -> None:
        """End the connection, after the response to a request that is being handled."""
        if self._close_reason is None:
            self._close_reason = CloseReason(code, reason)
        self._fail_call()
        if self._receiving:
            self._loop.cancel()

    @property
    def is_open(self) -> bool:
        """Whether neither side is known to have closed the connection."""
        return self._close_reason is None and self._socket.is_open

    @property
    def close_reason(self) -> CloseReason | None:
        """Why we end this connection; None while we do not."""
        return self._close_reason

    def _fail_call(self) -> None:
        if self._pending_call is not None:
            self._pending_call.complete(outcome.Error(ChargePointGone(self.why())))

    def why(self) -> str:
        """Why the connection ends, as far as it is known before it has ended."""
        return self._close_reason.reason if self._close_reason else "connection lost"

    async def _handle(self, text: str) -> None:
        received_at = trio.current_time()
        try:
            message = await decode_any(text, lenient=self._lenient)
            if not isinstance(message, Request) and message.unique_id != self._open_call_id():
                raise FrameError("UnaskedAnswer", "an answer to no call that is open")
        except FrameError as exc:
            self._record_frame(text, None, str(exc))
            self._count_rejected(exc)
            if exc.unique_id is not None:
                self._statistics.requests["?", "refused"] += 1  # its action may be anything
                await self._send(encode_error(exc.unique_id, exc.code, exc.why))
            return
        if not isinstance(message, Request):
            self._complete_call(message, text)
            return
        self._record_frame(text, message)
        try:
            response = encode_result(message.unique_id, await self._handle_request(message))
            outcome_word = "answered"
        except Unanswerable as exc:
            response = encode_error(message.unique_id, exc.code, exc.why)
            outcome_word = "refused"
        self._statistics.requests[message.action, outcome_word] += 1
        self._statistics.request_seconds.add(trio.current_time() - received_at)
        await self._send(response)

    def _open_call_id(self) -> str | None:
        return None if self._pending_call is None else self._pending_call.unique_id

    def _complete_call(self, response: CallResult | CallError, text: str) -> None:
        pending = self._pending_call
        assert pending is not None  # noqa: S101  as `_handle` has seen
        if isinstance(response, CallError):
            self._record_frame(text, None)
            pending.complete(outcome.Error(ChargePointRefused(response)))
            return
        read = outcome.capture(read_result, pending.action, response.payload, lenient=self._lenient)
        if isinstance(read, outcome.Value):
            self._record_frame(text, read.value)
            pending.complete(outcome.Value(read.value.payload))
        else:
            self._record_frame(text, None, str(read.error))
            pending.complete(read)

    def _record_frame(self, text: str, read: Request | ValidResponse | None, why: str = "") -> None:
        """Give a frame to the tap, and count it where it broke its schema but was read."""
        deviations = () if read is None else read.deviations
        if self._frame_tap.is_watched:
            self._frame_tap.record(self.charge_point_id, IN, text, why or "; ".join(deviations))
        if read is not None and deviations:
            self._statistics.deviating_requests += 1
            self._schema_deviations += 1
            self._deviated(read.action, deviations[0], self._schema_deviations)

    def _count_rejected(self, error: FrameError) -> None:
        self._statistics.rejected_frames[error.code] += 1
        self._rejected_frames += 1
        self._frame_rejected(error, self._rejected_frames)

    # --- calls ---------------------------------------------------------------------------------

    async def call(
        self, action: str, payload: Mapping[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Call the charge point; returns the payload of its response, as the schema means it.

        timeout: seconds for the response, None for `call_timeout_s`; they count from the sending,
            and the wait for earlier calls is extra.
        Raises InvalidCall and NotApproved before anything is sent; TooManyCalls,
        ChargePointGone, ChargePointSilent, ChargePointRefused, InvalidResponse.
        """
        check_call(action, payload)
        if self._pending_approval and action in _NOT_WHILE_PENDING:  # OCPP 1.6 §4.2
            raise NotApproved(
                f"{self.charge_point_id} waits for approval (Pending):"
                " until then nothing may be started or stopped on it"
            )
        if self._calls_waiting >= MAX_CALLS:
            raise TooManyCalls(f"{MAX_CALLS} calls wait for {self.charge_point_id} already")
        self._calls_waiting += 1
        try:
            async with self._one_call:  # OCPP-J 4.1.1: one CALL at a time in each direction
                pending = _PendingCall(f"g{next(self._call_numbers)}", action)
                frame = encode_call(pending.unique_id, action, payload)
                return await self._send_call(pending, frame, timeout or self._call_timeout_s)
        finally:
            self._calls_waiting -= 1

    async def _send_call(self, pending: _PendingCall, frame: str, timeout: float) -> dict[str, Any]:
        if self._gone or self._close_reason is not None:
            raise ChargePointGone(self.why())
        sent_at = trio.current_time()
        self._pending_call = pending  # before the sending: no response can come too early
        try:
            try:
                await self._send(frame)
            except SocketClosed as exc:
                gone = ChargePointGone(str(exc))
                pending.complete(outcome.Error(gone))
                raise gone from exc
            with trio.move_on_after(timeout):
                await pending.completed.wait()
        finally:
            self._pending_call = None
            self._count_call(pending, sent_at)
        if pending.result is None:
            raise ChargePointSilent(f"{pending.action} not answered in {timeout:g} s")
        return pending.result.unwrap()

    def _count_call(self, pending: _PendingCall, sent_at: float) -> None:
        outcome_word = _outcome_word(pending.result)
        self._statistics.calls[pending.action, outcome_word] += 1
        if outcome_word in _ANSWERED:
            self._statistics.call_seconds.add(trio.current_time() - sent_at)

    async def _send(self, text: str) -> None:
        if self._frame_tap.is_watched:
            self._frame_tap.record(self.charge_point_id, OUT, text)
        with self._sending():
            await self._socket.send(text)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        # A send has no deadline, which would cost more than the sending: the watchdog sees to it.
        if self._sends == 0:
            self._sent_at = trio.current_time()
        self._sends += 1
        try:
            yield
        finally:
            self._sends -= 1
            self._sent_at = trio.current_time()

    # --- signs of life -------------------------------------------------------------------------

    @property
    def last_frame_at(self) -> float:
        """Trio's time at which the charge point's newest whole frame came."""
        return self._socket.last_frame_at

    @property
    def sending_since(self) -> float | None:
        """Trio's time since which sends have been under way and none has ended; None: none is."""
        return self._sent_at if self._sends else None

    async def ping(self) -> None:
        """Ask for a sign of life; the watchdog sees whether one comes."""
        self.pinged_at = trio.current_time()
        try:
            with self._sending():
                await self._socket.ping()
        except SocketClosed:
            log.debug("ping to a closed socket", charge_point=self.charge_point_id)

    async def abort(self) -> None:
        """End the connection without a close frame: the peer does not read."""
        await self._socket.abort()


def _outcome_word(result: outcome.Outcome[dict[str, Any]] | None) -> str:
    """How a call ended, in a word for metrics."""
    if result is None:
        return "timeout"
    match result:
        case outcome.Value():
            return "answered"
        case outcome.Error(error=ChargePointRefused()):
            return "refused"
        case outcome.Error(error=InvalidResponse()):
            return "invalid"
    return "gone"
