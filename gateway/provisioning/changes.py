"""What an entity should be against what it is: a part of it is ours, the rest is the operator's.

Objects are compared and changed key by key, so that what ThingsBoard or an operator added stays;
everything else, lists too, is as we say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(there: Any, ours: Any, where: str = "") -> Iterator[str]:
    """The places, like `profileData.configuration.type`, where it is not as it should be."""
    if isinstance(ours, Mapping):
        if not isinstance(there, Mapping):
            yield where
            return
        for key, value in ours.items():
            yield from differences(there.get(key), value, f"{where}.{key}" if where else key)
    elif isinstance(ours, list) and isinstance(there, list) and len(ours) == len(there):
        for index, (old, new) in enumerate(zip(there, ours, strict=True)):
            yield from differences(old, new, f"{where}[{index}]")
    elif there != ours or isinstance(there, bool) != isinstance(ours, bool):
        yield where


def merged(there: Any, ours: Any) -> Any:
    """There, with what is ours as it should be."""
    if isinstance(ours, Mapping) and isinstance(there, Mapping):
        return {**there, **{key: merged(there.get(key), value) for key, value in ours.items()}}
    return ours
