"""Fakes in memory: charge points, and a connection to ThingsBoard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import attrs
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from gateway.northbound.mqtt import Delivery, LinkLost, Message
from gateway.northbound.rate_limits import LIMITS_REQUEST, LIMITS_RESPONSE
from gateway.northbound.rpc_messages import RPC_TOPIC

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
TELEMETRY, ATTRIBUTES, CONNECT = (
    f"v1/gateway/{topic}" for topic in ("telemetry", "attributes", "connect")
)


def now() -> datetime:
    """Wall time that follows Trio's clock, so that one MockClock moves both."""
    return EPOCH + timedelta(seconds=trio.current_time())


def stamp() -> str:
    return now().isoformat().replace("+00:00", "Z")


@attrs.define(eq=False)
class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose `connect` gives the other end of what `accept` returns."""

    _arrivals: Any = attrs.field(factory=lambda: trio.open_memory_channel[Any](100))

    async def connect(
        self, pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = memory_stream_pair
    ) -> trio.abc.Stream:
        """pair: makes (our end, the gateway's end)."""
        client, server = pair()
        await self._arrivals[0].send(server)
        return client

    async def accept(self) -> trio.abc.Stream:
        return await self._arrivals[1].receive()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Refused(Exception):
    """The central system answered a request with a CALLERROR."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code


class FakeCharger:
    """Speaks OCPP 1.6J by hand, so that a bug of our codec cannot hide in its own mirror."""

    def __init__(self, charge_point_id: str, socket: WebSocketConnection) -> None:
        self.id = charge_point_id
        self.socket = socket
        self._numbers = count(1)
        self._answers: dict[Any, list[Any]] = {}
        self._answered = trio.Condition()
        self._calls, self.calls = trio.open_memory_channel[tuple[str, str, Any]](100)
        self.closed = trio.Event()
        self.close_code: int | None = None

    async def read(self) -> None:
        """Sort what comes: answers to those who wait, calls into `calls`."""
        try:
            while True:
                frame = json.loads(await self.socket.get_message())
                if frame[0] == 2:
                    await self._calls.send(tuple(frame[1:4]))
                else:
                    async with self._answered:
                        self._answers[frame[1]] = frame
                        self._answered.notify_all()
        except ConnectionClosed as exc:
            self.close_code = exc.reason.code if exc.reason else None
            self.closed.set()
            self._calls.close()
            async with self._answered:
                self._answered.notify_all()

    async def answer_to(self, unique_id: Any, within: float = 60) -> list[Any]:
        """The whole frame that answers a call.  Raises ConnectionError where none can come."""
        with trio.fail_after(within):
            async with self._answered:
                while unique_id not in self._answers:
                    if self.closed.is_set():
                        raise ConnectionError("closed without an answer")
                    await self._answered.wait()
                return self._answers.pop(unique_id)

    async def ask(self, action: str, /, **payload: Any) -> Any:
        """Send a CALL; return the CALLRESULT's payload.  Raises Refused."""
        unique_id = f"{self.id}-{next(self._numbers)}"
        await self.send([2, unique_id, action, payload])
        kind, _, *rest = await self.answer_to(unique_id)
        if kind == 4:
            raise Refused(rest[0], rest[1])
        return rest[0]

    async def send(self, frame: Any) -> None:
        await self.socket.send_message(
            frame if isinstance(frame, str | bytes) else json.dumps(frame)
        )

    async def next_call(self) -> tuple[str, str, Any]:
        """The next call of the central system: (message id, action, payload)."""
        with trio.fail_after(60):
            return await self.calls.receive()

    async def reply(self, unique_id: str, **payload: Any) -> None:
        await self.send([3, unique_id, payload])

    async def boot(self) -> Any:
        return await self.ask("BootNotification", chargePointVendor="Fake", chargePointModel="One")

    async def status(self, status: str, connector: int = 1, **more: Any) -> None:
        await self.ask(
            "StatusNotification",
            connectorId=connector,
            status=status,
            errorCode="NoError",
            timestamp=stamp(),
            **more,
        )

    async def start(self, meter_wh: int, connector: int = 1, tag: str = "TAG") -> int:
        reply = await self.ask(
            "StartTransaction",
            connectorId=connector,
            idTag=tag,
            meterStart=meter_wh,
            timestamp=stamp(),
        )
        return int(reply["transactionId"])

    async def sample(
        self, tx: int | None, register: str, unit: str = "Wh", connector: int = 1
    ) -> None:
        value = {"value": register, "unit": unit, "measurand": "Energy.Active.Import.Register"}
        which = {} if tx is None else {"transactionId": tx}
        await self.ask(
            "MeterValues",
            connectorId=connector,
            meterValue=[{"timestamp": stamp(), "sampledValue": [value]}],
            **which,
        )

    async def stop(self, tx: int, meter_wh: int, **more: Any) -> Any:
        return await self.ask(
            "StopTransaction", transactionId=tx, meterStop=meter_wh, timestamp=stamp(), **more
        )


@asynccontextmanager
async def plug_in(
    stream: trio.abc.Stream,
    charge_point_id: str,
    *,
    subprotocols: tuple[str, ...] = ("ocpp1.6",),
    path: str | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> AsyncIterator[FakeCharger]:
    """A fake charge point at the other end of `stream`, connected while the block runs."""
    async with trio.open_nursery() as nursery:
        socket = await wrap_client_stream(
            nursery,
            stream,
            "gateway",
            path or f"/ocpp/{charge_point_id}",
            subprotocols=subprotocols,
            extra_headers=list(headers),
        )
        charger = FakeCharger(charge_point_id, socket)
        nursery.start_soon(charger.read)
        yield charger
        with trio.move_on_after(5):
            await socket.aclose()
        nursery.cancel_scope.cancel()


class FakeThingsBoard:
    """The broker's side of the link, in memory.  `up` says whether anyone can connect.

    codes: what the PUBACK of a payload says, by a piece of its text.
    holding: what is sent arrives, but its PUBACK waits in `held` until `release`.
    by_link: all that arrived, for each link since the start, whatever was said to it.
    limits: the answer to getSessionLimits; None for a broker that has none.
    """

    def __init__(self) -> None:
        self.up = True
        self.codes: dict[str, int] = {}
        self.holding = False
        self.held: list[tuple[Delivery, int]] = []
        self.by_link: list[list[tuple[str, Any]]] = []
        self.published: list[tuple[str, Any]] = []
        self.links = 0
        self.limits: dict[str, Any] | None = {}
        self._ids: dict[str, count[int]] = {}
        self._send, self._arrive = trio.open_memory_channel[bytes | int | Message](1_000)
        self._changed = trio.Condition()

    @asynccontextmanager
    async def open_link(self) -> AsyncIterator[FakeThingsBoard]:
        await trio.lowlevel.checkpoint()
        if not self.up:
            raise LinkLost("no route")
        self.links += 1
        self.by_link.append([])
        yield self

    def cut(self) -> None:
        """End the link that there is, and with it the PUBACKs that it owes; the next may come."""
        self.held.clear()
        self._send.send_nowait(self.links)

    def release(self) -> None:
        """Send the PUBACKs that were held, and hold no more."""
        self.holding = False
        for delivery, code in self.held:
            delivery.code = code
            delivery.acknowledged.set()
        self.held.clear()

    async def send(self, publication: Any) -> Delivery:
        await trio.lowlevel.checkpoint()
        if not self.up:
            raise LinkLost("gone")
        text = publication.payload.decode()
        code = next((code for piece, code in self.codes.items() if piece in text), 0)
        if code < 0x80:
            self.published.append((publication.topic, json.loads(text)))
        self.by_link[-1].append((publication.topic, json.loads(text)))
        if publication == LIMITS_REQUEST and self.limits is not None:
            self._send.send_nowait(Message(LIMITS_RESPONSE, json.dumps(self.limits).encode()))
        delivery = Delivery(None if self.holding else code)
        if self.holding:
            self.held.append((delivery, code))
        else:
            delivery.acknowledged.set()
        async with self._changed:
            self._changed.notify_all()
        return delivery

    async def messages(self) -> AsyncIterator[Message]:
        link = self.links
        async for payload in self._arrive:
            if not self.up or payload == link:
                raise LinkLost("gone")
            if isinstance(payload, int):  # the end of a link that nobody listened to
                continue
            yield payload if isinstance(payload, Message) else Message(RPC_TOPIC, payload)

    async def deliver(self, payload: bytes) -> None:
        """Anything on the RPC topic."""
        await self._send.send(payload)

    async def rpc(self, device: str, method: str, params: Any = None, within: float = 120) -> Any:
        """A two-way RPC as ThingsBoard makes it: ids per device from 0.  Raises TooSlowError."""
        number = next(self._ids.setdefault(device, count()))
        body = {"device": device, "data": {"id": number, "method": method, "params": params}}
        await self.deliver(json.dumps(body).encode())
        return await self.answer(device, number, within)

    async def answer(self, device: str, number: int, within: float = 120) -> Any:
        with trio.fail_after(within):
            async with self._changed:
                while True:
                    for answered in self.about(RPC_TOPIC):
                        if (answered["device"], answered["id"]) == (device, number):
                            return answered["data"]
                    await self._changed.wait()

    def about(self, topic: str) -> list[Any]:
        return [body for other, body in self.published if other == topic]

    def rows(self, device: str) -> list[tuple[int, dict[str, Any]]]:
        """(ts, values) in the order published."""
        return [
            (row["ts"], row["values"])
            for body in self.about(TELEMETRY)
            for row in body.get(device, [])
        ]

    def latest(self, device: str) -> dict[str, Any]:
        """The newest value of each key, as ThingsBoard keeps it."""
        newest: dict[str, tuple[int, Any]] = {}
        for ts, values in self.rows(device):
            for key, value in values.items():
                if key not in newest or ts >= newest[key][0]:
                    newest[key] = (ts, value)
        return {key: value for key, (_, value) in newest.items()}

    def values(self, device: str, key: str) -> list[Any]:
        return [values[key] for _, values in self.rows(device) if key in values]

    def attributes(self, device: str) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for body in self.about(ATTRIBUTES):
            known |= body.get(device, {})
        return known
