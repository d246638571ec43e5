"""A second way to price a session: half a second at a time, straight from the tariff's JSON.

It knows nothing of cuts, prefixes or whole numbers, and agrees with the product where a price
can change only at a half second and where energy comes in steps that a threshold meets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

TICK = timedelta(seconds=0.5)
DAYS = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]


def price(
    tariff: Mapping[str, Any],
    zone: str,
    points: Sequence[tuple[datetime, int]],
    statuses: Sequence[tuple[datetime, str]],
    *,
    grace_s: int = 0,
) -> tuple[Decimal, Decimal]:
    """Totals excluding and including VAT.

    points: (time, Wh since the start), the first at the start and the last at the stop.
    """
    start, local = points[0][0], ZoneInfo(zone)
    used: dict[str, list[tuple[dict[str, Any], Fraction]]] = {}
    idle_for = timedelta(0)
    for (t0, e0), (t1, e1) in pairwise(points):
        ticks = (t1 - t0) // TICK
        per_tick = Fraction(e1 - e0, 1000 * ticks)
        energy = Fraction(e0, 1000)
        power = per_tick * 7200
        now = t0
        for _ in range(ticks):
            idle = state(statuses, now) == "SuspendedEV"
            holding = [
                element
                for element in tariff["elements"]
                if holds(
                    element.get("restrictions", {}),
                    now.astimezone(local),
                    now - start,
                    energy,
                    power,
                )
            ]
            volumes = {"ENERGY": per_tick, "FLAT": Fraction(1)}
            if not idle:
                volumes["TIME"] = Fraction(1, 7200)
            elif idle_for >= timedelta(seconds=grace_s):
                volumes["PARKING_TIME"] = Fraction(1, 7200)
            for dimension, volume in volumes.items():
                component = first(holding, dimension)
                due = volume and (dimension != "FLAT" or "FLAT" not in used)
                if component is not None and due:
                    used.setdefault(dimension, []).append((component, volume))
            idle_for = idle_for + TICK if idle else timedelta(0)
            energy += per_tick
            now += TICK
    step(used, "ENERGY", 1000)
    step(used, "PARKING_TIME" if "PARKING_TIME" in used else "TIME", 3600)
    excl = incl = Fraction(0)
    for component, volume in (item for items in used.values() for item in items):
        cost = volume * Fraction(component["price"])
        excl += cost
        incl += cost * (1 + Fraction(component.get("vat", 0)) / 100)
    return rounded(excl), rounded(incl)


def holds(
    limits: Mapping[str, Any],
    local: datetime,
    lasted: timedelta,
    energy: Fraction,
    power: Fraction,
) -> bool:
    clock, day = local.strftime("%H:%M"), local.date().isoformat()
    start, end = limits.get("start_time", "00:00"), limits.get("end_time", "00:00")
    if end == "00:00":
        end = "24:00"
    within = start <= clock < end if start < end else clock >= start or clock < end
    seconds = Fraction(lasted / timedelta(seconds=1))
    return (
        within
        and DAYS[local.weekday()] in limits.get("day_of_week", DAYS)
        and limits.get("start_date", day) <= day < limits.get("end_date", "9999")
        and limits.get("min_duration", 0) <= seconds < limits.get("max_duration", 10**9)
        and limits.get("min_kwh", 0) <= energy < limits.get("max_kwh", 10**9)
        and limits.get("min_power", 0) <= power < limits.get("max_power", 10**9)
    )


def state(statuses: Sequence[tuple[datetime, str]], now: datetime) -> str:
    return [status for since, status in [(now, "Charging"), *statuses] if since <= now][-1]


def first(elements: Sequence[Mapping[str, Any]], dimension: str) -> dict[str, Any] | None:
    for element in elements:
        for component in element["price_components"]:
            if component["type"] == dimension:
                return component
    return None


def step(used: dict[str, list[Any]], dimension: str, units: int) -> None:
    if dimension not in used:
        return
    component, volume = used[dimension][-1]
    size = component["step_size"]
    if size:
        total = sum(volume for _, volume in used[dimension]) * units
        extra = Fraction(ceil(total / size) * size - total, units)
        used[dimension][-1] = (component, volume + extra)


def rounded(amount: Fraction) -> Decimal:
    exact = Decimal(amount.numerator) / Decimal(amount.denominator)
    return exact.quantize(Decimal("0.01"), ROUND_HALF_UP)
