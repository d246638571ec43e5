"""Fields of a payload that a central system sent, read without trust (OCPP-J 1.6 table 7)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .ocpp_connection import Payload, Unanswerable


def text(payload: Payload, key: str, longest: int) -> str:
    value = _need(payload, key)
    if not isinstance(value, str):
        raise Unanswerable("TypeConstraintViolation", f"{key} is no text")
    if len(value) > longest:
        raise Unanswerable("PropertyConstraintViolation", f"{key} is longer than {longest}")
    return value


def whole(payload: Payload, key: str) -> int:
    value = _need(payload, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unanswerable("TypeConstraintViolation", f"{key} is no whole number")
    return value


def maybe_whole(payload: Payload, key: str) -> int | None:
    """None where it is absent."""
    return None if payload.get(key) is None else whole(payload, key)


def one_of(payload: Payload, key: str, *choices: str) -> str:
    value = text(payload, key, 50)
    if value not in choices:
        raise Unanswerable("PropertyConstraintViolation", f"{key} is none of {', '.join(choices)}")
    return value


def time(payload: Payload, key: str) -> datetime:
    try:
        return read_time(_need(payload, key))
    except ValueError as exc:
        raise Unanswerable("TypeConstraintViolation", f"{key}: {exc}") from exc


def read_time(value: Any) -> datetime:
    """An aware time (§3.14); raises ValueError for what is none."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no time")
    at = datetime.fromisoformat(value.strip().upper())
    if at.tzinfo is None:
        raise ValueError(f"{value!r} has no zone")
    return at


def _need(payload: Payload, key: str) -> Any:
    if payload.get(key) is None:
        raise Unanswerable("OccurenceConstraintViolation", f"{key} is missing")
    return payload[key]
