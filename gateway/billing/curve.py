"""The curve of a session's energy: what a register means that falls, or starts too high.

A charge point reports the register of its meter, which "MUST be monotonically increasing" in one
transaction (OCPP 1.6 §7.31), so the energy would simply be the register minus meterStart.  In the
field a register reads 0 once after the meter was silent, shows a spike, restarts at zero after a
power loss, or is another register than meterStart's.  A single reading cannot say which of these
it is, so a low reading waits for the next one, which explains it.

Rule 1: a register only climbs; what falls is explained by the table.  Less than the policy's
        tolerance below is nothing at all.
Rule 2: more than the connector can deliver cannot have flowed: the reading is ignored.
Rule 3: a later reading may overrule the newest point (it was a spike), never the one before it.
Rule 4: except that a register which leaps back to where it fell from was never reset, however
        many readings lie between: they were one long dip, and the curve goes straight over it.
        One that restarted from zero and climbs back as evenly as it climbed before was reset.
Rule 5: a register far above a meterStart of 0 is judged by what flows afterwards: unless the
        session can deliver as much, meterStart is not of this register.
Rule 6: what was ignored is counted, so that settlement can ask for a review.

| the register | the next reading | what it was | what counts |
| --- | --- | --- | --- |
| falls | is back where it fell from | a dip | the curve goes straight over it |
| falls, not below the point before | goes on from the lower one | a spike before | the lower one |
| falls further | goes on from the lower one | a reset | see `plausibility.judge_fall` |
| leaps too high | is lower again | a spike | it is ignored |
| leaps too high | is as high or higher | an energy jump | what is plausible, with a review |

For example, meterStart is 1,000 Wh, and readings every ten minutes are 2,000, 0 and 3,000 Wh.
After the second nothing has changed: the session stands at 1,000 Wh.  The third is above 2,000,
so the 0 was a dip, and the session has 2,000 Wh.  If the third were 500 Wh, the meter would have
restarted at zero: 1,000 Wh before the reset and 500 Wh after it.

By rule 3 everything up to `Curve.before` is settled, so the price of the curve need be computed for
that part only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import attrs

from ..domain.fixed_point import HOUR
from ..tariffs.policy import Policy
from .energy import NO_LOCATION
from .plausibility import GREATEST_AC_POWER, Powers, deliverable, judge_fall, power_of

DIP = "dip_ignored"
SPIKE = "spike_ignored"
JUMP = "energy_jump"
RELATIVE = "register_session_relative"
REBASED = "register_rebased"
FROM_PHASES = "energy_from_phases"
FROM_NEUTRAL = "energy_from_neutral"

_NO_POWERS = Powers()
_ENOUGH_CLIMBS = 3  # so many readings in a row are no accident


class Point(NamedTuple):
    """us since 1970, and nWh since the session's start."""

    at: int
    nwh: int


@attrs.frozen(slots=True, kw_only=True)
class Curve:
    """The curve so far.

    base: the register at the start, nWh; None where meterStart was missing and nothing replaces it.
    zero: what to subtract from the register to get the energy since the start; None before any
        register is known.
    before, last: the newest two points of the curve.  Both are the start at first.
    settled: the points that the newest step has settled, the last of them being `before`.
    low: a reading below `last` that the next one will explain; repeated until `low_until`.
    low_count: how many readings were so low, one after the other.
    newest: time of the newest reading with energy; None before the first.
    location: rank of the readings that count (see `EnergyValue`).
    lines, neutral: they were sampled on line phases or in total; on the neutral alone.
    intervals: amounts are added up, since no register was sampled.
    relative: the register counts from the session's start.  may_be_relative: it is not ruled out.
    discontinuous: `zero` was set anew since the start, by a reset or a first jump.
    phases: the newest register of each line phase, where no total is sampled.
    before_reset: the curve as it stood before the newest reset; None before the first reset.  The
        registers that resets fell from only ever get lower, from one `before_reset` to the next.
    after_reset: the point at which the register was first seen after the newest reset.
    restarted: that reset counted on from zero.  climbs: the points with more energy since.
    powers: of the intervals up to `before`, but for the one that ends at `first_jump`.
    first_jump: a first point so far above a meterStart of 0 that rule 5 judges it.
    first_jump_ignored: it counts for nothing.
    reading_count: how many readings there were.  ignored_count: how many of them were not believed.
    highest: the most energy that an ignored reading claimed, nWh since the start.
    leap_register: the register of the newest reading that was too high to be believed.
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
    low_count: int = 0
    newest: int | None = None
    location: int = NO_LOCATION
    lines: bool = False
    neutral: bool = False
    intervals: bool = False
    relative: bool = False
    may_be_relative: bool = True
    discontinuous: bool = False
    phases: Mapping[str, int] | None = None
    flags: frozenset[str] = frozenset()
    before_reset: Self | None = attrs.field(default=None, repr=False, eq=False)
    after_reset: Point | None = None
    restarted: bool = False
    climbs: int = 0
    powers: Powers = _NO_POWERS
    first_jump: Point | None = None
    first_jump_ignored: bool = False
    reading_count: int = 0
    ignored_count: int = 0
    highest: int = 0
    leap_register: int | None = None

    @classmethod
    def opened(cls, start: int, base: int | None, policy: Policy) -> Self:
        point = Point(start, 0)
        return cls(policy=policy, start=start, base=base, zero=base, before=point, last=point)

    @property
    def register(self) -> int | None:
        """The import register behind the newest point, nWh."""
        if self.intervals or self.zero is None:
            return None
        return self.last.nwh + self.zero

    def resolved(self, following: int | None, at: int | None = None) -> Self:
        """The curve with its low reading explained by the register that follows.

        following: nWh; None where none follows.  at: us, when it was read.
        """
        low = self.low
        if low is None or self.zero is None:
            return self
        register = self.last.nwh + self.zero
        if following is not None and following >= register - self.policy.tolerance:
            flags = self.flags | {DIP}
            ignored_count = self.ignored_count + self.low_count
            return self._with(
                low=None, low_count=0, settled=(), flags=flags, ignored_count=ignored_count
            )
        if self._was_first_a_spike(low):
            return self._without_first_spike(low)
        if low.nwh >= self.before.nwh + self.zero and self.last is not self.before:
            return self._without_spike(low)
        return self._with_reset(low, following, at)

    def recovered(self, register: int | None, at: int) -> Self | None:
        """The curve before the fall that this register, nWh, shows to have been no reset (rule 4).

        Of several such falls it is the first; None where there is none.
        """
        found: Self | None = None
        before_reset: Self | None = self.before_reset
        since_reset = self
        while before_reset is not None and register is not None:
            assert before_reset.zero is not None  # noqa: S101  for the type checker: registers fell
            gained = register - before_reset.zero - before_reset.last.nwh
            if gained < -self.policy.tolerance or since_reset._climbed_back(
                before_reset, self, register, at
            ):
                break
            if self.policy.plausible(gained, at - before_reset.last.at):
                found = before_reset
            since_reset = before_reset
            before_reset = before_reset.before_reset
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
            reading_count=self.reading_count,
            ignored_count=found.ignored_count + self.reading_count - found.reading_count,
        )

    def is_first_jump_foreign(self, nwh: int | None = None, at: int = 0) -> bool:
        """Whether rule 5 takes the first point for another register's.

        nwh, at: one more point, where there is one.
        """
        first_jump = self.first_jump
        if first_jump is None:
            return False
        powers = self._powers(self.before, self.last)
        if nwh is not None:
            powers = powers.and_interval(nwh - self.last.nwh, at - self.last.at, 0)
        certain = power_of(first_jump.nwh - self.policy.slack, first_jump.at - self.start)
        return powers.moved > 1 and certain > 2 * powers.greatest

    def has_jump(self, nwh: int, at: int) -> bool:
        """Whether one interval stands out, up to the last point and from there to this one, or
        whether this one confirms a leap."""
        if (
            self.leap_register is not None
            and self.zero is not None
            and nwh + self.zero >= self.leap_register
        ):
            return True
        powers, slack = self._powers(self.before, self.last), self.policy.slack
        powers = powers.and_interval(nwh - self.last.nwh, at - self.last.at, slack)
        if self.first_jump is None or self.first_jump_ignored:
            return powers.jump
        first_jump, us = self.first_jump.nwh, self.first_jump.at - self.start
        # One interval alone is not enough evidence to ignore a first point.
        alone = powers.moved == 1 and power_of(first_jump - slack, us) > 2 * powers.greatest
        return alone or powers.and_interval(first_jump, us, slack).jump

    # --- steps ---

    def _with(self, **changes: object) -> Self:
        return attrs.evolve(self, **changes)  # type: ignore[arg-type]

    def at_low_reading(
        self,
        low: Point,
        nwh: int,
        *,
        before: Point,
        powers: Powers,
        settled: tuple[Point, ...] = (),
        **more: object,
    ) -> Self:
        """At `nwh` from the low reading on, for as long as it was repeated."""
        last = Point(low.at, nwh)
        if self.low_until > low.at:
            powers = powers.and_interval(nwh - before.nwh, low.at - before.at, self.policy.slack)
            before, last, settled = last, Point(self.low_until, nwh), (*settled, last)
        more |= {"low": None, "low_count": 0, "powers": powers}
        return self._with(before=before, last=last, settled=settled, **more)

    def _powers(self, before: Point, last: Point) -> Powers:
        """`powers`, with the interval between two points."""
        if self.first_jump is not None and last.at <= self.first_jump.at:
            return self.powers
        slack = self.policy.slack
        return self.powers.and_interval(last.nwh - before.nwh, last.at - before.at, slack)

    def _without_spike(self, low: Point) -> Self:
        assert self.zero is not None  # noqa: S101  for the type checker: there is a register
        curve = self._with(
            flags=self.flags | {SPIKE},
            ignored_count=self.ignored_count + 1,
            highest=max(self.highest, self.last.nwh),
        )
        nwh = low.nwh - self.zero
        if self.first_jump is not None and self.last.at == self.first_jump.at:
            curve = curve._with(first_jump=None)._with_first_jump(low.at, nwh)  # noqa: SLF001  itself
        return curve.at_low_reading(low, nwh, before=self.before, powers=self.powers)

    def _with_reset(self, low: Point, following: int | None, at: int | None) -> Self:
        """The register was set to another value, which `plausibility` judges."""
        assert self.zero is not None  # noqa: S101  for the type checker: there is a register
        powers = self._powers(self.before, self.last)
        power, usual, rest = powers.greatest, powers.longest, 0
        if following is not None and at is not None and following >= low.nwh:
            rest = at - self.low_until
            if self.policy.plausible(following - low.nwh, rest):
                power = max(power, power_of(following - low.nwh, rest))
        gained, flags = judge_fall(
            self.last.nwh + self.zero,
            low.nwh,
            low.at - self.last.at,
            power=power,
            usual=max(usual, rest),
            tolerance=self.policy.tolerance,
        )
        nwh = self.last.nwh + gained
        curve = self._with(
            zero=low.nwh - nwh,
            discontinuous=True,
            flags=self.flags | flags,
            before_reset=self._with(
                low=None, low_count=0, settled=(), reading_count=self.reading_count - self.low_count
            ),
            after_reset=Point(low.at, nwh),
            restarted=gained >= low.nwh,
            climbs=0,
        )
        return curve.at_low_reading(low, nwh, before=self.last, powers=powers, settled=(self.last,))

    def _climbed_back(self, before_reset: Self, now: Self, register: int, at: int) -> bool:
        """Whether the register that fell from `before_reset` and restarted, as this curve has it,
        came back by climbing (rule 4)."""
        after_reset, last = self.after_reset, now.last
        if after_reset is None or not self.restarted or self.climbs < _ENOUGH_CLIMBS:
            return False
        assert now.zero is not None  # noqa: S101  for the type checker: registers fell
        power = now._powers(now.before, last).greatest
        step = register - now.zero - last.nwh
        climbed = power_of(self.last.nwh - after_reset.nwh, self.last.at - after_reset.at)
        before = before_reset.powers.greatest
        even = 2 * climbed >= before and climbed <= 2 * max(before, 1)
        return even and deliverable(step, at - last.at, power, self.policy.tolerance)

    def _was_first_a_spike(self, low: Point) -> bool:
        """Whether the first reading, far above meterStart, was a spike: the next one is not."""
        return (
            REBASED in self.flags
            and self.last.nwh == 0
            and self.before.at == self.start
            and self.base is not None
            and low.nwh >= self.base
        )

    def _without_first_spike(self, low: Point) -> Self:
        """As if the first reading had not been, and `low` were the first."""
        flags = (self.flags - {REBASED}) | {SPIKE}
        curve = self._with(
            zero=self.base,
            discontinuous=False,
            flags=flags,
            first_jump=None,
            ignored_count=self.ignored_count + 1,
        )
        curve = curve._with_first_register(low.at, low.nwh)  # noqa: SLF001  itself, a step later
        assert curve.zero is not None  # noqa: S101  for the type checker: `base` is known
        nwh = low.nwh - curve.zero
        return curve.at_low_reading(low, nwh, before=self.before, powers=self.powers)

    def _with_first_register(self, at: int, value: int) -> Self:
        """Where the first register stands in relation to meterStart."""
        if self.zero is None:
            return self._with(zero=value)
        zero, relative, discontinuous, flags = self.zero, False, False, self.flags
        if value < zero - self.policy.tolerance:
            if not self.may_be_relative:
                return self
            zero, relative, flags = 0, True, flags | {RELATIVE}
        if not self.policy.plausible(value - zero, at - self.start):
            zero, discontinuous, flags = value, True, flags | {REBASED}
        curve = self._with(zero=zero, relative=relative, discontinuous=discontinuous, flags=flags)
        return curve if zero else curve._with_first_jump(at, value)  # noqa: SLF001  itself

    def _with_first_jump(self, at: int, nwh: int) -> Self:
        """With a first point to be judged by rule 5, if it is one."""
        certain = nwh - self.policy.slack
        if self.base is None or certain * HOUR <= GREATEST_AC_POWER * (at - self.start):
            return self
        curve = self._with(first_jump=Point(at, nwh))
        if not self.first_jump_ignored:
            return curve
        return curve._with(zero=nwh, discontinuous=True, flags=self.flags | {REBASED})  # noqa: SLF001
