"""The operator and its locations: what a CDR must name and no charge point knows.

All of it comes from the operator's configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import attrs

from ..tariffs.fields import quoted
from .ocpi import CONNECTOR_FORMATS, CONNECTOR_TYPES, POWER_TYPES, identifier, is_string

T = TypeVar("T")

_NO_ALNUM = re.compile(r"[^A-Z0-9]")


def _matching(pattern: str, like: str) -> Callable[[Any, Any, Any], None]:
    def check(owner: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"{attribute.name} must be like {like}, not {quoted(value)}")

    return check


def _text(max_length: int, *, ascii_only: bool = False) -> Callable[[Any, Any, Any], None]:
    def check(owner: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not value or not is_string(value, max_length) or (ascii_only and not value.isascii()):
            raise ValueError(f"{attribute.name} must be text of 1 to {max_length} characters")

    return check


def _member_of(names: frozenset[str]) -> Callable[[Any, Any, Any], None]:
    def check(owner: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"{attribute.name} must be one of {', '.join(sorted(names))}")

    return check


def _degrees(value: Any, limit: int) -> str:
    """Decimal degrees as OCPI writes them, from a number or its digits."""
    try:
        degrees = Decimal(str(value))
    except InvalidOperation:
        degrees = Decimal("NaN")
    if not degrees.is_finite() or abs(degrees) > limit:
        raise ValueError(f"{quoted(value)} is no degrees from -{limit} to {limit}")
    return f"{degrees:.6f}"


def _latitude(value: Any) -> str:
    return _degrees(value, 90)


def _longitude(value: Any) -> str:
    return _degrees(value, 180)


_optional = attrs.validators.optional


@attrs.frozen(kw_only=True)
class Location:
    """Where a connector is, and what kind it is (OCPI 2.2.1, CdrLocation).

    country: ISO 3166-1 alpha-3.  latitude, longitude: degrees, numbers or their digits.
    evse_id: of one connector, as in eMI3; None: derived from party, charge point and connector.
    """

    id: str = attrs.field(validator=_text(36, ascii_only=True))
    address: str = attrs.field(validator=_text(45))
    city: str = attrs.field(validator=_text(45))
    country: str = attrs.field(validator=_matching("[A-Z]{3}", "NLD"))
    latitude: str = attrs.field(converter=_latitude)
    longitude: str = attrs.field(converter=_longitude)
    name: str | None = attrs.field(default=None, validator=_optional(_text(255)))
    postal_code: str | None = attrs.field(default=None, validator=_optional(_text(10)))
    state: str | None = attrs.field(default=None, validator=_optional(_text(20)))
    evse_id: str | None = attrs.field(default=None, validator=_optional(_text(48, ascii_only=True)))
    connector_standard: str = attrs.field(
        default="IEC_62196_T2", validator=_member_of(CONNECTOR_TYPES)
    )
    connector_format: str = attrs.field(default="SOCKET", validator=_member_of(CONNECTOR_FORMATS))
    connector_power_type: str = attrs.field(default="AC_3_PHASE", validator=_member_of(POWER_TYPES))


_country = _matching("[A-Z]{2}", "NL")
_party = _matching("[A-Z0-9]{3}", "TNM")


@attrs.frozen(kw_only=True)
class Party:
    """The charge point operator that CDRs are of.

    country_code, party_id: as registered, ISO 3166-1 alpha-2 and three letters or digits.
    locations: by "CHARGE_POINT/CONNECTOR" or "CHARGE_POINT"; `location` is all others'.
    token_country_code, token_party_id: who gave out the id tags; None: this party itself.
    """

    country_code: str = attrs.field(validator=_country)
    party_id: str = attrs.field(validator=_party)
    location: Location
    locations: Mapping[str, Location] = attrs.field(factory=dict)
    token_country_code: str | None = attrs.field(default=None, validator=_optional(_country))
    token_party_id: str | None = attrs.field(default=None, validator=_optional(_party))

    def location_of(self, charge_point: str, connector: int) -> Location:
        own = self.locations.get(f"{charge_point}/{connector}")
        return own or self.locations.get(charge_point, self.location)

    def evse_id_of(self, charge_point: str, connector: int) -> str:
        """As eMI3 writes it: NL*TNM*ECP01*2."""
        given = self.location_of(charge_point, connector).evse_id
        name = _NO_ALNUM.sub("", charge_point.upper())
        derived = f"{self.country_code}*{self.party_id}*E{name}*{connector}"
        return given or identifier(derived, 48)


def says_anything(document: Mapping[str, Any]) -> bool:
    """Whether more than the heads of tables is there."""
    return any(
        says_anything(value) if isinstance(value, Mapping) else True for value in document.values()
    )


def party_of(document: Mapping[str, Any]) -> Party:
    """The party from configuration: its fields by name, `location` and `locations` as tables.

    One of `locations` says only what differs from `location`.  Raises ValueError.
    """
    try:
        given = dict(document)
        base = dict(given.pop("location", {}))
        others = _table(given.pop("locations", {}))
        location = _made(Location, base, "location.")
        return _made(
            Party,
            {
                **given,
                "location": location,
                "locations": {
                    name: _made(Location, {**base, **_table(own)}, f"locations.{name}.")
                    for name, own in others.items()
                },
            },
        )
    except TypeError as exc:  # not even text
        raise ValueError(str(exc)) from exc


def _made(kind: type[T], given: Mapping[str, Any], where: str = "") -> T:
    """Raises ValueError, which names each field that is missing or not known, or is wrong."""
    fields = attrs.fields_dict(kind)  # type: ignore[arg-type]  # no bound for attrs classes
    wrong = [f"{where}{name} is not known here" for name in given if name not in fields]
    wrong += [
        f"{where}{name} is missing"
        for name, field in fields.items()
        if field.default is attrs.NOTHING and name not in given
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    return kind(**given)


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a table, not {quoted(value)}")
    return value
