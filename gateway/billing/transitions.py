"""What each message does to a session, and what follows.  Pure.

| the session | a message | the session then | next step |
| --- | --- | --- | --- |
| open | MeterValues | open, more readings | PROGRESS |
| open | StatusNotification | open, another kind of time | PROGRESS |
| open | StopTransaction | stopped | SETTLE |
| open, `post_stop_parking` | StopTransaction | stopped, the cable still in | PROGRESS |
| stopped, the cable still in | Available, or ConnectorUnplugged | unplugged | SETTLE |
| stopped or settled | the same StopTransaction again | flagged `duplicate_stop` | NOTHING |
| settled | another StopTransaction, the first such | flagged, the bill stays | SETTLE |
| settled at an inferred end | its own StopTransaction | stopped by it | SETTLE |
| settled | MeterValues | flagged `late_samples` | NOTHING |

Law 1: the first StopTransaction of the transaction's own id holds; later ones are not billed.
Law 2: an end that was inferred, or was reported under another transaction's id, is provisional: the
       transaction's own StopTransaction takes its place.
Law 3: nothing of a session lies before its start.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

import attrs

from ..domain.clock import AGREES, TimeSource
from ..domain.events import (
    ConnectorStatusChanged,
    MeterSampled,
    TimedReading,
    TransactionStarted,
    TransactionStopped,
)
from ..domain.fixed_point import SECOND, microseconds, scaled, times
from ..tariffs.tariff import Terms
from .readings import with_readings
from .session import (
    LATE,
    START_MARGIN,
    TIME_FLAGS,
    Opening,
    Session,
    Stop,
    open_session,
    with_status,
)
from .settlement import NEEDS_REVIEW, NO_TARIFF

DUPLICATE_START = "duplicate_start"
DUPLICATE_STOP = "duplicate_stop"
STOP_LATE = "stop_late"
STOP_BEFORE_START = "stop_before_start"
METER_START_MISSING = "meter_start_missing"
NO_CONNECTOR = "connector_invalid"
ID_MISMATCH = frozenset({"transaction_id_mismatch", NEEDS_REVIEW})
"""Of a session whose messages named another transaction, or none."""

# A status that arrived before its transaction's start says something about it only if it can
# hold within a transaction; Finishing is the one before's.
_STATUSES_IN_TRANSACTION = frozenset(
    {"Charging", "SuspendedEV", "SuspendedEVSE", "Faulted", "Unavailable"}
)


class NextStep(Enum):
    """What the ledger does after a message."""

    NOTHING = "nothing"  # nothing is published
    PROGRESS = "progress"  # the running energy and cost are published
    SETTLE = "settle"  # the receipt is published, the first one or its next version


class Transition(NamedTuple):
    session: Session
    next_step: NextStep


def started(
    event: TransactionStarted,
    terms: Terms,
    status: tuple[int, str] | None,
    before: Session | None,
    *,
    priced: bool,
) -> Session:
    """A new session.

    before: the last one on its connector, whose end is known.
    status: of its connector, and since when (us); None where it is not known.
    priced: begin to keep a priced prefix.
    """
    started_at, source = event.instant()
    meter_start = _register(event.meter_start, event.energy_scale)
    flags = _defects(event.defects, "meterStart")
    flags |= _time_flags(source)
    if meter_start is None:
        flags |= {METER_START_MISSING}
    if event.repeated:
        flags |= {DUPLICATE_START}
    if terms.unpriced:
        flags |= {NO_TARIFF}
    if event.connector_id < 1:  # 0 is the charge point as a whole (OCPP 1.6 §3.8)
        flags |= {NO_CONNECTOR, NEEDS_REVIEW}
    opening = Opening(
        charge_point_id=event.charge_point_id,
        connector_id=event.connector_id,
        transaction_id=event.transaction_id,
        id_tag=event.id_tag,
        started_at=started_at,
        start=microseconds(started_at),
        meter_start=meter_start,
        terms=terms,
        meter_gap=_meter_gap(before, meter_start, terms.policy.tolerance),
        timed=source is not TimeSource.RECEIPT,
        reported_late=source is TimeSource.OWN and event.received_at - started_at > AGREES,
        energy_scale=event.energy_scale,
    )
    session = open_session(opening, flags=flags, priced=priced)
    if status is not None and status[1] in _STATUSES_IN_TRANSACTION:
        session = with_status(session, status[1], status[0])
    elif status is not None and status[1] == "Available" and status[0] >= opening.start:
        session = unplugged_at_start(session)
    return session


def unplugged_at_start(session: Session) -> Session:
    """A session that was reported when its connector was free again: since when is not known, so
    no time after its stop is idle."""
    return attrs.evolve(session, unplugged=session.opening.start)


def start_repeated(session: Session) -> Session:
    return attrs.evolve(session, flags=session.flags | {DUPLICATE_START})


def sampled(session: Session, event: MeterSampled, readings: Iterable[TimedReading]) -> Transition:
    """readings: those of the event that are this session's."""
    flags = session.flags
    named = event.transaction_id == session.opening.transaction_id
    if event.defects:
        flags |= _defects(event.defects, "sampledValue", "timestamp", "connectorId")
    if session.stop is None:
        if flags is not session.flags:
            session = attrs.evolve(session, flags=flags)
        session = with_readings(session, readings, event.received_at, named=named)
        return Transition(session, NextStep.PROGRESS)
    # The bill is sealed (OCPP 1.6 §3.7 has transaction messages in order); they are kept where
    # the stop is provisional, for the true one may still come.
    flags |= {LATE}
    if session.stop.provisional:
        late = with_readings(session, readings, event.received_at, named=named)
        session = attrs.evolve(late, newest=session.newest, published_nwh=session.published_nwh)
        flags |= late.flags
    return Transition(attrs.evolve(session, flags=flags), NextStep.NOTHING)


def stopped(session: Session, event: TransactionStopped) -> Transition:
    stop, flags = stop_of(session, event)
    if session.stop is not None and not session.stop.provisional:
        # The first one holds (law 1).  A retry is equal; one that is not equal must be seen.
        is_same = is_same_stop(stop, session.stop)
        is_repetition = is_same or not session.closed or session.disputed
        flags = session.flags | {DUPLICATE_STOP}
        session = attrs.evolve(session, flags=flags, disputed=session.disputed or not is_same)
        return Transition(session, NextStep.NOTHING if is_repetition else NextStep.SETTLE)
    if session.closed:
        flags |= {STOP_LATE}
    session = with_readings(session, event.timed_readings(), event.received_at, at_stop=True)
    idle_counts_on = session.opening.terms.policy.post_stop_parking and not session.closed
    unplugged_us = _reported_unplugging(session, stop.at) if idle_counts_on else None
    session = attrs.evolve(
        session,
        stop=attrs.evolve(stop, unplugged=unplugged_us),
        newest=max(session.newest, stop.at),
        flags=session.flags | flags,
    )
    return Transition(
        session, NextStep.PROGRESS if idle_counts_on and unplugged_us is None else NextStep.SETTLE
    )


def status_changed(session: Session, event: ConnectorStatusChanged) -> Transition:
    """A status that is received in the session but stamped before it counts from its receipt."""
    status, (instant, source) = event.status, event.instant()
    at = microseconds(instant)
    if at < session.opening.start:
        received = microseconds(event.received_at)
        if received > session.opening.start:
            at, source = received, TimeSource.RECEIPT
    session = with_status(session, status, at)
    if source is not TimeSource.OWN:
        session = attrs.evolve(session, flags=session.flags | TIME_FLAGS[source])
    if session.stop is not None and status == "Available":
        return _unplugged_at(session, max(at, session.stop.at))
    return Transition(session, NextStep.PROGRESS)


def unplugged(session: Session, at: int) -> Transition:
    """The charge point says when the cable came out.  at: us."""
    stop = session.stop
    if stop is None:
        return Transition(attrs.evolve(session, unplugged=at), NextStep.NOTHING)
    at = max(at, stop.at)
    if (
        stop.inferred
        or not session.opening.terms.policy.post_stop_parking
        or (session.closed and (stop.unplugged is None or at >= stop.unplugged))
    ):
        return Transition(session, NextStep.NOTHING)
    return _unplugged_at(session, at)


def end_inferred(session: Session, reason: str) -> Session:
    """The session as far as there is evidence of it, its end never having been reported."""
    stop = session.stop
    if stop is None:
        at = session.curve.resolved(None).last.at
        stop = Stop(at=at, register=None, reason=reason, inferred=True)
        return attrs.evolve(session, stop=stop)
    at = stop.at
    if session.statuses and session.statuses[-1][1] != "Available":
        at = max(at, session.statuses[-1][0])
    return attrs.evolve(session, stop=attrs.evolve(stop, unplugged=at))


# --- parts ------------------------------------------------------------------------------------


def _meter_gap(before: Session | None, meter_start: int | None, tolerance: int) -> int | None:
    """nWh that the register has moved since the session before; None where that is not known, or
    where the register begins at zero in each session."""
    if before is None or before.stop is None or meter_start is None:
        return None
    register, began = before.stop.register, before.opening.meter_start
    from_zero = began is not None and max(began, meter_start) <= tolerance
    if register is None or from_zero or before.curve.relative:
        return None
    return meter_start - register


def _unplugged_at(session: Session, at: int) -> Transition:
    assert session.stop is not None  # noqa: S101  callers have seen the stop
    stop = attrs.evolve(session.stop, unplugged=at)
    return Transition(attrs.evolve(session, stop=stop), NextStep.SETTLE)


def stop_of(session: Session, event: TransactionStopped) -> tuple[Stop, frozenset[str]]:
    instant, source = event.instant()
    at = microseconds(instant)
    flags = _defects(event.defects, "meterStop", "transactionData", "sampledValue")
    if event.timestamp is not None:
        flags -= {"defect_timestamp"}  # it is a reading's time that is missing
    if at < session.opening.start:
        flags |= {STOP_BEFORE_START}
        if at < session.opening.start - START_MARGIN:  # no clock is set so far back in a session
            at, source = microseconds(event.received_at), TimeSource.RECEIPT
        at = max(at, session.opening.start)
    register = _register(event.meter_stop, session.opening.energy_scale)
    if source is TimeSource.OWN and _is_too_early(session, register, at, event.received_at):
        at, source = microseconds(event.received_at), TimeSource.RECEIPT
    flags |= _time_flags(source)
    if session.opening.reported_late and source is TimeSource.CORRECTED:
        # The offset was not known at the start, so the start may be as wrong as the stop.
        flags |= {NEEDS_REVIEW}
    stop = Stop(
        at=at,
        register=register,
        reason=event.reason or ("Remote" if event.remote else "Local"),
        reported_at=None if event.timestamp is None else microseconds(event.timestamp),
        timed=source is not TimeSource.RECEIPT,
        id_mismatch=event.transaction_id != session.opening.transaction_id,
    )
    return stop, flags


def _is_too_early(session: Session, register: int | None, at: int, received_at: datetime) -> bool:
    """Whether a stop that is stamped at the start, but received later, cannot have been so early:
    its energy cannot have flowed until then, but can have until the stop was received."""
    opening, received = session.opening, microseconds(received_at)
    if register is None or opening.meter_start is None or at > opening.start + START_MARGIN:
        return False
    metered, policy = register - opening.meter_start, session.metering_policy
    return (
        received - at > START_MARGIN
        and not policy.plausible(metered, at - opening.start)
        and policy.plausible(metered, received - opening.start)
    )


def _time_flags(source: TimeSource) -> frozenset[str]:
    """Of a session's beginning or end, on which time and price rest."""
    flags = TIME_FLAGS[source]
    return flags | {NEEDS_REVIEW} if source is TimeSource.RECEIPT else flags


def is_same_stop(one: Stop, other: Stop) -> bool:
    """Whether a repeated StopTransaction says the same: some charge points write the time anew,
    with or without its milliseconds, and leave the reason out."""
    if one.reported_at is None or other.reported_at is None:
        return one.reported_at == other.reported_at and one.register == other.register
    return abs(one.reported_at - other.reported_at) < SECOND and one.register == other.register


def _register(text: str | None, scale: Decimal | None) -> int | None:
    """meterStart or meterStop in nWh; None where there is none that can be read."""
    register = None if text is None else scaled(text, 9)
    return None if register is None else times(register, scale)


def _reported_unplugging(session: Session, stop: int) -> int | None:
    if session.unplugged is not None:
        return max(stop, session.unplugged)
    if session.statuses and session.statuses[-1][1] == "Available":
        return max(stop, session.statuses[-1][0])
    return None


def _defects(defects: Iterable[str], *ignored: str) -> frozenset[str]:
    """Flags for the fields that broke the schema.  ignored: those that need no such flag."""
    return frozenset(f"defect_{field}" for field in defects if field not in ignored)
