"""From readings to the curve of a session's energy: which of them count, one after the other.

Rule 1: a reading that names the transaction beats one that does not; then the location decides,
        and a less trusted one is never mixed in.
Rule 2: registers before amounts, the total before line phases, these before the neutral.
Rule 3: what a register's value means beside those before it is decided in `curve`.

`EnergyCurve.add` folds readings in the order of their time.  It returns None where a reading
overturns what was settled: then `curve_fitting` starts anew.

For example, a charge point samples L1, L2 and L3 of the register at the outlet, and the total in
the body.  The outlet is trusted more, so its three registers are added up, flagged
`energy_from_phases`, and the body's total counts for nothing.  If a later message brings the total
at the outlet, that total counts from there on.  If the first messages had only the body's total,
the first reading at the outlet makes `add` return None: the curve is drawn anew without the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import attrs

from .curve import FROM_NEUTRAL, FROM_PHASES, JUMP, SPIKE, Curve, Point
from .energy import Currents, EnergyValue, most_trusted

OTHER_REGISTER = "other_register_ignored"
FROM_INTERVALS = "energy_from_intervals"

_NO_FLAGS: Set[str] = frozenset()
_FROM_PHASES: Set[str] = frozenset({FROM_PHASES})
_FROM_NEUTRAL: Set[str] = frozenset({FROM_NEUTRAL})


@attrs.frozen(slots=True)
class MeterEntry:
    """What one instant's readings hold.

    at: us.  begin: nWh of a Transaction.Begin register.  currents: only for tariffs with current
        restrictions.
    """

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
        """The curve with one more, newer entry; None where the whole has to be drawn anew."""
        if self.base is None and entry.begin is not None:
            return None if self.newest is not None else self._with_base(entry.begin).add(entry)
        if entry.registers:
            if self.intervals:
                return None
            return self._add_registers(entry)
        if entry.intervals and (self.intervals or self.newest is None):
            return self._add_intervals(entry)
        return self

    def with_dip_ended(self, entry: MeterEntry) -> EnergyCurve | None:
        """The curve with one more, newer entry that ends a dip of several readings; None where
        it does not.  Of the points up to `before`, only those before `before` still hold."""
        value = self.register_at(entry)
        curve = None if value is None else self.recovered(value, entry.at)
        return None if curve is None else curve.add(entry)

    def register_at(self, entry: MeterEntry) -> int | None:
        """The register that an entry's marks, all at one location, come to, nWh."""
        if not entry.registers:
            return None
        return self._register_of(entry.registers, entry.registers[0].location)[0]

    # --- steps ---

    def _with_base(self, begin: int) -> EnergyCurve:
        return self._with(base=begin, zero=begin)

    def _register_of(
        self, energy_values: tuple[EnergyValue, ...], location: int
    ) -> tuple[int | None, bool, Mapping[str, int] | None, Set[str]]:
        """The register at an instant, nWh; None where only a neutral was sampled, which is ignored.

        With it: whether it is that of lines, the newest register of each phase, and the flags.
        """
        by_phase = most_trusted(energy_values, location)
        value = by_phase.get("")
        if value is not None:
            return value, True, self.phases, _NO_FLAGS
        lines = {phase: nwh for phase, nwh in by_phase.items() if phase != "N"}
        if lines:
            phases = {**self.phases, **lines} if self.phases else lines
            return sum(phases.values()), True, phases, _FROM_PHASES
        if self.lines:
            return None, True, self.phases, _NO_FLAGS
        return by_phase["N"], False, self.phases, _FROM_NEUTRAL

    def _add_registers(self, entry: MeterEntry) -> EnergyCurve | None:
        energy_values = entry.registers
        location = energy_values[0].location
        if len(energy_values) > 1:
            location = min(energy_value.location for energy_value in energy_values)
        if location != self.location:
            if self.newest is not None:
                # A more trusted location than the one so far starts the session anew; a less
                # trusted one is never mixed in.
                return None if location < self.location else self
            return self._with(location=location).add(entry)
        value, lines, phases, more = self._register_of(energy_values, location)
        if value is None:
            return self
        if lines and self.neutral:
            return None
        curve = self
        if self.newest is None:
            curve = self._with_first_register(entry.at, value)
        if (
            curve.relative
            and curve.base is not None
            and (value >= curve.base - self.policy.tolerance or not curve.may_be_relative)
        ):
            return None
        if curve.before_reset is not None and curve.recovered(value, entry.at) is not None:
            return None
        settled: tuple[Point, ...] = ()
        # A meter that was silent reads 0 more than once: a repeated low reading explains nothing.
        if curve.low is not None and curve.low.nwh != value:
            curve = curve.resolved(value, entry.at)
            settled = curve.settled
        zero = curve.zero
        assert zero is not None  # noqa: S101  for the type checker: `_with_first_register` has set it
        before, last, low = curve.before, curve.last, curve.low
        low_count, climbs, ignored_count, powers = (
            curve.low_count,
            curve.climbs,
            curve.ignored_count,
            curve.powers,
        )
        leap_register = curve.leap_register
        gained = value - zero - last.nwh
        if gained < -self.policy.tolerance:
            low, low_count = low or Point(entry.at, value), low_count + 1
        elif gained < 0:
            pass  # within the tolerance: neither energy nor a fault
        elif self.policy.plausible(gained, entry.at - last.at):
            powers = curve._powers(before, last)  # noqa: SLF001  itself
            before, last = last, Point(entry.at, last.nwh + gained)
            settled = (*settled, before) if settled else (before,)
            climbs += gained > 0
            if leap_register is not None and value >= leap_register:
                # It was no spike: the register jumped there and stayed.
                leap_register, more = None, {JUMP, *more}
        else:
            more = {SPIKE, *more}
            ignored_count += 1
            leap_register = value
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
            low_count=low_count,
            newest=entry.at,
            location=location,
            lines=lines,
            neutral=not lines,
            intervals=False,
            relative=curve.relative,
            may_be_relative=self.may_be_relative,
            discontinuous=curve.discontinuous,
            phases=phases,
            flags=curve.flags if more <= curve.flags else curve.flags | more,
            before_reset=curve.before_reset,
            after_reset=curve.after_reset,
            restarted=curve.restarted,
            climbs=climbs,
            powers=powers,
            first_jump=curve.first_jump,
            first_jump_ignored=self.first_jump_ignored,
            reading_count=curve.reading_count + 1,
            ignored_count=ignored_count,
            highest=curve.highest,
            leap_register=leap_register,
        )

    def _add_intervals(self, entry: MeterEntry) -> EnergyCurve | None:
        location = min(energy_value.location for energy_value in entry.intervals)
        if location != self.location:
            if self.newest is not None:
                return None if location < self.location else self
            return self._with(location=location).add(entry)
        by_phase = most_trusted(entry.intervals, location)
        amount = by_phase.get("")
        flags, lines = self.flags | {FROM_INTERVALS}, True
        if amount is None:
            flows = [nwh for phase, nwh in by_phase.items() if phase != "N"]
            if flows:
                amount = sum(flows)
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
