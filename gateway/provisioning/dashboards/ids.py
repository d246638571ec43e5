"""Stable ids, and the type of JSON objects."""

from __future__ import annotations

import uuid
from typing import Any

Json = dict[str, Any]

_OURS = uuid.UUID("6f0d8f0e-5d0c-5d3c-9a60-3c1d6a2f7b11")


def stable_id(*names: str) -> str:
    """The same id for the same names, so that a second installation changes nothing."""
    return str(uuid.uuid5(_OURS, "/".join(names)))
