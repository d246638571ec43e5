"""A tariff's snapshot as a Tariff of OCPI 2.2.1, which other programs accept.

What the gateway reads more generously is put right: prices that include VAT (2.3.0,
`tax_included`) become prices without, to OCPI's four decimals; `before_taxes` and `after_taxes`
become `excl_vat` and `incl_vat`; members that 2.2.1 does not know, and `energy_mix`, are left
out; owner and `last_updated` are filled in.  Total costs stay those of the receipt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..domain.clock import parse_timestamp
from ..tariffs import fields as parts
from ..tariffs.fields import Faults, Node
from .ocpi import date_time, identifier, is_string, ocpi_number, present
from .party import Party

_TYPES = ("AD_HOC_PAYMENT", "PROFILE_CHEAP", "PROFILE_FAST", "PROFILE_GREEN", "REGULAR")
_RESERVATIONS = ("RESERVATION", "RESERVATION_EXPIRES")
_TEXTS = ("start_time", "end_time", "start_date", "end_date")
_NUMBERS = ("min_kwh", "max_kwh", "min_current", "max_current", "min_power", "max_power")
_DURATIONS = ("min_duration", "max_duration")


def tariff_of(snapshot: Mapping[str, Any], party: Party, *, at: datetime) -> dict[str, Any]:
    """snapshot: as the receipt has it, judged when it was read.

    at: what `last_updated` says where the snapshot does not: when the tariff was applied.
    """
    node = Node(snapshot, Faults())  # faults were reported when the file was read
    including = snapshot.get("tax_included") == "YES"
    elements = [
        _element(Node(element, node.faults), including)
        for element in snapshot["elements"]
        if _wanted(element)
    ]
    vat = next(iter(_components(snapshot)), {}).get("vat")
    found = present(
        country_code=_owner(snapshot, "country_code", "[A-Z]{2}") or party.country_code,
        party_id=_owner(snapshot, "party_id", "[A-Z0-9]{3}") or party.party_id,
        id=identifier(snapshot["id"]),
        currency=snapshot["currency"],
        type=node.get("type", parts.read_choice(*_TYPES)),
        tariff_alt_text=_alt_texts(snapshot.get("tariff_alt_text")) or None,
        tariff_alt_url=_text(snapshot.get("tariff_alt_url"), 255),
        min_price=_limit(snapshot.get("min_price"), vat),
        max_price=_limit(snapshot.get("max_price"), vat),
        elements=elements,
    )
    for name in ("start_date_time", "end_date_time"):
        moment = parse_timestamp(snapshot.get(name))
        if moment is not None:
            found[name] = date_time(moment)
    found["last_updated"] = date_time(parse_timestamp(snapshot.get("last_updated")) or at)
    return found


def _wanted(element: Mapping[str, Any]) -> bool:
    """Whether OCPI 2.2.1 has a word for it: the gateway skips reservations of any name."""
    reservation = (element.get("restrictions") or {}).get("reservation")
    return reservation is None or reservation in _RESERVATIONS


def _components(snapshot: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of elements that price sessions."""
    return [
        component
        for element in snapshot["elements"]
        if (element.get("restrictions") or {}).get("reservation") is None
        for component in element["price_components"]
    ]


def _owner(snapshot: Mapping[str, Any], name: str, pattern: str) -> str | None:
    value = str(snapshot.get(name)).upper()
    return value if re.fullmatch(pattern, value) else None


def _text(value: Any, max_length: int) -> str | None:
    return value if value and is_string(value, max_length) else None


def _alt_texts(value: Any) -> list[dict[str, str]]:
    texts = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    return [
        {"language": item["language"], "text": item["text"]}
        for item in texts
        if is_string(item.get("language"), 2) and is_string(item.get("text"), 512)
    ]


def _element(node: Node, including: bool) -> dict[str, Any]:
    components = [
        _component(Node(component, node.faults), including)
        for component in node.value["price_components"]
    ]
    restrictions = _restrictions(Node(node.value.get("restrictions") or {}, node.faults))
    return present(price_components=components, restrictions=restrictions or None)


def _component(node: Node, including: bool) -> dict[str, Any]:
    price, vat = node.get("price", parts.read_number), node.get("vat", parts.read_number)
    if including and vat is not None:
        price = _without(price, vat)
    step = node.get("step_size", parts.read_whole_number)
    return present(
        type=node.value["type"],
        price=ocpi_number(price),
        vat=None if vat is None else ocpi_number(vat),
        step_size=1 if step is None else step,
    )


def _without(price: Decimal, vat: Decimal) -> Decimal:
    return price * 100 / (100 + vat)


def _restrictions(node: Node) -> dict[str, Any]:
    numbers = {name: node.get(name, parts.read_number) for name in _NUMBERS}
    return present(
        **{name: node.get(name, parts.read_text) for name in _TEXTS},
        **{name: None if value is None else ocpi_number(value) for name, value in numbers.items()},
        **{name: node.get(name, parts.read_whole_number) for name in _DURATIONS},
        day_of_week=node.value.get("day_of_week") or None,
        reservation=node.value.get("reservation"),
    )


def _limit(value: Any, vat: Any) -> dict[str, Decimal] | None:
    """A Price.  OCPI wants it without VAT: of one that only has it with, the first component's
    VAT is taken off."""
    if value is None:
        return None
    faults = Faults()
    if not isinstance(value, Mapping):
        value = {"excl_vat": value}
    node = Node(value, faults)
    excl, incl = (
        node.get(old if value.get(old) is not None else new, parts.read_number)
        for old, new in (("excl_vat", "before_taxes"), ("incl_vat", "after_taxes"))
    )
    if excl is None and incl is not None:
        excl = _without(incl, Decimal(0) if vat is None else Decimal(str(vat)))
    return present(
        excl_vat=None if excl is None else ocpi_number(excl),
        incl_vat=None if incl is None else ocpi_number(incl),
    )
