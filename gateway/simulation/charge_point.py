"""A simulated OCPP 1.6J charge point: it boots, cars come and charge, it handles requests.

It follows the specification where real charge points often do not, so a wrong value at the central
system is the central system's fault.  Its laws:

1. Charging goes on without a connection; the messages of that time are sent afterwards.
2. Nothing that the central system sends ends the charge point.
3. It carries out each request that it accepts, and accepts no other.
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
from .ocpp_client import Connect, OcppClient
from .ocpp_connection import CallError, ConnectionLost, Payload
from .request_handlers import RequestHandlers
from .transaction_queue import TransactionQueue

Report = Callable[[dict[str, Any]], None]

ID_TAGS = ("04A1B2C3D4E5", "04FEDCBA9876", "B7C8D9E0")
_CALL_TIMEOUT = 30.0
_REBOOT_S = 20.0  # of the cars' time
_METERS_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
_WH_PER_HOUR = 50_000  # more than a busy connector delivers


class SimulatedChargePoint:
    """A charge point, its connectors and their drivers.

    connect: opens the WebSocket, its tasks in the nursery given; the second argument is the Basic
        password, None without one.
    now: the wall clock; every timestamp is taken from it.
    speed: how much faster than the clock the time of cars and drivers passes; heartbeats, timeouts
        and pauses before a reconnection follow the clock.  The power grows as far as the outlet's
        kind can carry (`gateway.simulation.car`).
    outlets: one for each connector, from connector 1 on.
    sample_interval_s: MeterValueSampleInterval, in the cars' time.
    drivers: the connectors to which drivers come by themselves; None means all.
    sessions: how many sessions, remotely started ones included, it makes before `run` returns;
        None means without end.
    connect_timeout_s, reconnect_timeout_s: seconds after which `run` gives up, if it never was
        accepted and if it lost its connection; None means never (`gateway.simulation.ocpp_client`).
    call_timeout_s: seconds from sending a call to its result.
    seed: of the random numbers; None means the charge point's id.
    report: is called with each event, a dict with `event` and `charger`.
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
        self.rng = random.Random(charge_point_id if seed is None else seed)
        self.failures: list[str] = []
        self.settings = ConfigurationKeys(
            connectors=len(outlets),
            direct_current=any(outlet.direct_current for outlet in outlets),
            sample_interval_s=sample_interval_s,
        )
        self.profiles = Profiles()
        self.queue = TransactionQueue(self.settings)
        self.client = OcppClient(
            self,
            connect,
            password=password,
            connect_timeout_s=connect_timeout_s,
            reconnect_timeout_s=reconnect_timeout_s,
            call_timeout_s=call_timeout_s,
            rng=self.rng,
        )
        self.connectors = {
            number: Connector(number, self._meter(number, outlet), self)
            for number, outlet in enumerate(outlets, 1)
        }
        self._handlers = RequestHandlers(self)
        self.handle_request = self._handlers.handle_request
        self._drivers = self.connectors.keys() if drivers is None else drivers
        self._id_tags = id_tags
        self._report = report
        self._sent_statuses: dict[int, str] = {}
        self._sessions_begun, self._sessions_ended, self._sessions = 0, 0, sessions
        self._arrivals_stopped = False
        self._finished = trio.Event()

    async def run(self) -> None:
        """Run the charge point until all sessions are made, a timeout ends it, or for ever.

        `failures` then has a line for each thing that went wrong.  A cancellation closes the
        connection with 1000 and leaves open transactions open, as a power cut does.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._keep_connected)
            for number in self._drivers:
                nursery.start_soon(self._bring_drivers, self.connectors[number])
            await self._finished.wait()
            await self.queue.wait_empty()
            await self.client.disconnect()
            nursery.cancel_scope.cancel()

    def stop_arrivals(self) -> None:
        """Let no more drivers come by themselves; open sessions go on."""
        self._arrivals_stopped = True

    # For its connectors

    def stamp(self, at: datetime) -> str:
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def sleep_simulated(self, seconds: float) -> None:
        """Sleep for so many seconds of the cars' time."""
        await trio.sleep(seconds / self.speed)

    def sample_interval(self) -> float:
        """Seconds of the clock between two samples; infinite when sampling is off."""
        interval = self.settings.number("MeterValueSampleInterval")
        # At any speed, a connector sends at most one sample a second.
        return max(interval / self.speed, min(interval, 1.0)) if interval else float("inf")

    def begin(
        self, connector: Connector, session: SimulatedSession
    ) -> Callable[[], Awaitable[None]]:
        """Occupy the connector at once; the function returned runs the session to its end."""
        connector.session = session
        self._sessions_begun += 1
        return partial(connector.charge, session)

    def end_session(self, number: int, failure: str | None) -> None:
        """Count a session whose car has left; `failure` says in a few words what went wrong."""
        if failure is not None:
            self.report("session_failed", connector=number, why=failure)
            if self._sessions is not None:
                self.failures.append(f"{self.charge_point_id} connector {number}: {failure}")
        self._sessions_ended += 1
        if self._sessions is not None and self._sessions_ended >= self._sessions:
            self._finished.set()

    async def authorise(self, id_tag: str, *, remote: bool) -> str | None:
        """Authorize (§4.1): None if this tag may charge, else its status."""
        if remote and not self.settings.flag("AuthorizeRemoteTxRequests"):
            return None
        known = self._handlers.local_list_status(id_tag)
        if known == "Accepted" and self.settings.flag("LocalPreAuthorize"):
            return None
        try:
            response = await self.client.call("Authorize", {"idTag": id_tag})
        except ConnectionLost:
            if known is not None and self.settings.flag("LocalAuthorizeOffline"):
                return None if known == "Accepted" else known
            return None if self.settings.flag("AllowOfflineTxForUnknownId") else "offline"
        except CallError as exc:
            return str(exc)
        info = response.get("idTagInfo")
        status = info.get("status") if isinstance(info, dict) else None
        return None if status == "Accepted" else str(status)

    async def send_status(self, number: int, *, again: bool = False) -> None:
        """StatusNotification (§4.9) of a connector, 0 for the charge point.

        again: send a status that the central system already has, too.
        """
        connector = self.connectors.get(number)
        status = self._handlers.status if connector is None else connector.status
        if not again and self._sent_statuses.get(number) == status:
            return
        at = self.now() if connector is None or again else connector.status_at
        notice = {
            "connectorId": number,
            "errorCode": "NoError",
            "status": status,
            "timestamp": self.stamp(at),
        }
        if await self.client.send("StatusNotification", notice):
            self._sent_statuses[number] = status

    def report(self, event: str, **facts: Any) -> None:
        if self._report is not None:
            self._report({"event": event, "charger": self.charge_point_id, **facts})

    # For its OCPP client and the request handlers

    def boot_notification(self) -> Payload:
        direct_current = any(c.meter.outlet.direct_current for c in self.connectors.values())
        return {
            "chargePointVendor": "Simulated",
            "chargePointModel": "Sim DC 60" if direct_current else "Sim AC 22",
            "chargePointSerialNumber": self.charge_point_id[:25],
            "firmwareVersion": self._handlers.maintenance.firmware_version,
            "meterType": "simulated",
        }

    def start_soon(self, then: Callable[[], Awaitable[Any]]) -> None:
        self._nursery.start_soon(then)

    async def send_statuses(self) -> None:
        """Send the statuses that changed while offline; after a boot, all of them."""
        for number in (0, *self.connectors):
            await self.send_status(number)

    async def reboot(self, reason: str) -> None:
        """Restart (§5.14); a soft reset first delivers the stopped transactions."""
        sessions = [c.session for c in self.connectors.values() if c.session is not None]
        for session in sessions:
            session.stop(reason)
        if reason == "SoftReset":
            with trio.move_on_after(_CALL_TIMEOUT):
                for session in sessions:
                    await session.stopped.wait()
                await self.queue.wait_empty()
        self._sent_statuses.clear()
        await self.client.restart(_REBOOT_S / self.speed)

    # Its tasks

    async def _keep_connected(self) -> None:
        why = await self.client.run()
        self.failures.append(f"{self.charge_point_id}: no connection: {why}")
        self._nursery.cancel_scope.cancel()

    async def _bring_drivers(self, connector: Connector) -> None:
        await self.client.wait_online()
        await self.sleep_simulated(self.rng.uniform(5, 120))
        while True:
            id_tag = self.rng.choice(self._id_tags)
            await connector.wait_accepting(id_tag)
            if self._arrivals_stopped or (
                self._sessions is not None and self._sessions_begun >= self._sessions
            ):
                return
            await self.begin(connector, SimulatedSession(id_tag=id_tag))()
            await self.sleep_simulated(self.rng.uniform(60, 300))

    def _meter(self, number: int, outlet: Outlet) -> Meter:
        # The register follows the calendar, so that it never falls when a simulation starts again.
        hours = max(0.0, (self.now() - _METERS_SINCE) / timedelta(hours=1))
        offset = zlib.crc32(f"{self.charge_point_id}/{number}".encode()) % 10_000_000
        register_wh = (hours * _WH_PER_HOUR + offset) % 2_000_000_000
        return Meter(
            outlet=outlet, speed=self.speed, register_wh=register_wh, at=trio.current_time()
        )
