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

_LOOK_S = 10.0  # a charging profile's next period is noticed within this
_BLINK_S = 0.05


@attrs.frozen(kw_only=True)
class Reservation:
    reservation_id: int
    id_tag: str
    expires_at: datetime


@attrs.define(eq=False, kw_only=True)
class SimulatedSession:
    """A driver at a connector.

    remote: begun by RemoteStartTransaction.
    transaction, started_at: None until StartTransaction was made.
    stop_reason: why it shall end, in OCPP's words (§7.36); None while it goes on.
    stopped: set once no more energy flows and StopTransaction was made.
    failure: what went wrong, in a few words.
    """

    id_tag: str
    remote: bool = False
    transaction: Transaction | None = None
    started_at: datetime | None = None
    stop_reason: str | None = None
    failure: str | None = None
    woken: trio.Event = attrs.field(factory=trio.Event)
    stopped: trio.Event = attrs.field(factory=trio.Event)

    def stop(self, reason: str) -> None:
        """End it; the first reason counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
        self.woken.set()


class ConnectorContext(Protocol):
    """What a connector uses of its charge point: all that the connectors share."""

    dice: random.Random
    outbox: TransactionQueue
    profiles: Profiles
    settings: ConfigurationKeys
    speed: float

    @property
    def now(self) -> Callable[[], datetime]: ...
    def stamp(self, at: datetime) -> str: ...
    def sample_interval(self) -> float: ...
    def report(self, event: str, **facts: Any) -> None: ...
    def session_over(self, number: int, failure: str | None) -> None: ...
    async def sleep_simulated(self, seconds: float) -> None: ...
    async def authorise(self, id_tag: str, *, remote: bool) -> str | None: ...
    async def send_status(self, number: int, *, again: bool = False) -> None: ...


class Connector:
    """Owns: its meter, its status, the session on it and a reservation of it.

    The charge point is asked for what all its connectors share: the line, the outbox, settings.
    """

    def __init__(self, number: int, meter: Meter, charger: ConnectorContext) -> None:
        self.number = number
        self.meter = meter
        self.session: SimulatedSession | None = None
        self.reservation: Reservation | None = None
        self.inoperative = False
        self.status = "Available"
        self.status_at = charger.now()
        self._charger = charger
        self._changed = trio.Event()

    def open_to(self, id_tag: str) -> bool:
        """Whether a session with this tag could begin now."""
        if self.session is not None or self.inoperative:
            return False
        return self.reservation is None or self.reservation.id_tag == id_tag

    async def wait_free(self, id_tag: str) -> None:
        """Wait until a session with this tag could begin."""
        while not self.open_to(id_tag):
            await self._changed.wait()

    async def wait_unused(self) -> None:
        """Wait until no session is on it."""
        while self.session is not None:
            await self._changed.wait()

    def rest(self) -> str:
        """The status of a connector that nobody uses."""
        if self.inoperative:
            return "Unavailable"
        return "Available" if self.reservation is None else "Reserved"

    async def set_status(self, status: str) -> None:
        """Change the status; the central system gets it now, or when it is back."""
        if status == self.status:
            return
        self.status, self.status_at = status, self._charger.now()
        await self._charger.send_status(self.number)

    async def settle_status(self) -> None:
        """Show what a change of availability or reservation means for an unused connector."""
        self._changed.set()
        self._changed = trio.Event()
        if self.session is None:
            await self.set_status(self.rest())

    async def charge(self, session: SimulatedSession) -> None:
        """Carry the session through; `self.session` was set to it by the one who began it."""
        try:
            await self._charge(session)
        finally:
            self.session = None
            self.meter.closed, self.meter.car = False, None
            session.stopped.set()
        await self.settle_status()
        self._charger.session_over(self.number, session.failure)

    async def _charge(self, session: SimulatedSession) -> None:
        charger = self._charger
        dice = charger.dice
        self.meter.car = arriving_car(dice, self.meter.outlet)
        await self.set_status("Preparing")
        await charger.sleep_simulated(dice.uniform(3, 12))
        refusal = await charger.authorise(session.id_tag, remote=session.remote)
        if refusal is not None:
            session.failure = f"id tag {session.id_tag}: {refusal}"
            await charger.sleep_simulated(dice.uniform(5, 15))
            return
        if session.stop_reason is not None:
            session.failure = f"ended before it began: {session.stop_reason}"
            return

        transaction = await self._start(session)
        await self._deliver_energy(session, transaction)
        await self._stop(session, transaction)

        await self.set_status("Finishing")
        await charger.sleep_simulated(dice.uniform(5, 20))  # the driver unplugs

    async def _start(self, session: SimulatedSession) -> Transaction:
        transaction = Transaction(connector_id=self.number, id_tag=session.id_tag)
        session.transaction, session.started_at = transaction, self._charger.now()
        self.meter.advance(trio.current_time())
        start: Payload = {
            "connectorId": self.number,
            "idTag": session.id_tag,
            "meterStart": int(self.meter.register_wh),
            "timestamp": self._charger.stamp(session.started_at),
        }
        if self.reservation is not None:
            start["reservationId"] = self.reservation.reservation_id
            self.reservation = None
        self._start_wh = int(self.meter.register_wh)
        message = self._charger.outbox.put("StartTransaction", start, transaction)
        await message.released.wait()
        self._charger.report(
            "session_started", connector=self.number, tx_id=transaction.id, id_tag=session.id_tag
        )
        return transaction

    async def _deliver_energy(self, session: SimulatedSession, transaction: Transaction) -> None:
        charger, meter = self._charger, self.meter
        meter.advance(trio.current_time())
        meter.closed = True
        idle_s = charger.dice.uniform(90, 420) / charger.speed
        sampled_at, leaves_at = trio.current_time(), math.inf
        while session.stop_reason is None:
            time = trio.current_time()
            self.apply_limit()
            if transaction.refusal and charger.settings.flag("StopTransactionOnInvalidId"):
                session.stop("DeAuthorized")
                break
            if meter.car is None or meter.car.full:
                leaves_at = min(leaves_at, time + idle_s)
                if time >= leaves_at:
                    session.stop("EVDisconnected" if session.remote else "Local")
                    break
            await self.set_status(self._flow())
            interval = charger.sample_interval()
            to_full = meter.seconds_to_full()
            wake_at = min(
                leaves_at,
                sampled_at + interval,
                time + _LOOK_S,
                math.inf if to_full is None else time + max(to_full, _BLINK_S),
            )
            with trio.move_on_at(wake_at):
                await session.woken.wait()
                session.woken = trio.Event()
            meter.advance(trio.current_time())
            if trio.current_time() >= sampled_at + interval and session.stop_reason is None:
                sampled_at = trio.current_time()
                self.put_sample(transaction)

    def _flow(self) -> str:
        if self.meter.car is None or self.meter.car.full:
            return "SuspendedEV"
        return "Charging" if self.meter.power_w > 0 else "SuspendedEVSE"

    def apply_limit(self) -> None:
        """Let the charging profiles have their say."""
        started_at = None if self.session is None else self.session.started_at
        self.meter.limit_w = self._charger.profiles.limit_w(
            self.number, self.meter.outlet, self._charger.now(), started_at
        )

    async def _stop(self, session: SimulatedSession, transaction: Transaction) -> None:
        charger, meter = self._charger, self.meter
        meter.advance(trio.current_time())
        meter.closed = False
        reason, stopped_at = session.stop_reason or "Other", charger.now()
        stop: Payload = {
            "meterStop": int(meter.register_wh),
            "timestamp": charger.stamp(stopped_at),
            "reason": reason,
        }
        if reason == "Local":
            stop["idTag"] = session.id_tag
        if measurands := charger.settings.measurands("StopTxnSampledData"):
            stop["transactionData"] = [self._meter_value(measurands, "Transaction.End")]
        charger.profiles.clear(connector_id=self.number, purpose="TxProfile")
        message = charger.outbox.put("StopTransaction", stop, transaction)
        session.stopped.set()
        await message.released.wait()
        duration = (stopped_at - (session.started_at or stopped_at)).total_seconds()
        session.failure = self._failure(transaction)
        charger.report(
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
        if transaction.refusal:
            return f"id tag {transaction.id_tag}: {transaction.refusal}"
        if transaction.id == NEVER_DELIVERED:
            return "StartTransaction was refused"
        return None

    def put_sample(self, transaction: Transaction, context: str = "Sample.Periodic") -> None:
        """Queue MeterValues (§4.7) of that transaction."""
        self._charger.outbox.put("MeterValues", self.sample(context), transaction)

    def sample(self, context: str) -> dict[str, Any]:
        """MeterValues of this moment, without a transaction's id."""
        self.meter.advance(trio.current_time())
        measurands = self._charger.settings.measurands("MeterValuesSampledData")
        value = self._meter_value(measurands or ["Energy.Active.Import.Register"], context)
        return {"connectorId": self.number, "meterValue": [value]}

    def _meter_value(self, measurands: list[str], context: str) -> Payload:
        return {
            "timestamp": self._charger.stamp(self._charger.now()),
            "sampledValue": self.meter.sampled_values(measurands, context),
        }
