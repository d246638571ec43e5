"""When an element of a tariff holds."""

from __future__ import annotations

import attrs

from ..domain.fixed_point import Exact


@attrs.frozen(kw_only=True)
class Restrictions:
    """When an element holds: from `from_x` on, before `to_x` (OCPI 2.2.1, TariffRestrictions).

    Times are us of the local day, dates ordinals, days weekdays from 0 = Monday, durations us
    and energies nWh since the session's start, powers nWh per us as (numerator, denominator),
    currents nA.
    """

    from_time: int | None = None
    to_time: int | None = None
    from_date: int | None = None
    to_date: int | None = None
    days: frozenset[int] | None = None
    from_duration: int | None = None
    to_duration: int | None = None
    from_energy: int | None = None
    to_energy: int | None = None
    from_power: tuple[int, int] | None = None
    to_power: tuple[int, int] | None = None
    from_current: int | None = None
    to_current: int | None = None

    def on_calendar(self, date: int, time: int) -> bool:
        """Whether the local date (an ordinal) and time of day (us) lie within."""
        if self.days is not None and (date + 6) % 7 not in self.days:
            return False
        if self.from_date is not None and date < self.from_date:
            return False
        if self.to_date is not None and date >= self.to_date:
            return False
        start, end = self.from_time, self.to_time
        if start is None:
            return end is None or not end or time < end
        if end is None or not end:  # 00:00 is the end of the day
            return time >= start
        if start == end:
            return True
        if start < end:
            return start <= time < end
        return time >= start or time < end

    def on_meter(self, duration: Exact, energy: Exact) -> bool:
        """Whether the session has lasted and taken what is asked for."""
        return (
            (self.from_duration is None or duration >= self.from_duration)
            and (self.to_duration is None or duration < self.to_duration)
            and (self.from_energy is None or energy >= self.from_energy)
            and (self.to_energy is None or energy < self.to_energy)
        )

    def on_power(self, power: tuple[Exact, Exact] | None) -> bool:
        """power: energy and time of the meter's interval; None, unknown, lies in no range."""
        for bound, above in ((self.from_power, True), (self.to_power, False)):
            if bound is None:
                continue
            if power is None or (power[0] * bound[1] >= bound[0] * power[1]) is not above:
                return False
        return True

    def on_current(self, current: int | None) -> bool:
        """current: nA; None, unknown, lies in no range."""
        if self.from_current is None and self.to_current is None:
            return True
        if current is None:
            return False
        return (self.from_current is None or current >= self.from_current) and (
            self.to_current is None or current < self.to_current
        )
