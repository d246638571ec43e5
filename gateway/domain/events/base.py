"""What all events have in common: whom they are about, and when they happened."""

from __future__ import annotations

from datetime import datetime

import attrs

from ..clock import ClockJudgement, Instant, instant_of


@attrs.frozen(kw_only=True)
class Event:
    """A fact about one charge point.

    charge_point_id: the last path segment of the charge point's WebSocket URL.
    received_at: when the gateway received it, or (for a derived fact) concluded it; aware.
    timestamp: the charge point's own, aware; None where it gave none that can be read.  It may be
        absurd: `instant` says what it stands for.
    clock: how the message's timestamps are to be read (see `charge_point_clock`); None where
        they are right.
    """

    charge_point_id: str
    received_at: datetime
    timestamp: datetime | None = None
    clock: ClockJudgement | None = None

    def instant(self) -> Instant:
        """When it happened, and what that rests on: for telemetry, accounting and ids alike."""
        return instant_of(self.timestamp, self.received_at, self.clock)

    @property
    def at(self) -> datetime:
        """When it happened."""
        return self.instant().at
