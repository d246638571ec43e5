"""A roaming partner's way to price a session: from its CDR and the tariff in it, and no more.

It gets no meter values and no policy.  What holds at the beginning of a charging period holds
for all of it, and a period without a tariff_id costs nothing (OCPI 2.2.1, mod_cdrs).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from ..billing import reference_pricer

VOLUMES = ("ENERGY", "TIME", "PARKING_TIME")


def price(cdr: Mapping[str, Any], zone: str) -> tuple[Fraction, Fraction]:
    """Totals excluding and including VAT, not rounded.  zone: where the charge point stands."""
    (tariff,) = cdr["tariffs"]
    start, local = moment(cdr["start_date_time"]), ZoneInfo(zone)
    used: dict[str, list[tuple[dict[str, Any], Fraction]]] = {}
    energy = Fraction(0)
    relevant = [period for period in cdr["charging_periods"] if "tariff_id" in period]
    if not relevant:
        return Fraction(0), Fraction(0)
    for period in cdr["charging_periods"]:
        volumes = {d["type"]: Fraction(d["volume"]) for d in period["dimensions"]}
        assert len(volumes) == len(period["dimensions"])
        if "tariff_id" in period:
            assert period["tariff_id"] == tariff["id"]
            now = moment(period["start_date_time"])
            at = (now.astimezone(local), now - start, energy)
            least, greatest = (holding(tariff, volumes, side, *at) for side in ("MIN", "MAX"))
            assert least == greatest, "the period lies on both sides of a bound"
            for dimension in ("FLAT", *VOLUMES):
                volume = Fraction(1) if dimension == "FLAT" else volumes.get(dimension, Fraction(0))
                component = reference_pricer.first(least, dimension)
                due = volume and (dimension != "FLAT" or "FLAT" not in used)
                if component is not None and due:
                    used.setdefault(dimension, []).append((component, seconds(dimension, volume)))
        energy += volumes.get("ENERGY", 0)
    reference_pricer.step(used, "ENERGY", 1000)
    reference_pricer.step(used, "PARKING_TIME" if "PARKING_TIME" in used else "TIME", 3600)
    excl = incl = Fraction(0)
    for component, volume in (item for items in used.values() for item in items):
        cost = volume * Fraction(component["price"])
        excl += cost
        incl += cost * (1 + Fraction(component.get("vat", 0)) / 100)
    return reference_pricer.limited(excl, incl, tariff)


def seconds(dimension: str, volume: Fraction) -> Fraction:
    """Hours to four decimals, as what they are made of: whole seconds."""
    return volume if dimension in ("ENERGY", "FLAT") else Fraction(round(volume * 3600), 3600)


def holding(
    tariff: Mapping[str, Any],
    volumes: Mapping[str, Fraction],
    side: str,
    local: datetime,
    lasted: timedelta,
    energy: Fraction,
) -> list[Mapping[str, Any]]:
    """The elements that hold.  What is not given lies in no range."""
    power, current = volumes.get(f"{side}_POWER"), volumes.get(f"{side}_CURRENT")
    found = []
    for element in tariff["elements"]:
        limits = element.get("restrictions", {})
        if "reservation" in limits or (
            power is None and limits.keys() & {"min_power", "max_power"}
        ):
            continue
        if reference_pricer.holds(limits, local, lasted, energy, power or Fraction(0), current):
            found.append(element)
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
