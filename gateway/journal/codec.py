"""Events <-> JSON text, tagged with their class's name.

Decimals are JSON numbers with all their digits; a reader that must not lose any asks msgspec
for Decimal again, which is what `load` does, inside free-form fields too.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from ..domain import events
from ..domain.events import Event

_encoder = msgspec.json.Encoder(decimal_format="number")
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)


def _kinds(base: type[Event]) -> dict[str, type[Event]]:
    found = {base.__name__: base}
    for kind in base.__subclasses__():
        found.update(_kinds(kind))
    return found


_decoders = {
    name: msgspec.json.Decoder(kind, float_hook=Decimal)
    for name, kind in _kinds(events.Event).items()
}


def dump(event: Event) -> tuple[str, str]:
    """(kind, JSON text)"""
    return type(event).__name__, _encoder.encode(event).decode()


def load(kind: str, text: str) -> Event:
    return _decoders[kind].decode(text)


def dump_object(value: Any) -> str:
    return _encoder.encode(value).decode()


def load_object(text: str) -> Any:
    return _anything.decode(text)
