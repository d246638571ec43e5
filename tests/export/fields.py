"""Holds an object against OCPI's table of fields, which is data (tests/data/ocpi)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

TABLE = json.loads((Path(__file__).parent.parent / "data" / "ocpi" / "cdr_fields.json").read_text())
_DATE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?Z")
_SIZED = re.compile(r"(CiString|string)\(([0-9]+)\)")


def faults(kind: str, value: Any, where: str = "") -> Iterator[str]:
    """Everything in which the value is no `kind` of OCPI 2.2.1."""
    if kind in TABLE["objects"]:
        yield from _object_faults(kind, value, where or kind)
    elif kind in TABLE["enums"]:
        if value not in TABLE["enums"][kind]:
            yield f"{where}: {value!r} is no {kind}"
    elif kind == "number":
        if not _is_number(value):
            yield f"{where}: {value!r} is no number of four decimals"
    elif kind == "int":
        if type(value) is not int:
            yield f"{where}: {value!r} is no int"
    elif kind == "boolean":
        if type(value) is not bool:
            yield f"{where}: {value!r} is no boolean"
    elif kind == "DateTime":
        if not isinstance(value, str) or not _DATE_TIME.fullmatch(value) or len(value) > 25:
            yield f"{where}: {value!r} is no DateTime"
    else:
        yield from _text_faults("string(255)" if kind == "URL" else kind, value, where)


def _object_faults(kind: str, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no {kind}"
        return
    fields = {field["name"]: field for field in TABLE["objects"][kind]}
    for name in value.keys() - fields.keys():
        yield f"{where}.{name}: {kind} has no such field"
    for name, field in fields.items():
        here, card = f"{where}.{name}", field["card"]
        if name not in value:
            if card in "1+":
                yield f"{here}: is missing"
            continue
        held = value[name]
        if card in "*+":
            if not isinstance(held, list) or (card == "+" and not held):
                yield f"{here}: {held!r} is no list of {field['type']}"
                continue
            for index, item in enumerate(held):
                yield from faults(field["type"], item, f"{here}[{index}]")
            continue
        yield from faults(field["type"], held, here)
        pattern = field.get("pattern")
        if pattern and not re.fullmatch(pattern, str(held)):
            yield f"{here}: {held!r} is not like {pattern}"


def _text_faults(kind: str, value: Any, where: str) -> Iterator[str]:
    sized = _SIZED.fullmatch(kind)
    assert sized, kind
    if not isinstance(value, str) or len(value) > int(sized[2]):
        yield f"{where}: {value!r} is no {kind}"
    elif not value.isprintable():
        yield f"{where}: {value!r} cannot be printed"
    elif sized[1] == "CiString" and not (value.isascii() and value):
        yield f"{where}: {value!r} is no CiString"


def _is_number(value: Any) -> bool:
    """As exported, Decimal; as JSON, whatever reads as one."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return False
    exponent = Decimal(value).as_tuple().exponent
    return isinstance(exponent, int) and -4 <= exponent <= 0
