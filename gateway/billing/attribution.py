"""Which session a message belongs to.

A message belongs to the transaction that it names (OCPP 1.6 §4.7, §4.10).  Three kinds of charge
points need more than that:

| the message names | it belongs to |
| --- | --- |
| an open transaction of this charge point | that one |
| 0, or no transaction at all, in StopTransaction | the only open one (Delta, TKT write 0) |
| the same, and repeats the stop before on that connector | the one before |
| a closed one, and says what cannot be of it | the only open one (TKT writes the id before) |
| a closed one, and may be of it | that one: it is late, or a retry |
| none, in MeterValues | the one open on the connector when the values were taken |
| anything else | none: it is kept as an orphan for people |

For example, transaction 41 stopped at 10:00 with 5,000 Wh and 42 started at 10:05 on the same
connector.  A StopTransaction that names 41 at 11:00 with 9,000 Wh is not a repetition of
the stop of 10:00, so it ends 42, and the receipt is flagged `transaction_id_mismatch` for a review.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ..domain.events import MeterSampled, TimedReading, TransactionStopped
from ..domain.fixed_point import microseconds
from .session import START_MARGIN, Session
from .session_store import SessionStore
from .transitions import ID_MISMATCH, is_same_stop, stop_of


def session_of(store: SessionStore, event: MeterSampled | TransactionStopped) -> Session | None:
    """The session that a message belongs to, flagged where the message names another transaction;
    None where it belongs to none."""
    named = store.of_charge_point(event.transaction_id, event.charge_point_id)
    if named is not None and not named.closed:
        return named
    candidate = _only_open(store, event)
    if candidate is None or not _belongs_to(candidate, event, named):
        return named
    before = store.last_closed(candidate.connector)
    if before is not None and named is None and _repeats_stop(before, event):
        return before
    return attrs.evolve(candidate, flags=candidate.flags | ID_MISMATCH)


def sessions_by_connector(
    store: SessionStore, event: MeterSampled
) -> Iterator[tuple[Session, tuple[TimedReading, ...]]]:
    """The sessions that readings without a transaction id belong to, each with its readings.

    They are of the transaction that was open on the connector when they were taken (OCPP 1.6
    errata 3.16); those of no transaction are only telemetry.
    """
    if event.connector_id <= 0:
        return
    connector = event.charge_point_id, event.connector_id
    for session in (store.open_on(connector), store.last_closed(connector)):
        if session is None:
            continue
        end = None if session.stop is None else session.stop.at
        readings = tuple(
            timed
            for timed in event.timed_readings()
            for at in (microseconds(timed.at),)
            if session.opening.start <= at and (end is None or at <= end)
        )
        if readings:
            yield session, readings


def _only_open(store: SessionStore, event: MeterSampled | TransactionStopped) -> Session | None:
    """The open session of the connector, or of the whole charge point where the message names no
    connector; None where that leaves a choice."""
    if isinstance(event, MeterSampled) and event.connector_id > 0:
        return store.open_on((event.charge_point_id, event.connector_id))
    candidates = store.open_at(event.charge_point_id)
    return candidates[0] if len(candidates) == 1 else None


def _belongs_to(
    session: Session, event: MeterSampled | TransactionStopped, named: Session | None
) -> bool:
    """Whether a message that names no open transaction belongs to the one that is open.

    session: the only open one where the message comes from.  named: the closed one that it
    names; None where it names none of this charge point's.
    """
    if isinstance(event, MeterSampled):
        instants = [at for _, at, _ in event.timed_readings()]
    else:
        instants = [event.at]
    if any(microseconds(at) < session.opening.start - START_MARGIN for at in instants):
        return False
    if named is None and isinstance(event, TransactionStopped) and _precedes(session, event):
        return False
    if named is None:
        return event.transaction_id in (0, None)
    if isinstance(event, MeterSampled):
        return bool(instants)
    stop, _ = stop_of(named, event)
    assert named.stop is not None  # noqa: S101  it is closed
    if not named.stop.inferred:
        return not is_same_stop(stop, named.stop)
    if named.connector != session.connector:
        return False  # registers of two connectors say nothing about each other
    # The true stop of the named one may come after the start that only seemed to end it, but then
    # its register is no higher than that start's.
    start = session.opening
    later = stop.at > start.start + START_MARGIN
    tolerance = start.terms.policy.tolerance
    more = None not in (stop.register, start.meter_start) and (
        stop.register > start.meter_start + tolerance  # type: ignore[operator]
    )
    return later and more


def _repeats_stop(session: Session, event: MeterSampled | TransactionStopped) -> bool:
    if session.stop is None or session.stop.inferred or isinstance(event, MeterSampled):
        return False
    stop, _ = stop_of(session, event)
    return is_same_stop(stop, session.stop)


def _precedes(session: Session, event: TransactionStopped) -> bool:
    """Whether a stop that names no transaction is from before the start, with no energy since: it
    is of the transaction before, which may be forgotten here after a restart."""
    register, base = stop_of(session, event)[0].register, session.opening.meter_start
    early = microseconds(event.at) < session.opening.start
    return early and register is not None and base is not None and register <= base
