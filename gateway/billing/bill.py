"""From quantities to money: step_size, VAT, min_price and max_price, and one rounding a total.

OCPI 2.2.1: step_size once for ENERGY and once for TIME and PARKING_TIME together (mod_cdrs,
step_size), prices and limits excluding and including VAT independently (mod_tariffs).
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import attrs

from ..domain.fixed_point import WH, Exact, decimal, plain, ratio, rounded
from ..tariffs.dimensions import SIZES
from ..tariffs.tariff import Limit, Tariff, Terms
from .pricing import Pricing

MIN_PRICE = "min_price_applied"
MAX_PRICE = "max_price_applied"
WAIVED = "waived_below_min_energy"

ADJUSTMENT = "ADJUSTMENT"

_NO_PRICE = Decimal(0)


class Line(NamedTuple):
    """What one component comes to; quantities in kWh, h or sessions, costs in currency units.

    component: -1 for the adjustment to the least or greatest price.
    """

    dimension: str
    component: int
    quantity: Exact
    billed_quantity: Exact
    excl: Exact
    incl: Exact


@attrs.frozen(slots=True)
class Bill:
    """Costs in 1/scale of the currency unit, exact.

    billed: quantities of the pricing with the steps added, by component.
    by_dimension: including VAT.  adjusted: excluding and including VAT, to meet a limit.
    """

    terms: Terms
    tariff: Tariff
    quantities: dict[int, Exact]
    billed: dict[int, Exact]
    by_dimension: dict[str, Exact]
    excl: Exact
    incl: Exact
    adjusted: tuple[Exact, Exact] | None
    flags: tuple[str, ...]

    def minor(self, amount: Exact) -> int:
        """A cost in the currency's minor unit."""
        even = self.terms.policy.rounding == "HALF_EVEN"
        return rounded(amount, self.tariff.scale, self.tariff.digits, half_even=even)

    def money(self, amount: Exact) -> Decimal:
        """A cost rounded to the currency's minor unit."""
        return decimal(self.minor(amount), self.tariff.digits)

    def cost(self, dimension: str) -> Decimal:
        """What a dimension costs, including VAT, rounded."""
        cost = self.by_dimension.get(dimension)
        return self.money(cost) if cost else self.tariff.zero

    def units(self, amount: Exact) -> Exact:
        """A cost in currency units, exact."""
        return ratio(amount, self.tariff.scale)

    def lines(self) -> list[Line]:
        found = []
        for index, quantity in self.quantities.items():
            component = self.tariff.components[index]
            billed = self.billed.get(index, quantity)
            size = SIZES[component.dimension]
            found.append(
                Line(
                    component.dimension,
                    index,
                    ratio(quantity, size),
                    ratio(billed, size),
                    self.units(billed * component.excl),
                    self.units(billed * component.incl),
                )
            )
        if self.adjusted is not None:
            excl, incl = (self.units(amount) for amount in self.adjusted)
            found.append(Line(ADJUSTMENT, -1, 1, 1, excl, incl))
        return found


def bill_of(pricing: Pricing) -> Bill | None:
    """What the session costs if it ends where its pricing stands; None where it has no price."""
    terms = pricing.terms
    tariff = terms.tariff
    if tariff is None:
        return None
    waived = terms.policy.min_billable_wh
    if waived and pricing.nwh < waived * WH:
        return Bill(terms, tariff, {}, {}, {}, 0, 0, None, (WAIVED,))
    quantities = pricing.quantities
    billed = _stepped(pricing, tariff)
    components = tariff.components
    excl: Exact = 0
    incl: Exact = 0
    by_dimension: dict[str, Exact] = {}
    for index, quantity in (billed or quantities).items():
        component = components[index]
        cost = quantity * component.incl
        excl += quantity * component.excl
        incl += cost
        dimension = component.dimension
        by_dimension[dimension] = by_dimension.get(dimension, 0) + cost
    if tariff.min_price is None and tariff.max_price is None:
        return Bill(terms, tariff, quantities, billed, by_dimension, excl, incl, None, ())
    return _limited(Bill(terms, tariff, quantities, billed, by_dimension, excl, incl, None, ()))


def _stepped(pricing: Pricing, tariff: Tariff) -> dict[int, Exact]:
    """The quantities with what a step_size adds, priced by the component used last; empty
    where nothing is added.

    Where parking was priced, only parking is stepped, even if charging came last.
    """
    quantities = pricing.quantities
    stepped: dict[int, Exact] = {}
    last_duration = pricing.last_parking if pricing.last_parking >= 0 else pricing.last_time
    for last in (pricing.last_energy, last_duration):
        if last < 0:
            continue
        component = tariff.components[last]
        step = component.step
        if not step:
            continue
        total: Exact
        if len(quantities) == 1:
            total = quantities[last]
        else:
            dimension = component.dimension
            total = sum(
                quantity
                for index, quantity in quantities.items()
                if tariff.components[index].dimension == dimension
            )
        extra = -total % step
        if extra:
            stepped = stepped or quantities.copy()
            stepped[last] += extra
    return stepped


def _limited(unlimited: Bill) -> Bill:
    excl, incl, flags = unlimited.excl, unlimited.incl, unlimited.flags
    tariff = unlimited.tariff
    for limit, flag, sign in ((tariff.min_price, MIN_PRICE, 1), (tariff.max_price, MAX_PRICE, -1)):
        if limit is None:
            continue
        to_excl, to_incl = _bounds(limit, excl, incl, tariff)
        changed = False
        if to_excl is not None and (to_excl - excl) * sign > 0:
            excl, changed = to_excl, True
        if to_incl is not None and (to_incl - incl) * sign > 0:
            incl, changed = to_incl, True
        if changed:
            flags = (*flags, flag)
    if not flags:
        return unlimited
    adjusted = (excl - unlimited.excl, incl - unlimited.incl)
    return attrs.evolve(unlimited, excl=excl, incl=incl, adjusted=adjusted, flags=flags)


def _bounds(
    limit: Limit, excl: Exact, incl: Exact, tariff: Tariff
) -> tuple[Exact | None, Exact | None]:
    """The limit on both amounts; one that is not given follows the session's own mix of VAT."""
    if limit.excl is not None and limit.incl is not None:
        return limit
    net, gross = (excl, incl) if excl and incl else _first_mix(tariff)
    if limit.excl is not None:
        return limit.excl, ratio(limit.excl * gross, net)
    assert limit.incl is not None  # noqa: S101  a limit without any amount is a fault of the file
    return ratio(limit.incl * net, gross), limit.incl


def _first_mix(tariff: Tariff) -> tuple[Exact, Exact]:
    vat = tariff.components[0].vat or Decimal(0)
    ten = 10**10
    return 100 * ten, int((100 + vat) * ten)


def price_now(tariff: Tariff, component: int, dimension: str) -> Decimal | None:
    """Per kWh or minute including VAT; 0 where the tariff has a price, but none right now."""
    if component >= 0:
        return tariff.components[component].display_price
    return _NO_PRICE if dimension in tariff.dimensions else None


def decimal_text(value: Exact, digits: int = 6) -> str:
    """A decimal of at most so many digits."""
    return str(plain(value, digits))
