"""The OCPP server: it accepts connections, shakes hands, and guards each connection.

What it opens is nested by three nurseries, so that leaving them in turn is the shutdown: first no
connection is accepted any more, then the open ones end, and last the watchdog, which must see a
peer that does not read until the very end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs
import structlog
import trio

from ..bus import EventBus, JournalError
from ..domain.clock import SteadyClock
from ..domain.events import ChargePointConnected, ChargePointDisconnected
from ..domain.exceptions import first_cause
from ..observability.frame_tap import CONNECTED, DISCONNECTED, REFUSED, FrameTap
from .authentication import identity_of
from .clocks import ChargePointClocks
from .connection import NORMAL, ChargePointConnection
from .handlers import Now, RequestHandlers
from .handshake import SUBPROTOCOL, HandshakeCheck, HandshakeRefused
from .handshake_limiter import HandshakeLimiter
from .message_size import MAX_LARGE
from .messages import FrameError
from .registry import Registry
from .resync import RESPONSE_TIMEOUT, resync
from .seldom import LogLimiter
from .settings import SouthboundSettings
from .statistics import ConnectionStatistics
from .tcp import address_of, tune
from .throttle import Throttle
from .tls import tls_fault
from .watchdog import Watchdog
from .websocket import MESSAGE_TOO_LARGE, PROTOCOL_FAULTS, TrioSocket, read_handshake

GOING_AWAY = 1001
STOPPING = "the gateway is stopping"
CLOSE_TIMEOUT = 5.0  # seconds for the peer to answer our close frame
SILENT_HEARTBEATS = 3  # intervals without a frame after which a charge point is taken for gone
_WARNED_ABOUT = frozenset({"password", "profile", "subprotocol", "taken", "unknown"})

_HOUR = 3600.0

log = structlog.get_logger(__name__)


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

    They get close code 1001 (going away) after the responses under way, and have `grace_s` seconds.
    """
    statistics = ConnectionStatistics()
    server = _Server(bus, registry, now, settings, statistics, frame_tap)
    async with trio.open_nursery() as watchdog:
        watchdog.start_soon(server.watchdog.run)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(server.accept, listener, connections)
                yield statistics
                accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + settings.grace_s
            server.close()
        watchdog.cancel_scope.cancel()


@attrs.frozen
class _Accepted:
    """What an accepted handshake has made of a stream."""

    charge_point_id: str
    security_profile: int
    socket: TrioSocket


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
        self._handshake_check = HandshakeCheck(
            registry,
            passwords=settings.passwords,
            own_devices=settings.own_devices,
            known_charge_points=settings.known_charge_points
            if settings.reject_unknown_charge_points
            else None,
            security_profiles=settings.security_profiles,
            require_subprotocol=settings.require_subprotocol,
        )
        self.watchdog = Watchdog(
            silence_s=SILENT_HEARTBEATS * settings.handlers.heartbeat_interval_s,
            ping_interval_s=settings.ping_interval_s,
        )
        self._open_count = 0
        self._handshake_limiter = HandshakeLimiter(
            settings.max_handshakes_per_address, settings.handshake_timeout_s
        )
        self._large_messages = trio.Semaphore(MAX_LARGE)
        self._no_id_logs = LogLimiter(_HOUR, 100)
        self._too_large_logs = LogLimiter(_HOUR, settings.max_connections)
        self._clocks = ChargePointClocks(bus.fleet, now)
        self._steady_clock = SteadyClock(now, trio.current_time)
        self._closing = False

    async def accept(self, listener: trio.abc.Listener[Any], connections: trio.Nursery) -> None:
        """Give each new connection a task of its own in `connections`, until cancelled."""
        await trio.serve_listeners(self._guard_connection, [listener], handler_nursery=connections)

    def close(self) -> None:
        """Accept no further connection, and end those that are open."""
        self._closing = True
        self._handshake_limiter.cancel_silent()
        for connection in self._registry.connections():
            connection.end(GOING_AWAY, STOPPING)

    async def _guard_connection(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, from its first byte to its last.

        This is the guard of one connection: whatever goes wrong with one charge point, in our code
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
                accepted = await self._shake_hands(stream, host, remote, tasks)
                if accepted is not None:
                    await self._serve_charge_point(accepted, remote, tasks)
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

    async def _shake_hands(
        self, stream: trio.abc.Stream, host: str, remote: str, tasks: trio.Nursery
    ) -> _Accepted | None:
        """Read the peer's request and answer it; None where no WebSocket comes of it."""
        settings = self._settings
        throttle = Throttle(settings.max_messages_per_s, self._count_throttled, remote)
        accepted, refused = None, False
        with self._handshake_limiter.handshake(host) as scope:
            if isinstance(stream, trio.SSLStream):  # here, where its faults are not lost
                await stream.do_handshake()
            handshake = await read_handshake(
                stream,
                tasks,
                max_message_bytes=settings.max_message_bytes,
                large_messages=self._large_messages,
                throttle=throttle,
                waiting=scope,
            )
            self._handshake_limiter.request_received(scope)
            try:
                if self._closing:
                    retry_after = [(b"retry-after", b"10")]
                    raise HandshakeRefused(503, STOPPING, retry_after, reason="stopping")
                charge_point_id, profile = await self._handshake_check.check(handshake, stream)
                offered = SUBPROTOCOL if SUBPROTOCOL in handshake.subprotocols else None
                accepted = _Accepted(charge_point_id, profile, await handshake.accept(offered))
            except HandshakeRefused as exc:
                refused = True
                self._record_refused(handshake.path, host, remote, exc)
                await handshake.reject(exc.status, exc.why, exc.headers)
        if accepted is not None:
            throttle.name = accepted.charge_point_id
        elif not refused:
            self._statistics.unfinished_handshakes += 1
            log.debug("no handshake", remote=remote)
        return accepted

    def _count_throttled(self, frames: int) -> None:
        self._statistics.throttled_frames += frames

    def _record_no_tls(self, remote: str, fault: str) -> None:
        log.info("no TLS handshake", remote=remote, why=fault)
        self._statistics.refused_handshakes["tls"] += 1
        if self._frame_tap.is_watched:
            self._frame_tap.record("", REFUSED, reason=f"no TLS handshake: {fault}, from {remote}")

    def _record_refused(self, path: str, host: str, remote: str, refused: HandshakeRefused) -> None:
        # A request that names a charge point is worth an operator's look.  One that does not may
        # come from any scanner, but also from a charge point with a wrong URL, which nobody would
        # find otherwise: it is a warning once for each address and path.
        serious = refused.reason in _WARNED_ABOUT or (
            refused.reason == "no_id" and self._no_id_logs.is_due((host, path[:200]))
        )
        write = log.warning if serious else log.info
        write("handshake refused", remote=remote, path=path[:200], why=str(refused))
        self._statistics.refused_handshakes[refused.reason] += 1
        if self._frame_tap.is_watched:
            reason = f"{refused}, from {remote}, path {path[:200]}"
            self._frame_tap.record(identity_of(path) or "", REFUSED, reason=reason)

    async def _serve_charge_point(
        self, accepted: _Accepted, remote: str, tasks: trio.Nursery
    ) -> None:
        """Serve a charge point from its accepted handshake to the end of its connection."""
        settings = self._settings
        charge_point_id, socket = accepted.charge_point_id, accepted.socket
        clock = self._clocks.connected(charge_point_id)
        handlers = RequestHandlers(
            charge_point_id,
            self._bus,
            self._now,
            settings.handlers,
            clock,
            self._steady_clock,
            known=charge_point_id in settings.known_charge_points,
        )
        connection = ChargePointConnection(
            charge_point_id,
            socket,
            handlers.handle,
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
            with self._registry.registered(connection), self.watchdog.watching(connection):
                if self._closing:  # since the handshake was accepted
                    connection.end(GOING_AWAY, STOPPING)
                if self._frame_tap.is_watched:
                    detail = f"from {remote}, security profile {accepted.security_profile}"
                    self._frame_tap.record(charge_point_id, CONNECTED, reason=detail)
                try:
                    await self._bus.publish(
                        ChargePointConnected(
                            charge_point_id=charge_point_id,
                            received_at=self._now(),
                            remote_address=remote,
                            security_profile=accepted.security_profile,
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
            # The charge point may connect again before its disconnection is durable.  The journal
            # has the disconnection first all the same: nothing is awaited between leaving the
            # registry and the append.
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
        # Statuses follow a boot or a TriggerMessage, but not at once.
        if handlers.booted.is_set() or promised:
            await trio.sleep(wait if handlers.booted.is_set() else RESPONSE_TIMEOUT)
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
        # Shielded: the disconnection is recorded also where the connection's task is cancelled.
        now = self._now()
        silent_s = max(0.0, trio.current_time() - connection.last_frame_at)
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._bus.publish(
                ChargePointDisconnected(
                    charge_point_id=connection.charge_point_id,
                    received_at=now,
                    reason=reason[:200],
                    connectors=self._bus.fleet.connectors(connection.charge_point_id),
                    last_heard_at=now - timedelta(seconds=silent_s),
                )
            )
