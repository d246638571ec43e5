"""The whole course of a session's readings, drawn from the beginning.

What no reading alone can tell is decided here, with all of them and meterStop in view: which
kind of reading counts, whether the register began at zero, and whether highs were spikes.

Rule 8: readings above meterStop were spikes, if after them the register goes on from where it
        stood before them (meterStart, or a point since), and if that was not zero: a running
        register fell back into its own range.  From zero, or below where it stood, a register
        that was restarted looks just the same; then it stays a reset, and a person looks.
        Three or more that climb on evenly from the reading before them are evidence, no spikes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs

from ..tariffs.policy import Policy
from .curve import SPIKE, Point
from .energy import UNNAMED
from .energy_curve import OTHER_REGISTER, EnergyCurve, MeterEntry
from .plausibility import RESET, power_of

_ENOUGH_HIGHS = 3


def fit_curve(
    entries: Sequence[MeterEntry],
    *,
    start: int,
    base: int | None,
    policy: Policy,
    end: int | None = None,
    stop: int | None = None,
    doubted: bool | None = None,
) -> tuple[EnergyCurve, list[Point]]:
    """The course over all entries, and its points up to and including `EnergyCurve.before`.

    entries: in the order of time, one for an instant.
    start, end: the session's, us; end is None while it is open.  stop: meterStop, nWh.
    doubted: whether the first point counts for nothing; None where the entries are to tell.
    """
    if base is None:
        base = next((entry.begin for entry in entries if entry.begin is not None), None)
    within = [e for e in entries if e.at >= start and (end is None or e.at <= end)]
    counting = _of_one_kind(within)
    curve = EnergyCurve.opened(start, base, policy)
    if _other_register(within, counting, base, policy):
        curve = attrs.evolve(curve, flags=curve.flags | {OTHER_REGISTER})
    if stop is None or base is None or stop >= base - policy.tolerance:
        found = _judged(curve, counting, doubted)
        if found is not None:
            return found
    # Not below meterStart throughout: then a first reading below it was a dip or a reset.
    found = _judged(attrs.evolve(curve, may_be_relative=False), counting, doubted)
    assert found is not None  # noqa: S101  nothing is left that could start it anew
    return found


def fit_curve_below(
    entries: Sequence[MeterEntry],
    *,
    start: int,
    base: int,
    policy: Policy,
    end: int,
    stop: int,
) -> tuple[EnergyCurve, list[Point]] | None:
    """The course and its points, as `trace` has them, without the readings above meterStop.

    None where those were no spikes (rule 5), or where the register was reset all the same.
    """
    curve, points = EnergyCurve.opened(start, base, policy), [Point(start, 0)]
    curve = attrs.evolve(curve, may_be_relative=False)
    after_high = False
    highs: list[Point] = []  # the newest run of them, after the point before it
    dropped, highest = 0, 0
    for entry in _of_one_kind([e for e in entries if start <= e.at <= end]):
        value, register = curve.reading(entry), curve.register
        if value is None or register is None:
            return None
        if value > stop:
            if not after_high:
                highs = [Point(curve.last.at, register)]
            highs.append(Point(entry.at, value))
            after_high, dropped, highest = True, dropped + 1, max(highest, value)
            continue
        if after_high and (not 0 < register <= value or _even(highs)):
            return None
        after_high = False
        following = _step(curve, entry, points)
        if following is None:
            return None
        curve = following
    if not dropped or (after_high and _even(highs)):
        return None
    curve, points = closed(curve, points, stop, end)
    if RESET in curve.flags:
        return None
    return (
        attrs.evolve(
            curve,
            flags=curve.flags | {SPIKE},
            ignored=curve.ignored + dropped,
            highest=max(curve.highest, highest - base),
        ),
        points,
    )


def closed(
    curve: EnergyCurve, points: list[Point], stop: int | None, end: int
) -> tuple[EnergyCurve, list[Point]]:
    """The course with its last readings explained by meterStop, and the points that hold."""
    back = curve.recovered(stop, end)
    if back is None:
        return curve.decided(stop, end), points
    return back, [point for point in points if point <= back.before]


def _judged(
    curve: EnergyCurve, entries: Sequence[MeterEntry], doubted: bool | None
) -> tuple[EnergyCurve, list[Point]] | None:
    """The course with its first point believed or not, as it is itself to tell where that is not
    known."""
    found = _follow(attrs.evolve(curve, doubted=bool(doubted)), entries)
    if doubted is None and found is not None and found[0].doubts():
        return _follow(attrs.evolve(curve, doubted=True), entries)
    return found


def _follow(
    curve: EnergyCurve, entries: Sequence[MeterEntry]
) -> tuple[EnergyCurve, list[Point]] | None:
    points = [curve.before]
    for entry in entries:
        following = _step(curve, entry, points)
        if following is None:
            return None
        curve = following
    return curve, points


def _step(curve: EnergyCurve, entry: MeterEntry, points: list[Point]) -> EnergyCurve | None:
    """The course with one more entry, its settled points added to `points`."""
    following = curve.add(entry)
    if following is None:
        following = curve.over_the_dip(entry)
        if following is None:
            return None
        points[:] = [point for point in points if point < following.before]
    points += following.settled
    return following


def _of_one_kind(entries: Sequence[MeterEntry]) -> list[MeterEntry]:
    """The entries cut down to what counts: registers if there are any, at the best location,
    and neutral only where nothing else was ever sent."""
    with_registers = any(entry.registers for entry in entries)
    marks = [m for e in entries for m in (e.registers if with_registers else e.intervals)]
    if not marks:
        return []
    location = min(mark.location for mark in marks)
    lines = any(mark.phase != "N" for mark in marks if mark.location == location)
    kept = []
    for entry in entries:
        heard = tuple(
            mark
            for mark in (entry.registers if with_registers else entry.intervals)
            if mark.location == location and (mark.phase != "N" or not lines)
        )
        if heard and with_registers:
            kept.append(MeterEntry(entry.at, registers=heard))
        elif heard:
            kept.append(MeterEntry(entry.at, intervals=heard))
    return kept


def _even(highs: Sequence[Point]) -> bool:
    """Whether a run of readings climbs on from the point before it as it climbs itself."""
    if len(highs) <= _ENOUGH_HIGHS:
        return False
    powers = [power_of(two.nwh - one.nwh, two.at - one.at) for one, two in pairwise(highs)]
    return powers[0] <= 2 * max(powers[1:])


def _other_register(
    entries: Sequence[MeterEntry], counting: Sequence[MeterEntry], base: int | None, policy: Policy
) -> bool:
    """Whether the session seemed to rest on another register before a reading named it."""
    if not counting or not counting[0].registers or counting[0].registers[0].location >= UNNAMED:
        return False
    first = counting[0]
    most = max(mark.nwh for mark in first.registers) + policy.tolerance
    least = -1 if base is None else base - policy.tolerance
    return any(
        not least <= mark.nwh <= most
        for entry in entries
        if entry.at <= first.at
        for mark in entry.registers
        if mark.location >= UNNAMED and mark.phase == ""
    )
