"""OCPI 2.2.1's basic types: identifiers, texts, instants and numbers of four decimals."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from ..domain.clock import iso, parse_timestamp
from ..domain.fixed_point import trimmed

_CONNECTOR_TYPES = """
CHADEMO CHAOJI DOMESTIC_A DOMESTIC_B DOMESTIC_C DOMESTIC_D DOMESTIC_E DOMESTIC_F DOMESTIC_G
DOMESTIC_H DOMESTIC_I DOMESTIC_J DOMESTIC_K DOMESTIC_L DOMESTIC_M DOMESTIC_N DOMESTIC_O GBT_AC
GBT_DC IEC_60309_2_single_16 IEC_60309_2_three_16 IEC_60309_2_three_32 IEC_60309_2_three_64
IEC_62196_T1 IEC_62196_T1_COMBO IEC_62196_T2 IEC_62196_T2_COMBO IEC_62196_T3A IEC_62196_T3C
NEMA_5_20 NEMA_6_30 NEMA_6_50 NEMA_10_30 NEMA_10_50 NEMA_14_30 NEMA_14_50 PANTOGRAPH_BOTTOM_UP
PANTOGRAPH_TOP_DOWN TESLA_R TESLA_S
"""
CONNECTOR_TYPES = frozenset(_CONNECTOR_TYPES.split())
CONNECTOR_FORMATS = frozenset({"SOCKET", "CABLE"})
POWER_TYPES = frozenset({"AC_1_PHASE", "AC_2_PHASE", "AC_2_PHASE_SPLIT", "AC_3_PHASE", "DC"})

_CI_STRING = re.compile(r"[ -~]+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DIGEST = 12
_STEP = Decimal("0.0001")


def identifier(text: str, max_length: int = 36) -> str:
    """A CiString: the text where it is one, else its beginning and a hash of all of it.

    The same text always gives the same identifier, and another text another one.
    """
    if len(text) <= max_length and _CI_STRING.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    beginning = "".join(_CI_STRING.findall(text))[: max_length - _DIGEST - 1]
    return f"{beginning}-{digest}"


def string(text: str, max_length: int) -> str:
    """A string without what cannot be printed, cut to its greatest length."""
    text = _UNPRINTABLE.sub("?", text)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def is_string(text: object, max_length: int) -> bool:
    """Whether it is a string of OCPI as it stands."""
    return isinstance(text, str) and len(text) <= max_length and not _UNPRINTABLE.search(text)


def date_time(at: datetime) -> str:
    """UTC, cut to milliseconds: a DateTime has 25 characters at most.  at: aware."""
    return iso(at, "milliseconds" if at.microsecond >= 1000 else "seconds")


def instant_of(text: str) -> datetime:
    """A receipt's timestamp."""
    at = parse_timestamp(text)
    if at is None:
        raise ValueError(f"{text!r} is no timestamp of a receipt")
    return at


def ocpi_number(value: Decimal) -> Decimal:
    """To four decimals, halves away from zero, without trailing zeros."""
    return trimmed(value.quantize(_STEP, ROUND_HALF_UP))


def price(excl: Decimal, incl: Decimal) -> dict[str, Decimal]:
    return {"excl_vat": ocpi_number(excl), "incl_vat": ocpi_number(incl)}


def present(**members: Any) -> dict[str, Any]:
    """An object without the members that are None: OCPI leaves out what is not there."""
    return {name: value for name, value in members.items() if value is not None}
