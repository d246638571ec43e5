"""A PUBLISH that is being handled, and its payload as ThingsBoard reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from .core import Core
from .gson import JsonSyntaxError, parse
from .publish_outcomes import PublishOutcome, Refused
from .store import ClientConnection


def excerpt(payload: bytes) -> str:
    """Enough of a payload for a person to know it again."""
    return payload[:120].decode(errors="replace")


@attrs.frozen
class Message:
    """A PUBLISH that is being taken."""

    topic: str
    payload: bytes

    def json(self, board: Core) -> Any:
        """The payload decoded, numbers spelled out; raises Refused where it is no JSON."""
        try:
            value, is_strict = parse(self.payload)
        except JsonSyntaxError as exc:
            raise Refused("BAD-A", f"not JSON ({exc})") from exc
        if not is_strict:
            board.report("J1", "WARN", f"only a lenient parser takes {excerpt(self.payload)}")
        return value

    def object(self, board: Core) -> dict[str, Any]:
        """The payload as an object; raises Refused where it is none."""
        value = self.json(board)
        if not isinstance(value, dict):
            raise Refused("BAD-R", "the root is not an object")
        return value


PublishHandler: TypeAlias = Callable[[Core, ClientConnection, Message], PublishOutcome]
"""Takes the messages of one topic."""
