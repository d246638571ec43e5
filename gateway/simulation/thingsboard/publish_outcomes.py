"""How ThingsBoard may answer a PUBLISH, and why (thingsboard-contract 5)."""

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
    """The answer to a PUBLISH.

    codes: the reason codes, one PUBACK each; without any ThingsBoard never answers.
    close: whether the connection closes after them.
    delay: seconds before the answer.
    """

    codes: tuple[int, ...] = (0,)
    close: bool = False
    delay: float = 0.0


class PayloadRefused(Exception):
    """A payload that ThingsBoard does not take, by the kinds of thingsboard-contract 5."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@attrs.frozen
class DeviceOutcome:
    """The outcome for one device of a message; code None means never acknowledged."""

    code: int | None = 0
    close: bool = False
    delay: float = 0.0


STORED: Final = DeviceOutcome()


class DeviceRefused(Exception):
    """The device cannot be created."""

    def __init__(self, outcome: DeviceOutcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


def refusal_outcome(refused: PayloadRefused, connection: ClientConnection) -> PublishOutcome:
    """The answer that this client gets to a refused payload."""
    if refused.kind == "BAD-R":
        return PublishOutcome((IMPLEMENTATION,), close=True)
    if refused.kind == "CLOSE":
        return PublishOutcome((), close=True)
    if connection.sends_reason_codes:
        return PublishOutcome((PAYLOAD_INVALID,))
    return PublishOutcome((), close=True)


def acknowledge(profile: Profile, outcomes: list[DeviceOutcome]) -> PublishOutcome:
    """The answer to a message, from the outcomes of its devices (thingsboard-contract 9)."""
    close = any(outcome.close for outcome in outcomes)
    delay = max(outcome.delay for outcome in outcomes)
    codes = [outcome.code for outcome in outcomes]
    if not profile.ack_per_device:
        # One PUBACK follows once all devices are done; a failed device gets one at once.
        bad = [outcome.code for outcome in outcomes if outcome.code or outcome.close][:1]
        codes = bad or ([None] if None in codes else [0])
    return PublishOutcome(tuple(code for code in codes if code is not None), close, delay)
