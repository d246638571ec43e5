"""What a register that behaves oddly can have counted, judged by the session's own power.

The policy's greatest power is what no connector can exceed.  Far less is what this session has been
seen to deliver, and that decides where a register contradicts itself:

Law 1: after a fall the new value is energy only if the session's own power, before or after,
       can have delivered it in the time.  Else the register was set to another value, and it
       counts on from there: nothing is gained, and a person reviews it.
Law 2: what flowed between the last reading before a fall and the fall is never guessed.  Where
       the register stood just below a power of ten or of two, it ran over; where it restarted
       from zero between two readings as far apart as others are, at most a usual interval is
       lost.  Everywhere else more may be lost than anybody knows, and a person reviews it.
Law 3: one interval with far more power than all the others is doubtful, whether the meter jumped
       there or the car did: with half as much again where the others are even, else with twice
       as much, and more than a wall box has.

| the register falls | energy since | flags |
| --- | --- | --- |
| to more than half, or more than can flow | none | register_reset, register_backwards |
| just below a boundary of the counter | the new value | register_reset |
| to a low value, after a usual interval | the new value | register_reset |
| to a low value, after a longer one | the new value | register_reset, energy_unseen |

For example, a session that takes 11 kW has a register of 65,530 Wh and, one minute later, of 20 Wh.
A counter of 16 bits ends at 65,536 Wh, and 6 + 20 Wh can flow in that minute: it ran over.  The
20 Wh count; the 6 Wh before the fall are more than the tolerance of 1 Wh and are not guessed.  Had
the register fallen to 30,000 Wh, 11 kW could not have delivered them in a minute: nothing counts,
and a person reviews it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NamedTuple

from ..domain.fixed_point import HOUR, KWH, WH

RESET = "register_reset"
BACKWARDS = "register_backwards"
UNSEEN = "energy_unseen"

GREATEST_AC_POWER = 22 * KWH  # nWh in an hour: three phases of 32 A
_ENOUGH = 4  # intervals, before one of them can be unlike the others

_RESET: Set[str] = frozenset({RESET})
_UNSEEN: Set[str] = frozenset({RESET, UNSEEN})
_BACKWARDS: Set[str] = frozenset({RESET, BACKWARDS})


class Powers(NamedTuple):
    """What the intervals of a session have in common, in nWh, us and nWh in an hour.

    greatest, second, least: powers of intervals with energy; least is 0 before there is one.
    certain: of the greatest, what is left without the policy's slack.
    greatest_us: the interval with the greatest.
    longest, next_longest: of all intervals.  number: of them.  moved: of those with energy.
    """

    greatest: int = 0
    second: int = 0
    least: int = 0
    certain: int = 0
    greatest_us: int = 0
    longest: int = 0
    next_longest: int = 0
    number: int = 0
    moved: int = 0

    def and_interval(self, nwh: int, us: int, slack: int) -> Powers:
        """With one more interval."""
        if us <= 0:
            return self
        greatest, second, least, certain, greatest_us, longest, next_longest, number, moved = self
        if us > longest:
            longest, next_longest = us, longest
        elif us > next_longest:
            next_longest = us
        if nwh > 0:
            moved += 1
            power = power_of(nwh, us)
            if power > greatest:
                greatest, second = power, greatest
                certain, greatest_us = power_of(nwh - slack, us), us
            elif power > second:
                second = power
            if not least or power < least:
                least = power
        return Powers(
            greatest,
            second,
            least,
            certain,
            greatest_us,
            longest,
            next_longest,
            number + 1,
            moved,
        )

    @property
    def jump(self) -> bool:
        """Law 3; not before there is something to compare with, and not of an interval that is
        long, where the meter had the time."""
        if self.number < _ENOUGH or not self.second:
            return False
        others = self.next_longest if self.greatest_us == self.longest else self.longest
        if 2 * self.greatest_us > 3 * others:
            return False
        if self.moved > 3 and 2 * self.second <= 3 * self.least:
            return 2 * self.certain > 3 * self.second
        return self.certain > max(2 * self.second, GREATEST_AC_POWER)


class Fall(NamedTuple):
    """What a register that fell has counted since, nWh, and the flags that it earns."""

    gained: int
    flags: Set[str]


def power_of(nwh: int, us: int) -> int:
    """nWh in an hour; 0 of no time."""
    return nwh * HOUR // us if us > 0 else 0


def deliverable(nwh: int, us: int, power: int, tolerance: int) -> bool:
    return (nwh - tolerance) * HOUR <= power * us


def judge_fall(
    register: int, value: int, us: int, *, power: int, usual: int, tolerance: int
) -> Fall:
    """The fall of a register from one reading to the next, by laws 1 and 2.

    us: between the two.  power: the session's own, nWh in an hour.  usual: the longest of the
    other intervals, us.
    """
    if 2 * value > register or not deliverable(value, us, power, tolerance):
        return Fall(0, _BACKWARDS)
    for boundary in boundaries(register):
        rest = boundary - register
        if deliverable(rest + value, us, power, tolerance):
            return Fall(value + rest if rest <= tolerance else value, _RESET)
    return Fall(value, _RESET if 2 * us <= 3 * usual else _UNSEEN)


def boundaries(register: int) -> Iterator[int]:
    """Above the register, where counters run over: the next power of ten Wh, and 16 or 32 bits
    that count units of 1, 10, 100 or 1000 Wh."""
    ten = WH
    while ten <= register:
        ten *= 10
    if ten > 1000 * WH:
        yield ten
    for bits in (16, 31, 32):
        for unit in (1, 10, 100, 1000):
            boundary = (1 << bits) * unit * WH
            if register < boundary:
                yield boundary
