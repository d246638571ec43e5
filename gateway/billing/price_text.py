"""Prices and receipts in words, for drivers.  All amounts include VAT, where there is any."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from ..domain.fixed_point import decimal, microseconds, rounded, trimmed
from ..tariffs.dimensions import ENERGY, FLAT, PARKING_TIME, TIME
from ..tariffs.file import terms_of
from ..tariffs.policy import Policy
from ..tariffs.restrictions import Restrictions
from ..tariffs.tariff import Component, Tariff, Terms
from .bill import ADJUSTMENT

# As AFIR wants them (EU 2023/1804, article 5): per kWh, per minute, per session, then all others.
_ORDER = (ENERGY, TIME, PARKING_TIME, FLAT, ADJUSTMENT)
_PER = {ENERGY: "per kWh", TIME: "per min", PARKING_TIME: "per min idle", FLAT: "per session"}


def price_in_words(terms: Terms, at: datetime) -> str | None:
    """The prices that a session begins with which starts at `at`; None without a tariff."""
    tariff = terms.tariff
    if tariff is None:
        return None
    start = microseconds(at)
    rates, _, _ = tariff.rates(
        at=start, start=start, energy=0, power=None, current=None, zone=terms.zone
    )
    found = [tariff.components[index] for index in rates if index >= 0]
    found.sort(key=lambda component: _ORDER.index(component.dimension))
    parts = [
        _component(component, tariff, terms.policy)
        for component in found
        if component.display_price
    ]
    taxed = any(component.vat for component in tariff.components)
    if parts and taxed:
        parts[-1] += " (incl. VAT)"
    parts = [*(parts or ["free of charge"]), *_limits(tariff, taxed=taxed)]
    if any(element.restrictions != Restrictions() for element in tariff.elements):
        parts.append("prices may change while charging")
    return ", ".join(parts)


def receipt_in_words(receipt: Mapping[str, Any]) -> str:
    """What was paid for, and the total, of a receipt with a price.

    Each line is rounded for itself, so that their sum may differ from the total by a cent.
    """
    tariff = terms_of(receipt["tariff"], None, receipt["time_zone"]).tariff
    assert tariff is not None  # noqa: S101  what has a price has a tariff
    lines = sorted(receipt["lines"], key=lambda line: _ORDER.index(line["dimension"]))
    parts = [_line(line, tariff) for line in lines if Decimal(line["cost_incl_vat"])]
    hours, minutes = divmod(receipt["duration_s"] // 60, 60)
    energy_kwh = round_half_up(Decimal(receipt["energy_wh"]) / 1000, 3)
    total = (
        f"TOTAL {energy_kwh} kWh, {hours} h {minutes:02} min,"
        f" {receipt['total_incl_vat']} {tariff.currency}"
    )
    if any(Decimal(line["vat"] or 0) for line in lines):
        total += " incl. VAT"
    return ", ".join([*parts, total])


def round_half_up(value: Decimal, digits: int) -> Decimal:
    """Rounded half up to so many decimals at most."""
    return trimmed(value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def grace_minutes(policy: Policy) -> int:
    """Whole minutes of each idle period that cost nothing."""
    return int(policy.idle_grace_s // 60)


# --- parts ------------------------------------------------------------------------------------


def _component(component: Component, tariff: Tariff, policy: Policy) -> str:
    text = f"{_price(component.display_price, tariff)} {_PER[component.dimension]}"
    if component.dimension == PARKING_TIME and grace_minutes(policy):
        text += f" after {grace_minutes(policy)} min"
    return text


def _limits(tariff: Tariff, *, taxed: bool) -> list[str]:
    parts = []
    for limit, label in ((tariff.min_price, "at least"), (tariff.max_price, "at most")):
        if limit is not None:
            amount = limit.excl if limit.incl is None else limit.incl
            assert amount is not None  # noqa: S101  a limit has one of them
            cost = decimal(rounded(amount, tariff.scale, tariff.digits), tariff.digits)
            untaxed = " before VAT" if taxed and limit.incl is None else ""
            parts.append(f"{label} {cost} {tariff.currency}{untaxed}")
    return parts


def _line(line: Mapping[str, Any], tariff: Tariff) -> str:
    dimension, exact = line["dimension"], Decimal(line["cost_incl_vat"])
    cost = f"{exact.quantize(_unit(tariff), ROUND_HALF_UP)} {tariff.currency}"
    if dimension == ADJUSTMENT:
        return f"{cost} to the {'least' if exact > 0 else 'greatest'} price"
    if dimension == FLAT:
        return f"{cost} per session"
    amount = Decimal(line["billed_quantity"])
    price = _price(_display_price(line, tariff), tariff)
    if dimension == ENERGY:
        return f"{cost} for {round_half_up(amount, 3)} kWh at {price}/kWh"
    idle = " idle" if dimension == PARKING_TIME else ""
    return f"{cost} for {round_half_up(amount * 60, 1)} min{idle} at {price}/min"


def _display_price(line: Mapping[str, Any], tariff: Tariff) -> Decimal:
    """The price of a receipt's line, including VAT; the line has it as the tariff has it."""
    return next(
        component.display_price
        for component in tariff.components
        if component.dimension == line["dimension"]
        and str(component.price) == line["unit_price"]
        and line["vat"] == (None if component.vat is None else str(component.vat))
    )


def _price(price: Decimal, tariff: Tariff) -> str:
    """With four decimals at most, and as many as the currency has at least."""
    cut = round_half_up(price, 4)
    minor_unit = _unit(tariff)
    return (
        f"{cut.quantize(minor_unit) if cut == cut.quantize(minor_unit) else cut} {tariff.currency}"
    )


def _unit(tariff: Tariff) -> Decimal:
    """The currency's minor unit."""
    return decimal(1, tariff.digits)
