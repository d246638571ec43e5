"""Frames from the tap as telemetry `trace` of their charge point: beside the journal, not through
it.

What is read and not acknowledged when a link goes is sent once more on the next, and then given
up: it may be what the link goes at.  What comes while there is none waits in the tap, the newest
of it.
"""

from __future__ import annotations

import trio

from ..domain.clock import milliseconds
from ..observability.frame_tap import FrameSubscription, TappedFrame
from .delivery import TelemetrySender
from .telemetry import TelemetryRow

_MAX_BATCH = 100  # frames a second in all, that a flood leaves room for what counts
_ATTEMPTS = 2
_BATCH_INTERVAL = 1.0  # seconds between two messages
MAX_CHARACTERS = 4_096  # of a frame: escaped it still fits into a message


class FrameTraces:
    """Owns: rows that are not acknowledged yet, and the last instant of each device."""

    def __init__(self, subscription: FrameSubscription) -> None:
        self._subscription = subscription
        self._rows: list[TelemetryRow] = []
        self._attempts = 0
        self._last_ts: dict[str, int] = {}

    async def publish(self, sender: TelemetrySender) -> None:
        """Publish until cancelled.  Raises LinkLost."""
        while True:
            if not self._rows or self._attempts >= _ATTEMPTS:
                self._rows = [
                    self._row(traced) for traced in await self._subscription.take_batch(_MAX_BATCH)
                ]
                self._attempts = 0
            self._attempts += 1
            await sender.send_unjournaled(self._rows)
            self._rows = []
            await trio.sleep(_BATCH_INTERVAL)

    def _row(self, traced: TappedFrame) -> TelemetryRow:
        """At an instant of its own: ThingsBoard keeps one value for each."""
        device = traced.charge_point_id
        ts = max(milliseconds(traced.at), self._last_ts.get(device, 0) + 1)
        self._last_ts[device] = ts
        return TelemetryRow(device, ts, {"trace": traced.as_json(MAX_CHARACTERS)})
