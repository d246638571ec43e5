"""A receipt's periods as ChargingPeriods of OCPI, whose volumes add up to the CDR's totals.

A partner that has the tariff can price them: each lies within one set of prices, and where the
tariff asks for power or current they give the lowest and the highest (mod_cdrs,
CdrDimensionType).  Time and energy that cost nothing whatever the tariff says stand in a period
without a `tariff_id`: "If not provided, no Tariff is relevant during this period" (mod_cdrs,
ChargingPeriod).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import attrs

from ..billing.bill import WAIVED
from ..tariffs.dimensions import ENERGY, PARKING_TIME, TIME
from .ocpi import date_time, instant_of, ocpi_number

Receipt = Mapping[str, Any]

_NOTHING = Decimal(0)
_CLOSE = Decimal("0.0002")  # hours that rounding alone can make
_STEP = Decimal("0.0001")
_EXTENTS = {
    "MIN_POWER": "min_power_kw",
    "MAX_POWER": "max_power_kw",
    "MIN_CURRENT": "min_current_a",
    "MAX_CURRENT": "max_current_a",
}


@attrs.frozen
class Volumes:
    """kWh and hours of each period, to four decimals."""

    energy: Sequence[Decimal]
    charging: Sequence[Decimal]
    parking: Sequence[Decimal]

    @classmethod
    def of(cls, receipt: Receipt, duration: Decimal) -> Volumes:
        """duration: hours, to four decimals."""
        exact = {
            name: [Decimal(period[name]) for period in receipt["periods"]] or [_NOTHING]
            for name in ("energy_kwh", "time_h", "parking_time_h")
        }
        time, parking = (
            ocpi_number(sum(exact[name], _NOTHING)) for name in ("time_h", "parking_time_h")
        )
        # "total_charging_time = total_time - total_parking_time" (mod_cdrs), but for free time
        if abs(duration - time - parking) <= _CLOSE:
            if time and duration > parking:
                time = duration - parking
            elif parking:
                parking = duration - time
        return cls(
            energy=_shares(exact["energy_kwh"], ocpi_number(Decimal(receipt["energy_wh"]) / 1000)),
            charging=_shares(exact["time_h"], time),
            parking=_shares(exact["parking_time_h"], parking),
        )

    def periods(self, receipt: Receipt, tariff_id: str) -> list[dict[str, Any]]:
        """At least one, even of a session in which nothing happened."""
        about = receipt["periods"] or [{"start": receipt["started_at"]}]
        waived = WAIVED in receipt["flags"]
        found = []
        for period, *volumes in zip(about, self.energy, self.charging, self.parking, strict=True):
            start = date_time(instant_of(period["start"]))
            priced = dict(zip((ENERGY, TIME, PARKING_TIME), volumes, strict=True))
            free: dict[str, Decimal] = {}
            if waived:
                priced, free = {}, priced
            elif period.get("in_grace"):
                free = {PARKING_TIME: priced.pop(PARKING_TIME)}
            extents = {
                name: Decimal(period[member]).quantize(_STEP, ROUND_FLOOR)
                for name, member in _EXTENTS.items()
                if member in period
            }
            if priced:
                dimensions = _dimensions(priced, extents)
                found.append(
                    {"start_date_time": start, "dimensions": dimensions, "tariff_id": tariff_id}
                )
            if free:
                dimensions = _dimensions(free, extents)
                found.append({"start_date_time": start, "dimensions": dimensions})
        return found


def _dimensions(
    volumes: Mapping[str, Decimal], extents: Mapping[str, Decimal]
) -> list[dict[str, Any]]:
    shared = {name: volume for name, volume in volumes.items() if volume} or {ENERGY: _NOTHING}
    shared |= {name: ocpi_number(volume) for name, volume in extents.items()}
    return [{"type": name, "volume": volume} for name, volume in shared.items()]


def _shares(volumes: Sequence[Decimal], total: Decimal | None = None) -> list[Decimal]:
    """The volumes to four decimals, such that they add up to the total.

    It is the sums so far that are rounded, so no volume is off by more than one unit.
    """
    if total is None:
        total = ocpi_number(sum(volumes, _NOTHING))
    last = max((i for i, volume in enumerate(volumes) if volume), default=len(volumes) - 1)
    found, shared, so_far = [], _NOTHING, _NOTHING
    for index, volume in enumerate(volumes):
        so_far += volume
        reached = total if index >= last else min(ocpi_number(so_far), total)
        found.append(reached - shared)
        shared = reached
    return found
