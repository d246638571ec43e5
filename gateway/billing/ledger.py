"""The ledger: events of transactions in, derived events about energy and money out.

Rule 1: a message's cost never depends on how many came before it, or how many are open.
Rule 2: the running cost is what the session would cost if it stopped now, by the same function.
Rule 3: the same event twice changes nothing but a flag.
Rule 4: what is settled stays; a correction is a new version of the same receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs

from ..domain.clock import instant_of, parse_timestamp
from ..domain.events import (
    ChargePointBooted,
    ConnectorStatusChanged,
    DataTransferred,
    Event,
    MeterSampled,
    TransactionClosed,
    TransactionOpened,
    TransactionSettled,
    TransactionStarted,
    TransactionStopped,
)
from ..domain.fixed_point import SECOND, WH, instant, microseconds
from ..tariffs.file import terms_of
from ..tariffs.tariff import TariffBook
from .derived_events import opened_fact, progressed_fact, settled_fact
from .orphans import orphan
from .session import Session, priced, unplugged_at, with_status, with_terms
from .settlement import NO_TARIFF, final, so_far
from .transitions import (
    MISNAMED,
    NextStep,
    Transition,
    ended,
    is_of,
    left_before,
    sampled,
    started,
    started_again,
    status_changed,
    stopped,
    unplugged,
)

REPLACED = "charger_replaced"
_COSTMSG = "org.openchargealliance.costmsg"
_GREATEST_ID = 2**31 - 1
_UNPUBLISHED = 50 * SECOND
_BELATED = 300 * SECOND

Connector = tuple[str, int]
Changes = tuple[list[Session], list[Event]]  # sessions to keep, events to publish


@attrs.frozen(kw_only=True)
class OpenTransaction:
    """stopped: only the cable is still in, and idle time may count on.

    newest_at: of the newest data that it rests on.
    unconfirmed: see `Session.unconfirmed`.
    """

    charge_point_id: str
    connector_id: int
    transaction_id: int
    id_tag: str
    started_at: datetime
    newest_at: datetime
    stopped: bool = False
    unconfirmed: bool = False


class Ledger:
    """The transactions that are open, and the last closed one of each connector.

    tariff_book: the prices for transactions that start from now on; the open ones keep theirs.
    """

    def __init__(self, tariff_book: TariffBook, *, software: str = "") -> None:
        self.tariff_book = tariff_book
        self._software = software
        self._sessions: dict[int, Session] = {}
        self._open: dict[Connector, int] = {}
        self._connectors: dict[str, set[int]] = {}  # that had an open transaction
        self._closed: dict[Connector, list[int]] = {}  # more than one only while restoring
        self._adopted: int | None = None  # the one older transaction that was adopted last
        self._statuses: dict[Connector, tuple[int, str]] = {}
        self._ticked: dict[int, int] = {}  # when a tick was last published
        self._belated: set[int] = set()  # what is told of them was long ago: out of a queue
        self._handlers: Mapping[type[Event], Callable[[Any, bool], Changes]] = {
            TransactionStarted: self._started,
            MeterSampled: self._sampled,
            TransactionStopped: self._stopped,
            ConnectorStatusChanged: self._status,
            DataTransferred: self._data,
            ChargePointBooted: self._booted,
            TransactionClosed: self._closed_by_hand,
        }

    # --- events ---

    def post(self, event: Event) -> tuple[Event, ...]:
        """Account for an event; the facts that follow from it.  If it raises, nothing changed."""
        return self.enter(event, self.outcomes(event))

    def outcomes(self, event: Event) -> Changes | None:
        """What `enter` is to be given for the same event, as long as no other is posted between.

        It changes nothing here, so it may be computed in a thread: see `accountant`.
        """
        handler = self._handlers.get(type(event))
        return None if handler is None else handler(event, True)

    def enter(self, event: Event, outcomes: Changes | None) -> tuple[Event, ...]:
        """Account for an event of which the outcomes are known; the facts that follow from it."""
        if outcomes is None:
            return ()
        sessions, facts = outcomes
        self._commit(event, sessions)
        for session in sessions:
            if session.closed:
                self._put_away(session.key)
        return tuple(facts)

    def restore(self, event: Event) -> None:
        """Account for an event of the past: the same, but nothing is priced or published again."""
        if isinstance(event, TransactionOpened):
            self._restore_terms(event)
        elif isinstance(event, TransactionSettled):
            self._restore_receipt(event)
        else:
            handler = self._handlers.get(type(event))
            if handler is not None:
                self._commit(event, handler(event, False)[0])

    def due(self, now: datetime) -> list[int]:
        """The open transactions that nothing was published about for nearly a minute: time and what
        it costs go on where no frame comes."""
        end = microseconds(now)
        return [
            transaction_id
            for transaction_id in self._open.values()
            if transaction_id not in self._belated
            and end
            - max(self._sessions[transaction_id].newest, self._ticked.get(transaction_id, 0))
            >= _UNPUBLISHED
        ]

    def tick(self, transaction_id: int, now: datetime) -> tuple[Event, ...]:
        """How an open transaction stands at this moment; nothing where it has ended."""
        session = self._sessions.get(transaction_id)
        end = microseconds(now)
        if session is None or session.closed or end <= session.newest:
            return ()
        if session.pricing is None:
            session = attrs.evolve(session, pricing=priced(session))
            self._sessions[transaction_id] = session
        self._ticked[transaction_id] = end
        return (progressed_fact(so_far(session, end), now, by_clock=True),)

    # --- what is held ---

    def missing_transaction(self, event: Event) -> int | None:
        """The transaction that the event names and that is not held here: it may be an older
        one, to be restored from the journal and adopted."""
        transaction_id: int | None = None
        if isinstance(event, MeterSampled | TransactionStopped):
            transaction_id = event.transaction_id
        elif isinstance(event, TransactionStarted):
            transaction_id = event.transaction_id if event.repeated else None
        elif isinstance(event, DataTransferred):
            unplugged = _unplugged(event)
            transaction_id = unplugged and unplugged[0]
        if transaction_id is None or not 0 < transaction_id <= _GREATEST_ID:
            return None
        return None if transaction_id in self._sessions else transaction_id

    def adopt(self, other: Ledger, transaction_id: int) -> None:
        """Take a transaction over from another ledger, which may lack it too."""
        session = other.session(transaction_id)
        if session is None:
            return
        if not session.closed:
            self._keep(session)
        elif transaction_id not in self._sessions:
            self._forget_adopted()
            self._sessions[transaction_id] = session
            self._adopted = transaction_id

    def open_transactions(self) -> list[OpenTransaction]:
        return [
            OpenTransaction(
                charge_point_id=opening.charge_point_id,
                connector_id=opening.connector_id,
                transaction_id=opening.transaction_id,
                id_tag=opening.id_tag,
                started_at=opening.started_at,
                newest_at=instant(session.newest),
                stopped=session.stop is not None,
                unconfirmed=session.unconfirmed,
            )
            for session in map(self._sessions.__getitem__, self._open.values())
            for opening in (session.opening,)
        ]

    def session(self, transaction_id: int) -> Session | None:
        """A transaction as far as it is held here."""
        return self._sessions.get(transaction_id)

    # --- one handler for each event ---

    def _started(self, event: TransactionStarted, emit: bool) -> Changes:
        held = self._sessions.get(event.transaction_id)
        if held is not None:
            return [started_again(held)], []
        sessions: list[Session] = []
        facts: list[Event] = []
        key = event.charge_point_id, event.connector_id
        terms = self.tariff_book.terms(event.charge_point_id, event.connector_id, event.at)
        status = self._statuses.get(key)
        if key in self._open:  # a new start proves the old one's end, which was never reported
            old = ended(self._sessions[self._open[key]], "Inferred")
            sessions, facts = self._apply(Transition(old, NextStep.SETTLE), event.received_at, emit)
            status = None
        session = started(event, terms, status, self._last_stopped(key, event), priced=emit)
        sessions.append(session)
        if emit:
            facts.append(opened_fact(so_far(session), event.received_at))
        return sessions, facts

    def _sampled(self, event: MeterSampled, emit: bool) -> Changes:
        if event.transaction_id is None:
            return self._sampled_by_connector(event, emit)
        session = self._meant(event)
        if session is None:
            return [], [orphan(event)]
        transition = sampled(session, event, event.timed_readings())
        return self._apply(transition, event.received_at, emit, with_power=True)

    def _sampled_by_connector(self, event: MeterSampled, emit: bool) -> Changes:
        """Without a transaction id they are of the transaction that was open on the connector
        when they were taken (OCPP 1.6 errata 3.16); of none, they are only telemetry."""
        key = event.charge_point_id, event.connector_id
        sessions: list[Session] = []
        facts: list[Event] = []
        held = [*self._closed.get(key, ())[-1:]]
        if key in self._open:
            held.insert(0, self._open[key])
        for transaction_id in held if event.connector_id > 0 else ():
            session = self._sessions[transaction_id]
            end = None if session.stop is None else session.stop.at
            readings = tuple(
                timed
                for timed in event.timed_readings()
                for at in (microseconds(timed.at),)
                if session.opening.start <= at and (end is None or at <= end)
            )
            if readings:
                transition = sampled(session, event, readings)
                kept, new_facts = self._apply(transition, event.received_at, emit, with_power=True)
                sessions += kept
                facts += new_facts
        return sessions, facts

    def _stopped(self, event: TransactionStopped, emit: bool) -> Changes:
        session = self._meant(event)
        if session is None:
            return [], [orphan(event)]
        return self._apply(stopped(session, event), event.received_at, emit)

    def _status(self, event: ConnectorStatusChanged, emit: bool) -> Changes:
        transaction_id = self._open.get((event.charge_point_id, event.connector_id))
        if transaction_id is None:
            return [], []
        transition = status_changed(self._sessions[transaction_id], event)
        return self._apply(transition, event.received_at, emit)

    def _data(self, event: DataTransferred, emit: bool) -> Changes:
        unplugged_event = _unplugged(event)
        session = None if unplugged_event is None else self._session_of(unplugged_event[0], event)
        if unplugged_event is None or session is None:
            return [], []
        when, _ = instant_of(parse_timestamp(unplugged_event[1]), event.received_at)
        at = microseconds(when)
        if at < session.opening.start:  # nothing of a transaction is before its start
            at = microseconds(event.received_at)
        return self._apply(unplugged(session, at), event.received_at, emit)

    def _booted(self, event: ChargePointBooted, emit: bool) -> Changes:
        """Transactions outlive a boot (OCPP 1.6 §4.10, PowerLoss), but not the hardware."""
        sessions: list[Session] = []
        facts: list[Event] = []
        for (charge_point_id, _), transaction_id in self._open.items() if event.replaced else ():
            if charge_point_id != event.charge_point_id:
                continue
            old = ended(self._sessions[transaction_id], "Replaced")
            old = attrs.evolve(old, flags=old.flags | {REPLACED})
            kept, new_facts = self._apply(Transition(old, NextStep.SETTLE), event.received_at, emit)
            sessions += kept
            facts += new_facts
        return sessions, facts

    def _closed_by_hand(self, event: TransactionClosed, emit: bool) -> Changes:
        session = self._session_of(event.transaction_id, event)
        if session is None or session.closed:
            return [], []
        return self._apply(
            Transition(ended(session, event.reason), NextStep.SETTLE), event.received_at, emit
        )

    # --- parts ---

    def _apply(
        self, transition: Transition, received_at: datetime, emit: bool, *, with_power: bool = False
    ) -> Changes:
        """The session to keep, and the events to publish about it."""
        session, then = transition
        if then is NextStep.SETTLE:
            session = attrs.evolve(session, closed=True, version=session.version + 1)
        if not emit or then is NextStep.NOTHING:
            return [session], []
        if then is NextStep.SETTLE:
            return [session], [settled_fact(final(session), received_at, self._software)]
        if session.pricing is None:
            session = attrs.evolve(session, pricing=priced(session))
        # Not before what the clock alone has told already: an older instant would not be seen.
        end = max(session.newest, self._ticked.get(session.opening.transaction_id, 0))
        return [session], [
            progressed_fact(so_far(session, end), received_at, with_power=with_power)
        ]

    def _session_of(self, transaction_id: int | None, event: Event) -> Session | None:
        session = None if transaction_id is None else self._sessions.get(transaction_id)
        if session is None or session.opening.charge_point_id != event.charge_point_id:
            return None
        return session

    def _meant(self, event: MeterSampled | TransactionStopped) -> Session | None:
        """The session that a message is of, flagged where it names another transaction."""
        named = self._session_of(event.transaction_id, event)
        if named is not None and not named.closed:
            return named
        candidate = self._only_open(event)
        if candidate is None or not is_of(candidate, event, named):
            return named
        return attrs.evolve(candidate, flags=candidate.flags | MISNAMED)

    def _only_open(self, event: MeterSampled | TransactionStopped) -> Session | None:
        """The open session of the connector; of the charge point, where the message names none."""
        name = event.charge_point_id
        if isinstance(event, MeterSampled) and event.connector_id > 0:
            found = [self._open.get((name, event.connector_id))]
        else:
            found = [self._open.get((name, n)) for n in self._connectors.get(name, ())]
        held = [transaction_id for transaction_id in found if transaction_id is not None]
        return self._sessions[held[0]] if len(held) == 1 else None

    def _last_stopped(self, key: Connector, event: TransactionStarted) -> Session | None:
        if key in self._open:
            return None  # its end was never reported
        closed = self._closed.get(key)
        if not closed:
            return None
        before = self._sessions[closed[-1]]
        # Registers that were multiplied by different factors have no gap between them.
        return before if before.opening.energy_scale == event.energy_scale else None

    def _commit(self, event: Event, sessions: list[Session]) -> None:
        for session in sessions:
            self._keep(session)
            belated = microseconds(event.received_at) - session.newest > _BELATED
            if belated and not session.closed:
                self._belated.add(session.opening.transaction_id)
            else:
                self._belated.discard(session.opening.transaction_id)
        if isinstance(event, ConnectorStatusChanged):
            at = microseconds(event.at)
            self._statuses[event.charge_point_id, event.connector_id] = (at, event.status)

    def _keep(self, session: Session) -> None:
        transaction_id, key = session.opening.transaction_id, session.key
        self._sessions[transaction_id] = session
        if not session.closed:
            self._open[key] = transaction_id
            self._connectors.setdefault(key[0], set()).add(key[1])
        elif self._open.get(key) == transaction_id:
            del self._open[key]
            self._ticked.pop(transaction_id, None)
            self._belated.discard(transaction_id)
            self._statuses.pop(key, None)  # it was that session's, and says nothing of the next
            self._closed.setdefault(key, []).append(transaction_id)

    def _put_away(self, key: Connector) -> None:
        """Hold on to the newest closed transaction of a connector only."""
        closed = self._closed.get(key, [])
        for transaction_id in closed[:-1]:
            if transaction_id != self._adopted:
                del self._sessions[transaction_id]
        del closed[:-1]

    def _forget_adopted(self) -> None:
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            session = self._sessions[adopted]
            if adopted != self._open.get(session.key) and adopted not in self._closed.get(
                session.key, ()
            ):
                del self._sessions[adopted]

    def _restore_terms(self, event: TransactionOpened) -> None:
        session = self._sessions.get(event.transaction_id)
        if session is None:
            return
        terms = terms_of(event.tariff, event.policy, event.time_zone)
        if event.status == "Available":
            session = left_before(session)
        elif event.status is not None and event.status_at is not None:
            status = (microseconds(event.status_at), event.status)
            if status not in session.statuses:
                session = with_status(session, status[1], status[0])
        flags = session.flags - {NO_TARIFF}
        if terms.unpriced or NO_TARIFF in event.progress.flags:
            flags |= {NO_TARIFF}
        gap = None if event.meter_gap_wh is None else int(event.meter_gap_wh * WH)
        opening = attrs.evolve(session.opening, meter_gap=gap)
        self._keep(with_terms(attrs.evolve(session, opening=opening, flags=flags), terms))

    def _restore_receipt(self, event: TransactionSettled) -> None:
        session = self._sessions.get(event.transaction_id)
        if session is None:
            return
        if not session.closed:
            session = ended(session, str(event.receipt.get("stop_reason")))
        version = max(session.version, event.version)
        self._keep(attrs.evolve(session, closed=True, version=version))


def _unplugged(event: DataTransferred) -> tuple[int, Any] | None:
    if event.vendor_id != _COSTMSG or event.message_id != "ConnectorUnplugged":
        return None
    return unplugged_at(event.data)
