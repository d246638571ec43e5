"""Where what a replay found differs from what was expected, in words.

Decimals are compared as numbers, sessions and lines in any order, flags as a set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any


def differences(found: Mapping[str, Any], expected: Any) -> Iterator[str]:
    """Raises ValueError where the expectation is none."""
    if not isinstance(expected, dict):
        raise ValueError("expected must be an object")
    for name in ("orphan_messages", "live"):
        if found.get(name, []) != expected.get(name, []):
            yield from _unlike(found.get(name, []), expected.get(name, []), name)
    ours, theirs = (
        _sorted_sessions(found.get("sessions")),
        _sorted_sessions(expected.get("sessions", [])),
    )
    yield from _unlike(ours, theirs, "sessions")


def _sorted_sessions(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    shaped = []
    for session in value:
        if not isinstance(session, dict):
            return value
        lines, flags = session.get("lines"), session.get("flags")
        if isinstance(lines, list):
            session = {**session, "lines": sorted(lines, key=_line_key)}
        if isinstance(flags, list):
            session = {**session, "flags": sorted(set(map(str, flags)))}
        shaped.append(session)
    return sorted(shaped, key=lambda session: str(session.get("transaction_id")))


def _line_key(line: Any) -> tuple[Any, ...]:
    if not isinstance(line, dict):
        return ("", "")
    return str(line.get("dimension")), *(
        _number(line.get(name)) or Decimal(0)
        for name in ("unit_price", "vat", "step_size", "quantity", "cost_excl_vat")
    )


def _unlike(found: Any, expected: Any, where: str) -> Iterator[str]:
    """Where two JSON values differ; decimals as text are numbers."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted(found.keys() | expected.keys()):
            if name not in found:
                yield f"{where}.{name} is missing, expected {_shown(expected[name])}"
            elif name not in expected:
                yield f"{where}.{name} is {_shown(found[name])}, expected nothing"
            else:
                yield from _unlike(found[name], expected[name], f"{where}.{name}")
    elif isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            yield f"{where} is {_shown(found)}, expected {_shown(expected)}"
            return
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _unlike(one, other, f"{where}[{index}]")
    elif found != expected:
        one, other = _number(found), _number(expected)
        if one is None or one != other:
            yield f"{where} is {_shown(found)}, expected {_shown(expected)}"


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        return Decimal(value)
    except ArithmeticError:
        return None


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
