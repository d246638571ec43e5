"""One transaction in the ledger: an immutable value, replaced with each message.

The history is a linked list, newest first, so that a message costs the same whether ten or ten
thousand came before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import attrs

from ..domain.clock import AHEAD, TimeSource
from ..domain.event_values import Sample
from ..domain.events import TimedReading
from ..domain.fixed_point import SECOND, microseconds
from ..tariffs.dimensions import TIME
from ..tariffs.policy import Policy
from ..tariffs.tariff import Terms
from .curve import Point
from .curve_fitting import fit_curve
from .energy import UNNAMED, UsableSamples, total_current, usable_samples
from .energy_curve import EnergyCurve, MeterEntry
from .history import History, Late, with_late
from .pricing import PricingRun, States

REORDERED = "samples_reordered"
REJECTED = "sample_rejected"
LATE = "late_samples"
UNTIMED = "timestamp_from_receipt"
CORRECTED = "timestamp_corrected"
TIME_FLAGS: Mapping[TimeSource, frozenset[str]] = {
    TimeSource.OWN: frozenset(),
    TimeSource.CORRECTED: frozenset({CORRECTED}),
    TimeSource.RECEIPT: frozenset({UNTIMED}),
}

BEFORE = int(AHEAD.total_seconds()) * SECOND
"""us that something of a session may lie before its start: two clocks, or one that was set."""

T = TypeVar("T")


@attrs.frozen(slots=True, kw_only=True)
class Opening:
    """What StartTransaction said, and on which terms.

    start: us.  timed: it is the charge point's own word.  lagged: and by that long past when it
        was told, so that its clock may have been behind.
    meter_start: nWh.
    meter_gap: nWh, what the register has moved since the stop before; None where that is unknown.
    energy_scale: what every register was multiplied by, those here too; None for 1.
    """

    charge_point_id: str
    connector_id: int
    transaction_id: int
    id_tag: str
    started_at: datetime
    start: int
    meter_start: int | None
    terms: Terms
    meter_gap: int | None = None
    timed: bool = True
    lagged: bool = False
    energy_scale: Decimal | None = None


@attrs.frozen(slots=True, kw_only=True)
class Stop:
    """How it ended.

    at: us, never before the start.  timed: it is the charge point's own word.
    reported_at: us, as the charge point wrote it; None where it wrote none.
    register: meterStop in nWh.
    inferred: not reported; it ended at the last reading.  misnamed: by a message that named
        another transaction.
    unplugged: us; None while the cable may still be in, where that matters.
    """

    at: int
    register: int | None
    reason: str
    inferred: bool = False
    unplugged: int | None = None
    reported_at: int | None = None
    timed: bool = True
    misnamed: bool = False

    @property
    def provisional(self) -> bool:
        """Whether the transaction's own StopTransaction, if it comes, takes its place."""
        return self.inferred or self.misnamed


@attrs.frozen(slots=True, kw_only=True)
class Signed:
    """One signed sampledValue, verbatim."""

    at: datetime
    sample: Sample


@attrs.frozen(slots=True, kw_only=True)
class Session:
    """A transaction so far.

    curve: the energy curve over the history.  pricing: priced as far as the curve is settled; None
        where that is still to be done.
    statuses: (us, status) in the order of time.  states: the same as kinds of time.
    newest: us of the newest data.  published_nwh: nWh, the most energy it was ever said to have.
    unplugged: us, as the charge point reported.
    confirmed: the charge point has sent readings of it, or its stop.  disputed: and later another
        stop, which is not billed.
    version: of the newest receipt, 0 before the first.  closed: the receipt stands.
    timed: its start and readings have times of the charge point's own.
    """

    opening: Opening
    curve: EnergyCurve
    newest: int
    pricing: PricingRun | None = None
    history: History = None
    statuses: tuple[tuple[int, str], ...] = ()
    states: tuple[tuple[int, str], ...] = ()
    currents: tuple[tuple[int, int | None], ...] = ()
    signed: tuple[Signed, ...] = ()
    flags: frozenset[str] = frozenset()
    published_nwh: int = 0
    power_sampled: bool = False
    unplugged: int | None = None
    confirmed: bool = False
    disputed: bool = False
    stop: Stop | None = None
    version: int = 0
    closed: bool = False
    timed: bool = True

    @property
    def metering_policy(self) -> Policy:
        """What readings are judged by: never over a duration that is not the charge point's."""
        policy = self.opening.terms.policy
        return policy if self.timed else policy.untimed()

    @property
    def key(self) -> tuple[str, int]:
        """The connector."""
        return self.opening.charge_point_id, self.opening.connector_id

    @property
    def unconfirmed(self) -> bool:
        """Whether the charge point seems to know nothing of it: it has never named it since the
        start, and says that the connector is free.  (It never got our answer to the start.)"""
        return (
            self.stop is None
            and not self.confirmed
            and bool(self.statuses)
            and self.statuses[-1][1] == "Available"
        )


def opened(opening: Opening, *, flags: frozenset[str], priced: bool) -> Session:
    """A session at its start.  priced: begin to keep a priced prefix."""
    terms = opening.terms
    policy = terms.policy if opening.timed else terms.policy.untimed()
    return Session(
        opening=opening,
        curve=EnergyCurve.opened(opening.start, opening.meter_start, policy),
        timed=opening.timed,
        newest=opening.start,
        pricing=PricingRun(terms, opening.start) if priced else None,
        flags=flags,
    )


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
        named = session.curve.location < UNNAMED
    curve, pricing, history = session.curve, session.pricing, session.history
    newest, flags, power_sampled = session.newest, session.flags, session.power_sampled
    timed = session.timed
    late: list[Late] = []
    signed: list[Signed] = []
    currents: list[tuple[int, int | None]] = []
    known: set[Signed] | None = None
    own_run = rebuild = False
    tariff = session.opening.terms.tariff
    by_current = tariff is not None and tariff.by_current
    scale = session.opening.energy_scale
    for reading, when, source in readings:
        found = usable_samples(reading.samples, with_current=by_current, named=named, scale=scale)
        if source is not TimeSource.RECEIPT and _is_later_than_said(session, when, found):
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
        if found.rejected and REJECTED not in flags:
            flags |= {REJECTED}
        power_sampled = power_sampled or found.power
        for sample in found.signed:
            blob = Signed(at=when, sample=sample)
            if known is None:
                known = set(session.signed)
            if blob not in known:
                known.add(blob)
                signed.append(blob)
        if not (found.registers or found.intervals or found.currents) and found.begin is None:
            continue
        entry = MeterEntry(at, found.registers, found.intervals, found.begin, found.currents)
        if timed and source is TimeSource.RECEIPT and (found.registers or found.intervals):
            timed, rebuild = False, True
        if history is not None and at <= history[0].at:
            late.append(Late(entry, overtaken=at < history[0].at))
            continue
        history = (entry, history)
        if found.currents:
            currents.append((at, total_current(found.currents)))
        if rebuild or at < session.opening.start:
            continue
        following = curve.add(entry)
        if following is None or following.doubts() != following.doubted:
            rebuild = True
        elif following is not curve:
            curve = following
            if pricing is not None and curve.settled:
                if not own_run:
                    pricing, own_run = pricing.copy(), True
                    pricing.follow(session.states, _with(session.currents, currents))
                for point in curve.settled:
                    pricing.advance(*point)
    if late:
        whole, reordered = with_late(history, late)
        rebuild = rebuild or whole is not history
        history = whole
        if reordered and not at_stop:
            flags |= {REORDERED}
    shown = session.published_nwh
    if not rebuild:
        shown = max(shown, _published_energy(curve))
    changed = Session(
        opening=session.opening,
        curve=curve,
        newest=newest,
        pricing=pricing,
        history=history,
        statuses=session.statuses,
        states=session.states,
        currents=_with(session.currents, currents),
        signed=_with(session.signed, signed),
        flags=flags,
        published_nwh=shown,
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


def with_status(session: Session, status: str, at: int) -> Session:
    """The session with its connector's status from `at` on."""
    statuses = list(session.statuses)
    place = len(statuses)
    while place and statuses[place - 1][0] > at:
        place -= 1
    statuses.insert(place, (at, status))
    curve, pricing = session.curve, session.pricing
    return attrs.evolve(
        session,
        statuses=tuple(statuses),
        states=_states(session.opening.terms, statuses),
        newest=max(session.newest, at),
        pricing=None if pricing is not None and at < curve.before.at else pricing,
    )


def with_terms(session: Session, terms: Terms) -> Session:
    """The same session on other terms, to be priced anew."""
    return refitted(
        attrs.evolve(
            session,
            opening=attrs.evolve(session.opening, terms=terms),
            states=_states(terms, session.statuses),
        )
    )


def refitted(session: Session) -> Session:
    """The session with its curve drawn anew from all of its history; unpriced."""
    curve, _ = _fitted(session)
    currents = tuple(
        (entry.at, total_current(entry.currents))
        for entry in entries(session.history)
        if entry.currents
    )
    shown = max(session.published_nwh, _published_energy(curve))
    return attrs.evolve(session, curve=curve, pricing=None, currents=currents, published_nwh=shown)


def priced(session: Session) -> PricingRun:
    """The run at the newest settled point; not to be walked on, but copied."""
    if session.pricing is not None:
        return session.pricing
    _, points = _fitted(session)
    return walked(session, points, session.states)


def walked(session: Session, points: Iterable[Point], states: States) -> PricingRun:
    """A new run along all of these points."""
    pricing = PricingRun(session.opening.terms, session.opening.start)
    pricing.follow(states, session.currents)
    for point in points:
        pricing.advance(*point)
    return pricing


def entries(history: History) -> Sequence[MeterEntry]:
    """Oldest first."""
    found = list(_newest_first(history))
    found.reverse()
    return found


def states_after(terms: Terms, statuses: Iterable[tuple[int, str]], stop: int) -> States:
    """The kinds of time of a session that goes on, idle, after its transaction has stopped."""
    policy = terms.policy
    statuses = list(statuses)
    before = [(at, policy.kind(status)) for at, status in statuses if at < stop]
    held = [status for at, status in statuses if at <= stop]
    at_stop = policy.kind_after_stop(held[-1] if held else "Finishing")
    after = [(at, policy.kind_after_stop(status)) for at, status in statuses if at > stop]
    return (*before, (stop, at_stop), *after)


def unplugged_at(data: str | None) -> tuple[int, Any] | None:
    """Transaction and timestamp text of a ConnectorUnplugged (OCA, OCPP & California Pricing
    Requirements); None where it cannot be read."""
    try:
        parsed = json.loads(data or "")
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    transaction_id = parsed.get("transactionId")
    if isinstance(transaction_id, str) and transaction_id.isascii() and transaction_id.isdigit():
        transaction_id = int(transaction_id)
    if not isinstance(transaction_id, int) or isinstance(transaction_id, bool):
        return None
    return transaction_id, parsed.get("timestamp")


# --- parts ------------------------------------------------------------------------------------


def _with(before: tuple[T, ...], more: list[T]) -> tuple[T, ...]:
    """The same object where nothing is added: a run that follows it has no news then."""
    return (*before, *more) if more else before


def _states(terms: Terms, statuses: Sequence[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """The turns from one kind of time to another: where none is, no price needs a look."""
    kind = terms.policy.kind
    states: list[tuple[int, str]] = []
    before = TIME
    for at, status in statuses:
        now = kind(status)
        if now != before:
            states.append((at, now))
            before = now
    return tuple(states)


def _is_later_than_said(session: Session, when: datetime, found: UsableSamples) -> bool:
    """Whether a reading from before the start shows energy of the session: nothing of it can be
    so old, so the clock was wrong.  One that shows none is of the time before the session."""
    opening = session.opening
    if opening.meter_start is None or microseconds(when) >= opening.start - BEFORE:
        return False
    return any(mark.nwh > opening.meter_start for mark in found.registers)


def _published_energy(curve: EnergyCurve) -> int:
    """nWh, as telemetry has it while the session is open."""
    return curve.last.nwh if curve.low is None else curve.decided(None).last.nwh


def _fitted(session: Session) -> tuple[EnergyCurve, list[Point]]:
    opening = session.opening
    return fit_curve(
        entries(session.history),
        start=opening.start,
        base=opening.meter_start,
        policy=session.metering_policy,
    )


def _newest_first(history: History) -> Iterator[MeterEntry]:
    while history is not None:
        entry, history = history
        yield entry
