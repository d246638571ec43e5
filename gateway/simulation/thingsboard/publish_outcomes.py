"""What may be said to a PUBLISH, and why (thingsboard-contract 5)."""

from __future__ import annotations

from typing import Final

import attrs

from .profile import Profile
from .store import ClientConnection

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


def outcome_of(refused: Refused, session: ClientConnection) -> PublishOutcome:
    """What this client gets for a refusal."""
    if refused.kind == "BAD-R":
        return PublishOutcome((IMPLEMENTATION,), close=True)
    if refused.kind == "CLOSE":
        return PublishOutcome((), close=True)
    if session.tells_reasons:
        return PublishOutcome((PAYLOAD_INVALID,))
    return PublishOutcome((), close=True)


def acknowledge(profile: Profile, parts: list[Part]) -> PublishOutcome:
    """The answer to a message whose devices fared like this (thingsboard-contract 9)."""
    close = any(part.close for part in parts)
    delay = max(part.delay for part in parts)
    codes = [part.code for part in parts]
    if not profile.ack_per_device:
        # one PUBACK once all parts called back; a failed part calls at once, and only once
        bad = [part.code for part in parts if part.code or part.close][:1]
        codes = bad or ([None] if None in codes else [0])
    return PublishOutcome(tuple(code for code in codes if code is not None), close, delay)
