"""Events <-> JSON text, tagged with their class's name.

Decimals are JSON numbers with all their digits; a reader that must not lose any asks msgspec
for Decimal again, which is what `load` does, inside free-form fields too.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from ..domain import events
from ..domain.events import Event
from ..domain.json_codec import encode_text


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
    return type(event).__name__, encode_text(event)


def load(kind: str, text: str) -> Event:
    return _decoders[kind].decode(text)
