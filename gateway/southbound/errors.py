"""What can go wrong between the gateway and one charge point."""

from __future__ import annotations

from .messages import CallError


class ChargePointGone(Exception):
    """The connection ended before the charge point answered.  It may have acted all the same."""


class ChargePointSilent(Exception):
    """The charge point is connected but did not answer in time.  It may still act."""


class ChargePointRefused(Exception):
    """The charge point responded with a CALLERROR."""

    def __init__(self, error: CallError) -> None:
        super().__init__(error.description or error.code)
        self.code = error.code
        self.details = error.details


class NotApproved(Exception):
    """The charge point waits for approval, and may not be sent this meanwhile."""


class TooManyCalls(Exception):
    """As many calls wait for this charge point as may."""


class Unanswerable(Exception):
    """A well-formed request that gets a CALLERROR: code and why go to the peer."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why
