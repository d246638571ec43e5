"""The south door: who may come in, and one guarded nursery for each who does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs
import structlog
import trio
from trio_websocket import HandshakeError
from wsproto.utilities import LocalProtocolError

from ..bus import EventBus, JournalError
from ..domain.events import ChargePointConnected, ChargePointDisconnected
from ..observability.frame_tap import CONNECTED, DISCONNECTED, REFUSED, Tap
from .authentication import NO_ID, PasswordBook, identity_of, password_of
from .clocks import ChargePointClocks
from .connection import ChargePointSession
from .handlers import Desk, Now, Rules
from .handshake_limiter import Arrivals
from .message_size import MOST_LARGE
from .messages import FrameError
from .registry import Registry
from .resync import PATIENCE, greet
from .seldom import Seldom
from .statistics import Tally
from .tcp import address_of, tune
from .throttle import Pace
from .tls import first_of, tls_fault
from .websocket import MESSAGE_TOO_LARGE, Handshake, SocketClosed, TrioSocket, read_handshake

SUBPROTOCOL = "ocpp1.6"
NORMAL, GOING_AWAY = 1000, 1001
STOPPING = "the gateway is stopping"
CLOSE_TIMEOUT = 5.0  # seconds for the peer to answer our goodbye
SILENT_HEARTBEATS = 3
_TO_LOOK_AFTER = frozenset({"password", "profile", "subprotocol", "taken", "unknown"})

_HOUR = 3600.0

log = structlog.get_logger(__name__)

_Headers = list[tuple[bytes, bytes]]


@attrs.frozen(kw_only=True)
class DoorSettings:
    """passwords: charge point id -> argon2 hash.  known: charge points that are known by name.

    boot_wait: seconds for a BootNotification, before `resync` asks a charge point how it is.
    frames_per_second: see `pace`.  most_arriving: handshakes under way from one address.
    own_devices: names of ThingsBoard devices that no charge point may have.
    profiles: charge point id -> the lowest security profile (0-3) that it may connect with.
    """

    ping_interval: float = 30.0
    call_timeout: float = 30.0
    handshake_timeout: float = 10.0
    grace: float = 10.0
    boot_wait: float = 10.0
    max_message_bytes: int = 262_144
    frames_per_second: float = 200.0
    most_connections: int = 10_000
    most_arriving: int = 2_000
    require_subprotocol: bool = False
    reject_unknown: bool = False
    lenient: bool = True
    passwords: Mapping[str, str] = attrs.field(factory=dict)
    profiles: Mapping[str, int] = attrs.field(factory=dict)
    known: frozenset[str] = frozenset()
    own_devices: frozenset[str] = frozenset()
    rules: Rules = attrs.field(factory=Rules)


@asynccontextmanager
async def open_southbound(
    listeners: Sequence[trio.abc.Listener[Any]],
    bus: EventBus,
    registry: Registry,
    now: Now,
    settings: DoorSettings,
    tap: Tap,
) -> AsyncIterator[Tally]:
    """Serve charge points while the block runs; on leaving it, take leave of them.

    They hear 1001 (going away) after the answers under way, and have `grace` seconds.
    """
    tally = Tally()
    door = _Door(bus, registry, now, settings, tally, tap)
    async with trio.open_nursery() as watch:
        watch.start_soon(door.watch)
        async with trio.open_nursery() as chargers:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(door.accept, listener, chargers)
                yield tally
                accepting.cancel_scope.cancel()
            chargers.cancel_scope.deadline = trio.current_time() + settings.grace
            door.close()
        watch.cancel_scope.cancel()


class _Refused(Exception):
    """A handshake that gets an HTTP error in place of a WebSocket.  word: the why, for metrics."""

    def __init__(
        self, status: int, why: str, headers: _Headers | None = None, *, word: str = "other"
    ) -> None:
        super().__init__(f"{status} {why}")
        self.word = word
        self.status = status
        self.why = why
        self.headers = headers or []


class _Door:
    def __init__(
        self,
        bus: EventBus,
        registry: Registry,
        now: Now,
        settings: DoorSettings,
        tally: Tally,
        tap: Tap,
    ) -> None:
        self._tally = tally
        self._tap = tap
        self._bus = bus
        self._registry = registry
        self._now = now
        self._settings = settings
        self._passwords = PasswordBook(settings.passwords)
        self._inside = 0
        self._arrivals = Arrivals(settings.most_arriving, settings.handshake_timeout)
        self._large = trio.Semaphore(MOST_LARGE)
        self._no_id_told = Seldom(_HOUR, 100)
        self._too_large_told = Seldom(_HOUR, settings.most_connections)
        self._served: set[ChargePointSession] = set()  # also those that lost their seat
        self._clocks = ChargePointClocks(bus.fleet, now)
        self._closing = False

    async def accept(self, listener: trio.abc.Listener[Any], chargers: trio.Nursery) -> None:
        await trio.serve_listeners(self._visit, [listener], handler_nursery=chargers)

    def close(self) -> None:
        """Nobody else comes in, and who is inside is told to leave."""
        self._closing = True
        self._arrivals.dismiss_silent()
        for session in self._registry.sessions():
            session.leave(GOING_AWAY, STOPPING)

    async def _visit(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte to its last.

        The firewall of the south door: whatever goes wrong with one charge point, in our code
        or in trio-websocket's reader, ends that charge point's connection and no other.  Only
        a journal that fails goes through: then the house must fall.
        """
        self._inside += 1
        host, where = address_of(stream)
        try:
            if self._inside > self._settings.most_connections:
                log.warning("connection refused: as many as may are open", remote=where)
                self._tally.handshakes["full"] += 1
                return
            tune(stream)
            async with trio.open_nursery() as tasks:
                await self._serve(stream, host, where, tasks)
                tasks.cancel_scope.cancel()
        except* JournalError:
            raise
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            if (fault := tls_fault(group)) is not None:
                self._note_no_tls(where, fault)
            else:
                log.debug("connection broken", remote=where, why=repr(first_of(group)))
        except* (HandshakeError, LocalProtocolError, SocketClosed) as group:
            log.info(
                "connection ended by a protocol fault", remote=where, why=repr(first_of(group))
            )
        except* Exception:
            log.exception("connection dropped", remote=where)
        finally:
            self._inside -= 1

    async def _serve(
        self, stream: trio.abc.Stream, host: str, where: str, tasks: trio.Nursery
    ) -> None:
        settings = self._settings
        pace = Pace(settings.frames_per_second, self._held_back, where)
        socket, refused = None, False
        with self._arrivals.arriving(host) as arriving:
            if isinstance(stream, trio.SSLStream):  # here, where its faults are not lost
                await stream.do_handshake()
            handshake = await read_handshake(
                stream,
                tasks,
                max_message_bytes=settings.max_message_bytes,
                places=self._large,
                pace=pace,
                waiting=arriving,
            )
            self._arrivals.heard(arriving)
            try:
                charge_point_id, profile = await self._admit(handshake, stream)
                offered = SUBPROTOCOL if SUBPROTOCOL in handshake.subprotocols else None
                socket = await handshake.accept(offered)
            except _Refused as exc:
                refused = True
                self._note_refused(handshake.path, host, where, exc)
                await handshake.reject(exc.status, exc.why, exc.headers)
        if socket is not None:
            pace.name = charge_point_id
            await self._host(charge_point_id, socket, where, profile, tasks)
        elif not refused:
            self._tally.unfinished += 1
            log.debug("no handshake", remote=where)

    def _held_back(self, frames: int) -> None:
        self._tally.throttled += frames

    def _note_no_tls(self, where: str, fault: str) -> None:
        log.info("no TLS handshake", remote=where, why=fault)
        self._tally.handshakes["tls"] += 1
        if self._tap.looked_at:
            self._tap.note("", REFUSED, reason=f"no TLS handshake: {fault}, from {where}")

    def _note_refused(self, path: str, host: str, where: str, refused: _Refused) -> None:
        # Who names a charge point is to be looked after.  Who does not may be anybody, but also a
        # charge point with a wrong URL, which nobody would find: once for each thing it asks for.
        serious = refused.word in _TO_LOOK_AFTER or (
            refused.word == "no_id" and self._no_id_told.is_due((host, path[:200]))
        )
        tell = log.warning if serious else log.info
        tell("handshake refused", remote=where, path=path[:200], why=str(refused))
        self._tally.handshakes[refused.word] += 1
        if self._tap.looked_at:
            told = f"{refused}, from {where}, path {path[:200]}"
            self._tap.note(identity_of(path) or "", REFUSED, reason=told)

    async def _admit(self, handshake: Handshake, stream: trio.abc.Stream) -> tuple[str, int]:
        """(charge point id, security profile).  Raises _Refused."""
        settings = self._settings
        if self._closing:
            raise _Refused(503, STOPPING, [(b"retry-after", b"10")], word="stopping")
        identity = identity_of(handshake.path)
        if identity is None:
            raise _Refused(404, NO_ID, word="no_id")
        if identity in settings.own_devices:
            raise _Refused(404, "the gateway's own device has this name", word="no_id")
        if settings.reject_unknown and identity not in settings.known:
            raise _Refused(404, "this charge point is not known here", word="unknown")
        secure = isinstance(stream, trio.SSLStream)
        profile = 2 if secure else 0
        if self._passwords.needs(identity):
            password = password_of(handshake.header(b"authorization"), identity)
            if not await self._passwords.admits(identity, password):
                raise _Refused(
                    401,
                    "wrong or missing password",
                    [(b"www-authenticate", b'Basic realm="ocpp"')],
                    word="password",
                )
            profile = 2 if secure else 1
        if isinstance(stream, trio.SSLStream) and stream.getpeercert():
            profile = 3
        if profile < settings.profiles.get(identity, 0):
            raise _Refused(
                403, "this charge point may not connect with so little security", word="profile"
            )
        offered = handshake.subprotocols
        if SUBPROTOCOL not in offered and (offered or settings.require_subprotocol):
            others = ", ".join(offered)[:200] or "a charge point that names no subprotocol"
            raise _Refused(
                400,
                f"this is a central system for {SUBPROTOCOL}, not for {others}",
                word="subprotocol",
            )
        if (calm_in := self._registry.calm_in(identity)) > 0:
            raise _Refused(
                503,
                "another device with this id holds the connection",
                [(b"retry-after", str(int(calm_in) + 1).encode())],
                word="taken",
            )
        return identity, profile

    async def _host(
        self,
        charge_point_id: str,
        socket: TrioSocket,
        where: str,
        profile: int,
        tasks: trio.Nursery,
    ) -> None:
        """A charge point that was let in, until it leaves."""
        settings = self._settings
        clock = self._clocks.connected(charge_point_id)
        desk = Desk(
            charge_point_id,
            self._bus,
            self._now,
            settings.rules,
            clock,
            self._clocks.present,
            known=charge_point_id in settings.known,
        )
        session = ChargePointSession(
            charge_point_id,
            socket,
            desk.answer,
            partial(self._rejected, desk, charge_point_id),
            desk.deviated,
            tasks,
            tally=self._tally,
            tap=self._tap,
            lenient=settings.lenient,
            call_timeout=settings.call_timeout,
            pending=desk.waiting,
        )
        reason, seated = None, True
        try:
            with self._registry.seated(session):
                if self._closing:  # since it was let in
                    session.leave(GOING_AWAY, STOPPING)
                self._served.add(session)
                if self._tap.looked_at:
                    told = f"from {where}, security profile {profile}"
                    self._tap.note(charge_point_id, CONNECTED, reason=told)
                try:
                    await self._bus.publish(
                        ChargePointConnected(
                            charge_point_id=charge_point_id,
                            received_at=self._now(),
                            remote_address=where,
                            security_profile=profile,
                            connectors=self._bus.fleet.connectors(charge_point_id),
                            away=clock.absences,
                        )
                    )
                    if not desk.waiting:
                        tasks.start_soon(self._greet, session, desk, self._now())
                    reason = await session.run()
                finally:
                    seated = self._registry.is_seated(session)
        finally:
            # The seat is free before the disconnect is durable.  Whoever takes it finds the
            # disconnect in the journal's order before its own connect: there is no pause between.
            self._served.discard(session)
            if self._tap.looked_at:
                self._tap.note(charge_point_id, DISCONNECTED, reason=reason or session.why())
            if seated:
                # It shields itself.
                await self._tell_left(session, reason or session.why())  # noqa: ASYNC102
        log.info("charge point left", charge_point=charge_point_id, why=reason)
        farewell = session.farewell
        # Half of the grace at most: the other half is for ThingsBoard to be told.
        with trio.move_on_after(min(CLOSE_TIMEOUT, settings.grace / 2)):
            await socket.close(
                farewell.code if farewell else NORMAL, farewell.reason if farewell else ""
            )

    async def _greet(self, session: ChargePointSession, desk: Desk, since: datetime) -> None:
        wait = self._settings.boot_wait
        promised = await greet(session, desk.booted, self._bus.fleet, wait)
        # Statuses follow a boot, and the question for them, but not at once.
        if desk.booted.is_set() or promised:
            await trio.sleep(wait if desk.booted.is_set() else PATIENCE)
        if self._registry.is_seated(session):
            desk.infer_statuses(since)

    def _rejected(self, desk: Desk, name: str, error: FrameError, total: int) -> None:
        desk.rejected(error, total)
        if error.code == MESSAGE_TOO_LARGE and self._too_large_told.is_due(name):
            log.warning(
                "connection closed: message too large; [ocpp] max_message_bytes may be raised",
                charge_point=name,
                max_message_bytes=self._settings.max_message_bytes,
                why=error.why,
            )

    async def _tell_left(self, session: ChargePointSession, reason: str) -> None:
        # Shielded: that a charge point is gone must be known also where its task is cancelled.
        now = self._now()
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._bus.publish(
                ChargePointDisconnected(
                    charge_point_id=session.charge_point_id,
                    received_at=now,
                    reason=reason[:200],
                    connectors=self._bus.fleet.connectors(session.charge_point_id),
                    last_heard_at=now - timedelta(seconds=session.silent_for(trio.current_time())),
                )
            )

    async def watch(self) -> None:
        """Find out who has fallen silent, and who does not read."""
        settings = self._settings
        silence = SILENT_HEARTBEATS * settings.rules.heartbeat_interval
        while True:
            await trio.sleep(1)
            now = trio.current_time()
            for session in list(self._served):
                match session.check(now, silence=silence, ping_interval=settings.ping_interval):
                    case "ping":
                        session.tasks.start_soon(session.ping)
                    case "gone":
                        session.leave(NORMAL, "no sign of life")
                    case "abort":
                        session.tasks.start_soon(session.abort)
