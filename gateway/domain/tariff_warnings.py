"""What an operator should look at in a tariff that can be applied as it is."""

from __future__ import annotations

from collections.abc import Sequence

from .dimensions import FLAT, TIME
from .policy import Policy
from .restrictions import Restrictions
from .tariff import Element, Tariff
from .tariff_parts import Faults

_FREE = Restrictions()
_GREATEST_AC_KW = 22
_NAMED = 5  # as many as a line can hold


def warn_of(tariff: Tariff, faults: Faults) -> None:
    """Add the warnings about one tariff at the place where `faults` stands."""
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
