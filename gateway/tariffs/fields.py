"""The parts of an OCPI tariff, read from JSON; every fault is named with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs

from ..domain.clock import parse_timestamp
from ..domain.fixed_point import HOUR, KWH, SECOND, Exact
from .dimensions import DIMENSIONS
from .restrictions import Restrictions

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,20})?")
_DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_MAX_NUMBER = Decimal(10) ** 12
_DECIMALS = 20


@attrs.frozen
class Fault:
    """where: the place in the document, like `tariffs[0].elements[2].price_components[0].vat`.

    fatal: nothing can be priced while it stands; else it is a warning.
    """

    where: str
    what: str
    fatal: bool


class Faults:
    """Collects faults while a document is read, with the place that is being read."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self._path: list[str] = []

    @contextmanager
    def at(self, name: str | int) -> Iterator[None]:
        """Faults within are those of this member or index."""
        self._path.append(f"[{name}]" if isinstance(name, int) else f".{name}")
        try:
            yield
        finally:
            self._path.pop()

    def error(self, what: str) -> None:
        self._add(what, fatal=True)

    def warn(self, what: str) -> None:
        self._add(what, fatal=False)

    def _add(self, what: str, *, fatal: bool) -> None:
        self.found.append(Fault("".join(self._path).lstrip(".") or "document", what, fatal))


class Node:
    """A JSON object that is being read, member by member."""

    def __init__(self, value: Mapping[str, Any], faults: Faults) -> None:
        self.value = value
        self.faults = faults

    def get(self, name: str, read: Callable[[Any, Faults], Any], *, required: bool = False) -> Any:
        """The member as `read` reads it; None where it is absent, null or faulty."""
        value = self.value.get(name)
        with self.faults.at(name):
            if value is not None:
                return read(value, self.faults)
            if required:
                self.faults.error("is missing")
        return None


def read_text(value: Any, faults: Faults) -> str | None:
    if isinstance(value, str) and value:
        return value
    faults.error(f"must be text, not {quoted(value)}")
    return None


def read_number(value: Any, faults: Faults) -> Decimal | None:
    """A JSON number, or its digits as text; never negative, of 20 decimals at most."""
    found = decimal_of(value)
    if found is None:
        faults.error(f"must be a number, not {quoted(value)}")
    elif found < 0:
        faults.error("must not be negative")
    elif found > _MAX_NUMBER:
        faults.error("is out of all proportion")
    elif _decimals(found) > _DECIMALS:
        faults.error(f"has more than {_DECIMALS} decimals")
    elif not found and _decimals(found) < 0:
        return Decimal(0)  # 0e999999999 is 0, but dear to calculate with
    else:
        return found
    return None


def _decimals(value: Decimal) -> int:
    """How many digits it has behind the point, trailing zeros aside.  Never calculates: an
    exponent may be greater than any memory."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101  for the type checker: it is finite
    zeros = next((n for n, digit in enumerate(reversed(digits)) if digit), 0)
    return -exponent - zeros


def read_whole_number(value: Any, faults: Faults) -> int | None:
    found = read_number(value, faults)
    if found is None:
        return None
    if found != found.to_integral_value():
        faults.error(f"must be a whole number, not {quoted(value)}")
        return None
    return int(found)


def read_flag(value: Any, faults: Faults) -> bool | None:
    if isinstance(value, bool):
        return value
    faults.error(f"must be true or false, not {quoted(value)}")
    return None


def read_choice(*names: str) -> Callable[[Any, Faults], str | None]:
    def read(value: Any, faults: Faults) -> str | None:
        if isinstance(value, str) and value in names:
            return value
        faults.error(f"must be one of {', '.join(names)}, not {quoted(value)}")
        return None

    return read


def read_instant(value: Any, faults: Faults) -> datetime | None:
    at = parse_timestamp(value)
    if at is None:
        faults.error(f"must be a date and time like 2026-01-31T00:00:00Z, not {quoted(value)}")
    return at


def read_objects(value: Any, faults: Faults) -> list[tuple[int, Mapping[str, Any]]]:
    """A list's objects with their index; members that are none are faults."""
    if not isinstance(value, list):
        faults.error(f"must be a list, not {quoted(value)}")
        return []
    found: list[tuple[int, Mapping[str, Any]]] = []
    for index, item in enumerate(value):
        if isinstance(item, dict):
            found.append((index, item))
        else:
            with faults.at(index):
                faults.error(f"must be an object, not {quoted(item)}")
    return found


def quoted(value: Any) -> str:
    """The value in a message, as JSON has it, cut short."""
    if value is None or isinstance(value, bool | list | dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def read_restrictions(value: Any, faults: Faults) -> Restrictions | None:
    """None where the element prices reservations, which are not sessions."""
    if not isinstance(value, dict):
        faults.error(f"must be an object, not {quoted(value)}")
        return Restrictions()
    node = Node(value, faults)
    for name in value.keys() - _RESTRICTIONS.keys():
        with faults.at(name):
            faults.warn("is not a restriction of OCPI 2.2.1: ignored")
    read = {ours: node.get(name, how) for name, (ours, how) in _RESTRICTIONS.items() if ours}
    for start, end in (("from_date", "to_date"), ("from_duration", "to_duration")):
        _ordered(read[start], read[end], start.removeprefix("from_"), faults)
    _ordered(read["from_energy"], read["to_energy"], "kwh", faults)
    _ordered(read["from_current"], read["to_current"], "current", faults)
    least, greatest = (read[name] and Fraction(*read[name]) for name in ("from_power", "to_power"))
    _ordered(least, greatest, "power", faults)
    if value.get("reservation") is not None:
        faults.warn("reservations are not priced: the element is skipped")
        return None
    return Restrictions(**read)


def _ordered(start: Exact | None, end: Exact | None, what: str, faults: Faults) -> None:
    if start is not None and end is not None and start >= end:
        faults.warn(f"the range of {what} is empty: the element never holds")


def decimal_of(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):  # a document read without parse_float: as it is written
        return decimal_of(repr(value))
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    return None


def _time_of_day(value: Any, faults: Faults) -> int | None:
    match = _TIME_OF_DAY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        faults.error(f"must be a time of day from 00:00 to 23:59, not {quoted(value)}")
        return None
    return (int(match[1]) * 60 + int(match[2])) * 60 * SECOND


def _date(value: Any, faults: Faults) -> int | None:
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value).toordinal()
        except ValueError:
            pass
    faults.error(f"must be a date like 2026-01-31, not {quoted(value)}")
    return None


def _days(value: Any, faults: Faults) -> frozenset[int] | None:
    if not isinstance(value, list):
        faults.error(f"must be a list, not {quoted(value)}")
        return None
    if not value:
        return None
    days = set()
    for index, name in enumerate(value):
        with faults.at(index):
            if read_choice(*_DAYS)(name, faults) is not None:
                days.add(_DAYS.index(name))
    return frozenset(days)


def _times(factor: int) -> Callable[[Any, Faults], int | None]:
    def read(value: Any, faults: Faults) -> int | None:
        found = read_number(value, faults)
        return None if found is None else int(found * factor)

    return read


def _power(value: Any, faults: Faults) -> tuple[int, int] | None:
    found = read_number(value, faults)
    if found is None:
        return None
    rate = Fraction(found) * KWH / HOUR
    return rate.numerator, rate.denominator


_energy, _duration, _current = _times(KWH), _times(SECOND), _times(10**9)

_RESTRICTIONS: Mapping[str, tuple[str, Callable[[Any, Faults], Any]]] = {
    "start_time": ("from_time", _time_of_day),
    "end_time": ("to_time", _time_of_day),
    "start_date": ("from_date", _date),
    "end_date": ("to_date", _date),
    "day_of_week": ("days", _days),
    "min_duration": ("from_duration", _duration),
    "max_duration": ("to_duration", _duration),
    "min_kwh": ("from_energy", _energy),
    "max_kwh": ("to_energy", _energy),
    "min_power": ("from_power", _power),
    "max_power": ("to_power", _power),
    "min_current": ("from_current", _current),
    "max_current": ("to_current", _current),
    "reservation": ("", read_text),
}

_INSTEAD: Mapping[str, str] = {
    "SESSIONTIME": "TIME for charging and PARKING_TIME for idle time",
    "TOTALTIME": "TIME for charging and PARKING_TIME for idle time",
    "CHARGINGTIME": "TIME",
    "DURATION": "TIME",
    "CONGESTIONTIME": "PARKING_TIME",
    "IDLETIME": "PARKING_TIME",
    "PARKING": "PARKING_TIME",
    "OCCUPANCY": "PARKING_TIME",
    "BLOCKINGFEE": "PARKING_TIME",
    "RESERVATIONTIME": "TIME in an element with the restriction reservation",
    "RESERVATIONFIXED": "FLAT in an element with the restriction reservation",
    "ENERGYIMPORT": "ENERGY",
    "ENERGYEXPORT": "ENERGY, of what the car takes: what it gives back is not priced",
    "KWH": "ENERGY",
    "FIXED": "FLAT",
    "FIXEDFEE": "FLAT",
    "STARTFEE": "FLAT",
    "POWER": "ENERGY or TIME with the restrictions min_power and max_power",
    "CURRENT": "ENERGY or TIME with the restrictions min_current and max_current",
}
"""What OCPI 2.2.1 has for the dimensions of OCPI 3.0, OCPP 2.1 and of CDRs, letters only."""


def read_dimension(value: Any, faults: Faults) -> str | None:
    if isinstance(value, str) and value in DIMENSIONS:
        return value
    what = f"must be one of {', '.join(DIMENSIONS)}, not {quoted(value)}"
    letters = re.sub("[^A-Z]", "", value.upper()) if isinstance(value, str) else ""
    same = {name.replace("_", ""): name for name in DIMENSIONS}
    meant = same.get(letters) or _INSTEAD.get(letters)
    faults.error(f"{what}; use {meant}" if meant else what)
    return None
