"""What the tap gives, as telemetry `trace` of its charge point: beside the journal, not through it.

What is read and not acknowledged when a link goes is told once more on the next, and then given
up: it may be what the link goes at.  What comes while there is none waits in the tap, the newest
of it.
"""

from __future__ import annotations

import trio

from ..domain.clock import milliseconds
from ..observability.frame_tap import Traced, Watch
from .delivery import Teller
from .telemetry import Row

_AT_ONCE = 100  # frames a second in all, that a flood leaves room for what counts
_ATTEMPTS = 2
_GATHER = 1.0  # seconds between two messages
MOST_CHARACTERS = 4_096  # of a frame: escaped it still fits into a message


class Traces:
    """Owns: rows that are not acknowledged yet, and the last instant of each device."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._rows: list[Row] = []
        self._attempts = 0
        self._last_ts: dict[str, int] = {}

    async def tell(self, teller: Teller) -> None:
        """Tell until cancelled.  Raises LinkLost."""
        while True:
            if not self._rows or self._attempts >= _ATTEMPTS:
                self._rows = [self._row(traced) for traced in await self._watch.gathered(_AT_ONCE)]
                self._attempts = 0
            self._attempts += 1
            await teller.tell(self._rows)
            self._rows = []
            await trio.sleep(_GATHER)

    def _row(self, traced: Traced) -> Row:
        """At an instant of its own: ThingsBoard keeps one value for each."""
        device = traced.charge_point_id
        ts = max(milliseconds(traced.at), self._last_ts.get(device, 0) + 1)
        self._last_ts[device] = ts
        return Row(device, ts, {"trace": traced.told(MOST_CHARACTERS)})
