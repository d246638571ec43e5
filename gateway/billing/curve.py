"""The curve of a session's energy so far, and what a register means that falls or starts high.

Rule 1: a register only climbs.  A reading below the one before is a dip (the next is back), the
        end of a spike (it is still above the one before the spike) or a fall, of which
        `plausibility` says what it may have counted.  Less than the policy's tolerance below is
        nothing at all.
Rule 2: more than the connector can deliver cannot have flowed.
Rule 3: what follows may overrule the newest point (it was a spike), never the one before it.
Rule 4: except that a register which leaps back to where it fell from was never reset, however
        many readings lie between: they were one long dip, and the curve goes straight over it.
        One that restarted from zero and climbs back as evenly as it climbed before was reset.
Rule 5: a register far above a meterStart of 0 is judged by what flows afterwards: unless the
        session can deliver as much, meterStart is not of this register.
Rule 6: what was ignored is counted, so that settlement can ask for review.

By rule 3 everything up to `Curve.before` is settled, so the price of the curve need be computed for
that part only once.
(OCPP 1.6 §7.31: register values of one transaction "MUST be monotonically increasing".)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import attrs

from ..domain.fixed_point import HOUR
from ..tariffs.policy import Policy
from .energy import NOWHERE
from .plausibility import GREATEST_AC_POWER, Powers, deliverable, fallen, power_of

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
    lows: how many readings were so low, one after the other.
    newest: time of the newest reading with energy; None before the first.
    location: rank of the readings that count, as of `Mark`.
    fallen: the course as it stood before the newest reset; None before the first reset.  The
        registers that resets fell from only ever get lower, from one `fallen` to the next.
    landing: the point at which the register was first seen after the newest reset.
    restarted: that reset counted on from zero.  climbs: the points with more energy since.
    powers: of the intervals up to `before`, but for the one that ends at `head`.
    head: a first point so far above a meterStart of 0 that rule 5 judges it.
    doubted: it counts for nothing.
    heard: how many readings there were.  ignored: how many of them were not believed.
    highest: the most energy that an ignored reading claimed, nWh since the start.
    leap: the register of the newest reading that was too high to be believed.
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
    lows: int = 0
    newest: int | None = None
    location: int = NOWHERE
    lines: bool = False
    neutral: bool = False
    intervals: bool = False
    relative: bool = False
    may_be_relative: bool = True
    broken: bool = False
    phases: Mapping[str, int] | None = None
    flags: frozenset[str] = frozenset()
    fallen: Self | None = attrs.field(default=None, repr=False, eq=False)
    landing: Point | None = None
    restarted: bool = False
    climbs: int = 0
    powers: Powers = _NO_POWERS
    head: Point | None = None
    doubted: bool = False
    heard: int = 0
    ignored: int = 0
    highest: int = 0
    leap: int | None = None

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

    def decided(self, after: int | None, at: int | None = None) -> Self:
        """The course with its low reading explained, `after` being the register that follows, at
        `at`."""
        low = self.low
        if low is None or self.zero is None:
            return self
        register = self.last.nwh + self.zero
        if after is not None and after >= register - self.policy.tolerance:
            flags = self.flags | {DIP}
            ignored = self.ignored + self.lows
            return self._with(low=None, lows=0, settled=(), flags=flags, ignored=ignored)
        if self._rebased_for_nothing(low):
            return self._from_base(low)
        if low.nwh >= self.before.nwh + self.zero and self.last is not self.before:
            return self._without_spike(low)
        return self._reset(low, after, at)

    def recovered(self, register: int | None, at: int) -> Self | None:
        """The course before the fall that this register, nWh, shows to have been no reset; of
        several falls the first.  None where there is none."""
        found: Self | None = None
        fallen: Self | None = self.fallen
        after = self
        while fallen is not None and register is not None:
            assert fallen.zero is not None  # noqa: S101  for the type checker: registers fell
            gained = register - fallen.zero - fallen.last.nwh
            if gained < -self.policy.tolerance or after._climbs_back(fallen, self, register, at):
                break
            if self.policy.plausible(gained, at - fallen.last.at):
                found = fallen
            after = fallen
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
            heard=self.heard,
            ignored=found.ignored + self.heard - found.heard,
        )

    def doubts(self, nwh: int | None = None, at: int = 0) -> bool:
        """Whether rule 5 takes the first point for another register's.

        nwh, at: one more point, where there is one.
        """
        head = self.head
        if head is None:
            return False
        powers = self._powers(self.before, self.last)
        if nwh is not None:
            powers = powers.and_interval(nwh - self.last.nwh, at - self.last.at, 0)
        certain = power_of(head.nwh - self.policy.slack, head.at - self.start)
        return powers.moved > 1 and certain > 2 * powers.most

    def jumps(self, nwh: int, at: int) -> bool:
        """Whether one interval stands out, up to the last point and from there to this one, or
        whether this one confirms a leap."""
        if self.leap is not None and self.zero is not None and nwh + self.zero >= self.leap:
            return True
        powers, slack = self._powers(self.before, self.last), self.policy.slack
        powers = powers.and_interval(nwh - self.last.nwh, at - self.last.at, slack)
        if self.head is None or self.doubted:
            return powers.jump
        head, us = self.head.nwh, self.head.at - self.start
        # Where one interval alone speaks against a first point, that is no reason to drop it yet.
        alone = powers.moved == 1 and power_of(head - slack, us) > 2 * powers.most
        return alone or powers.and_interval(head, us, slack).jump

    # --- steps ---

    def _with(self, **changes: object) -> Self:
        return attrs.evolve(self, **changes)  # type: ignore[arg-type]

    def landed(
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
        more |= {"low": None, "lows": 0, "powers": powers}
        return self._with(before=before, last=last, settled=settled, **more)

    def _powers(self, before: Point, last: Point) -> Powers:
        """`powers`, with the interval between two points."""
        if self.head is not None and last.at <= self.head.at:
            return self.powers
        slack = self.policy.slack
        return self.powers.and_interval(last.nwh - before.nwh, last.at - before.at, slack)

    def _without_spike(self, low: Point) -> Self:
        assert self.zero is not None  # noqa: S101  for the type checker: there is a register
        curve = self._with(
            flags=self.flags | {SPIKE},
            ignored=self.ignored + 1,
            highest=max(self.highest, self.last.nwh),
        )
        nwh = low.nwh - self.zero
        if self.head is not None and self.last.at == self.head.at:
            curve = curve._with(head=None)._headed(low.at, nwh)  # noqa: SLF001  itself
        return curve.landed(low, nwh, before=self.before, powers=self.powers)

    def _reset(self, low: Point, after: int | None, at: int | None) -> Self:
        """The register was set to another value, which `plausibility` judges."""
        assert self.zero is not None  # noqa: S101  for the type checker: there is a register
        powers = self._powers(self.before, self.last)
        power, usual, rest = powers.most, powers.longest, 0
        if after is not None and at is not None and after >= low.nwh:
            rest = at - self.low_until
            if self.policy.plausible(after - low.nwh, rest):
                power = max(power, power_of(after - low.nwh, rest))
        gained, flags = fallen(
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
            broken=True,
            flags=self.flags | flags,
            fallen=self._with(low=None, lows=0, settled=(), heard=self.heard - self.lows),
            landing=Point(low.at, nwh),
            restarted=gained >= low.nwh,
            climbs=0,
        )
        return curve.landed(low, nwh, before=self.last, powers=powers, settled=(self.last,))

    def _climbs_back(self, fallen: Self, now: Self, register: int, at: int) -> bool:
        """Whether the register that fell from `fallen` and restarted, as this course has it, came
        back by climbing (rule 4)."""
        landing, last = self.landing, now.last
        if landing is None or not self.restarted or self.climbs < _ENOUGH_CLIMBS:
            return False
        assert now.zero is not None  # noqa: S101  for the type checker: registers fell
        power = now._powers(now.before, last).most
        step = register - now.zero - last.nwh
        climbed = power_of(self.last.nwh - landing.nwh, self.last.at - landing.at)
        before = fallen.powers.most
        even = 2 * climbed >= before and climbed <= 2 * max(before, 1)
        return even and deliverable(step, at - last.at, power, self.policy.tolerance)

    def _rebased_for_nothing(self, low: Point) -> bool:
        """Whether the first reading, far above meterStart, was a spike: the next one is not."""
        return (
            REBASED in self.flags
            and self.last.nwh == 0
            and self.before.at == self.start
            and self.base is not None
            and low.nwh >= self.base
        )

    def _from_base(self, low: Point) -> Self:
        """As if the first reading had not been, and `low` were the first."""
        flags = (self.flags - {REBASED}) | {SPIKE}
        curve = self._with(
            zero=self.base, broken=False, flags=flags, head=None, ignored=self.ignored + 1
        )
        curve = curve._first(low.at, low.nwh)  # noqa: SLF001  itself, a step later
        assert curve.zero is not None  # noqa: S101  for the type checker: `base` is known
        nwh = low.nwh - curve.zero
        return curve.landed(low, nwh, before=self.before, powers=self.powers)

    def _first(self, at: int, value: int) -> Self:
        """Where the first register stands in relation to meterStart."""
        if self.zero is None:
            return self._with(zero=value)
        zero, relative, broken, flags = self.zero, False, False, self.flags
        if value < zero - self.policy.tolerance:
            if not self.may_be_relative:
                return self
            zero, relative, flags = 0, True, flags | {RELATIVE}
        if not self.policy.plausible(value - zero, at - self.start):
            zero, broken, flags = value, True, flags | {REBASED}
        curve = self._with(zero=zero, relative=relative, broken=broken, flags=flags)
        return curve if zero else curve._headed(at, value)  # noqa: SLF001  itself

    def _headed(self, at: int, nwh: int) -> Self:
        """With a first point to be judged by rule 5, if it is one."""
        certain = nwh - self.policy.slack
        if self.base is None or certain * HOUR <= GREATEST_AC_POWER * (at - self.start):
            return self
        curve = self._with(head=Point(at, nwh))
        if not self.doubted:
            return curve
        return curve._with(zero=nwh, broken=True, flags=self.flags | {REBASED})  # noqa: SLF001
