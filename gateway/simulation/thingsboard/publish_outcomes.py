"""What may be said to a PUBLISH, and why (thingsboard-contract 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from .gson import JsonSyntaxError, parse

if TYPE_CHECKING:
    from .connection import MqttConnection
    from .core import Core
    from .server import ThingsBoard

UNSPECIFIED: Final = 0x80
IMPLEMENTATION: Final = 0x83
TOPIC_NAME_INVALID: Final = 0x90
QUOTA_EXCEEDED: Final = 0x97
PAYLOAD_INVALID: Final = 0x99


@attrs.frozen
class PublishOutcome:
    """What is said to a PUBLISH.

    codes: one PUBACK each; none means that ThingsBoard never answers.
    close: whether the connection ends after them.
    delay: seconds before all this.
    """

    codes: tuple[int, ...] = (0,)
    close: bool = False
    delay: float = 0.0


class Refused(Exception):
    """A payload that ThingsBoard does not take, by the kinds of thingsboard-contract 5."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@attrs.frozen
class Part:
    """What becomes of one device's part of a message; code None: it is never acknowledged."""

    code: int | None = 0
    close: bool = False
    delay: float = 0.0


STORED: Final = Part()


class DeviceRefused(Exception):
    """The device cannot be created."""

    def __init__(self, part: Part, why: str) -> None:
        super().__init__(why)
        self.part = part


def outcome_of(refused: Refused, session: MqttConnection) -> PublishOutcome:
    """What this client gets for a refusal."""
    if refused.kind == "BAD-R":
        return PublishOutcome((IMPLEMENTATION,), close=True)
    if refused.kind == "CLOSE":
        return PublishOutcome((), close=True)
    if session.tells_reasons:
        return PublishOutcome((PAYLOAD_INVALID,))
    return PublishOutcome((), close=True)


def acknowledge(board: Core, parts: list[Part]) -> PublishOutcome:
    """The answer to a message whose devices fared like this (thingsboard-contract 9)."""
    close = any(part.close for part in parts)
    delay = max(part.delay for part in parts)
    codes = [part.code for part in parts]
    if not board.profile.ack_per_device:
        # one PUBACK once all parts called back; a failed part calls at once, and only once
        bad = [part.code for part in parts if part.code or part.close][:1]
        codes = bad or ([None] if None in codes else [0])
    return PublishOutcome(tuple(code for code in codes if code is not None), close, delay)


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


PublishHandler: TypeAlias = "Callable[[ThingsBoard, MqttConnection, Message], PublishOutcome]"
"""Takes the messages of one topic."""
