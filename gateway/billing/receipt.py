"""The receipt: everything that a session's price rests on, in one JSON object.

Its lines and periods map to an OCPI CDR (OCPI 2.2.1, mod_cdrs).  Amounts and quantities are
decimal text, counts and durations whole numbers; the tariff is the object as it was read.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..domain.clock import iso
from ..domain.fixed_point import (
    HOUR,
    KWH,
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
from ..tariffs.dimensions import UNITS
from .bill import ADJUSTMENT, Bill, Line, decimal_text
from .pricing import Period
from .session import Opening, SignedValue
from .settlement import NEEDS_REVIEW, Settlement


def receipt_id(opening: Opening) -> str:
    """The same for all versions of a session's receipt."""
    started = opening.started_at.strftime("%Y%m%dT%H%M%SZ")
    return f"{opening.charge_point_id}-{opening.connector_id}-{opening.transaction_id}-{started}"


def receipt_of(settlement: Settlement, *, version: int, software: str) -> dict[str, Any]:
    session, pricing, bill = settlement.session, settlement.pricing, settlement.bill
    opening, stop = session.opening, session.stop
    terms = opening.terms
    tariff = terms.tariff
    scale = opening.energy_scale
    return {
        "receipt_id": receipt_id(opening),
        "version": version,
        "charge_point": opening.charge_point_id,
        "connector": opening.connector_id,
        "transaction_id": opening.transaction_id,
        "id_tag": opening.id_tag,
        "started_at": iso(opening.started_at),
        "stopped_at": iso(instant(settlement.end)),
        "time_zone": terms.time_zone,
        "stop_reason": None if stop is None else stop.reason,
        "meter_start_wh": _register(opening.meter_start),
        "meter_stop_wh": None if stop is None else _register(stop.register),
        "meter_gap_wh": _register(opening.meter_gap),
        **({} if scale is None else {"energy_scale": str(scale)}),
        "energy_wh": str(watt_hours(settlement.nwh)),
        "duration_s": (settlement.end - opening.start) // SECOND,
        "charging_s": int(pricing.charging // SECOND),
        "idle_s": int(pricing.idle // SECOND),
        "currency": None if tariff is None else tariff.currency,
        "tariff_id": None if tariff is None else tariff.id,
        "tariff_sha256": None if tariff is None else tariff.sha256,
        "tariff": None if tariff is None else tariff.snapshot,
        "lines": [] if bill is None else [_line(line, bill) for line in bill.lines()],
        "periods": [_period(period) for period in pricing.charging_periods()],
        **_totals(bill),
        "energy_source": settlement.source,
        "flags": list(settlement.flags),
        "needs_review": NEEDS_REVIEW in settlement.flags,
        "signed": [_signed(signed) for signed in session.signed],
        "software": software,
    }


def _register(nwh: int | None) -> int | str | None:
    """Wh: a whole number as meters count, or decimal text."""
    if nwh is None:
        return None
    return nwh // WH if not nwh % WH else str(watt_hours(nwh))


def _line(line: Line, bill: Bill) -> dict[str, Any]:
    fields: dict[str, Any] = {"dimension": line.dimension}
    component = None if line.component < 0 else bill.tariff.components[line.component]
    return {
        **fields,
        "quantity": decimal_text(line.quantity),
        "billed_quantity": decimal_text(line.billed_quantity),
        "unit": "session" if line.dimension == ADJUSTMENT else UNITS[line.dimension],
        "unit_price": None if component is None else str(component.price),
        "vat": None if component is None or component.vat is None else str(component.vat),
        "step_size": None if component is None else component.step_size,
        "cost_excl_vat": _four(line.excl),
        "cost_incl_vat": _four(line.incl),
    }


def _four(amount: Exact) -> str:
    return str(decimal(rounded(amount, 1, 4), 4))


def _period(period: Period) -> dict[str, Any]:
    """Powers and currents, where the tariff asks for them, are cut to six decimals: so they stay
    between the bounds between which they are."""
    fields: dict[str, Any] = {
        "start": iso(instant(period.start)),
        "energy_kwh": decimal_text(ratio(period.energy, KWH)),
        "time_h": decimal_text(ratio(period.charging, HOUR)),
        "parking_time_h": decimal_text(ratio(period.parking, HOUR)),
    }
    powers, currents = period.extent
    if powers is not None:
        least, greatest = (ratio(power * HOUR, KWH) for power in powers)
        fields |= {"min_power_kw": _cut(least), "max_power_kw": _cut(greatest)}
    if currents is not None:
        least, greatest = (ratio(current, 10**9) for current in currents)
        fields |= {"min_current_a": _cut(least), "max_current_a": _cut(greatest)}
    if period.in_grace:
        fields["in_grace"] = True
    return fields


def _cut(value: Exact) -> str:
    return str(trimmed(decimal(int(value * 10**6 // 1), 6)))


def _totals(bill: Bill | None) -> dict[str, str | None]:
    if bill is None:
        return {"total_excl_vat": None, "total_incl_vat": None, "vat_total": None}
    excl, incl = bill.money(bill.excl), bill.money(bill.incl)
    return {
        "total_excl_vat": str(excl),
        "total_incl_vat": str(incl),
        "vat_total": str(incl - excl),
    }


def _signed(signed: SignedValue) -> dict[str, Any]:
    sample = signed.sample
    return {
        "context": sample.context,
        "timestamp": iso(signed.at),
        "measurand": sample.measurand,
        "unit": sample.unit,
        "value": sample.value,
        "sha256": hashlib.sha256(sample.value.encode("utf-8", "surrogatepass")).hexdigest(),
    }
