"""The whole course of a session's readings, drawn from the beginning.

What no reading alone can tell is decided here, with all of them and meterStop in view: which
kind of reading counts, whether the register began at zero, and whether highs were spikes.

Rule 5: readings above meterStop were spikes, if after them the register goes on from where it
        stood before them (meterStart, or a point since), and if that was not zero: a running
        register fell back into its own range.  From zero, or below where it stood, a register
        that was restarted looks just the same; then it stays a reset, and a person looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .metering import RESET, SPIKE, Course, Entry, Point
from .policy import Policy


def trace(
    entries: Sequence[Entry],
    *,
    start: int,
    base: int | None,
    policy: Policy,
    end: int | None = None,
    stop: int | None = None,
) -> tuple[Course, list[Point]]:
    """The course over all entries, and its points up to and including `Course.before`.

    entries: in the order of time, one for an instant.
    start, end: the session's, us; end is None while it is open.  stop: meterStop, nWh.
    """
    if base is None:
        base = next((entry.begin for entry in entries if entry.begin is not None), None)
    within = [e for e in entries if e.at >= start and (end is None or e.at <= end)]
    counting = _of_one_kind(within)
    course = Course.opened(start, base, policy)
    if stop is None or base is None or stop >= base:
        found = _follow(course, counting)
        if found is not None:
            return found
    # Not below meterStart throughout: then a first reading below it was a dip or a reset.
    found = _follow(attrs.evolve(course, may_be_relative=False), counting)
    assert found is not None  # noqa: S101  nothing is left that could start it anew
    return found


def trace_below(
    entries: Sequence[Entry],
    *,
    start: int,
    base: int,
    policy: Policy,
    end: int,
    stop: int,
) -> tuple[Course, list[Point]] | None:
    """The course and its points, as `trace` has them, without the readings above meterStop.

    None where those were no spikes (rule 5), or where the register was reset all the same.
    """
    course, points = Course.opened(start, base, policy), [Point(start, 0)]
    course = attrs.evolve(course, may_be_relative=False)
    after_high = dropped = False
    for entry in _of_one_kind([e for e in entries if start <= e.at <= end]):
        value, register = course.reading(entry), course.register
        if value is None or register is None:
            return None
        if value > stop:
            after_high = dropped = True
            continue
        if after_high and not 0 < register <= value:
            return None
        after_high = False
        following = _step(course, entry, points)
        if following is None:
            return None
        course = following
    if not dropped:
        return None
    course, points = closed(course, points, stop, end)
    if RESET in course.flags:
        return None
    return attrs.evolve(course, flags=course.flags | {SPIKE}), points


def closed(
    course: Course, points: list[Point], stop: int | None, end: int
) -> tuple[Course, list[Point]]:
    """The course with its last readings explained by meterStop, and the points that hold."""
    back = course.recovered(stop, end)
    if back is None:
        return course.decided(stop), points
    return back, [point for point in points if point <= back.before]


def _follow(course: Course, entries: Sequence[Entry]) -> tuple[Course, list[Point]] | None:
    points = [course.before]
    for entry in entries:
        following = _step(course, entry, points)
        if following is None:
            return None
        course = following
    return course, points


def _step(course: Course, entry: Entry, points: list[Point]) -> Course | None:
    """The course with one more entry, its settled points added to `points`."""
    following = course.add(entry)
    if following is None:
        following = course.over_the_dip(entry)
        if following is None:
            return None
        points[:] = [point for point in points if point < following.before]
    points += following.settled
    return following


def _of_one_kind(entries: Sequence[Entry]) -> list[Entry]:
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
            kept.append(Entry(entry.at, registers=heard))
        elif heard:
            kept.append(Entry(entry.at, intervals=heard))
    return kept
