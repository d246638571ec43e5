"""A simulated charge point's OCPP client: it connects, boots, and reconnects for ever.

It boots when it starts or is reset, not when a connection was merely lost (OCPP 1.6 §4.2).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
import trio
from trio_websocket import ConnectionRejected, HandshakeError, WebSocketConnection

from .configuration_keys import ConfigurationKeys
from .ocpp_connection import CallError, ConnectionLost, OcppConnection, Payload, Response
from .transaction_queue import TransactionQueue

log = structlog.get_logger()

Connect = Callable[[trio.Nursery, str | None], Awaitable[WebSocketConnection]]

_HANDSHAKE_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 0.1  # for the close frame after a cancellation; no reader awaits the reply
_MIN_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0
_BOOT_INTERVAL = 60.0  # where the central system names none


class ClientContext(Protocol):
    """What the client uses of its charge point."""

    settings: ConfigurationKeys
    queue: TransactionQueue

    @property
    def handle_request(self) -> Callable[[str, Payload], Response]: ...
    def boot_notification(self) -> Payload: ...
    def start_soon(self, then: Callable[[], Awaitable[Any]]) -> None: ...
    def report(self, event: str, **facts: Any) -> None: ...
    async def send_statuses(self) -> None: ...


class OcppClient:
    """Owns: the current connection, whether the charge point has booted, the password.

    connect: opens the WebSocket, its tasks in the nursery given; the second argument is the Basic
        password, None without one.
    connect_timeout_s: seconds after which `run` gives up if the charge point was never accepted; it
        gives up at once when the upgrade gets an HTTP status of 400 to 499.  None means never.
    reconnect_timeout_s: the same for a connection that was lost, whatever the status.
    call_timeout_s: seconds from sending a call to its result.
    """

    def __init__(
        self,
        charge_point: ClientContext,
        connect: Connect,
        *,
        password: str | None,
        connect_timeout_s: float | None,
        reconnect_timeout_s: float | None,
        call_timeout_s: float,
        rng: random.Random,
    ) -> None:
        self.password = password
        self.booted = False
        self._charge_point = charge_point
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._reconnect_timeout_s = reconnect_timeout_s
        self._call_timeout_s = call_timeout_s
        self._rng = rng
        self._restart_s = 0.0
        self._connection: OcppConnection | None = None
        self._accepted = False  # on this connection
        self._online = trio.Event()  # on a connection, and accepted

    async def call(self, action: str, payload: Payload) -> Payload:
        """Call the central system; raises CallError, and ConnectionLost when offline."""
        if self._connection is None or not self._online.is_set():
            raise ConnectionLost("offline")
        return await self._connection.call(action, payload)

    async def send(self, action: str, payload: Payload) -> bool:
        """Call, and ignore the result; returns whether the central system answered."""
        try:
            await self.call(action, payload)
        except ConnectionLost:
            return False
        except CallError as exc:
            log.info("call answered with an error", why=str(exc))
        return True

    async def wait_online(self) -> None:
        """Wait for a connection on which the central system has accepted the charge point."""
        await self._online.wait()

    async def disconnect(self) -> None:
        """Close the connection; another is opened after the usual pause."""
        self._go_offline()
        if self._connection is not None:
            await self._connection.close()

    async def restart(self, restart_s: float) -> None:
        """Close the connection, stay offline for `restart_s` seconds, boot again."""
        self.booted, self._restart_s = False, restart_s
        await self.disconnect()

    async def run(self) -> str:
        """Connect again and again; returns after the timeout why the last attempt failed."""
        pause, offline_since, timeout_s = _MIN_PAUSE_S, trio.current_time(), self._connect_timeout_s
        was_accepted = False
        while True:
            accepted, why, is_final = await self._connect_once()
            if accepted:
                pause, offline_since, timeout_s = (
                    _MIN_PAUSE_S,
                    trio.current_time(),
                    self._reconnect_timeout_s,
                )
                was_accepted = True
            if timeout_s is not None:
                offline_s = trio.current_time() - offline_since
                if offline_s >= timeout_s or (is_final and not was_accepted):
                    return why
            if self._restart_s:
                await trio.sleep(self._restart_s)
                self._restart_s, pause = 0.0, _MIN_PAUSE_S
            else:  # with jitter, so that a fleet does not reconnect at the same moment
                await trio.sleep(pause * self._rng.uniform(0.5, 1))
                pause = min(pause * 2, _MAX_PAUSE_S)

    async def _connect_once(self) -> tuple[bool, str, bool]:
        """One connection: whether it was accepted, why it ended, whether retrying is useless."""
        accepted = connected = is_final = False
        why = ""
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(_HANDSHAKE_TIMEOUT):
                    socket = await self._connect(nursery, self.password)
                connected = True
                self._charge_point.report("connected")
                try:
                    accepted, why = await self._run_connection(socket)
                finally:
                    with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                        await socket.aclose()
                nursery.cancel_scope.cancel()
        except* ConnectionRejected as group:
            status = _first_cause(group).status_code
            why, is_final = f"the upgrade was answered with HTTP {status}", 400 <= status < 500
        except* (OSError, HandshakeError, trio.TooSlowError) as group:
            why = str(_first_cause(group)) or type(_first_cause(group)).__name__
        except* Exception as group:  # noqa: BLE001  one connection's fault must not prevent the next
            why = repr(_first_cause(group))
            log.warning("connection failed", why=why)
        self._charge_point.report("disconnected" if connected else "not_connected", why=why)
        return accepted, why, is_final

    async def _run_connection(self, socket: WebSocketConnection) -> tuple[bool, str]:
        charge_point = self._charge_point
        connection = OcppConnection(
            socket,
            charge_point.handle_request,
            charge_point.start_soon,
            timeout=self._call_timeout_s,
        )
        self._connection, self._accepted = connection, False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._boot_and_deliver, connection)
                why = await connection.run()
                nursery.cancel_scope.cancel()
        finally:
            self._connection = None
            self._go_offline()
        return self._accepted, why

    def _go_offline(self) -> None:
        if self._online.is_set():  # else a task may be waiting for this very event
            self._online = trio.Event()

    async def _boot_and_deliver(self, connection: OcppConnection) -> None:
        try:
            while not self.booted:
                await self._boot(connection)
            self._accepted = True
            self._online.set()
            await self._charge_point.send_statuses()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_heartbeats)
                await self._charge_point.queue.deliver(connection)
        except* ConnectionLost:
            pass  # `connection.run` returns the reason

    async def _boot(self, connection: OcppConnection) -> None:
        response: Payload = {}
        try:
            response = await connection.call(
                "BootNotification", self._charge_point.boot_notification()
            )
        except CallError as exc:
            log.info("call answered with an error", why=str(exc))
        interval = response.get("interval")
        usable = isinstance(interval, int) and 0 < interval < 10**9
        if response.get("status") == "Accepted":
            self.booted = True
            if usable:
                self._charge_point.settings.put("HeartbeatInterval", str(int(str(interval))))
            self._charge_point.report("booted")
        else:  # §4.2: not again before the interval has passed
            await trio.sleep(float(str(interval)) if usable else _BOOT_INTERVAL)

    async def _send_heartbeats(self) -> None:
        while True:
            await trio.sleep(max(1, self._charge_point.settings.number("HeartbeatInterval")))
            await self.send("Heartbeat", {})


def _first_cause(group: BaseExceptionGroup[Any]) -> Any:
    found: Any = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
