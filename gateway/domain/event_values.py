"""What events are made of: readings of charge points, and a transaction so far.

They are journaled inside of events, so the same holds for their fields (see `events`).
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import attrs


@attrs.frozen
class Sample:
    """One sampledValue, verbatim (OCPP 1.6 §7.43): what was absent is None, not its default."""

    value: str
    context: str | None = None
    format: str | None = None
    measurand: str | None = None
    phase: str | None = None
    location: str | None = None
    unit: str | None = None


@attrs.frozen
class Reading:
    """One MeterValue (OCPP 1.6 §7.33): samples taken at one instant.

    timestamp: aware; None where it was missing or unreadable.
    """

    timestamp: datetime | None
    samples: tuple[Sample, ...]


@attrs.frozen(kw_only=True)
class Progress:
    """A transaction so far: what it would be if it stopped at `as_of`.

    energy_wh: since the start, never falling while it is open.
    meter_wh: the import register behind it; None before any is known.
    idle: the car takes no energy at this instant, by the operator's idea of idle.
    power_w: derived from two register readings where the charge point samples no power.
    Durations are whole seconds.  Money is in `currency`, costs rounded to its minor unit and
    prices per kWh or per minute at this instant, all including VAT; None where unpriced.
    """

    as_of: datetime
    energy_wh: Decimal
    duration_s: int
    charging_s: int
    idle_s: int
    idle: bool = False
    meter_wh: Decimal | None = None
    power_w: Decimal | None = None
    currency: str | None = None
    cost_total: Decimal | None = None
    cost_total_minor: int | None = None
    cost_energy: Decimal | None = None
    cost_time: Decimal | None = None
    cost_idle: Decimal | None = None
    cost_fixed: Decimal | None = None
    price_kwh: Decimal | None = None
    price_min: Decimal | None = None
    price_idle_min: Decimal | None = None
    flags: tuple[str, ...] = ()
