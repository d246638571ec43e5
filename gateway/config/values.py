"""What a key of the configuration may be.

Each function takes a value as the file or the environment has it and returns what the gateway
uses, or raises ValueError with what is wrong.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import attrs


@attrs.frozen
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """Where to ask, on the same machine, for what listens here: all addresses are none."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104


def nonempty_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    if not value:
        raise ValueError("must not be empty")
    return value


def optional_text(value: object) -> str:
    return nonempty_text(value) if value != "" else ""


def flag(value: object) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value)
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def number_between(lowest: float, highest: float, kind: type[int] | type[float] = int) -> Any:
    def read(value: object) -> float:
        if isinstance(value, str):
            if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,6})?", value):
                raise ValueError("must be a number")
            value = float(value)
        if isinstance(value, Decimal):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("must be a number")
        if not lowest <= value <= highest:
            raise ValueError(f"must lie between {lowest:.12g} and {highest:.12g}")
        if kind is int and value != int(value):
            raise ValueError("must be a whole number")
        return kind(value)

    return read


def exact(lowest: str, highest: str) -> Any:
    """A decimal as it is written: what energy and money rest on is never a float."""

    def read(value: object) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise ValueError("must be a number")
        found = Decimal(value)
        if not found.is_finite() or not Decimal(lowest) <= found <= Decimal(highest):
            raise ValueError(f"must lie between {lowest} and {highest}")
        if found != round(found, 12):
            raise ValueError("must have at most 12 decimals")
        return Decimal(f"{found.normalize():f}")  # 1000, and not 1E+3

    return read


ENERGY_SCALE = exact("0.001", "1000")


def choice(*words: str) -> Any:
    def read(value: object) -> str:
        if value not in words:
            listed = ", ".join(repr(word) for word in words)
            raise ValueError(f"must be one of {listed}")
        return str(value)

    return read


def address(value: object) -> Address:
    found = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]*)):([0-9]{1,5})", nonempty_text(value)
    )
    if found is None or int(found[3]) > 65535:
        raise ValueError('must be "host:port", like "0.0.0.0:9000" or "[::]:9000"')
    return Address(found[1] or found[2] or "0.0.0.0", int(found[3]))  # noqa: S104  the operator's word


def file(value: object) -> str:
    path = Path(nonempty_text(value))
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read")
    return str(path)


def zone(value: object) -> str:
    try:
        ZoneInfo(nonempty_text(value))
    except (OSError, KeyError, ValueError):
        raise ValueError(
            f'{value!r} is no time zone; it is written like "Europe/Amsterdam"'
        ) from None
    return str(value)


def store(value: object) -> Path:
    url = nonempty_text(value)
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres"):
        raise ValueError("PostgreSQL comes with a later version; use sqlite:///path/to/gateway.db")
    path = parts.netloc + re.sub("^/+", "/", parts.path)  # sqlite://// says the same elsewhere
    if parts.scheme != "sqlite" or not path or path.endswith("/"):
        raise ValueError("must be like sqlite:///var/lib/ocpp-gateway/gateway.db")
    return Path(path)


def argon2(value: object) -> str:
    if not nonempty_text(value).startswith("$argon2"):
        raise ValueError("must be an argon2 hash; `ocpp-gateway hash-password` makes one")
    return str(value)


def instant(value: object) -> datetime:
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(nonempty_text(value))
    except ValueError:
        raise ValueError("must be a date and time, like 2027-01-01T00:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
