"""How ThingsBoard types a value (thingsboard-contract J6), and why it should not have been sent.

A stored LONG is int here, DOUBLE float, BOOLEAN bool, STRING str, JSON dict or list.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

import attrs

from .gson import Number

Stored: TypeAlias = int | float | bool | str | dict[str, Any] | list[Any]

_INT64: Final = range(-(2**63), 2**63)
_FINEST_SCALE: Final = 16
_DECIMALS_WE_SEND: Final = 6
# NumberUtils.isParsable of commons-lang3: digits of any script, one point, not at the end
_PARSABLE: Final = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")
# Gson makes no number of a text beyond it (NumberLimits).
_LARGEST_EXPONENT: Final = 10_000
_NOT_NUMBERS: Final = frozenset({"NaN", "Infinity", "-Infinity"})


@attrs.frozen
class ValueIssue:
    """Why a value should not have been sent: FAIL when it is lost or becomes another type."""

    assertion: str
    severity: Literal["FAIL", "WARN"]
    what: str


def store_value(value: Any) -> tuple[Stored | None, ValueIssue | None]:
    """The value as stored, None where the key is dropped; and the issue with it, if any."""
    if isinstance(value, Number):
        _, point, decimals = value.partition(".")
        if point and len(decimals) <= _DECIMALS_WE_SEND and decimals.isdigit():  # the usual case
            return float(value), None
        stored = _number(value)
        if isinstance(stored, str):
            return stored, ValueIssue("J6", "FAIL", f"number {value} is stored as text")
        if _scale(value) > _DECIMALS_WE_SEND:
            return stored, ValueIssue("J6a", "WARN", f"{value} has more than 6 decimals")
        return stored, None
    if isinstance(value, bool):
        return value, None
    if isinstance(value, int):
        if value in _INT64:
            return value, None
        return str(value), ValueIssue("J6f", "FAIL", f"{value} is beyond int64, stored as text")
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return None, ValueIssue("J6e", "WARN", "null: the key is dropped")
    return plain(value), None


def _text(value: str) -> tuple[Stored, ValueIssue | None]:
    if value in _NOT_NUMBERS:
        return value, ValueIssue("J6d", "FAIL", f"{value} is stored as text")
    if value.isascii() and not value[-1:].isdigit():  # the usual case, cheaply
        return value, None
    if not _PARSABLE.fullmatch(value):
        return value, None
    stored = _number(value)
    return stored, ValueIssue("J6b", "WARN", f"the text {value!r} is stored as a number")


def _number(spelled: str) -> int | float | str:
    """TB's parseNumericValue: long, double or plain text, by the spelling and its scale."""
    exact = Decimal(spelled)
    if abs(exact.adjusted()) > _LARGEST_EXPONENT:
        return str(spelled)
    simple_double = "." in spelled and "e" not in spelled.lower()
    if not simple_double and exact == exact.to_integral_value():
        return whole if (whole := int(exact)) in _INT64 else format(exact, "f")
    return float(exact) if _exponent(exact) >= -_FINEST_SCALE else format(exact, "f")


def _scale(spelled: str) -> int:
    return -_exponent(Decimal(spelled))


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # noqa: S101  a JSON number is finite
    return exponent


def plain(value: Any) -> Any:
    """JSON inside a value: it is kept as it is, nothing in it is cast."""
    if isinstance(value, Number):
        return float(value)
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def long_of(value: Any) -> int:
    """Gson's getAsLong, by which `ts` is read (thingsboard-contract J3).

    Raises ValueError where it has none: null, an object, text that is no integer.
    """
    if isinstance(value, list) and len(value) == 1:
        return long_of(value[0])
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        raise ValueError(f"{value!r} is not a number")
    if isinstance(value, Number):
        exact = Decimal(value)
        if abs(exact.adjusted()) > _LARGEST_EXPONENT:
            raise ValueError(f"{value} is too large")
        return _wrapped(int(exact))
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?\d{1,19}", value) or int(value) not in _INT64:
            raise ValueError(f"{value!r} is not a number")
        return int(value)
    return _wrapped(int(value))


def _wrapped(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def json_type(value: Any) -> str:
    """The JSON type of a value as it was sent: number, boolean, string or json."""
    return _JSON_TYPES.get(type(value), "json")


_JSON_TYPES: Final = {
    bool: "boolean",
    int: "number",
    float: "number",
    Number: "number",
    str: "string",
}
