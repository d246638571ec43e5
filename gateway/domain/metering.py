"""From readings to a curve: how much energy had flowed at which time of a session.

Rule 1: a register only climbs.  A reading below the one before is a dip (the next is back), the
        end of a spike (it is still above the one before the spike) or a reset (it counts on from
        zero; what flowed unseen before the reset is never guessed).
Rule 2: more than the connector can deliver cannot have flowed.
Rule 3: what follows may overrule the newest point (it was a spike), never the one before it.
Rule 4: except that a register which comes back to where it fell from was never reset, however
        many readings lie between: they were one long dip, and the curve goes straight over it.

`Course` is the fold over readings in the order of their time; by rule 3 everything up to
`Course.before` is settled, so whoever prices the curve has to price that part only once.  By
rule 4 it may be unsettled all the same, which `add` tells by None: then `tracing` goes back.
(OCPP 1.6 §7.31: register values of one transaction "MUST be monotonically increasing".)
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

import attrs

from .energy import LOCATIONS, Mark, chosen
from .policy import Policy

DIP = "dip_ignored"
SPIKE = "spike_ignored"
RESET = "register_reset"
BACKWARDS = "register_backwards"
RELATIVE = "register_session_relative"
REBASED = "register_rebased"
FROM_PHASES = "energy_from_phases"
FROM_NEUTRAL = "energy_from_neutral"
FROM_INTERVALS = "energy_from_intervals"

_NOWHERE = len(LOCATIONS)
_NO_FLAGS: Set[str] = frozenset()
_FROM_PHASES: Set[str] = frozenset({FROM_PHASES})
_FROM_NEUTRAL: Set[str] = frozenset({FROM_NEUTRAL})


class Point(NamedTuple):
    """us since 1970, and nWh since the session's start."""

    at: int
    nwh: int


@attrs.frozen(slots=True)
class Entry:
    """What one instant's readings say.  current: nA, for tariffs that ask."""

    at: int
    registers: tuple[Mark, ...] = ()
    intervals: tuple[Mark, ...] = ()
    begin: int | None = None
    current: int | None = None

    def joined(self, other: Entry) -> Entry:
        """Both, at one instant; the same value twice is one value."""
        begins = [begin for begin in (self.begin, other.begin) if begin is not None]
        return Entry(
            self.at,
            tuple(dict.fromkeys(self.registers + other.registers)),
            tuple(dict.fromkeys(self.intervals + other.intervals)),
            min(begins, default=None),
            self.current if other.current is None else other.current,
        )


@attrs.frozen(slots=True, kw_only=True)
class Course:
    """The curve so far.

    base: the register at the start, nWh; None where meterStart was missing and nothing tells.
    zero: what to subtract from the register to get the energy since the start; None before any
        register is known.
    before, last: the newest two points of the curve.  Both are the start at first.
    settled: the points that the newest step has settled, the last of them being `before`.
    low: a reading below `last` that the next one will explain; repeated until `low_until`.
    newest: time of the newest reading with energy; None before the first.
    fallen: the course as it stood before the newest reset; None before the first reset.  The
        registers that resets fell from only ever get lower, from one `fallen` to the next.
    """

    policy: Policy
    start: int
    base: int | None
    zero: int | None
    before: Point
    last: Point
    settled: tuple[Point, ...] = ()
    low: Point | None = None
    low_until: int = 0
    newest: int | None = None
    location: int = _NOWHERE
    lines: bool = False
    neutral: bool = False
    intervals: bool = False
    relative: bool = False
    may_be_relative: bool = True
    broken: bool = False
    phases: Mapping[str, int] | None = None
    flags: frozenset[str] = frozenset()
    fallen: Course | None = attrs.field(default=None, repr=False, eq=False)

    @classmethod
    def opened(cls, start: int, base: int | None, policy: Policy) -> Course:
        point = Point(start, 0)
        return cls(policy=policy, start=start, base=base, zero=base, before=point, last=point)

    @property
    def register(self) -> int | None:
        """The import register behind the newest point, nWh."""
        if self.intervals or self.zero is None:
            return None
        return self.last.nwh + self.zero

    def add(self, entry: Entry) -> Course | None:
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

    def decided(self, after: int | None) -> Course:
        """The course with its low reading explained, `after` being the register that follows."""
        low = self.low
        if low is None or self.zero is None:
            return self
        if after is not None and after >= self.last.nwh + self.zero:
            return self._with(low=None, settled=(), flags=self.flags | {DIP})
        if self._rebased_for_nothing(low):
            return self._from_base(low)
        if low.nwh >= self.before.nwh + self.zero and self.last is not self.before:
            flags = self.flags | {SPIKE}
            return self.landed(low, low.nwh - self.zero, before=self.before, flags=flags)
        gained = low.nwh if self.policy.plausible(low.nwh, low.at - self.last.at) else 0
        nwh = self.last.nwh + gained
        flags = self.flags | {RESET}
        if 2 * low.nwh > self.last.nwh + self.zero:  # nothing that restarts from zero is so high
            flags |= {BACKWARDS}
        fallen = self._with(low=None, settled=())
        reset = self._with(zero=low.nwh - nwh, broken=True, flags=flags, fallen=fallen)
        return reset.landed(low, nwh, before=self.last, settled=(self.last,))

    def recovered(self, register: int | None, at: int) -> Course | None:
        """The course before the fall that this register, nWh, shows to have been no reset; of
        several falls the first.  None where there is none."""
        found, fallen = None, self.fallen
        while fallen is not None and register is not None:
            assert fallen.zero is not None  # noqa: S101  for the type checker: registers fell
            gained = register - fallen.zero - fallen.last.nwh
            if gained < 0:
                break
            if self.policy.plausible(gained, at - fallen.last.at):
                found = fallen
            fallen = fallen.fallen
        if found is None:
            return None
        flags = found.flags | {DIP} | (self.flags & {FROM_PHASES, FROM_NEUTRAL})
        return attrs.evolve(
            found,
            newest=self.newest,
            lines=self.lines,
            neutral=self.neutral,
            phases=self.phases,
            flags=flags,
        )

    def over_the_dip(self, entry: Entry) -> Course | None:
        """The course with one more, newer entry that ends a dip of several readings; None where
        it does not.  Of the points up to `before`, only those before `before` still hold."""
        value = self.reading(entry)
        course = None if value is None else self.recovered(value, entry.at)
        return None if course is None else course.add(entry)

    def reading(self, entry: Entry) -> int | None:
        """The register that an entry's marks, all at one location, come to, nWh."""
        if not entry.registers:
            return None
        return self._heard(entry.registers, entry.registers[0].location)[0]

    # --- steps ---

    def _with(self, **changes: object) -> Course:
        return attrs.evolve(self, **changes)  # type: ignore[arg-type]

    def landed(
        self,
        low: Point,
        nwh: int,
        *,
        before: Point,
        settled: tuple[Point, ...] = (),
        **more: object,
    ) -> Course:
        """At `nwh` from the low reading on, for as long as it was repeated."""
        last = Point(low.at, nwh)
        if self.low_until > low.at:
            before, last, settled = last, Point(self.low_until, nwh), (*settled, last)
        return self._with(low=None, before=before, last=last, settled=settled, **more)

    def _rebased_for_nothing(self, low: Point) -> bool:
        """Whether the first reading, far above meterStart, was a spike: the next one is not."""
        return (
            REBASED in self.flags
            and self.last.nwh == 0
            and self.before.at == self.start
            and self.base is not None
            and low.nwh >= self.base
        )

    def _from_base(self, low: Point) -> Course:
        """As if the first reading had not been, and `low` were the first."""
        flags = (self.flags - {REBASED}) | {SPIKE}
        course = self._with(zero=self.base, broken=False, flags=flags)
        course = course._first(low.at, low.nwh)  # noqa: SLF001  itself, a step later
        assert course.zero is not None  # noqa: S101  for the type checker: `base` is known
        return course.landed(low, low.nwh - course.zero, before=self.before)

    def _based(self, begin: int) -> Course:
        return self._with(base=begin, zero=begin)

    def _heard(
        self, marks: tuple[Mark, ...], location: int
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

    def _add_registers(self, entry: Entry) -> Course | None:
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
        value, lines, phases, more = self._heard(marks, location)
        if value is None:
            return self
        if lines and self.neutral:
            return None
        course = self
        if self.newest is None:
            course = self._first(entry.at, value)
        if (
            course.relative
            and course.base is not None
            and (value >= course.base or not course.may_be_relative)
        ):
            return None
        if course.fallen is not None and course.recovered(value, entry.at) is not None:
            return None
        settled: tuple[Point, ...] = ()
        # A meter that fell silent for a while says 0 more than once: the same word is no news.
        if course.low is not None and course.low.nwh != value:
            course = course.decided(value)
            settled = course.settled
        zero = course.zero
        assert zero is not None  # noqa: S101  for the type checker: `_first` has set it
        before, last, low = course.before, course.last, course.low
        gained = value - zero - last.nwh
        if gained < 0:
            low = low or Point(entry.at, value)
        elif self.policy.plausible(gained, entry.at - last.at):
            before, last = last, Point(entry.at, value - zero)
            settled = (*settled, before) if settled else (before,)
        else:
            more = {SPIKE, *more}
        return Course(
            policy=self.policy,
            start=self.start,
            base=course.base,
            zero=zero,
            before=before,
            last=last,
            settled=settled,
            low=low,
            low_until=entry.at,
            newest=entry.at,
            location=location,
            lines=lines,
            neutral=not lines,
            intervals=False,
            relative=course.relative,
            may_be_relative=self.may_be_relative,
            broken=course.broken,
            phases=phases,
            flags=course.flags if more <= course.flags else course.flags | more,
            fallen=course.fallen,
        )

    def _first(self, at: int, value: int) -> Course:
        """Where the first register stands in relation to meterStart."""
        if self.zero is None:
            return self._with(zero=value)
        zero, relative, broken, flags = self.zero, False, False, self.flags
        if value < zero:
            if not self.may_be_relative:
                return self
            zero, relative, flags = 0, True, flags | {RELATIVE}
        if not self.policy.plausible(value - zero, at - self.start):
            zero, broken, flags = value, True, flags | {REBASED}
        return self._with(zero=zero, relative=relative, broken=broken, flags=flags)

    def _add_intervals(self, entry: Entry) -> Course | None:
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
