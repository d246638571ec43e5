"""A scripted central system: it sends given responses, and validates every frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import jsonschema_rs
import ocpp.v16
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_client_stream, wrap_server_stream

EPOCH = datetime(2026, 5, 1, 12, tzinfo=UTC)
NO_RESPONSE = object()
"""As a response: the call gets none."""


def now() -> datetime:
    """Wall time that follows Trio's clock, so that one MockClock moves both."""
    return EPOCH + timedelta(seconds=trio.current_time())


@lru_cache
def _validator(name: str) -> Any:
    folder = Path(ocpp.v16.__file__).parent / "schemas"
    schema = json.loads((folder / f"{name}.json").read_text("utf-8-sig"))
    return jsonschema_rs.Draft4Validator(schema, validate_formats=False)


class CallErrorResponse:
    """As a response: a CALLERROR with this code."""

    def __init__(self, code: str = "InternalError") -> None:
        self.code = code


class CentralSystem:
    """A SimulatedChargePoint gets its `connect`; `sockets` has every connection.

    responses: action to the response's payload, NO_RESPONSE, a CallErrorResponse, or a function of
        the request's payload that returns one of these.
    calls: (action, payload) of every call received, in order.
    """

    def __init__(self, **responses: Any) -> None:
        ids = count(1)
        self.responses: dict[str, Any] = {
            "BootNotification": lambda _: {
                "status": "Accepted",
                "interval": 300,
                "currentTime": now().isoformat(),
            },
            "Authorize": {"idTagInfo": {"status": "Accepted"}},
            "StartTransaction": lambda _: {
                "transactionId": next(ids),
                "idTagInfo": {"status": "Accepted"},
            },
            "Heartbeat": lambda _: {"currentTime": now().isoformat()},
        } | responses
        self.calls: list[tuple[str, Any]] = []
        self.message_ids: list[str] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.sockets: list[Any] = []
        self.reachable = True
        self._changed = trio.Event()
        self._ids = count(1)
        self._pending: dict[str, tuple[str, list[Any]]] = {}

    async def connect(self, nursery: trio.Nursery, password: str | None) -> Any:
        if not self.reachable:
            raise OSError("connection refused")
        ours, theirs = memory_stream_pair()
        nursery.start_soon(self._serve, theirs, password)
        return await wrap_client_stream(
            nursery, ours, "central", "/ocpp/CP", subprotocols=["ocpp1.6"]
        )

    async def _serve(self, stream: trio.abc.Stream, password: str | None) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            socket = await request.accept(subprotocol="ocpp1.6")
            socket.password = password
            await self.serve_socket(socket)

    async def serve_socket(self, socket: Any) -> None:
        """Serve one charge point until its connection ends."""
        self.sockets.append(socket)
        self._notify()
        try:
            while True:
                await self._handle_frame(socket, json.loads(await socket.get_message()))
        except ConnectionClosed:
            self._notify()

    async def drop(self) -> None:
        """Close the newest connection, as a central system that restarts."""
        await self.sockets[-1].aclose(1001)

    async def _handle_frame(self, socket: Any, frame: list[Any]) -> None:
        if frame[0] == 2:
            _, message_id, action, payload = frame
            _validator(action).validate(payload)
            assert message_id not in self.message_ids
            self.message_ids.append(message_id)
            self.calls.append((action, payload))
            response = self.responses.get(action, {})
            response = response(payload) if callable(response) else response
            if isinstance(response, CallErrorResponse):
                await socket.send_message(json.dumps([4, message_id, response.code, "", {}]))
            elif response is not NO_RESPONSE:
                await socket.send_message(json.dumps([3, message_id, response]))
        else:
            action, results = self._pending[frame[1]]
            if frame[0] == 3:
                _validator(f"{action}Response").validate(frame[2])
            results.append(frame[2])
        self._notify()

    async def call(self, action: str, payload: Any) -> Any:
        """Call the charge point; returns the payload of its response, or its CALLERROR's code."""
        message_id = f"cs-{next(self._ids)}"
        results: list[Any] = []
        self._pending[message_id] = (action, results)
        await self.sockets[-1].send_message(json.dumps([2, message_id, action, payload]))
        await self.wait(lambda: results)
        return results[0]

    async def wait(self, predicate: Callable[[], Any]) -> Any:
        """Wait until the predicate holds; it is evaluated again after every frame."""
        with trio.fail_after(100_000):
            while not (value := predicate()):
                await self._changed.wait()
        return value

    async def wait_call(self, action: str, nth: int = 1, **fields: Any) -> Any:
        """The payload of the nth call with that action and those fields, once it came."""
        wanted = fields.items()

        def found() -> Sequence[Any]:
            return [p for a, p in self.calls if a == action and wanted <= _flat(p).items()][
                nth - 1 :
            ]

        return (await self.wait(found))[0]

    def payloads(self, action: str) -> list[Any]:
        """The payloads of all calls with that action so far."""
        return [payload for name, payload in self.calls if name == action]

    def statuses(self, connector_id: int = 1) -> list[str]:
        return [
            p["status"]
            for p in self.payloads("StatusNotification")
            if p["connectorId"] == connector_id
        ]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _flat(payload: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if not isinstance(value, (dict, list))}


def time_ms(text: str) -> int:
    """An OCPP timestamp as ThingsBoard's `ts`."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
