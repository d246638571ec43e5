"""The OCPP server: it accepts connections, checks handshakes, and guards each connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
import trio

from ..bus import EventBus, JournalError
from ..domain.events import ChargePointConnected, ChargePointDisconnected
from ..domain.exceptions import first_cause
from ..observability.frame_tap import CONNECTED, DISCONNECTED, REFUSED, FrameTap
from .authentication import NO_ID, PasswordVerifier, identity_of, password_of
from .clocks import ChargePointClocks
from .connection import ChargePointConnection
from .handlers import Now, RequestHandlers
from .handshake_limiter import HandshakeLimiter
from .message_size import MAX_LARGE
from .messages import FrameError
from .registry import Registry
from .resync import ANSWER_TIMEOUT, resync
from .seldom import LogLimiter
from .settings import SouthboundSettings
from .statistics import ConnectionStatistics
from .tcp import address_of, tune
from .throttle import Throttle
from .tls import tls_fault
from .websocket import MESSAGE_TOO_LARGE, PROTOCOL_FAULTS, Handshake, TrioSocket, read_handshake

SUBPROTOCOL = "ocpp1.6"
NORMAL, GOING_AWAY = 1000, 1001
STOPPING = "the gateway is stopping"
CLOSE_TIMEOUT = 5.0  # seconds for the peer to answer our close frame
SILENT_HEARTBEATS = 3
_WARNED_ABOUT = frozenset({"password", "profile", "subprotocol", "taken", "unknown"})

_HOUR = 3600.0

log = structlog.get_logger(__name__)

_Headers = list[tuple[bytes, bytes]]


@asynccontextmanager
async def open_southbound(
    listeners: Sequence[trio.abc.Listener[Any]],
    bus: EventBus,
    registry: Registry,
    now: Now,
    settings: SouthboundSettings,
    frame_tap: FrameTap,
) -> AsyncIterator[ConnectionStatistics]:
    """Serve charge points while the block runs; on leaving it, end their connections.

    They get close code 1001 (going away) after the responses under way, and have `grace` seconds.
    """
    statistics = ConnectionStatistics()
    server = _Server(bus, registry, now, settings, statistics, frame_tap)
    async with trio.open_nursery() as watchdog:
        watchdog.start_soon(server.watch)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(server.accept, listener, connections)
                yield statistics
                accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + settings.grace_s
            server.close()
        watchdog.cancel_scope.cancel()


class _HandshakeRefused(Exception):
    """A handshake that gets an HTTP error in place of a WebSocket.  reason: a word for
    metrics.
    """

    def __init__(
        self, status: int, why: str, headers: _Headers | None = None, *, reason: str = "other"
    ) -> None:
        super().__init__(f"{status} {why}")
        self.reason = reason
        self.status = status
        self.why = why
        self.headers = headers or []


class _Server:
    def __init__(
        self,
        bus: EventBus,
        registry: Registry,
        now: Now,
        settings: SouthboundSettings,
        statistics: ConnectionStatistics,
        frame_tap: FrameTap,
    ) -> None:
        self._statistics = statistics
        self._frame_tap = frame_tap
        self._bus = bus
        self._registry = registry
        self._now = now
        self._settings = settings
        self._passwords = PasswordVerifier(settings.passwords)
        self._open_count = 0
        self._handshake_limiter = HandshakeLimiter(
            settings.max_handshakes_per_address, settings.handshake_timeout_s
        )
        self._large = trio.Semaphore(MAX_LARGE)
        self._no_id_logs = LogLimiter(_HOUR, 100)
        self._too_large_logs = LogLimiter(_HOUR, settings.max_connections)
        self._watched: set[ChargePointConnection] = set()  # also those that were replaced
        self._clocks = ChargePointClocks(bus.fleet, now)
        self._closing = False

    async def accept(self, listener: trio.abc.Listener[Any], connections: trio.Nursery) -> None:
        await trio.serve_listeners(self._guard_connection, [listener], handler_nursery=connections)

    def close(self) -> None:
        """Accept no further connection, and end those that are open."""
        self._closing = True
        self._handshake_limiter.cancel_silent()
        for connection in self._registry.connections():
            connection.end(GOING_AWAY, STOPPING)

    async def _guard_connection(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte to its last.

        The guard of one connection: whatever goes wrong with one charge point, in our code
        or in trio-websocket's reader, ends that charge point's connection and no other.  Only
        a journal that fails goes through: then the gateway must stop.
        """
        self._open_count += 1
        host, remote = address_of(stream)
        try:
            if self._open_count > self._settings.max_connections:
                log.warning("connection refused: too many are open", remote=remote)
                self._statistics.refused_handshakes["full"] += 1
                return
            tune(stream)
            async with trio.open_nursery() as tasks:
                await self._open_connection(stream, host, remote, tasks)
                tasks.cancel_scope.cancel()
        except* JournalError:
            raise
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            if (fault := tls_fault(group)) is not None:
                self._record_no_tls(remote, fault)
            else:
                log.debug("connection broken", remote=remote, why=repr(first_cause(group)))
        except* PROTOCOL_FAULTS as group:
            log.info(
                "connection ended by a protocol fault", remote=remote, why=repr(first_cause(group))
            )
        except* Exception:
            log.exception("connection dropped", remote=remote)
        finally:
            self._open_count -= 1

    async def _open_connection(
        self, stream: trio.abc.Stream, host: str, remote: str, tasks: trio.Nursery
    ) -> None:
        settings = self._settings
        throttle = Throttle(settings.max_messages_per_s, self._count_throttled, remote)
        socket, refused = None, False
        with self._handshake_limiter.handshake(host) as scope:
            if isinstance(stream, trio.SSLStream):  # here, where its faults are not lost
                await stream.do_handshake()
            handshake = await read_handshake(
                stream,
                tasks,
                max_message_bytes=settings.max_message_bytes,
                places=self._large,
                throttle=throttle,
                waiting=scope,
            )
            self._handshake_limiter.request_received(scope)
            try:
                charge_point_id, profile = await self._check_handshake(handshake, stream)
                offered = SUBPROTOCOL if SUBPROTOCOL in handshake.subprotocols else None
                socket = await handshake.accept(offered)
            except _HandshakeRefused as exc:
                refused = True
                self._record_refused(handshake.path, host, remote, exc)
                await handshake.reject(exc.status, exc.why, exc.headers)
        if socket is not None:
            throttle.name = charge_point_id
            await self._serve_charge_point(charge_point_id, socket, remote, profile, tasks)
        elif not refused:
            self._statistics.unfinished_handshakes += 1
            log.debug("no handshake", remote=remote)

    def _count_throttled(self, frames: int) -> None:
        self._statistics.throttled_frames += frames

    def _record_no_tls(self, remote: str, fault: str) -> None:
        log.info("no TLS handshake", remote=remote, why=fault)
        self._statistics.refused_handshakes["tls"] += 1
        if self._frame_tap.is_watched:
            self._frame_tap.record("", REFUSED, reason=f"no TLS handshake: {fault}, from {remote}")

    def _record_refused(
        self, path: str, host: str, remote: str, refused: _HandshakeRefused
    ) -> None:
        # Who names a charge point is to be looked after.  Who does not may be anybody, but also a
        # charge point with a wrong URL, which nobody would find: once for each thing it asks for.
        serious = refused.reason in _WARNED_ABOUT or (
            refused.reason == "no_id" and self._no_id_logs.is_due((host, path[:200]))
        )
        write = log.warning if serious else log.info
        write("handshake refused", remote=remote, path=path[:200], why=str(refused))
        self._statistics.refused_handshakes[refused.reason] += 1
        if self._frame_tap.is_watched:
            reason = f"{refused}, from {remote}, path {path[:200]}"
            self._frame_tap.record(identity_of(path) or "", REFUSED, reason=reason)

    async def _check_handshake(
        self, handshake: Handshake, stream: trio.abc.Stream
    ) -> tuple[str, int]:
        """(charge point id, security profile).  Raises _Refused."""
        settings = self._settings
        if self._closing:
            raise _HandshakeRefused(503, STOPPING, [(b"retry-after", b"10")], reason="stopping")
        identity = identity_of(handshake.path)
        if identity is None:
            raise _HandshakeRefused(404, NO_ID, reason="no_id")
        if identity in settings.own_devices:
            raise _HandshakeRefused(404, "the gateway's own device has this name", reason="no_id")
        if settings.reject_unknown_charge_points and identity not in settings.known_charge_points:
            raise _HandshakeRefused(404, "this charge point is not known here", reason="unknown")
        secure = isinstance(stream, trio.SSLStream)
        profile = 2 if secure else 0
        if self._passwords.is_required_for(identity):
            password = password_of(handshake.header(b"authorization"), identity)
            if not await self._passwords.is_right(identity, password):
                raise _HandshakeRefused(
                    401,
                    "wrong or missing password",
                    [(b"www-authenticate", b'Basic realm="ocpp"')],
                    reason="password",
                )
            profile = 2 if secure else 1
        if isinstance(stream, trio.SSLStream) and stream.getpeercert():
            profile = 3
        if profile < settings.security_profiles.get(identity, 0):
            raise _HandshakeRefused(
                403, "this charge point may not connect with so little security", reason="profile"
            )
        offered = handshake.subprotocols
        if SUBPROTOCOL not in offered and (offered or settings.require_subprotocol):
            others = ", ".join(offered)[:200] or "a charge point that names no subprotocol"
            raise _HandshakeRefused(
                400,
                f"this is a central system for {SUBPROTOCOL}, not for {others}",
                reason="subprotocol",
            )
        if (retry_after_s := self._registry.retry_after_s(identity)) > 0:
            raise _HandshakeRefused(
                503,
                "another device with this id holds the connection",
                [(b"retry-after", str(int(retry_after_s) + 1).encode())],
                reason="taken",
            )
        return identity, profile

    async def _serve_charge_point(
        self,
        charge_point_id: str,
        socket: TrioSocket,
        remote: str,
        profile: int,
        tasks: trio.Nursery,
    ) -> None:
        """Serve a charge point from its accepted handshake to the end of its connection."""
        settings = self._settings
        clock = self._clocks.connected(charge_point_id)
        handlers = RequestHandlers(
            charge_point_id,
            self._bus,
            self._now,
            settings.handlers,
            clock,
            self._clocks.present,
            known=charge_point_id in settings.known_charge_points,
        )
        connection = ChargePointConnection(
            charge_point_id,
            socket,
            handlers.answer,
            partial(self._rejected, handlers, charge_point_id),
            handlers.deviated,
            tasks,
            statistics=self._statistics,
            frame_tap=self._frame_tap,
            lenient=settings.lenient,
            call_timeout_s=settings.call_timeout_s,
            pending=handlers.pending,
        )
        reason, current = None, True
        try:
            with self._registry.registered(connection):
                if self._closing:  # since it was let in
                    connection.end(GOING_AWAY, STOPPING)
                self._watched.add(connection)
                if self._frame_tap.is_watched:
                    detail = f"from {remote}, security profile {profile}"
                    self._frame_tap.record(charge_point_id, CONNECTED, reason=detail)
                try:
                    await self._bus.publish(
                        ChargePointConnected(
                            charge_point_id=charge_point_id,
                            received_at=self._now(),
                            remote_address=remote,
                            security_profile=profile,
                            connectors=self._bus.fleet.connectors(charge_point_id),
                            away=clock.absences,
                        )
                    )
                    if not handlers.pending:
                        tasks.start_soon(self._resync, connection, handlers, self._now())
                    reason = await connection.run()
                finally:
                    current = self._registry.is_current(connection)
        finally:
            # The charge point may connect again before the disconnect is durable.  The new
            # connection finds the disconnect in the journal's order before its own connect: there
            # is no pause between.
            self._watched.discard(connection)
            if self._frame_tap.is_watched:
                self._frame_tap.record(
                    charge_point_id, DISCONNECTED, reason=reason or connection.why()
                )
            if current:
                # It shields itself.
                await self._publish_disconnected(connection, reason or connection.why())  # noqa: ASYNC102
        log.info("charge point left", charge_point=charge_point_id, why=reason)
        close_reason = connection.close_reason
        # Half of the grace at most: the other half is for publishing to ThingsBoard.
        with trio.move_on_after(min(CLOSE_TIMEOUT, settings.grace_s / 2)):
            await socket.close(
                close_reason.code if close_reason else NORMAL,
                close_reason.reason if close_reason else "",
            )

    async def _resync(
        self, connection: ChargePointConnection, handlers: RequestHandlers, since: datetime
    ) -> None:
        wait = self._settings.boot_wait_s
        promised = await resync(connection, handlers.booted, self._bus.fleet, wait)
        # Statuses follow a boot, and the question for them, but not at once.
        if handlers.booted.is_set() or promised:
            await trio.sleep(wait if handlers.booted.is_set() else ANSWER_TIMEOUT)
        if self._registry.is_current(connection):
            handlers.infer_statuses(since)

    def _rejected(
        self, handlers: RequestHandlers, name: str, error: FrameError, total: int
    ) -> None:
        handlers.frame_rejected(error, total)
        if error.code == MESSAGE_TOO_LARGE and self._too_large_logs.is_due(name):
            log.warning(
                "connection closed: message too large; [ocpp] max_message_bytes may be raised",
                charge_point=name,
                max_message_bytes=self._settings.max_message_bytes,
                why=error.why,
            )

    async def _publish_disconnected(self, connection: ChargePointConnection, reason: str) -> None:
        # Shielded: that a charge point is gone must be known also where its task is cancelled.
        now = self._now()
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._bus.publish(
                ChargePointDisconnected(
                    charge_point_id=connection.charge_point_id,
                    received_at=now,
                    reason=reason[:200],
                    connectors=self._bus.fleet.connectors(connection.charge_point_id),
                    last_heard_at=now
                    - timedelta(seconds=connection.silent_for(trio.current_time())),
                )
            )

    async def watch(self) -> None:
        """The watchdog: find connections that are silent, and peers that do not read."""
        settings = self._settings
        silence = SILENT_HEARTBEATS * settings.handlers.heartbeat_interval_s
        while True:
            await trio.sleep(1)
            now = trio.current_time()
            for connection in list(self._watched):
                match connection.check(
                    now, silence_s=silence, ping_interval_s=settings.ping_interval_s
                ):
                    case "ping":
                        connection.tasks.start_soon(connection.ping)
                    case "gone":
                        connection.end(NORMAL, "no sign of life")
                    case "abort":
                        connection.tasks.start_soon(connection.abort)
