"""The clocks of the charge points that have been here since the start."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from ..domain.charge_point_clock import ChargePointClock, first_absence, with_absence
from ..domain.fleet import Fleet, device_name


class ChargePointClocks:
    """Owns: what is known of each charge point's clock, for as long as the gateway runs."""

    def __init__(self, fleet: Fleet, now: Callable[[], datetime]) -> None:
        self._fleet = fleet
        self._now = now
        self._clocks: dict[str, ChargePointClock] = {}

    def connected(self, charge_point_id: str) -> ChargePointClock:
        """The clock of a charge point that has just come back, its absence noted."""
        back_at = self._now()
        about = self._fleet.state_of(charge_point_id)
        clock = self._clocks.get(charge_point_id)
        if clock is None:
            connectors = self._fleet.connectors(charge_point_id)
            clock = self._clocks[charge_point_id] = ChargePointClock.of(
                about,
                {n: self._fleet.state_of(device_name(charge_point_id, n)) for n in connectors},
            )
        if "gone_ms" in about:
            gone_at = datetime.fromtimestamp(about["gone_ms"] / 1000, UTC)
            clock.absences = with_absence(clock.absences, gone_at, back_at)
        elif not clock.absences:  # new here, or known from before absences were kept
            clock.absences = first_absence(back_at)
        return clock
