"""Compares an entity in ThingsBoard with the expected one, and merges the two.

Objects are compared and merged key by key, so keys that ThingsBoard or an operator added stay.  All
other values, lists too, are replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(existing: Any, expected: Any, where: str = "") -> Iterator[str]:
    """The paths, like `profileData.configuration.type`, at which it differs from the expected."""
    if isinstance(expected, Mapping):
        if not isinstance(existing, Mapping):
            yield where
            return
        for key, value in expected.items():
            yield from differences(existing.get(key), value, f"{where}.{key}" if where else key)
    elif (
        isinstance(expected, list) and isinstance(existing, list) and len(expected) == len(existing)
    ):
        for index, (old, new) in enumerate(zip(existing, expected, strict=True)):
            yield from differences(old, new, f"{where}[{index}]")
    elif existing != expected or isinstance(existing, bool) != isinstance(expected, bool):
        yield where


def merged(existing: Any, expected: Any) -> Any:
    """The existing entity with the expected values."""
    if isinstance(expected, Mapping) and isinstance(existing, Mapping):
        return {
            **existing,
            **{key: merged(existing.get(key), value) for key, value in expected.items()},
        }
    return expected
