"""One transaction in the ledger: an immutable value, replaced with each message.

What its readings say about energy is in `curve`, drawn from `history`; how its time is priced
follows from `statuses`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import attrs

from ..domain.clock import AHEAD, TimeSource
from ..domain.event_values import Sample
from ..domain.fixed_point import SECOND
from ..tariffs.dimensions import TIME
from ..tariffs.policy import Policy
from ..tariffs.tariff import Terms
from .energy_curve import EnergyCurve
from .history import History
from .pricing import Pricing, States

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

START_MARGIN = int(AHEAD.total_seconds()) * SECOND
"""us that something of a session may lie before its start: two clocks, or one that was set."""


@attrs.frozen(slots=True, kw_only=True)
class Opening:
    """What StartTransaction reported, and the terms of the session.

    start: us.  timed: it is the charge point's own timestamp.  reported_late: it is, and it was
        received long after that time, so the charge point's clock may be behind.
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
    reported_late: bool = False
    energy_scale: Decimal | None = None


@attrs.frozen(slots=True, kw_only=True)
class Stop:
    """How it ended.

    at: us, never before the start.  timed: it is the charge point's own timestamp.
    reported_at: us, as the charge point wrote it; None where it wrote none.
    register: meterStop in nWh.
    inferred: not reported; it ended at the last reading.  id_mismatch: by a message that named
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
    id_mismatch: bool = False

    @property
    def provisional(self) -> bool:
        """Whether the transaction's own StopTransaction, if it comes, takes its place."""
        return self.inferred or self.id_mismatch


@attrs.frozen(slots=True, kw_only=True)
class SignedValue:
    """One signed sampledValue, verbatim."""

    at: datetime
    sample: Sample


@attrs.frozen(slots=True, kw_only=True)
class Session:
    """A transaction so far.

    curve: the energy curve over the history.  pricing: priced as far as the curve is settled; None
        where that is still to be done.
    statuses: (us, status) in the order of time.  states: the same as kinds of time.
    newest: us of the newest data.  published_nwh: nWh, the most energy ever published.
    unplugged: us, as the charge point reported.
    confirmed: the charge point has sent readings of it, or its stop.  disputed: and later another
        stop, which is not billed.
    version: of the newest receipt, 0 before the first.  closed: the receipt stands.
    timed: its start and readings have times of the charge point's own.
    """

    opening: Opening
    curve: EnergyCurve
    newest: int
    pricing: Pricing | None = None
    history: History = None
    statuses: tuple[tuple[int, str], ...] = ()
    states: tuple[tuple[int, str], ...] = ()
    currents: tuple[tuple[int, int | None], ...] = ()
    signed: tuple[SignedValue, ...] = ()
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
        """The policy for its readings: never over a duration that is not the charge point's."""
        policy = self.opening.terms.policy
        return policy if self.timed else policy.untimed()

    @property
    def connector(self) -> tuple[str, int]:
        """Charge point id and connector id."""
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


def open_session(opening: Opening, *, flags: frozenset[str], priced: bool) -> Session:
    """A session at its start.  priced: begin to keep a priced prefix."""
    terms = opening.terms
    policy = terms.policy if opening.timed else terms.policy.untimed()
    return Session(
        opening=opening,
        curve=EnergyCurve.opened(opening.start, opening.meter_start, policy),
        timed=opening.timed,
        newest=opening.start,
        pricing=Pricing(terms, opening.start) if priced else None,
        flags=flags,
    )


def with_status(session: Session, status: str, at: int) -> Session:
    """The session with its connector's status from `at` on."""
    statuses = list(session.statuses)
    index = len(statuses)
    while index and statuses[index - 1][0] > at:
        index -= 1
    statuses.insert(index, (at, status))
    curve, pricing = session.curve, session.pricing
    return attrs.evolve(
        session,
        statuses=tuple(statuses),
        states=states_of(session.opening.terms, statuses),
        newest=max(session.newest, at),
        pricing=None if pricing is not None and at < curve.before.at else pricing,
    )


def states_after(terms: Terms, statuses: Iterable[tuple[int, str]], stop: int) -> States:
    """The kinds of time of a session that goes on, idle, after its transaction has stopped."""
    policy = terms.policy
    statuses = list(statuses)
    before = [(at, policy.kind(status)) for at, status in statuses if at < stop]
    until_stop = [status for at, status in statuses if at <= stop]
    at_stop = policy.kind_after_stop(until_stop[-1] if until_stop else "Finishing")
    after = [(at, policy.kind_after_stop(status)) for at, status in statuses if at > stop]
    return (*before, (stop, at_stop), *after)


def states_of(terms: Terms, statuses: Sequence[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
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
