"""Checked reading of a request payload's fields: each raises RequestError (OCPP-J 1.6 table 7)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .ocpp_connection import Payload, RequestError


def text(payload: Payload, key: str, longest: int) -> str:
    value = _required(payload, key)
    if not isinstance(value, str):
        raise RequestError("TypeConstraintViolation", f"{key} is no text")
    if len(value) > longest:
        raise RequestError("PropertyConstraintViolation", f"{key} is longer than {longest}")
    return value


def integer(payload: Payload, key: str) -> int:
    value = _required(payload, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError("TypeConstraintViolation", f"{key} is no whole number")
    return value


def optional_integer(payload: Payload, key: str) -> int | None:
    """None where it is absent."""
    return None if payload.get(key) is None else integer(payload, key)


def one_of(payload: Payload, key: str, *choices: str) -> str:
    value = text(payload, key, 50)
    if value not in choices:
        raise RequestError("PropertyConstraintViolation", f"{key} is none of {', '.join(choices)}")
    return value


def time(payload: Payload, key: str) -> datetime:
    try:
        return read_time(_required(payload, key))
    except ValueError as exc:
        raise RequestError("TypeConstraintViolation", f"{key}: {exc}") from exc


def read_time(value: Any) -> datetime:
    """An aware time (§3.14); raises ValueError for what is none."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no time")
    at = datetime.fromisoformat(value.strip().upper())
    if at.tzinfo is None:
        raise ValueError(f"{value!r} has no zone")
    return at


def _required(payload: Payload, key: str) -> Any:
    if payload.get(key) is None:
        raise RequestError("OccurenceConstraintViolation", f"{key} is missing")
    return payload[key]
