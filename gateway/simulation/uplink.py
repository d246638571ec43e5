"""A simulated charge point's connection: opened again for ever, accepted by the central system.

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
from .ocpp_connection import CallRefused, ConnectionGone, OcppConnection, Payload, Reply
from .transaction_queue import TransactionQueue

log = structlog.get_logger()

Connect = Callable[[trio.Nursery, str | None], Awaitable[WebSocketConnection]]

_HANDSHAKE_TIMEOUT = 10.0
_CLOSE_S = 0.1  # for the close frame of one who was cancelled; its reader hears no reply
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_BOOT_INTERVAL = 60.0  # where the central system names none


class Owner(Protocol):
    """Whose connection it is."""

    settings: ConfigurationKeys
    outbox: TransactionQueue

    def boot_notification(self) -> Payload: ...
    def answer(self, action: str, payload: Payload) -> Reply: ...
    def start_soon(self, then: Callable[[], Awaitable[Any]]) -> None: ...
    def report(self, event: str, **facts: Any) -> None: ...
    async def send_statuses(self) -> None: ...


class Uplink:
    """Owns: the connection of the moment, whether we are booted, the password.

    connect: opens the WebSocket, its tasks in the nursery given; the second argument is the Basic
        password, None without one.
    connect_timeout_s: seconds after which it gives up if it was never accepted, at once when the
        upgrade is answered with an HTTP status of 400 to 499; None means never.
    reconnect_timeout_s: the same for a connection that was lost, whatever the status.
    call_timeout_s: seconds that the central system has for an answer.
    """

    def __init__(
        self,
        owner: Owner,
        connect: Connect,
        *,
        password: str | None,
        connect_timeout_s: float | None,
        reconnect_timeout_s: float | None,
        call_timeout_s: float,
        dice: random.Random,
    ) -> None:
        self.password = password
        self.booted = False
        self._owner = owner
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._reconnect_timeout_s = reconnect_timeout_s
        self._call_timeout_s = call_timeout_s
        self._dice = dice
        self._rest_s = 0.0
        self._line: OcppConnection | None = None
        self._accepted = False  # on this connection
        self._online = trio.Event()  # on a connection, and accepted

    async def ask(self, action: str, payload: Payload) -> Payload:
        """Call the central system; raises ConnectionGone when offline, and CallRefused."""
        if self._line is None or not self._online.is_set():
            raise ConnectionGone("offline")
        return await self._line.call(action, payload)

    async def send(self, action: str, payload: Payload) -> bool:
        """Call where the answer does not matter; returns whether there was one."""
        try:
            await self.ask(action, payload)
        except ConnectionGone:
            return False
        except CallRefused as exc:
            log.info("refused", why=str(exc))
        return True

    async def wait_online(self) -> None:
        """Wait for a connection on which the central system has accepted us."""
        await self._online.wait()

    async def hang_up(self) -> None:
        """Close the connection; another is opened after the usual pause."""
        self._go_offline()
        if self._line is not None:
            await self._line.close()

    async def power_cycle(self, rest_s: float) -> None:
        """Close the connection, stay away for `rest_s` seconds, boot again."""
        self.booted, self._rest_s = False, rest_s
        await self.hang_up()

    async def run(self) -> str:
        """Keep a connection; returns, when its timeout is over, what the last attempt met."""
        pause, alone_since, timeout_s = _FIRST_PAUSE, trio.current_time(), self._connect_timeout_s
        ever = False
        while True:
            accepted, why, final = await self._try_once()
            if accepted:
                pause, alone_since, timeout_s = (
                    _FIRST_PAUSE,
                    trio.current_time(),
                    self._reconnect_timeout_s,
                )
                ever = True
            if timeout_s is not None:
                alone_s = trio.current_time() - alone_since
                if alone_s >= timeout_s or (final and not ever):
                    return why
            if self._rest_s:
                await trio.sleep(self._rest_s)
                self._rest_s, pause = 0.0, _FIRST_PAUSE
            else:  # with jitter, so that a fleet does not come back as one
                await trio.sleep(pause * self._dice.uniform(0.5, 1))
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _try_once(self) -> tuple[bool, str, bool]:
        """One connection: whether we were accepted, why it ended, whether for good."""
        accepted = connected = final = False
        why = ""
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(_HANDSHAKE_TIMEOUT):
                    socket = await self._connect(nursery, self.password)
                connected = True
                self._owner.report("connected")
                try:
                    accepted, why = await self._hold(socket)
                finally:
                    with trio.move_on_after(_CLOSE_S, shield=True):
                        await socket.aclose()
                nursery.cancel_scope.cancel()
        except* ConnectionRejected as group:
            status = _only(group).status_code
            why, final = f"the upgrade was answered with HTTP {status}", 400 <= status < 500
        except* (OSError, HandshakeError, trio.TooSlowError) as group:
            why = str(_only(group)) or type(_only(group)).__name__
        except* Exception as group:  # noqa: BLE001  whatever one connection does, the next is tried
            why = repr(_only(group))
            log.warning("connection failed", why=why)
        self._owner.report("disconnected" if connected else "not_connected", why=why)
        return accepted, why, final

    async def _hold(self, socket: WebSocketConnection) -> tuple[bool, str]:
        owner = self._owner
        line = OcppConnection(socket, owner.answer, owner.start_soon, timeout=self._call_timeout_s)
        self._line, self._accepted = line, False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._speak, line)
                why = await line.run()
                nursery.cancel_scope.cancel()
        finally:
            self._line = None
            self._go_offline()
        return self._accepted, why

    def _go_offline(self) -> None:
        if self._online.is_set():  # else somebody may be waiting for this very event
            self._online = trio.Event()

    async def _speak(self, line: OcppConnection) -> None:
        try:
            while not self.booted:
                await self._boot(line)
            self._accepted = True
            self._online.set()
            await self._owner.send_statuses()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                await self._owner.outbox.deliver(line)
        except* ConnectionGone:
            pass  # `line.run` says so as well

    async def _boot(self, line: OcppConnection) -> None:
        answer: Payload = {}
        try:
            answer = await line.call("BootNotification", self._owner.boot_notification())
        except CallRefused as exc:
            log.info("refused", why=str(exc))
        interval = answer.get("interval")
        usable = isinstance(interval, int) and 0 < interval < 10**9
        if answer.get("status") == "Accepted":
            self.booted = True
            if usable:
                self._owner.settings.put("HeartbeatInterval", str(int(str(interval))))
            self._owner.report("booted")
        else:  # §4.2: not again before the interval has passed
            await trio.sleep(float(str(interval)) if usable else _BOOT_INTERVAL)

    async def _beat(self) -> None:
        while True:
            await trio.sleep(max(1, self._owner.settings.number("HeartbeatInterval")))
            await self.send("Heartbeat", {})


def _only(group: BaseExceptionGroup[Any]) -> Any:
    found: Any = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
