"""One OCPI tariff, from JSON to the model that prices (OCPI 2.2.1 and 2.3.0, Tariff)."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..domain.fixed_point import plain
from . import fields
from .currencies import MINOR_DIGITS
from .dimensions import DAY, PARKING_TIME, SIZES, STEPS, TIME
from .fields import Faults, Node
from .restrictions import Restrictions
from .tariff import Component, Element, Limit, Tariff


def tariff_of(value: Mapping[str, Any], faults: Faults) -> Tariff | None:
    """None where a fault is fatal."""
    node = Node(value, faults)
    _warn_of_unknown_members(value, _TARIFF, faults, misspelled=True)
    before = len(faults.found)
    name = node.get("id", fields.read_text, required=True)
    currency = node.get("currency", _currency, required=True)
    including = node.get("tax_included", fields.read_choice("YES", "NO", "N/A")) == "YES"
    components: list[_ComponentFields] = []
    elements: list[Element] = []
    with faults.at("elements"):
        if value.get("elements") is None or value.get("elements") == []:
            faults.error("is missing: a tariff without elements prices no session")
        else:
            for index, item in fields.read_objects(value["elements"], faults):
                with faults.at(index):
                    _read_element(Node(item, faults), components, elements)
    min_price, max_price = (node.get(key, _limit) for key in ("min_price", "max_price"))
    _check_limits(min_price, max_price, faults)
    start, end = (
        node.get(key, fields.read_instant) for key in ("start_date_time", "end_date_time")
    )
    if start is not None and end is not None and start >= end:
        faults.warn("is valid at no time: start_date_time is not before end_date_time")
    if name is None or currency is None or any(f.fatal for f in faults.found[before:]):
        return None
    scale = _scale(components, including, (min_price, max_price))
    restrictions = [element.restrictions for element in elements]
    return Tariff(
        id=name,
        currency=currency,
        digits=MINOR_DIGITS[currency],
        scale=scale,
        components=tuple(_component(item, including, scale) for item in components),
        elements=tuple(elements),
        min_price=_scaled_limit(min_price, scale),
        max_price=_scaled_limit(max_price, scale),
        valid_from=start,
        valid_to=end,
        snapshot=dict(value),
        sha256=hashlib.sha256(canonical(value).encode()).hexdigest(),
        by_power=any(r.from_power is not None or r.to_power is not None for r in restrictions),
        by_current=any(
            r.from_current is not None or r.to_current is not None for r in restrictions
        ),
        by_calendar=any(
            bound is not None
            for r in restrictions
            for bound in (r.from_time, r.to_time, r.from_date, r.to_date, r.days)
        ),
        times=tuple(t for t in _bounds(restrictions, "time") if 0 < t < DAY),
        durations=_bounds(restrictions, "duration"),
        energies=_bounds(restrictions, "energy"),
        powers=_bounds(restrictions, "power"),
        currents=_bounds(restrictions, "current"),
    )


_TARIFF = (
    "country_code", "party_id", "id", "currency", "type", "tariff_alt_text", "tariff_alt_url",
    "min_price", "max_price", "preauthorize_amount", "elements", "tax_included",
    "start_date_time", "end_date_time", "energy_mix", "last_updated",
)  # fmt: skip
_ELEMENT = ("price_components", "restrictions")
_COMPONENT = ("type", "price", "vat", "step_size")


def canonical(value: object) -> str:
    """JSON text that is the same for the same content: keys sorted, no blanks."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        members = sorted((str(name), canonical(member)) for name, member in value.items())
        return "{" + ",".join(f"{canonical(name)}:{text}" for name, text in members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(member) for member in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _bounds(restrictions: Iterable[Restrictions], what: str) -> tuple[Any, ...]:
    found = {getattr(r, f"{side}_{what}") for r in restrictions for side in ("from", "to")}
    return tuple(sorted(found - {None}))


class _ComponentFields:
    """A price component as it stands in the file."""

    def __init__(self, dimension: str, price: Decimal, vat: Decimal | None, step: int) -> None:
        self.dimension, self.price, self.vat, self.step_size = dimension, price, vat, step

    def exact(self, *, including: bool) -> tuple[Fraction, Fraction]:
        """The price of a nWh, us or session, excluding and including VAT."""
        price = Fraction(self.price) / SIZES[self.dimension]
        tax = 1 + Fraction(self.vat or 0) / 100
        return (price / tax, price) if including else (price, price * tax)


def _read_element(node: Node, components: list[_ComponentFields], elements: list[Element]) -> None:
    """Add an element and its components; an element of the tariff has them by index."""
    faults = node.faults
    _warn_of_unknown_members(node.value, _ELEMENT, faults)
    restrictions = node.get("restrictions", fields.read_restrictions)
    skipped = restrictions is None and node.value.get("restrictions") is not None
    indexes: dict[str, int] = {}
    with faults.at("price_components"):
        if not node.value.get("price_components"):
            faults.error("is missing: the element has no price")
            return
        for index, item in fields.read_objects(node.value["price_components"], faults):
            with faults.at(index):
                component = _read_component(Node(item, faults))
                if component is None or skipped:
                    continue
                if component.dimension in indexes:
                    faults.error(f"a second {component.dimension} in one element")
                    continue
                indexes[component.dimension] = len(components)
                components.append(component)
    if indexes:
        elements.append(Element(components=indexes, restrictions=restrictions or Restrictions()))


def _read_component(node: Node) -> _ComponentFields | None:
    _warn_of_unknown_members(node.value, _COMPONENT, node.faults)
    dimension = node.get("type", fields.read_dimension, required=True)
    price = node.get("price", fields.read_number, required=True)
    vat = node.get("vat", fields.read_number)
    step = node.get("step_size", fields.read_whole_number)
    if dimension is None or price is None:
        return None
    return _ComponentFields(dimension, price, vat, 1 if step is None else step)


def _warn_of_unknown_members(
    value: Mapping[str, Any],
    member_names: Sequence[str],
    faults: Faults,
    *,
    misspelled: bool = False,
) -> None:
    """Warn of members that OCPI does not know: they may be meant as a price or a restriction.

    misspelled: only of what looks like a known one.
    """
    for name in value.keys() - set(member_names):
        similar = difflib.get_close_matches(name, member_names, n=1)
        if similar or not misspelled:
            with faults.at(name):
                hint = f"; is {similar[0]} meant?" if similar else ""
                faults.warn(f"is not known to OCPI: ignored{hint}")


def _component(components: _ComponentFields, including: bool, scale: int) -> Component:
    excl, incl = components.exact(including=including)
    dimension = components.dimension
    per = 60 if dimension in (TIME, PARKING_TIME) else 1
    return Component(
        dimension=dimension,
        price=components.price,
        vat=components.vat,
        step_size=components.step_size,
        step=components.step_size * STEPS[dimension],
        excl=int(excl * scale),
        incl=int(incl * scale),
        display_price=plain(incl * SIZES[dimension] / per, 6),
    )


def _currency(value: Any, faults: Faults) -> str | None:
    if isinstance(value, str) and value in MINOR_DIGITS:
        return value
    faults.error(f"must be a currency of ISO 4217 like EUR, not {fields.quoted(value)}")
    return None


_RawLimit = tuple[Decimal | None, Decimal | None]


def _limit(value: Any, faults: Faults) -> _RawLimit | None:
    """OCPI 2.2.1's Price or 2.3.0's PriceLimit; a bare number is the amount excluding VAT."""
    if not isinstance(value, dict):
        found = fields.read_number(value, faults)
        return None if found is None else (found, None)
    node = Node(value, faults)
    amounts = [
        node.get(old if value.get(old) is not None else new, fields.read_number)
        for old, new in (("excl_vat", "before_taxes"), ("incl_vat", "after_taxes"))
    ]
    if not value.keys() & {"excl_vat", "before_taxes", "incl_vat", "after_taxes"}:
        faults.error("has neither excl_vat nor incl_vat")
    if amounts == [None, None]:
        return None
    return amounts[0], amounts[1]


def _check_limits(min_price: _RawLimit | None, max_price: _RawLimit | None, faults: Faults) -> None:
    for low, high in zip(min_price or (), max_price or (), strict=False):
        if low is not None and high is not None and low > high:
            with faults.at("min_price"):
                faults.error("is greater than max_price")
            return


def _scale(
    components: Iterable[_ComponentFields], including: bool, limits: Iterable[_RawLimit | None]
) -> int:
    """The least number that makes every price and limit a whole number when multiplied by it."""
    exact = [price for item in components for price in item.exact(including=including)]
    exact += [Fraction(a) for limit in limits for a in limit or () if a is not None]
    return math.lcm(*(price.denominator for price in exact))


def _scaled_limit(limit: _RawLimit | None, scale: int) -> Limit | None:
    if limit is None:
        return None
    excl, incl = (None if amount is None else int(Fraction(amount) * scale) for amount in limit)
    return Limit(excl, incl)
