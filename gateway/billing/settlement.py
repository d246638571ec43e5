"""How much energy a session comes to, and what it costs: at its end, or as if it ended now.

meterStop - meterStart is the energy, unless it is missing, below zero, more than can have flowed,
or less than the samples prove; the samples then stand in for it.

| meterStop | energy | flags |
| --- | --- | --- |
| plausible, not below the samples | meterStop - meterStart | none |
| missing | of the samples | meter_stop_missing, needs_review |
| below meterStart | of the samples | meter_stop_below_start, needs_review |
| below the last sample | of the samples | meter_stop_below_samples, needs_review |
| more than can have flowed | of the samples | meter_stop_implausible, needs_review |
| of a register that was reset | of the samples | needs_review if that is more |
| missing, and there is no sample | 0 | energy_unknown, needs_review |

Law 1: the end is judged twice: by what flowed over the whole session, and since the last reading.
Law 2: a register that was reset is recognised by its counting on afterwards; the samples are never
       billed without a review for more than a plausible meterStop - meterStart.
Law 3: readings that do not name the transaction never raise a bill above a plausible meterStop -
       meterStart.
Law 4: a meterStop below meterStart by no more than the tolerance is meterStart.
Law 5: a person reviews the session where two readings or more were not believed, or where one of
       them claimed more energy than is billed.

For example, meterStart is 1,000 Wh and the last sample 5,000 Wh.  A meterStop of 6,000 Wh settles
the session at 5,000 Wh, source `meter_stop`.  A meterStop of 4,000 Wh is less than the samples
prove: the session is settled at 4,000 Wh, those from 1,000 to 5,000, source `samples`, flagged
`meter_stop_below_samples` and `needs_review`.
"""

from __future__ import annotations

from typing import Literal

import attrs

from ..tariffs.policy import Policy
from .bill import Bill, bill_of
from .curve import JUMP, Point
from .curve_fitting import closed_by_stop, fit_curve, fit_curve_below_stop
from .energy import LOCATIONS, UNNAMED_PENALTY
from .energy_curve import OTHER_REGISTER, EnergyCurve
from .history import entries
from .plausibility import BACKWARDS, RESET, UNSEEN
from .pricing import Pricing, States
from .refitting import priced_along, pricing_of
from .session import Session, Stop, states_after

NEEDS_REVIEW = "needs_review"
NO_TARIFF = "no_tariff"
TOO_LONG = "session_too_long"

_REVIEWED = frozenset(
    {
        "charger_replaced",
        "energy_unknown",
        "meter_start_missing",
        "meter_stop_below_samples",
        "meter_stop_below_start",
        "meter_stop_implausible",
        "meter_stop_missing",
        BACKWARDS,
        JUMP,
        UNSEEN,
        "register_rebased",
        "stop_before_start",
        "stop_inferred",
        NO_TARIFF,
        TOO_LONG,
    }
)

Source = Literal["meter_stop", "samples", "intervals", "unknown"]


@attrs.frozen(slots=True, kw_only=True)
class Settlement:
    """A session's energy (nWh), time and price up to `end` (us).

    flags: sorted, `needs_review` among them.
    """

    session: Session
    end: int
    nwh: int
    source: Source
    pricing: Pricing
    bill: Bill | None
    flags: tuple[str, ...]


def settle_so_far(session: Session, end: int | None = None) -> Settlement:
    """What the session comes to if it stops now: the running cost.

    end: us, at or after the newest data; None: with the newest data.
    """
    if end is None and not session.closed:
        end = session.newest
    if session.stop is not None:
        return settle(session, end=end)
    assert end is not None  # noqa: S101  what is closed has stopped
    curve = session.curve.resolved(None)
    pricing = pricing_of(session).copy()
    pricing.use(session.states, session.currents)
    if curve is not session.curve:
        for point in curve.settled:
            pricing.advance(*point)
    last = curve.last
    pricing.advance(*last)
    pricing.advance(max(end, last.at), last.nwh, measured=False)
    pricing.finish()
    bill = bill_of(pricing)
    return Settlement(
        session=session,
        end=end,
        nwh=last.nwh,
        source="intervals" if curve.intervals else "samples",
        pricing=pricing,
        bill=bill,
        flags=_flags(session, curve, bill, _doubt_flags(curve, last.nwh, last.at), end),
    )


def settle(session: Session, *, end: int | None = None) -> Settlement:
    """What the session comes to as it ended: the receipt.

    end: us, where idle time counts on after the stop and the cable is still in.
    """
    stop = session.stop
    assert stop is not None  # noqa: S101  callers settle what has stopped
    opening = session.opening
    curve, points = _final_curve(session, stop)
    nwh, source, flags = _total_energy(curve, stop, session)
    flags += _doubt_flags(curve, nwh, stop.at)
    if source == "meter_stop" and curve.intervals:
        # With registers at both ends, amounts whose beginning is not known play no part.
        curve = EnergyCurve.opened(opening.start, opening.meter_start, session.metering_policy)
        points = [curve.before]
    states: States = session.states
    billed_to = stop.at
    if opening.terms.policy.post_stop_parking:
        states = states_after(opening.terms, session.statuses, stop.at)
        billed_to = max(stop.at, end or stop.unplugged or stop.at)
    pricing = _priced_prefix(session, points, nwh)
    pricing.use(states, session.currents)
    for point in (*curve.settled, curve.last):
        if point.at < stop.at and point.at >= pricing.at:
            pricing.advance(point.at, min(point.nwh, nwh))
    pricing.advance(stop.at, nwh, measured=source == "meter_stop" or nwh > curve.last.nwh)
    pricing.advance(billed_to, nwh, measured=False)
    pricing.finish()
    bill = bill_of(pricing)
    return Settlement(
        session=session,
        end=billed_to,
        nwh=nwh,
        source=source,
        pricing=pricing,
        bill=bill,
        flags=_flags(session, curve, bill, flags, stop.at),
    )


# --- parts ------------------------------------------------------------------------------------


def _final_curve(session: Session, stop: Stop) -> tuple[EnergyCurve, list[Point] | None]:
    """The curve with its last readings explained by meterStop, and its points where they had to
    be computed anew."""
    opening, curve = session.opening, session.curve
    policy, newest, register = session.metering_policy, curve.newest, stop.register
    late = newest is not None and newest > stop.at
    relative_after_all = (
        curve.relative
        and register is not None
        and curve.base is not None
        and register < curve.base - policy.tolerance
    )
    points, first_jump_ignored = None, None
    if late or relative_after_all or curve.recovered(register, stop.at) is not None:
        curve, points = fit_curve(
            entries(session.history),
            start=opening.start,
            end=stop.at,
            stop=register,
            base=opening.meter_start,
            policy=policy,
        )
        curve, points = closed_by_stop(curve, points, register, stop.at)
    else:
        curve = curve.resolved(register, stop.at)
    if curve.first_jump is not None:
        more = None if register is None or curve.zero is None else register - curve.zero
        first_jump_ignored = curve.is_first_jump_foreign(more, stop.at)
        if first_jump_ignored != curve.first_jump_ignored:
            curve, points = fit_curve(
                entries(session.history),
                start=opening.start,
                end=stop.at,
                stop=register,
                base=opening.meter_start,
                policy=policy,
                first_jump_ignored=first_jump_ignored,
            )
            curve, points = closed_by_stop(curve, points, register, stop.at)
    if RESET not in curve.flags or register is None or curve.base is None:
        return curve, points
    metered = register - curve.base
    if metered < 0 or not _session_policy(session, stop).plausible(
        metered, stop.at - opening.start
    ):
        return curve, points
    without_highs = fit_curve_below_stop(
        entries(session.history),
        start=opening.start,
        end=stop.at,
        stop=register,
        base=curve.base,
        policy=policy,
    )
    return (curve, points) if without_highs is None else without_highs


def _priced_prefix(session: Session, points: list[Point] | None, nwh: int) -> Pricing:
    """The pricing as far as the curve was settled before the stop, nowhere above the total."""
    before = session.curve.before if points is None else points[-1]
    if points is None and before.nwh <= nwh:
        return pricing_of(session).copy()
    if points is None:
        _, points = fit_curve(
            entries(session.history),
            start=session.opening.start,
            base=session.opening.meter_start,
            policy=session.metering_policy,
        )
    capped = [Point(point.at, min(point.nwh, nwh)) for point in points]
    return priced_along(session, capped, session.states)


def _session_policy(session: Session, stop: Stop) -> Policy:
    """The policy by which the energy of the whole session is judged."""
    policy = session.opening.terms.policy
    return policy if session.opening.timed and stop.timed else policy.untimed()


def _total_energy(
    curve: EnergyCurve, stop: Stop, session: Session
) -> tuple[int, Source, tuple[str, ...]]:
    """nWh of the whole session, what it rests on, and the flags that it earns."""
    policy, last, register = curve.policy, curve.last, stop.register
    at_the_end = policy if stop.timed else policy.untimed()
    flags: list[str] = []
    greatest = None
    nwh = last.nwh
    if register is None:
        if not stop.inferred:
            flags.append("meter_stop_missing")
    else:
        base = curve.zero if curve.base is None else curve.base
        if base is not None:
            metered = register - base
            if -policy.tolerance <= metered < 0:
                metered = 0
            if metered < 0:
                if RESET not in curve.flags or not _counts_on(curve, register):
                    flags.append("meter_stop_below_start")
            elif not _session_policy(session, stop).plausible(
                metered, stop.at - session.opening.start
            ):
                flags.append("meter_stop_implausible")
            elif (
                curve.location >= UNNAMED_PENALTY
                and curve.newest is not None
                and (curve.discontinuous or metered < last.nwh - policy.tolerance)
            ):
                return metered, "meter_stop", (OTHER_REGISTER, NEEDS_REVIEW)
            elif curve.discontinuous:
                greatest = metered
            elif curve.intervals:
                if metered or not last.nwh:
                    return metered, "meter_stop", ()
            elif metered < last.nwh - policy.tolerance:
                flags.append("meter_stop_below_samples")
            elif not at_the_end.plausible(metered - last.nwh, stop.at - last.at):
                flags.append("meter_stop_implausible")
            else:
                return metered, "meter_stop", ()
        if curve.discontinuous and curve.zero is not None:
            more = register - curve.zero - last.nwh
            if more >= 0 and at_the_end.plausible(more, stop.at - last.at):
                nwh += more
    if greatest is not None and nwh > greatest:
        flags.append(NEEDS_REVIEW)
    if curve.newest is None:
        return 0, "unknown", (*flags, "energy_unknown")
    return nwh, "intervals" if curve.intervals else "samples", tuple(flags)


def _counts_on(curve: EnergyCurve, register: int) -> bool:
    """Whether the register is seen to count on after its fall: a lone low value is no restart."""
    if curve.after_reset is None or curve.zero is None:
        return False
    return register - curve.zero > curve.after_reset.nwh + curve.policy.tolerance


def _doubt_flags(curve: EnergyCurve, nwh: int, at: int) -> tuple[str, ...]:
    """Flags for what the whole of the readings makes doubtful: more of them ignored than one, or
    more energy than the tolerance; or one interval that is unlike all others."""
    flags: tuple[str, ...] = ()
    if curve.ignored_count > 1 or curve.highest > nwh + curve.policy.tolerance:
        flags += (NEEDS_REVIEW,)
    if not curve.intervals and curve.has_jump(nwh, at):
        flags += (JUMP,)
    return flags


def _flags(
    session: Session, curve: EnergyCurve, bill: Bill | None, more: tuple[str, ...], end: int
) -> tuple[str, ...]:
    flags = session.flags
    if curve.flags:
        flags = flags | curve.flags
    if curve.newest is not None and curve.location % UNNAMED_PENALTY:
        flags = flags | {f"energy_location_{LOCATIONS[curve.location % UNNAMED_PENALTY].lower()}"}
    if bill is not None and bill.flags:
        flags = flags.union(bill.flags)
    if more:
        flags = flags.union(more)
    if session.stop is not None and session.stop.inferred:
        flags = flags | {"stop_inferred"}
    if session.unconfirmed:
        flags = flags | {"unconfirmed"}
    opening = session.opening
    if end - opening.start > opening.terms.policy.longest:
        flags = flags | {TOO_LONG}
    if not flags:
        return ()
    if flags & _REVIEWED or any(flag.startswith("defect_") for flag in flags):
        flags = flags | {NEEDS_REVIEW}
    return tuple(sorted(flags))
