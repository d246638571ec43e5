"""A charge point that keeps what it could not deliver, and knows what it truly did.

OCPP 1.6 §3.7: StartTransaction, MeterValues and StopTransaction of a transaction wait in a queue
that outlives the connection.  One that was not answered is sent again, with the same content and
a new message id, and sometimes one that was.  It shares no code with the gateway, and its message
ids are those of every other charge point.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

ANSWER_WITHIN = 15.0  # seconds; then it gives the connection up, as real ones do
_LOST = (OSError, HandshakeError, ConnectionClosed, trio.TooSlowError, trio.BrokenResourceError)
STEP = timedelta(minutes=1)  # of its own clock, from one message to the next


@attrs.define(eq=False)
class Session:
    """What happened at the socket, known to nobody but the charge point.

    voltages: each reading's time and its voltage, which no other reading of it has.
    ids: what StartTransaction was answered, each time.
    """

    tag: str
    started_at: datetime
    start_wh: int
    readings: dict[datetime, tuple[int, int]] = attrs.field(factory=dict)
    stopped_at: datetime | None = None
    stop_wh: int = 0
    ids: list[int] = attrs.field(factory=list)

    @property
    def energy_wh(self) -> int:
        return self.stop_wh - self.start_wh


@attrs.define(eq=False)
class _Waiting:
    action: str
    payload: dict[str, Any]
    session: Session


class Refused(Exception):
    """A transaction message got a CALLERROR: most charge points would drop it for good."""


class RetryingCharger:
    """Owns: its register, its clock, its queue and the sessions that it has had.

    port: where the gateway listens, now; it may change from one life to the next.
    pause: seconds between two messages, at most.
    """

    def __init__(
        self,
        name: str,
        port: Callable[[], int],
        chance: random.Random,
        *,
        began: datetime,
        pause: float = 0.05,
    ) -> None:
        self.name = name
        self.sessions: list[Session] = []
        self.connections = 0
        self.repeated = 0
        self._port = port
        self._chance = chance
        self._pause = pause
        self._at = began
        self._register_wh = chance.randrange(0, 1_000_000)
        self._volts = count(1)
        self._queue: deque[_Waiting] = deque()
        self._changed = trio.Event()
        self._hang_up = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._queue)

    def hang_up(self) -> None:
        """Lose the connection, as where radio is bad."""
        self._hang_up.cancel()

    async def live(self, until: trio.Event) -> None:
        """Charge cars until the event, finish the last one, and deliver all there is."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.stay_connected)
            while not until.is_set():
                await self.charge(self._chance.randrange(5))
            await self.delivered()
            nursery.cancel_scope.cancel()

    # --- the cars ------------------------------------------------------------------------------

    def _tick(self) -> datetime:
        self._at += STEP
        return self._at

    async def charge(self, readings: int) -> None:
        """One session; returns when the last of it is in the queue."""
        chance = self._chance
        session = Session(f"TAG-{chance.randrange(9)}", self._tick(), self._register_wh)
        self.sessions.append(session)
        await self._put(
            session,
            "StartTransaction",
            connectorId=1,
            idTag=session.tag,
            meterStart=session.start_wh,
            timestamp=stamp(session.started_at),
        )
        for _ in range(readings):
            self._register_wh += 4 * chance.randrange(60)
            at, volts = self._tick(), next(self._volts)
            session.readings[at] = self._register_wh, volts
            register = {"value": str(self._register_wh), "unit": "Wh"}
            voltage = {"value": str(volts), "measurand": "Voltage", "unit": "V"}
            await self._put(
                session,
                "MeterValues",
                connectorId=1,
                meterValue=[{"timestamp": stamp(at), "sampledValue": [register, voltage]}],
            )
        self._register_wh += 4 * chance.randrange(60)
        session.stopped_at, session.stop_wh = self._tick(), self._register_wh
        await self._put(
            session,
            "StopTransaction",
            meterStop=session.stop_wh,
            timestamp=stamp(session.stopped_at),
            idTag=session.tag,
        )

    async def _put(self, session: Session, action: str, **payload: Any) -> None:
        self._queue.append(_Waiting(action, payload, session))
        self._change()
        await self._wait_queue(4)
        await trio.sleep(self._chance.uniform(0, self._pause))

    async def delivered(self) -> None:
        """All there is was answered."""
        await self._wait_queue(0)

    async def _wait_queue(self, room: int) -> None:
        while len(self._queue) > room:
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- the line ------------------------------------------------------------------------------

    async def stay_connected(self) -> None:
        """Deliver what is in the queue, over one connection after the other."""
        while True:
            try:
                with trio.CancelScope() as self._hang_up:
                    await self._connect()
            except* _LOST:
                pass
            await trio.sleep(self._chance.uniform(0.02, 0.1))

    async def _connect(self) -> None:
        async with open_socket(self._port(), self.name) as socket:
            self.connections += 1
            await self._deliver(socket)

    async def _deliver(self, socket: Any) -> None:
        numbers = count(1)
        while True:
            while not self._queue:
                await self._changed.wait()
            waiting = self._queue[0]
            answer = await self._ask(socket, str(next(numbers)), waiting)
            if self._chance.random() < 0.1:  # its answer got lost on the last metre
                self.repeated += 1
                answer = await self._ask(socket, str(next(numbers)), waiting)
            if waiting.action == "StartTransaction":
                assert answer["idTagInfo"]["status"] == "Accepted"
            self._queue.popleft()
            self._change()

    async def _ask(self, socket: Any, unique_id: str, waiting: _Waiting) -> Any:
        payload = waiting.payload
        if waiting.action != "StartTransaction":
            payload = payload | {"transactionId": waiting.session.ids[-1]}
        await socket.send_message(json.dumps([2, unique_id, waiting.action, payload]))
        with trio.fail_after(ANSWER_WITHIN):
            while True:
                kind, about, *rest = json.loads(await socket.get_message())
                if kind == 2:  # something is asked of it
                    await socket.send_message(json.dumps([4, about, "NotSupported", "", {}]))
                elif kind == 4:
                    raise Refused(f"{self.name}: {waiting} was refused: {rest}")
                else:
                    assert about == unique_id
                    if waiting.action == "StartTransaction":
                        waiting.session.ids.append(rest[0]["transactionId"])
                    return rest[0]


@asynccontextmanager
async def open_socket(port: int, name: str) -> AsyncIterator[WebSocketConnection]:
    """A charge point's WebSocket; at the end of the block the connection is closed, or cut."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        with trio.fail_after(5):
            socket = await wrap_client_stream(
                nursery, stream, "gateway", f"/ocpp/{name}", subprotocols=["ocpp1.6"]
            )
        yield socket
        with trio.move_on_after(1):
            await socket.aclose()
        nursery.cancel_scope.cancel()


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
