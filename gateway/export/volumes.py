"""A receipt's periods as ChargingPeriods of OCPI, whose volumes add up to the CDR's totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from ..domain.dimensions import ENERGY, PARKING_TIME, TIME
from .ocpi import date_time, instant_of, number

Receipt = Mapping[str, Any]

_NOTHING = Decimal(0)


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
        parking = _shares(exact["parking_time_h"])
        time = number(sum(exact["time_h"], _NOTHING))
        # "total_charging_time = total_time - total_parking_time" (mod_cdrs), but for free time
        rest = duration - sum(parking, _NOTHING)
        if time and rest > 0 and abs(rest - time) <= Decimal("0.0002"):
            time = rest
        return cls(
            energy=_shares(exact["energy_kwh"], number(Decimal(receipt["energy_wh"]) / 1000)),
            charging=_shares(exact["time_h"], time),
            parking=parking,
        )

    def periods(self, receipt: Receipt, tariff_id: str) -> list[dict[str, Any]]:
        """At least one, even of a session in which nothing happened."""
        starts = [period["start"] for period in receipt["periods"]] or [receipt["started_at"]]
        found = []
        for start, *volumes in zip(starts, self.energy, self.charging, self.parking, strict=True):
            dimensions = [
                {"type": name, "volume": volume}
                for name, volume in zip((ENERGY, TIME, PARKING_TIME), volumes, strict=True)
                if volume
            ]
            found.append(
                {
                    "start_date_time": date_time(instant_of(start)),
                    "dimensions": dimensions or [{"type": ENERGY, "volume": _NOTHING}],
                    "tariff_id": tariff_id,
                }
            )
        return found


def _shares(volumes: Sequence[Decimal], total: Decimal | None = None) -> list[Decimal]:
    """The volumes to four decimals, such that they add up to the total.

    It is the sums so far that are rounded, so no volume is off by more than one unit.
    """
    if total is None:
        total = number(sum(volumes, _NOTHING))
    last = max((i for i, volume in enumerate(volumes) if volume), default=len(volumes) - 1)
    found, told, so_far = [], _NOTHING, _NOTHING
    for index, volume in enumerate(volumes):
        so_far += volume
        reached = total if index >= last else min(number(so_far), total)
        found.append(reached - told)
        told = reached
    return found
