"""Readings into a session: its energy curve, its price and its signed values go on.

A reading that is newer than all before it extends the curve, and the price of what it settles.
One that is older is put in its place in the history, and the curve is drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from ..domain.clock import TimeSource
from ..domain.events import TimedReading
from ..domain.fixed_point import microseconds
from .energy import UNNAMED_PENALTY, UsableSamples, total_current, usable_samples
from .energy_curve import MeterEntry
from .history import Late, with_late
from .refitting import published_energy, refitted
from .session import REJECTED, REORDERED, START_MARGIN, TIME_FLAGS, Session, SignedValue

T = TypeVar("T")


def with_readings(
    session: Session,
    readings: Iterable[TimedReading],
    received_at: datetime,
    *,
    at_stop: bool = False,
    named: bool = True,
) -> Session:
    """The session with more readings, in whatever order they came.

    at_stop: they are StopTransaction's transactionData, which reaches back by its nature.
    named: they came with the transaction's id.  transactionData has none of its own, and ranks
        with what the session rests on so far.
    """
    if at_stop and session.curve.newest is not None:
        named = session.curve.location < UNNAMED_PENALTY
    curve, pricing, history = session.curve, session.pricing, session.history
    newest, flags, power_sampled = session.newest, session.flags, session.power_sampled
    timed = session.timed
    late: list[Late] = []
    signed: list[SignedValue] = []
    currents: list[tuple[int, int | None]] = []
    seen: set[SignedValue] | None = None
    copied = rebuild = False
    tariff = session.opening.terms.tariff
    by_current = tariff is not None and tariff.by_current
    scale = session.opening.energy_scale
    for reading, when, source in readings:
        usable = usable_samples(reading.samples, with_current=by_current, named=named, scale=scale)
        if source is not TimeSource.RECEIPT and _is_later_than_stamped(session, when, usable):
            when, source = received_at, TimeSource.RECEIPT
        at = microseconds(when)
        if source is TimeSource.RECEIPT:
            at = max(at, session.opening.start)
            if history is not None and at <= history[0].at:
                at = history[0].at + 1  # they came one after the other
        if source is not TimeSource.OWN:
            flags |= TIME_FLAGS[source]
        if at > newest:
            newest = at
        if usable.rejected and REJECTED not in flags:
            flags |= {REJECTED}
        power_sampled = power_sampled or usable.power
        for sample in usable.signed:
            blob = SignedValue(at=when, sample=sample)
            if seen is None:
                seen = set(session.signed)
            if blob not in seen:
                seen.add(blob)
                signed.append(blob)
        if not (usable.registers or usable.intervals or usable.currents) and usable.begin is None:
            continue
        entry = MeterEntry(at, usable.registers, usable.intervals, usable.begin, usable.currents)
        if timed and source is TimeSource.RECEIPT and (usable.registers or usable.intervals):
            timed, rebuild = False, True
        if history is not None and at <= history[0].at:
            late.append(Late(entry, overtaken=at < history[0].at))
            continue
        history = (entry, history)
        if usable.currents:
            currents.append((at, total_current(usable.currents)))
        if rebuild or at < session.opening.start:
            continue
        following = curve.add(entry)
        if following is None or following.is_first_jump_foreign() != following.first_jump_ignored:
            rebuild = True
        elif following is not curve:
            curve = following
            if pricing is not None and curve.settled:
                if not copied:
                    pricing, copied = pricing.copy(), True
                    pricing.use(session.states, _extended(session.currents, currents))
                for point in curve.settled:
                    pricing.advance(*point)
    if late:
        whole, reordered = with_late(history, late)
        rebuild = rebuild or whole is not history
        history = whole
        if reordered and not at_stop:
            flags |= {REORDERED}
    published_nwh = session.published_nwh
    if not rebuild:
        published_nwh = max(published_nwh, published_energy(curve))
    changed = Session(
        opening=session.opening,
        curve=curve,
        newest=newest,
        pricing=pricing,
        history=history,
        statuses=session.statuses,
        states=session.states,
        currents=_extended(session.currents, currents),
        signed=_extended(session.signed, signed),
        flags=flags,
        published_nwh=published_nwh,
        power_sampled=power_sampled,
        unplugged=session.unplugged,
        confirmed=True,
        disputed=session.disputed,
        stop=session.stop,
        version=session.version,
        closed=session.closed,
        timed=timed,
    )
    return refitted(changed) if rebuild else changed


def _extended(before: tuple[T, ...], more: list[T]) -> tuple[T, ...]:
    """The same object where nothing is added: pricing by it then has nothing to find anew."""
    return (*before, *more) if more else before


def _is_later_than_stamped(session: Session, when: datetime, usable: UsableSamples) -> bool:
    """Whether a reading from before the start shows energy of the session: nothing of it can be
    so old, so the clock was wrong.  One that shows none is of the time before the session."""
    opening = session.opening
    if opening.meter_start is None or microseconds(when) >= opening.start - START_MARGIN:
        return False
    return any(energy_value.nwh > opening.meter_start for energy_value in usable.registers)
