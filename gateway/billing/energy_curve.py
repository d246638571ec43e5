"""From readings to the curve of a session's energy: which of them count, one after the other.

Rule 1: a reading that names the transaction beats one that does not; then the location decides,
        and a worse one is never mixed in.
Rule 2: registers before amounts, the total before line phases, these before the neutral.
Rule 3: what a register's value means beside those before it is the curve's to say (`curve`).

`EnergyCurve` is the fold over readings in the order of their time.  `add` tells by None that a
reading overturns what was settled: then `curve_fitting` goes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import attrs

from .curve import FROM_NEUTRAL, FROM_PHASES, JUMP, SPIKE, Curve, Point
from .energy import Currents, EnergyValue, chosen

OTHER_REGISTER = "other_register_ignored"
FROM_INTERVALS = "energy_from_intervals"

_NO_FLAGS: Set[str] = frozenset()
_FROM_PHASES: Set[str] = frozenset({FROM_PHASES})
_FROM_NEUTRAL: Set[str] = frozenset({FROM_NEUTRAL})


@attrs.frozen(slots=True)
class MeterEntry:
    """What one instant's readings say.  currents: for tariffs that ask."""

    at: int
    registers: tuple[EnergyValue, ...] = ()
    intervals: tuple[EnergyValue, ...] = ()
    begin: int | None = None
    currents: Currents = ()

    def joined(self, other: MeterEntry) -> MeterEntry:
        """Both, at one instant; the same value twice is one value."""
        begins = [begin for begin in (self.begin, other.begin) if begin is not None]
        return MeterEntry(
            self.at,
            tuple(dict.fromkeys(self.registers + other.registers)),
            tuple(dict.fromkeys(self.intervals + other.intervals)),
            min(begins, default=None),
            tuple((dict(self.currents) | dict(other.currents)).items()),
        )


@attrs.frozen(slots=True, kw_only=True)
class EnergyCurve(Curve):
    """The curve so far, to which readings are added."""

    def add(self, entry: MeterEntry) -> EnergyCurve | None:
        """The course with one more, newer entry; None where the whole has to be traced anew."""
        if self.base is None and entry.begin is not None:
            return None if self.newest is not None else self._based(entry.begin).add(entry)
        if entry.registers:
            if self.intervals:
                return None
            return self._add_registers(entry)
        if entry.intervals and (self.intervals or self.newest is None):
            return self._add_intervals(entry)
        return self

    def over_the_dip(self, entry: MeterEntry) -> EnergyCurve | None:
        """The course with one more, newer entry that ends a dip of several readings; None where
        it does not.  Of the points up to `before`, only those before `before` still hold."""
        value = self.reading(entry)
        curve = None if value is None else self.recovered(value, entry.at)
        return None if curve is None else curve.add(entry)

    def reading(self, entry: MeterEntry) -> int | None:
        """The register that an entry's marks, all at one location, come to, nWh."""
        if not entry.registers:
            return None
        return self._register_of(entry.registers, entry.registers[0].location)[0]

    # --- steps ---

    def _based(self, begin: int) -> EnergyCurve:
        return self._with(base=begin, zero=begin)

    def _register_of(
        self, marks: tuple[EnergyValue, ...], location: int
    ) -> tuple[int | None, bool, Mapping[str, int] | None, Set[str]]:
        """The register at an instant, None where only a neutral is heard that does not count;
        whether it is that of lines; what each phase said last; the flags that it earns."""
        by_phase = chosen(marks, location)
        value = by_phase.get("")
        if value is not None:
            return value, True, self.phases, _NO_FLAGS
        heard = {phase: nwh for phase, nwh in by_phase.items() if phase != "N"}
        if heard:
            phases = {**self.phases, **heard} if self.phases else heard
            return sum(phases.values()), True, phases, _FROM_PHASES
        if self.lines:
            return None, True, self.phases, _NO_FLAGS
        return by_phase["N"], False, self.phases, _FROM_NEUTRAL

    def _add_registers(self, entry: MeterEntry) -> EnergyCurve | None:
        marks = entry.registers
        location = marks[0].location
        if len(marks) > 1:
            location = min(mark.location for mark in marks)
        if location != self.location:
            if self.newest is not None:
                # A better place than the one used so far starts the session anew; a worse one
                # is never mixed in.
                return None if location < self.location else self
            return self._with(location=location).add(entry)
        value, lines, phases, more = self._register_of(marks, location)
        if value is None:
            return self
        if lines and self.neutral:
            return None
        curve = self
        if self.newest is None:
            curve = self._first(entry.at, value)
        if (
            curve.relative
            and curve.base is not None
            and (value >= curve.base - self.policy.tolerance or not curve.may_be_relative)
        ):
            return None
        if curve.fallen is not None and curve.recovered(value, entry.at) is not None:
            return None
        settled: tuple[Point, ...] = ()
        # A meter that fell silent for a while says 0 more than once: the same word is no news.
        if curve.low is not None and curve.low.nwh != value:
            curve = curve.decided(value, entry.at)
            settled = curve.settled
        zero = curve.zero
        assert zero is not None  # noqa: S101  for the type checker: `_first_cause` has set it
        before, last, low = curve.before, curve.last, curve.low
        lows, climbs, ignored, powers = curve.lows, curve.climbs, curve.ignored, curve.powers
        leap = curve.leap
        gained = value - zero - last.nwh
        if gained < -self.policy.tolerance:
            low, lows = low or Point(entry.at, value), lows + 1
        elif gained < 0:
            pass  # as if it had said nothing: it is neither news nor a fault
        elif self.policy.plausible(gained, entry.at - last.at):
            powers = curve._powers(before, last)  # noqa: SLF001  itself
            before, last = last, Point(entry.at, last.nwh + gained)
            settled = (*settled, before) if settled else (before,)
            climbs += gained > 0
            if leap is not None and value >= leap:
                # It was no spike: the register leapt there and stayed.
                leap, more = None, {JUMP, *more}
        else:
            more = {SPIKE, *more}
            ignored += 1
            leap = value
        return EnergyCurve(
            policy=self.policy,
            start=self.start,
            base=curve.base,
            zero=zero,
            before=before,
            last=last,
            settled=settled,
            low=low,
            low_until=entry.at,
            lows=lows,
            newest=entry.at,
            location=location,
            lines=lines,
            neutral=not lines,
            intervals=False,
            relative=curve.relative,
            may_be_relative=self.may_be_relative,
            broken=curve.broken,
            phases=phases,
            flags=curve.flags if more <= curve.flags else curve.flags | more,
            fallen=curve.fallen,
            landing=curve.landing,
            restarted=curve.restarted,
            climbs=climbs,
            powers=powers,
            head=curve.head,
            doubted=self.doubted,
            heard=curve.heard + 1,
            ignored=ignored,
            highest=curve.highest,
            leap=leap,
        )

    def _add_intervals(self, entry: MeterEntry) -> EnergyCurve | None:
        location = min(mark.location for mark in entry.intervals)
        if location != self.location:
            if self.newest is not None:
                return None if location < self.location else self
            return self._with(location=location).add(entry)
        by_phase = chosen(entry.intervals, location)
        amount = by_phase.get("")
        flags, lines = self.flags | {FROM_INTERVALS}, True
        if amount is None:
            heard = [nwh for phase, nwh in by_phase.items() if phase != "N"]
            if heard:
                amount = sum(heard)
                flags |= {FROM_PHASES}
            elif self.lines:
                return self
            else:
                amount, lines = by_phase["N"], False
                flags |= {FROM_NEUTRAL}
        if lines and self.neutral:
            return None
        before, last = self.before, self.last
        settled: tuple[Point, ...] = ()
        if self.policy.plausible(amount, entry.at - last.at):
            before, last, settled = last, Point(entry.at, last.nwh + amount), (last,)
        else:
            flags |= {SPIKE}
        return self._with(
            before=before,
            last=last,
            settled=settled,
            newest=entry.at,
            lines=lines,
            neutral=not lines,
            intervals=True,
            flags=flags,
        )
