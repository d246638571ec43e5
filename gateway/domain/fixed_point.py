"""Energy, time and money as exact numbers: whole nanowatt-hours, whole microseconds, ratios.

Whole numbers are added and compared ten times as fast as `Decimal`; a `Fraction` appears only
where a price changes between two readings, and never a float.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

Exact: TypeAlias = "int | Fraction"

WH = 10**9  # nWh
KWH = 10**12  # nWh
SECOND = 10**6  # us
HOUR = 3600 * SECOND
FOREVER = 1 << 80  # later than any instant, more than any energy

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,30}))?")
_BLANKS = " \t\r\n"
_POWERS: tuple[int, ...] = tuple(10**exponent for exponent in range(13))


def scaled(text: str, digits: int) -> int | None:
    """An unsigned ASCII decimal times 10**digits, cut to a whole number; None for all else.

    Python's own `Decimal` reads '1_000', full-width digits, 'NaN' and 'Infinity'; a register
    must not.
    """
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text) * _POWERS[digits]
    match = _NUMBER.fullmatch(text.strip(_BLANKS))
    if match is None:
        return None
    whole, fraction = match.groups()
    if fraction is None:
        return int(whole) * _POWERS[digits]
    fraction = fraction[:digits]
    return int(whole + fraction) * _POWERS[digits - len(fraction)]


def times(nwh: int, factor: Decimal | None) -> int:
    """A register times an `energy_scale`, cut to whole nWh.  factor: None for 1."""
    if factor is None:
        return nwh
    numerator, denominator = factor.as_integer_ratio()
    return nwh * numerator // denominator


def microseconds(at: datetime) -> int:
    """Since 1970.  at: aware."""
    since = at - _EPOCH
    return (since.days * 86400 + since.seconds) * SECOND + since.microseconds


def instant(us: Exact) -> datetime:
    """The instant in UTC, cut to whole microseconds."""
    return _EPOCH + timedelta(microseconds=int(us))


def ratio(numerator: Exact, denominator: Exact) -> Exact:
    """The exact quotient, whole where it can be."""
    if type(numerator) is int and type(denominator) is int:
        quotient, rest = divmod(numerator, denominator)
        return quotient if not rest else Fraction(numerator, denominator)
    return whole(Fraction(numerator) / denominator)


def whole(value: Exact) -> Exact:
    """The same number, as an int where it is one."""
    if type(value) is int:
        return value
    return value.numerator if value.denominator == 1 else value


def rounded(value: Exact, denominator: int, digits: int, *, half_even: bool = False) -> int:
    """value / denominator in units of 10**-digits, halves away from zero or to even."""
    numerator: int
    if type(value) is int:
        numerator = value
    else:
        numerator, denominator = value.numerator, denominator * value.denominator
    twice, unit = 2 * numerator * _POWERS[digits], 2 * denominator
    if half_even:
        nearest: int = round(Fraction(twice, unit))
        return nearest
    return (twice + denominator) // unit if numerator >= 0 else -((denominator - twice) // unit)


def decimal(units: int, digits: int) -> Decimal:
    """units * 10**-digits, with that many decimals."""
    return Decimal(units).scaleb(-digits) if digits else Decimal(units)


def plain(value: Exact, digits: int) -> Decimal:
    """The number rounded half up to at most so many decimals, without trailing zeros."""
    if type(value) is int:
        return Decimal(value)
    return trimmed(decimal(rounded(value, 1, digits), digits))


def trimmed(value: Decimal) -> Decimal:
    """The same number without trailing zeros or an exponent."""
    value = value.normalize()
    exponent = value.as_tuple().exponent
    return value.quantize(Decimal(1)) if isinstance(exponent, int) and exponent > 0 else value


def watt_hours(nwh: Exact) -> Decimal:
    """Energy in Wh, to a nanowatt-hour."""
    nwh = int(nwh)
    quotient, rest = divmod(nwh, WH)
    return Decimal(quotient) if not rest else trimmed(decimal(nwh, 9))
