"""A simulated OCPP 1.6J charge point: it boots, cars come, charge and go, it obeys.

It follows the specification where real charge points often do not, so that what a central system
shows of it can be taken at its word.  Its laws:

1. Charging goes on whatever becomes of the connection; what arose meanwhile is sent afterwards.
2. Nothing that the central system sends ends it.
3. What it answers, it does; what it does not do, it does not promise.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import trio

from .car import AC_22, Meter, Outlet
from .charging_profiles import Profiles
from .configuration_keys import ConfigurationKeys
from .connector import Connector, SimulatedSession
from .ocpp_connection import CallRefused, ConnectionGone, Payload, Reply
from .request_handlers import RequestHandlers
from .transaction_queue import TransactionQueue
from .uplink import Connect, Uplink

Report = Callable[[dict[str, Any]], None]

ID_TAGS = ("04A1B2C3D4E5", "04FEDCBA9876", "B7C8D9E0")
_CALL_TIMEOUT = 30.0
_REBOOT_S = 20.0  # of the cars' time
_METERS_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
_WH_PER_HOUR = 50_000  # more than a busy connector delivers


class SimulatedCharger:
    """A charge point with its connectors and the drivers who come to them.

    connect: opens the WebSocket, its tasks in the nursery given; the second argument is the Basic
        password, None without one.
    now: the wall clock; every timestamp sent is its.
    speed: the cars and their drivers live so much faster than the clock; heartbeats, time-outs
        and pauses before a reconnection do not.  Power then grows by as much as the outlet's
        kind can carry (`gateway.simulation.car`).
    outlets: one for each connector, from 1 on.
    sample_interval_s: MeterValueSampleInterval, in the cars' time.
    drivers: the connectors to which drivers come by themselves; None means all of them.
    sessions: how many sessions, remotely started ones included, it makes before `run` returns;
        None means without end.
    connect_timeout_s, reconnect_timeout_s: seconds after which `run` gives up, if it never was
        accepted and if it lost its connection; None means never (`gateway.simulation.uplink`).
    call_timeout_s: seconds that the central system has for an answer.
    seed: of chance; None means that the charge point's id decides.
    report: is called with what happened, a dict with `event` and `charger`.
    """

    def __init__(
        self,
        charge_point_id: str,
        connect: Connect,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        speed: float = 1.0,
        outlets: Sequence[Outlet] = (AC_22,),
        sample_interval_s: int = 60,
        drivers: Collection[int] | None = None,
        sessions: int | None = None,
        id_tags: Sequence[str] = ID_TAGS,
        password: str | None = None,
        connect_timeout_s: float | None = None,
        reconnect_timeout_s: float | None = None,
        call_timeout_s: float = _CALL_TIMEOUT,
        seed: int | str | None = None,
        report: Report | None = None,
    ) -> None:
        self.charge_point_id = charge_point_id
        self.now = now
        self.speed = speed
        self.dice = random.Random(charge_point_id if seed is None else seed)
        self.failures: list[str] = []
        self.settings = ConfigurationKeys(
            connectors=len(outlets),
            direct_current=any(outlet.direct_current for outlet in outlets),
            sample_interval_s=sample_interval_s,
        )
        self.profiles = Profiles()
        self.outbox = TransactionQueue(self.settings)
        self.uplink = Uplink(
            self,
            connect,
            password=password,
            connect_timeout_s=connect_timeout_s,
            reconnect_timeout_s=reconnect_timeout_s,
            call_timeout_s=call_timeout_s,
            dice=self.dice,
        )
        self.connectors = {
            number: Connector(number, self._meter(number, outlet), self)
            for number, outlet in enumerate(outlets, 1)
        }
        self._remote = RequestHandlers(self)
        self._drivers = self.connectors.keys() if drivers is None else drivers
        self._id_tags = id_tags
        self._report = report
        self._told: dict[int, str] = {}
        self._begun, self._ended, self._sessions = 0, 0, sessions
        self._closed = False
        self._finished = trio.Event()

    async def run(self) -> None:
        """Be a charge point until all sessions are made, a timeout ends it, or for ever.

        What went wrong is in `failures` afterwards, one line each.  Cancelled, it takes leave of
        the central system with 1000 and leaves open transactions open, as a power cut does.
        """
        async with trio.open_nursery() as life:
            self._life = life
            life.start_soon(self._keep_uplink)
            for number in self._drivers:
                life.start_soon(self._bring_drivers, self.connectors[number])
            await self._finished.wait()
            await self.outbox.wait_empty()
            await self.uplink.hang_up()
            life.cancel_scope.cancel()

    def close_site(self) -> None:
        """Let no more drivers come by themselves; sessions that go on do so."""
        self._closed = True

    # What happens at its connectors

    def stamp(self, at: datetime) -> str:
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def sleep_simulated(self, seconds: float) -> None:
        """Let so many seconds of the cars' time pass."""
        await trio.sleep(seconds / self.speed)

    def sample_interval(self) -> float:
        """Seconds of the clock between two samples; infinite when they are switched off."""
        interval = self.settings.number("MeterValueSampleInterval")
        # however fast the cars live: no central system is asked to take more than one a second
        return max(interval / self.speed, min(interval, 1.0)) if interval else float("inf")

    def begin(
        self, connector: Connector, session: SimulatedSession
    ) -> Callable[[], Awaitable[None]]:
        """Take the connector at once; what is returned carries the session through."""
        connector.session = session
        self._begun += 1
        return partial(connector.charge, session)

    def session_over(self, number: int, failure: str | None) -> None:
        """Count a session whose car has left; `failure` says in a few words what went wrong."""
        if failure is not None:
            self.report("session_failed", connector=number, why=failure)
            if self._sessions is not None:
                self.failures.append(f"{self.charge_point_id} connector {number}: {failure}")
        self._ended += 1
        if self._sessions is not None and self._ended >= self._sessions:
            self._finished.set()

    async def authorise(self, id_tag: str, *, remote: bool) -> str | None:
        """Ask whether this tag may charge (§4.1); None if so, else the status it got."""
        if remote and not self.settings.flag("AuthorizeRemoteTxRequests"):
            return None
        known = self._remote.listed(id_tag)
        if known == "Accepted" and self.settings.flag("LocalPreAuthorize"):
            return None
        try:
            answer = await self.uplink.ask("Authorize", {"idTag": id_tag})
        except ConnectionGone:
            if known is not None and self.settings.flag("LocalAuthorizeOffline"):
                return None if known == "Accepted" else known
            return None if self.settings.flag("AllowOfflineTxForUnknownId") else "offline"
        except CallRefused as exc:
            return str(exc)
        info = answer.get("idTagInfo")
        status = info.get("status") if isinstance(info, dict) else None
        return None if status == "Accepted" else str(status)

    async def send_status(self, number: int, *, again: bool = False) -> None:
        """StatusNotification (§4.9) of a connector, 0 for the whole; `again` even if known."""
        connector = self.connectors.get(number)
        status = self._remote.status if connector is None else connector.status
        if not again and self._told.get(number) == status:
            return
        at = self.now() if connector is None or again else connector.status_at
        notice = {
            "connectorId": number,
            "errorCode": "NoError",
            "status": status,
            "timestamp": self.stamp(at),
        }
        if await self.uplink.send("StatusNotification", notice):
            self._told[number] = status

    def report(self, event: str, **facts: Any) -> None:
        if self._report is not None:
            self._report({"event": event, "charger": self.charge_point_id, **facts})

    # What its connection and the central system's orders ask of it

    def boot_notification(self) -> Payload:
        direct_current = any(c.meter.outlet.direct_current for c in self.connectors.values())
        return {
            "chargePointVendor": "Simulated",
            "chargePointModel": "Sim DC 60" if direct_current else "Sim AC 22",
            "chargePointSerialNumber": self.charge_point_id[:25],
            "firmwareVersion": self._remote.firmware_version,
            "meterType": "simulated",
        }

    def answer(self, action: str, payload: Payload) -> Reply:
        return self._remote.answer(action, payload)

    def start_soon(self, then: Callable[[], Awaitable[Any]]) -> None:
        self._life.start_soon(then)

    async def send_statuses(self) -> None:
        """Tell of what changed while the central system was away; after a boot, of everything."""
        for number in (0, *self.connectors):
            await self.send_status(number)

    async def reboot(self, reason: str) -> None:
        """Restart (§5.14): softly only after the stopped transactions were delivered."""
        sessions = [c.session for c in self.connectors.values() if c.session is not None]
        for session in sessions:
            session.stop(reason)
        if reason == "SoftReset":
            with trio.move_on_after(_CALL_TIMEOUT):
                for session in sessions:
                    await session.stopped.wait()
                await self.outbox.wait_empty()
        self._told.clear()
        await self.uplink.power_cycle(_REBOOT_S / self.speed)

    # Its life

    async def _keep_uplink(self) -> None:
        why = await self.uplink.run()
        self.failures.append(f"{self.charge_point_id}: no connection: {why}")
        self._life.cancel_scope.cancel()

    async def _bring_drivers(self, connector: Connector) -> None:
        await self.uplink.wait_online()
        await self.sleep_simulated(self.dice.uniform(5, 120))
        while True:
            id_tag = self.dice.choice(self._id_tags)
            await connector.wait_free(id_tag)
            if self._closed or (self._sessions is not None and self._begun >= self._sessions):
                return
            await self.begin(connector, SimulatedSession(id_tag=id_tag))()
            await self.sleep_simulated(self.dice.uniform(60, 300))

    def _meter(self, number: int, outlet: Outlet) -> Meter:
        # Begun from the calendar, so that a simulation started anew does not turn registers back.
        hours = max(0.0, (self.now() - _METERS_SINCE) / timedelta(hours=1))
        offset = zlib.crc32(f"{self.charge_point_id}/{number}".encode()) % 10_000_000
        register_wh = (hours * _WH_PER_HOUR + offset) % 2_000_000_000
        return Meter(
            outlet=outlet, speed=self.speed, register_wh=register_wh, at=trio.current_time()
        )
