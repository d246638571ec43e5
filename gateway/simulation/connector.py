"""One connector of a simulated charge point, and a session on it from plug-in to departure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import attrs
import trio

from .car import Meter, arriving_car
from .charging_profiles import Profiles
from .configuration_keys import ConfigurationKeys
from .ocpp_connection import Payload
from .transaction_queue import NEVER_DELIVERED, Transaction, TransactionQueue

_PROFILE_CHECK_S = 10.0  # a charging profile's next period takes effect within this
_MIN_WAIT_S = 0.05


@attrs.frozen(kw_only=True)
class Reservation:
    reservation_id: int
    id_tag: str
    expires_at: datetime


@attrs.define(eq=False, kw_only=True)
class SimulatedSession:
    """A driver's charging session.

    remote: begun by RemoteStartTransaction.
    transaction, started_at: None until StartTransaction was queued.
    stop_reason: the Reason (§7.36) for which it shall end; None while it goes on.
    stopped: set once no more energy flows and StopTransaction was queued.
    failure: what went wrong, in a few words.
    """

    id_tag: str
    remote: bool = False
    transaction: Transaction | None = None
    started_at: datetime | None = None
    stop_reason: str | None = None
    failure: str | None = None
    changed: trio.Event = attrs.field(factory=trio.Event)
    stopped: trio.Event = attrs.field(factory=trio.Event)

    def stop(self, reason: str) -> None:
        """End the session; the first reason counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
        self.changed.set()


class ConnectorContext(Protocol):
    """What a connector uses of its charge point: all that the connectors share."""

    rng: random.Random
    queue: TransactionQueue
    profiles: Profiles
    settings: ConfigurationKeys
    speed: float

    @property
    def now(self) -> Callable[[], datetime]: ...
    def stamp(self, at: datetime) -> str: ...
    def sample_interval(self) -> float: ...
    def report(self, event: str, **facts: Any) -> None: ...
    def end_session(self, number: int, failure: str | None) -> None: ...
    async def sleep_simulated(self, seconds: float) -> None: ...
    async def authorise(self, id_tag: str, *, remote: bool) -> str | None: ...
    async def send_status(self, number: int, *, again: bool = False) -> None: ...


class Connector:
    """Owns: its meter, its status, its session and its reservation."""

    def __init__(self, number: int, meter: Meter, charge_point: ConnectorContext) -> None:
        self.number = number
        self.meter = meter
        self.session: SimulatedSession | None = None
        self.reservation: Reservation | None = None
        self.inoperative = False
        self.status = "Available"
        self.status_at = charge_point.now()
        self._charge_point = charge_point
        self._changed = trio.Event()

    def accepts(self, id_tag: str) -> bool:
        """Whether a session with this tag could begin now."""
        if self.session is not None or self.inoperative:
            return False
        return self.reservation is None or self.reservation.id_tag == id_tag

    async def wait_accepting(self, id_tag: str) -> None:
        """Wait until a session with this tag could begin."""
        while not self.accepts(id_tag):
            await self._changed.wait()

    async def wait_unused(self) -> None:
        """Wait until it has no session."""
        while self.session is not None:
            await self._changed.wait()

    def idle_status(self) -> str:
        """The status without a session."""
        if self.inoperative:
            return "Unavailable"
        return "Available" if self.reservation is None else "Reserved"

    async def set_status(self, status: str) -> None:
        """Change the status; it is sent now, or after the reconnection."""
        if status == self.status:
            return
        self.status, self.status_at = status, self._charge_point.now()
        await self._charge_point.send_status(self.number)

    async def update_idle_status(self) -> None:
        """Send the status that a changed availability or reservation gives without a session."""
        self._changed.set()
        self._changed = trio.Event()
        if self.session is None:
            await self.set_status(self.idle_status())

    async def charge(self, session: SimulatedSession) -> None:
        """Run the session to its end; `begin` of the charge point has set `self.session` to it."""
        try:
            await self._charge(session)
        finally:
            self.session = None
            self.meter.closed, self.meter.car = False, None
            session.stopped.set()
        await self.update_idle_status()
        self._charge_point.end_session(self.number, session.failure)

    async def _charge(self, session: SimulatedSession) -> None:
        charge_point = self._charge_point
        rng = charge_point.rng
        self.meter.car = arriving_car(rng, self.meter.outlet)
        await self.set_status("Preparing")
        await charge_point.sleep_simulated(rng.uniform(3, 12))
        id_tag_status = await charge_point.authorise(session.id_tag, remote=session.remote)
        if id_tag_status is not None:
            session.failure = f"id tag {session.id_tag}: {id_tag_status}"
            await charge_point.sleep_simulated(rng.uniform(5, 15))
            return
        if session.stop_reason is not None:
            session.failure = f"ended before it began: {session.stop_reason}"
            return

        transaction = await self._start(session)
        await self._deliver_energy(session, transaction)
        await self._stop(session, transaction)

        await self.set_status("Finishing")
        await charge_point.sleep_simulated(rng.uniform(5, 20))  # the driver unplugs

    async def _start(self, session: SimulatedSession) -> Transaction:
        transaction = Transaction(connector_id=self.number, id_tag=session.id_tag)
        session.transaction, session.started_at = transaction, self._charge_point.now()
        self.meter.advance(trio.current_time())
        start: Payload = {
            "connectorId": self.number,
            "idTag": session.id_tag,
            "meterStart": int(self.meter.register_wh),
            "timestamp": self._charge_point.stamp(session.started_at),
        }
        if self.reservation is not None:
            start["reservationId"] = self.reservation.reservation_id
            self.reservation = None
        self._start_wh = int(self.meter.register_wh)
        message = self._charge_point.queue.put("StartTransaction", start, transaction)
        await message.released.wait()
        self._charge_point.report(
            "session_started", connector=self.number, tx_id=transaction.id, id_tag=session.id_tag
        )
        return transaction

    async def _deliver_energy(self, session: SimulatedSession, transaction: Transaction) -> None:
        charge_point, meter = self._charge_point, self.meter
        meter.advance(trio.current_time())
        meter.closed = True
        idle_s = charge_point.rng.uniform(90, 420) / charge_point.speed
        sampled_at, leaves_at = trio.current_time(), math.inf
        while session.stop_reason is None:
            time = trio.current_time()
            self.apply_limit()
            if transaction.id_tag_status and charge_point.settings.flag(
                "StopTransactionOnInvalidId"
            ):
                session.stop("DeAuthorized")
                break
            if meter.car is None or meter.car.full:
                leaves_at = min(leaves_at, time + idle_s)
                if time >= leaves_at:
                    session.stop("EVDisconnected" if session.remote else "Local")
                    break
            await self.set_status(self._charging_status())
            interval = charge_point.sample_interval()
            to_full = meter.seconds_to_full()
            wake_at = min(
                leaves_at,
                sampled_at + interval,
                time + _PROFILE_CHECK_S,
                math.inf if to_full is None else time + max(to_full, _MIN_WAIT_S),
            )
            with trio.move_on_at(wake_at):
                await session.changed.wait()
                session.changed = trio.Event()
            meter.advance(trio.current_time())
            if trio.current_time() >= sampled_at + interval and session.stop_reason is None:
                sampled_at = trio.current_time()
                self.queue_sample(transaction)

    def _charging_status(self) -> str:
        if self.meter.car is None or self.meter.car.full:
            return "SuspendedEV"
        return "Charging" if self.meter.power_w > 0 else "SuspendedEVSE"

    def apply_limit(self) -> None:
        """Limit the power as the charging profiles demand."""
        started_at = None if self.session is None else self.session.started_at
        self.meter.limit_w = self._charge_point.profiles.limit_w(
            self.number, self.meter.outlet, self._charge_point.now(), started_at
        )

    async def _stop(self, session: SimulatedSession, transaction: Transaction) -> None:
        charge_point, meter = self._charge_point, self.meter
        meter.advance(trio.current_time())
        meter.closed = False
        reason, stopped_at = session.stop_reason or "Other", charge_point.now()
        stop: Payload = {
            "meterStop": int(meter.register_wh),
            "timestamp": charge_point.stamp(stopped_at),
            "reason": reason,
        }
        if reason == "Local":
            stop["idTag"] = session.id_tag
        if measurands := charge_point.settings.measurands("StopTxnSampledData"):
            stop["transactionData"] = [self._meter_value(measurands, "Transaction.End")]
        charge_point.profiles.clear(connector_id=self.number, purpose="TxProfile")
        message = charge_point.queue.put("StopTransaction", stop, transaction)
        session.stopped.set()
        await message.released.wait()
        duration = (stopped_at - (session.started_at or stopped_at)).total_seconds()
        session.failure = self._failure(transaction)
        charge_point.report(
            "session_finished",
            connector=self.number,
            tx_id=transaction.id,
            id_tag=session.id_tag,
            energy_wh=int(meter.register_wh) - self._start_wh,
            duration_s=round(duration, 1),
            reason=reason,
        )

    @staticmethod
    def _failure(transaction: Transaction) -> str | None:
        if transaction.id_tag_status:
            return f"id tag {transaction.id_tag}: {transaction.id_tag_status}"
        if transaction.id == NEVER_DELIVERED:
            return "StartTransaction was refused"
        return None

    def queue_sample(self, transaction: Transaction, context: str = "Sample.Periodic") -> None:
        """Queue MeterValues (§4.7) of that transaction."""
        self._charge_point.queue.put("MeterValues", self.sample(context), transaction)

    def sample(self, context: str) -> dict[str, Any]:
        """MeterValues of this moment, without a transaction id."""
        self.meter.advance(trio.current_time())
        measurands = self._charge_point.settings.measurands("MeterValuesSampledData")
        value = self._meter_value(measurands or ["Energy.Active.Import.Register"], context)
        return {"connectorId": self.number, "meterValue": [value]}

    def _meter_value(self, measurands: list[str], context: str) -> Payload:
        return {
            "timestamp": self._charge_point.stamp(self._charge_point.now()),
            "sampledValue": self.meter.sampled_values(measurands, context),
        }
