"""A PUBLISH that is being handled, and its payload as ThingsBoard reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from .core import Core
from .gson import JsonSyntaxError, parse
from .publish_outcomes import PayloadRefused, PublishOutcome
from .store import ClientConnection


def excerpt(payload: bytes) -> str:
    """Enough of a payload for a person to know it again."""
    return payload[:120].decode(errors="replace")


@attrs.frozen
class Message:
    """A PUBLISH that is being taken."""

    topic: str
    payload: bytes

    def json(self, core: Core) -> Any:
        """The payload decoded, numbers spelled out; raises PayloadRefused where it is no JSON."""
        try:
            value, is_strict = parse(self.payload)
        except JsonSyntaxError as exc:
            raise PayloadRefused("BAD-A", f"not JSON ({exc})") from exc
        if not is_strict:
            core.report_violation(
                "J1", "WARN", f"only a lenient parser takes {excerpt(self.payload)}"
            )
        return value

    def object(self, core: Core) -> dict[str, Any]:
        """The payload as an object; raises PayloadRefused where it is none."""
        value = self.json(core)
        if not isinstance(value, dict):
            raise PayloadRefused("BAD-R", "the root is not an object")
        return value


PublishHandler: TypeAlias = Callable[[Core, ClientConnection, Message], PublishOutcome]
"""Takes the messages of one topic."""
