"""The curve of a session, drawn from all of its readings at once.

Reading by reading (`energy_curve`) some things cannot be decided.  They are decided here, with all
readings and meterStop known: which kind of reading counts, whether the register began at zero, and
whether readings above meterStop were spikes.

Rule 7: readings above meterStop were spikes, if after them the register goes on from where it
        stood before them (meterStart, or a point since), and if that was not zero: a running
        register fell back into its own range.  From zero, or below where it stood, a register
        that was restarted looks just the same; then it stays a reset, and a person reviews it.
        Three or more that climb on evenly from the reading before them are evidence, no spikes.

For example, the register is 1,000 Wh at the start, then 1,500, 90,000 and 2,000 Wh, and meterStop
is 2,500 Wh.  Read one by one, 90,000 is within what the connector can deliver if the interval was
long enough, and 2,000 looks like a reset.  But meterStop is below 90,000 and the 2,000 goes on from
1,500: so 90,000 was a spike, and the session has 1,500 Wh.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs

from ..tariffs.policy import Policy
from .curve import SPIKE, Point
from .energy import UNNAMED_PENALTY
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
    first_jump_ignored: bool | None = None,
) -> tuple[EnergyCurve, list[Point]]:
    """The curve over all entries, and its points up to and including `EnergyCurve.before`.

    entries: in the order of time, one for an instant.
    start, end: the session's, us; end is None while it is open.  stop: meterStop, nWh.
    first_jump_ignored: whether a first jump counts for nothing; None where the entries decide.
    """
    if base is None:
        base = next((entry.begin for entry in entries if entry.begin is not None), None)
    within = [e for e in entries if e.at >= start and (end is None or e.at <= end)]
    counting = _counting_entries(within)
    curve = EnergyCurve.opened(start, base, policy)
    if _other_register(within, counting, base, policy):
        curve = attrs.evolve(curve, flags=curve.flags | {OTHER_REGISTER})
    if stop is None or base is None or stop >= base - policy.tolerance:
        fitted = _fit(curve, counting, first_jump_ignored)
        if fitted is not None:
            return fitted
    # Not below meterStart throughout: then a first reading below it was a dip or a reset.
    fitted = _fit(attrs.evolve(curve, may_be_relative=False), counting, first_jump_ignored)
    assert fitted is not None  # noqa: S101  nothing is left that could start it anew
    return fitted


def fit_curve_below_stop(
    entries: Sequence[MeterEntry],
    *,
    start: int,
    base: int,
    policy: Policy,
    end: int,
    stop: int,
) -> tuple[EnergyCurve, list[Point]] | None:
    """The curve and its points, as `fit_curve` has them, without the readings above meterStop.

    None where those were no spikes (rule 7), or where the register was reset all the same.
    """
    curve, points = EnergyCurve.opened(start, base, policy), [Point(start, 0)]
    curve = attrs.evolve(curve, may_be_relative=False)
    after_high = False
    highs: list[Point] = []  # the newest ones in a row, after the point before them
    dropped, highest = 0, 0
    for entry in _counting_entries([e for e in entries if start <= e.at <= end]):
        value, register = curve.register_at(entry), curve.register
        if value is None or register is None:
            return None
        if value > stop:
            if not after_high:
                highs = [Point(curve.last.at, register)]
            highs.append(Point(entry.at, value))
            after_high, dropped, highest = True, dropped + 1, max(highest, value)
            continue
        if after_high and (not 0 < register <= value or _climb_evenly(highs)):
            return None
        after_high = False
        following = _add_entry(curve, entry, points)
        if following is None:
            return None
        curve = following
    if not dropped or (after_high and _climb_evenly(highs)):
        return None
    curve, points = closed_by_stop(curve, points, stop, end)
    if RESET in curve.flags:
        return None
    return (
        attrs.evolve(
            curve,
            flags=curve.flags | {SPIKE},
            ignored_count=curve.ignored_count + dropped,
            highest=max(curve.highest, highest - base),
        ),
        points,
    )


def closed_by_stop(
    curve: EnergyCurve, points: list[Point], stop: int | None, end: int
) -> tuple[EnergyCurve, list[Point]]:
    """The curve with its last readings explained by meterStop, and the points that hold."""
    recovered = curve.recovered(stop, end)
    if recovered is None:
        return curve.resolved(stop, end), points
    return recovered, [point for point in points if point <= recovered.before]


def _fit(
    curve: EnergyCurve, entries: Sequence[MeterEntry], first_jump_ignored: bool | None
) -> tuple[EnergyCurve, list[Point]] | None:
    """The curve with its first jump believed or ignored; where that is not given, the curve itself
    decides (rule 5)."""
    fitted = _add_all(attrs.evolve(curve, first_jump_ignored=bool(first_jump_ignored)), entries)
    if first_jump_ignored is None and fitted is not None and fitted[0].is_first_jump_foreign():
        return _add_all(attrs.evolve(curve, first_jump_ignored=True), entries)
    return fitted


def _add_all(
    curve: EnergyCurve, entries: Sequence[MeterEntry]
) -> tuple[EnergyCurve, list[Point]] | None:
    points = [curve.before]
    for entry in entries:
        following = _add_entry(curve, entry, points)
        if following is None:
            return None
        curve = following
    return curve, points


def _add_entry(curve: EnergyCurve, entry: MeterEntry, points: list[Point]) -> EnergyCurve | None:
    """The curve with one more entry, its settled points added to `points`."""
    following = curve.add(entry)
    if following is None:
        following = curve.with_dip_ended(entry)
        if following is None:
            return None
        points[:] = [point for point in points if point < following.before]
    points += following.settled
    return following


def _counting_entries(entries: Sequence[MeterEntry]) -> list[MeterEntry]:
    """The entries cut down to what counts: registers if there are any, at the best location,
    and neutral only where nothing else was ever sent."""
    with_registers = any(entry.registers for entry in entries)
    energy_values = [m for e in entries for m in (e.registers if with_registers else e.intervals)]
    if not energy_values:
        return []
    location = min(energy_value.location for energy_value in energy_values)
    lines = any(
        energy_value.phase != "N"
        for energy_value in energy_values
        if energy_value.location == location
    )
    kept = []
    for entry in entries:
        values = tuple(
            energy_value
            for energy_value in (entry.registers if with_registers else entry.intervals)
            if energy_value.location == location and (energy_value.phase != "N" or not lines)
        )
        if values and with_registers:
            kept.append(MeterEntry(entry.at, registers=values))
        elif values:
            kept.append(MeterEntry(entry.at, intervals=values))
    return kept


def _climb_evenly(highs: Sequence[Point]) -> bool:
    """Whether several readings climb on from the point before it as it climbs itself."""
    if len(highs) <= _ENOUGH_HIGHS:
        return False
    powers = [power_of(two.nwh - one.nwh, two.at - one.at) for one, two in pairwise(highs)]
    return powers[0] <= 2 * max(powers[1:])


def _other_register(
    entries: Sequence[MeterEntry], counting: Sequence[MeterEntry], base: int | None, policy: Policy
) -> bool:
    """Whether the session seemed to rest on another register before a reading named it."""
    if (
        not counting
        or not counting[0].registers
        or counting[0].registers[0].location >= UNNAMED_PENALTY
    ):
        return False
    first = counting[0]
    highest_value = max(energy_value.nwh for energy_value in first.registers) + policy.tolerance
    lowest_value = -1 if base is None else base - policy.tolerance
    return any(
        not lowest_value <= energy_value.nwh <= highest_value
        for entry in entries
        if entry.at <= first.at
        for energy_value in entry.registers
        if energy_value.location >= UNNAMED_PENALTY and energy_value.phase == ""
    )
