"""A second way to price a session: half a second at a time, straight from the tariff's JSON.

It knows nothing of cuts, prefixes or whole numbers, and agrees with the product where a price
can change only at a half second and where energy comes in steps that a threshold meets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

TICK = timedelta(seconds=0.5)
DAYS = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]
CENTS = {"EUR": "0.01", "JPY": "1", "KWD": "0.001"}


def price(
    tariff: Mapping[str, Any],
    zone: str,
    points: Sequence[tuple[datetime, int]],
    statuses: Sequence[tuple[datetime, str]],
    *,
    currents: Sequence[tuple[datetime, int]] = (),
    left: datetime | None = None,
    **policy: Any,
) -> tuple[Decimal, Decimal]:
    """Totals excluding and including VAT.

    points: (time, Wh since the start), the first at the start and the last at the stop.
    left: when the cable came out, where the time after the stop counts.
    """
    start, local = points[0][0], ZoneInfo(zone)
    used: dict[str, list[tuple[dict[str, Any], Fraction]]] = {}
    idle_for = timedelta(0)
    stop = points[-1][0]
    if left is not None and left > stop:
        points = [*points, (left, points[-1][1])]
    power = Fraction(0)
    for (t0, e0), (t1, e1) in pairwise(points):
        ticks = (t1 - t0) // TICK
        per_tick = Fraction(e1 - e0, 1000 * ticks)
        energy = Fraction(e0, 1000)
        if t0 < stop:  # who has stopped is not measured any more
            power = per_tick * 7200
        now = t0
        for _ in range(ticks):
            kind = kind_of(state(statuses, now), now >= stop, policy)
            if (
                kind == "TIME"
                and policy.get("idle_detection") == "power"
                and state(statuses, now) != "SuspendedEVSE"
                and power * 1000 < policy["idle_power_w"]
            ):
                kind = "PARKING_TIME"
            holding = [
                element
                for element in tariff["elements"]
                if holds(
                    element.get("restrictions", {}),
                    now.astimezone(local),
                    now - start,
                    energy,
                    power,
                    ([amperes for since, amperes in currents if since <= now] or [None])[-1],
                )
            ]
            volumes = {"ENERGY": per_tick, "FLAT": Fraction(1)}
            idle = kind == "PARKING_TIME"
            if kind == "TIME" or (idle and idle_for >= timedelta(seconds=policy["idle_grace_s"])):
                volumes[kind] = Fraction(1, 7200)
            for dimension, volume in volumes.items():
                component = first(holding, dimension)
                due = volume and (dimension != "FLAT" or "FLAT" not in used)
                if component is not None and due:
                    used.setdefault(dimension, []).append((component, volume))
            idle_for = idle_for + TICK if idle else timedelta(0)
            energy += per_tick
            now += TICK
    if points[-1][1] < policy.get("min_billable_wh", 0):
        return rounded(Fraction(0), tariff, policy), rounded(Fraction(0), tariff, policy)
    step(used, "ENERGY", 1000)
    step(used, "PARKING_TIME" if "PARKING_TIME" in used else "TIME", 3600)
    excl = incl = Fraction(0)
    for component, volume in (item for items in used.values() for item in items):
        cost = volume * Fraction(component["price"])
        tax = 1 + Fraction(component.get("vat", 0)) / 100
        included = tariff.get("tax_included") == "YES"
        excl += cost / tax if included else cost
        incl += cost if included else cost * tax
    excl, incl = limited(excl, incl, tariff)
    return rounded(excl, tariff, policy), rounded(incl, tariff, policy)


def kind_of(status: str, stopped: bool, policy: Mapping[str, Any]) -> str:
    if status in ("Faulted", "Unavailable"):
        return str(policy.get("faulted", "FREE"))
    if stopped or status in ("SuspendedEV", "Finishing"):
        return "PARKING_TIME"
    return str(policy.get("suspended_evse", "TIME")) if status == "SuspendedEVSE" else "TIME"


def holds(
    limits: Mapping[str, Any],
    local: datetime,
    lasted: timedelta,
    energy: Fraction,
    power: Fraction,
    current: int | None,
) -> bool:
    clock, day = local.strftime("%H:%M"), local.date().isoformat()
    start, end = limits.get("start_time", "00:00"), limits.get("end_time", "00:00")
    if end == "00:00":
        end = "24:00"
    within = start <= clock < end if start < end else clock >= start or clock < end
    seconds = Fraction(lasted / timedelta(seconds=1))
    about_current = "min_current" in limits or "max_current" in limits
    return (
        within
        and DAYS[local.weekday()] in limits.get("day_of_week", DAYS)
        and limits.get("start_date", day) <= day < limits.get("end_date", "9999")
        and limits.get("min_duration", 0) <= seconds < limits.get("max_duration", 10**9)
        and limits.get("min_kwh", 0) <= energy < limits.get("max_kwh", 10**9)
        and limits.get("min_power", 0) <= power < limits.get("max_power", 10**9)
        and (
            not about_current
            or (
                current is not None
                and limits.get("min_current", 0) <= current < limits.get("max_current", 10**9)
            )
        )
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


def limited(excl: Fraction, incl: Fraction, tariff: Mapping[str, Any]) -> tuple[Fraction, Fraction]:
    vat = Fraction(tariff["elements"][0]["price_components"][0].get("vat", 0))
    for name, worse in (("min_price", max), ("max_price", min)):
        limit = tariff.get(name)
        if limit is None:
            continue
        gross = incl / excl if excl and incl else 1 + vat / 100
        net_limit, gross_limit = limit.get("excl_vat"), limit.get("incl_vat")
        if net_limit is None:
            net_limit = Fraction(gross_limit) / gross
        if gross_limit is None:
            gross_limit = Fraction(net_limit) * gross
        excl, incl = worse(excl, Fraction(net_limit)), worse(incl, Fraction(gross_limit))
    return excl, incl


def rounded(amount: Fraction, tariff: Mapping[str, Any], policy: Mapping[str, Any]) -> Decimal:
    exact = Decimal(amount.numerator) / Decimal(amount.denominator)
    half = ROUND_HALF_EVEN if policy.get("rounding") == "HALF_EVEN" else ROUND_HALF_UP
    return exact.quantize(Decimal(CENTS[tariff["currency"]]), half)
