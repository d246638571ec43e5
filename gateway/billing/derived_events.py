"""The derived events that the ledger publishes about a session."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from ..domain.event_values import Progress
from ..domain.events import TransactionOpened, TransactionProgressed, TransactionSettled
from ..domain.fixed_point import (
    HOUR,
    SECOND,
    WH,
    Exact,
    decimal,
    instant,
    ratio,
    rounded,
    trimmed,
    watt_hours,
)
from ..tariffs.dimensions import ENERGY, FLAT, PARKING_TIME, TIME
from .bill import price_now
from .curve import Point
from .receipt import receipt_of
from .session import Session
from .settlement import Settlement


def opened_event(settlement: Settlement, received_at: datetime) -> TransactionOpened:
    opening = settlement.session.opening
    terms = opening.terms
    status_at, status = next(iter(settlement.session.statuses), (None, None))
    if settlement.session.unplugged is not None:
        status_at, status = settlement.session.unplugged, "Available"
    return TransactionOpened(
        **_transaction_fields(settlement.session, received_at),
        timestamp=opening.started_at,
        id_tag=opening.id_tag,
        progress=progress(settlement),
        tariff=None if terms.tariff is None else terms.tariff.snapshot,
        policy=terms.policy_snapshot(),
        time_zone=terms.time_zone,
        status=status,
        status_at=None if status_at is None else instant(status_at),
        meter_gap_wh=None if opening.meter_gap is None else watt_hours(opening.meter_gap),
    )


def progressed_event(
    settlement: Settlement,
    received_at: datetime,
    *,
    with_power: bool = False,
    by_clock: bool = False,
) -> TransactionProgressed:
    """with_power: derive the power, where none is sampled.  by_clock: no message came."""
    so_far = progress(settlement, with_power=with_power)
    return TransactionProgressed(
        **_transaction_fields(settlement.session, received_at),
        timestamp=so_far.as_of,
        progress=so_far,
        by_clock=by_clock,
    )


def settled_event(
    settlement: Settlement, received_at: datetime, software: str
) -> TransactionSettled:
    version = settlement.session.version
    return TransactionSettled(
        **_transaction_fields(settlement.session, received_at),
        timestamp=instant(settlement.end),
        progress=progress(settlement),
        receipt=receipt_of(settlement, version=version, software=software),
        version=version,
    )


def progress(settlement: Settlement, *, with_power: bool = False) -> Progress:
    """The session's figures for telemetry.  with_power: derive the power, where none is sampled."""
    session, pricing, bill = settlement.session, settlement.pricing, settlement.bill
    curve = session.curve
    opening = session.opening
    nwh = settlement.nwh if session.closed else max(session.published_nwh, settlement.nwh)
    register = curve.register
    if session.stop is not None and session.stop.register is not None:
        register = session.stop.register
    if register is None:
        register = opening.meter_start
    power = None
    if with_power and not session.power_sampled and curve.last.at > curve.before.at:
        power = _power(curve.before, curve.last)
    duration = (settlement.end - opening.start) // SECOND
    charging, idle = int(pricing.charging // SECOND), int(pricing.idle // SECOND)
    energy_wh = watt_hours(nwh)
    meter_wh = None if register is None else watt_hours(register)
    as_of = instant(settlement.end)
    upcoming = pricing.upcoming()
    if bill is None:
        return Progress(
            as_of=as_of,
            energy_wh=energy_wh,
            duration_s=duration,
            charging_s=charging,
            idle_s=idle,
            idle=upcoming.kind == PARKING_TIME,
            meter_wh=meter_wh,
            power_w=power,
            flags=settlement.flags,
        )
    tariff = bill.tariff
    rates = upcoming.rates
    total = bill.minor(bill.incl)
    return Progress(
        as_of=as_of,
        energy_wh=energy_wh,
        duration_s=duration,
        charging_s=charging,
        idle_s=idle,
        idle=upcoming.kind == PARKING_TIME,
        meter_wh=meter_wh,
        power_w=power,
        currency=tariff.currency,
        cost_total=decimal(total, tariff.digits),
        cost_total_minor=total,
        cost_energy=bill.cost(ENERGY),
        cost_time=bill.cost(TIME),
        cost_idle=bill.cost(PARKING_TIME),
        cost_fixed=bill.cost(FLAT),
        price_kwh=price_now(tariff, rates.energy, ENERGY),
        price_min=price_now(tariff, rates.time, TIME),
        price_idle_min=price_now(tariff, rates.parking, PARKING_TIME),
        flags=settlement.flags,
    )


def _transaction_fields(session: Session, received_at: datetime) -> dict[str, Any]:
    opening = session.opening
    return {
        "charge_point_id": opening.charge_point_id,
        "received_at": received_at,
        "transaction_id": opening.transaction_id,
        "connector_id": opening.connector_id,
        "started_at": opening.started_at,
    }


def _power(before: Point, last: Point) -> Decimal:
    """W, to a tenth."""
    watts: Exact = ratio((last.nwh - before.nwh) * HOUR, (last.at - before.at) * WH)
    return trimmed(decimal(rounded(watts, 1, 1), 1))
