"""Warnings about a tariff that can be applied as it is, but is probably not what is meant.

This checks files.  A session that began with a tariff keeps it, whatever is found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .currencies import MINOR_DIGITS
from .dimensions import ENERGY, FLAT, TIME, UNITS
from .fields import Faults, decimal_of
from .policy import Policy
from .restrictions import Restrictions
from .tariff import Element, Tariff

_FREE = Restrictions()
_MAX_ELEMENTS = 1000  # each is looked at wherever a price may change
_SMALL_UNITS = """
AMD AOA ARS CDF COP CRC DZD HUF IDR IQD IRR KHR KZT LAK LBP LKR LRD MGA MMK MNT MWK NGN NPR PKR RSD
SLE SOS SSP SYP TZS UZS YER ZWL
"""
_GREAT_UNITS = "AUD BHD CAD CHF EUR GBP JOD KWD NZD OMR SGD USD"
_MAX_HOURS = 10  # a greatest price per hour or session is so many times that of a kWh
_GREATEST_AC_KW = 22
_NAMED = 5  # as many as a line can hold


def check_tariff(tariff: Tariff, faults: Faults) -> None:
    """Add what is wrong with one tariff of a file at the place where `faults` stands."""
    if len(tariff.elements) > _MAX_ELEMENTS:
        with faults.at("elements"):
            faults.error(f"has {len(tariff.elements)} of them; {_MAX_ELEMENTS} are the most")
        return
    if not tariff.dimensions:
        faults.warn(
            "prices no session: each element is for reservations; a session that would pay by it"
            " has no price, and is flagged no_tariff"
        )
    _amounts(tariff, faults)
    _limits(tariff, faults)
    _steps(tariff, faults)
    _order(tariff, faults)
    if tariff.by_power:
        faults.warn("has power restrictions: power is the average between two meter readings")
    if tariff.by_current:
        faults.warn(
            "has current restrictions: they never hold at a charge point that does not sample"
            " Current.Import"
        )
    with_vat = [component.vat is not None for component in tariff.components]
    if any(with_vat) and not all(with_vat):
        faults.warn("VAT is missing in some components: none is charged there")
    if tariff.snapshot.get("tax_included") == "YES" and not all(with_vat):
        faults.warn("prices include tax, but without vat no amount without tax can be stated")
    if tariff.snapshot.get("type") == "AD_HOC_PAYMENT":
        _ad_hoc(tariff, faults)


def _amounts(tariff: Tariff, faults: Faults) -> None:
    for index, element in enumerate(tariff.snapshot["elements"]):
        with faults.at("elements"), faults.at(index), faults.at("price_components"):
            for position, component in enumerate(element["price_components"]):
                with faults.at(position):
                    _component(component, tariff.currency, faults)


def _component(component: Mapping[str, Any], currency: str, faults: Faults) -> None:
    price, vat, step = (decimal_of(component.get(name)) for name in ("price", "vat", "step_size"))
    dimension = component["type"]
    if price is not None and price > _greatest_price_per_kwh(currency) * (
        1 if dimension == ENERGY else _MAX_HOURS
    ):
        with faults.at("price"):
            faults.warn(
                f"is {price:f} {currency} per {UNITS[dimension]}: is that meant? Prices are in"
                f" {currency} and not in its hundredths, and per kWh, hour or session"
            )
    if vat is not None:
        with faults.at("vat"):
            if vat > 100:
                faults.error(f"is {vat:f} %: no VAT is above 100")
            elif vat > 40:
                faults.warn(f"is {vat:f} %: is that meant? It is in percent")
            elif 0 < vat < 1:
                faults.warn(f"is {vat:f} %: is that meant? It is in percent, so 21 and not 0.21")
    if step == 0:
        with faults.at("step_size"):
            faults.warn("is 0, which OCPI does not have: the quantity is billed as it is")


def _greatest_price_per_kwh(currency: str) -> int:
    """Above it a price per kWh is taken for a mistake, by what a unit of the currency is worth."""
    if currency in _GREAT_UNITS:
        return 10
    return 100_000 if currency in _SMALL_UNITS or MINOR_DIGITS[currency] == 0 else 100


def _limits(tariff: Tariff, faults: Faults) -> None:
    for name, limit in (("min_price", tariff.min_price), ("max_price", tariff.max_price)):
        with faults.at(name):
            if limit is None:
                continue
            if None not in limit and limit.incl < limit.excl:  # type: ignore[operator]
                faults.warn("is less including VAT than excluding it")
            if name == "max_price" and 0 in limit:
                faults.warn("is 0: no session costs anything")
            if name == "min_price" and max(filter(None, limit), default=0) > (
                tariff.scale * _greatest_price_per_kwh(tariff.currency) * _MAX_HOURS
            ):
                faults.warn("is more than any session costs: is that meant?")


def warn_of_power(policy: Policy, without: Sequence[str]) -> list[str]:
    """Warnings about charge points whose energy is believed up to a power that no AC one has.

    without: those that have no max_power_kw of their own.  Nothing that is configured says which
    of them are AC.
    """
    if not without or policy.max_power_kw <= _GREATEST_AC_KW:
        return []
    names = ", ".join(f'"{name}"' for name in without[:_NAMED])
    more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
    return [
        f"max_power_kw is not set for {names}{more}: up to {policy.max_power_kw} kW are believed;"
        f" an AC charge point has {_GREATEST_AC_KW} kW or less, set it for each of these"
    ]


def _steps(tariff: Tariff, faults: Faults) -> None:
    coarse = sorted({c.dimension for c in tariff.components if c.step > 0 and c.step_size > 1})
    if coarse:
        faults.warn(f"step_size above 1 for {', '.join(coarse)}: OCPI advises 1")


def _order(tariff: Tariff, faults: Faults) -> None:
    always: set[str] = set()
    seen: set[str] = set()
    for index, element in enumerate(tariff.elements):
        hidden = sorted(always & element.components.keys())
        if hidden:
            with faults.at("elements"), faults.at(index):
                faults.warn(
                    f"never applies for {', '.join(hidden)}: an element before it always holds"
                )
        seen |= element.components.keys()
        if element.restrictions == _FREE:
            always |= element.components.keys()
    loose = sorted(seen - always)
    if loose:
        faults.warn(f"no price for {', '.join(loose)} when no restriction holds: it is free then")


def _ad_hoc(tariff: Tariff, faults: Faults) -> None:
    """EU 2023/1804 article 5: from 50 kW on, a price per kWh and at most an occupancy fee."""
    if _dimensions(tariff.elements, FLAT):
        faults.warn("AFIR allows no fee per session for ad hoc charging from 50 kW on")
    if any(e.restrictions.from_duration in (None, 0) for e in _dimensions(tariff.elements, TIME)):
        faults.warn(
            "AFIR allows time to be priced for ad hoc charging from 50 kW on only as an occupancy"
            " fee, after a min_duration"
        )


def _dimensions(elements: Sequence[Element], dimension: str) -> list[Element]:
    return [element for element in elements if dimension in element.components]
