"""The ledger: events of transactions in, derived events about energy and money out.

Rule 1: a message's cost never depends on how many came before it, or how many are open.
Rule 2: the running cost is what the session would cost if it stopped now, by the same function.
Rule 3: the same event twice changes nothing but a flag.
Rule 4: what is settled stays; a correction is a new version of the same receipt.

| event | what it does to its session | published |
| --- | --- | --- |
| TransactionStarted | opens it; settles the one still open on the connector | opened |
| MeterSampled | extends its energy curve | progressed |
| ConnectorStatusChanged | idle time begins or ends; free after the stop: settled | progressed |
| DataTransferred (ConnectorUnplugged) | the cable is out: settles what has stopped | settled |
| TransactionStopped | settles it, or lets idle time count on (`post_stop_parking`) | settled |
| ChargePointBooted (other hardware) | settles all that are open on the charge point | settled |
| TransactionClosed (operator, stale) | settles it at its last reading | settled |

Which session a message belongs to is decided in `attribution`, what it does to the session in
`transitions`, what the session costs in `settlement`, what the journal says of the past in
`restoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

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
from ..domain.fixed_point import SECOND, instant, microseconds
from ..tariffs.tariff import TariffBook
from .attribution import session_of, sessions_by_connector
from .derived_events import opened_event, progressed_event, settled_event
from .orphans import orphan
from .refitting import pricing_of
from .restoring import with_published_receipt, with_published_terms
from .session import Session
from .session_store import Connector, SessionStore
from .settlement import settle, settle_so_far
from .transitions import (
    NextStep,
    Transition,
    end_inferred,
    sampled,
    start_repeated,
    started,
    status_changed,
    stopped,
    unplugged,
)
from .unplugging import unplugging_of

REPLACED = "charger_replaced"
_GREATEST_ID = 2**31 - 1
_PUBLISH_AFTER = 50 * SECOND  # without a message, until time alone is published
_LONG_AGO = 300 * SECOND


class Changes(NamedTuple):
    """What an event changes: sessions to keep, and derived events to publish."""

    sessions: list[Session]
    derived: list[Event]

    def extend(self, other: Changes) -> None:
        self.sessions.extend(other.sessions)
        self.derived.extend(other.derived)


@attrs.frozen(kw_only=True)
class OpenTransaction:
    """A transaction that has no receipt yet.

    stopped: it has stopped, but the cable is still in, and idle time may count on.
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
        self._sessions = SessionStore()
        self._statuses: dict[Connector, tuple[int, str]] = {}
        self._last_tick: dict[int, int] = {}  # us; when a tick was last published
        # Transactions whose newest message was about long ago: it came out of an offline queue, so
        # what time has brought since then is in the next messages of that queue.
        self._queued: set[int] = set()
        self._handlers: Mapping[type[Event], Callable[[Any, bool], Changes]] = {
            TransactionStarted: self._on_transaction_started,
            MeterSampled: self._on_meter_sampled,
            TransactionStopped: self._on_transaction_stopped,
            ConnectorStatusChanged: self._on_status_changed,
            DataTransferred: self._on_data_transferred,
            ChargePointBooted: self._on_charge_point_booted,
            TransactionClosed: self._on_transaction_closed,
        }

    # --- events ---

    def post(self, event: Event) -> tuple[Event, ...]:
        """Account for an event; the derived events that follow from it.

        If it raises, nothing has changed.
        """
        return self.commit(event, self.changes_of(event))

    def changes_of(self, event: Event) -> Changes | None:
        """What `commit` is to be given for the same event, as long as no other is posted between.

        It changes nothing here, so it may be computed in a thread: see `accountant`.
        """
        handler = self._handlers.get(type(event))
        return None if handler is None else handler(event, True)

    def commit(self, event: Event, changes: Changes | None) -> tuple[Event, ...]:
        """Account for an event by its changes; the derived events that follow from it."""
        if changes is None:
            return ()
        self._keep_all(event, changes.sessions)
        for session in changes.sessions:
            if session.closed:
                self._sessions.forget_older(session.connector)
        return tuple(changes.derived)

    def restore(self, event: Event) -> None:
        """Account for an event of the past: the same, but nothing is priced or published again."""
        if isinstance(event, TransactionOpened | TransactionSettled):
            session = self._sessions.get(event.transaction_id)
            if session is None:
                return
            if isinstance(event, TransactionOpened):
                self._keep(with_published_terms(session, event))
            else:
                self._keep(with_published_receipt(session, event))
        else:
            handler = self._handlers.get(type(event))
            if handler is not None:
                self._keep_all(event, handler(event, False).sessions)

    # --- time without messages ---

    def due(self, now: datetime) -> list[int]:
        """The open transactions that nothing was published about for nearly a minute: time and its
        cost go on where no message comes."""
        end = microseconds(now)
        return [
            session.opening.transaction_id
            for session in self._sessions.open_sessions()
            if session.opening.transaction_id not in self._queued
            and end - max(session.newest, self._last_tick.get(session.opening.transaction_id, 0))
            >= _PUBLISH_AFTER
        ]

    def tick(self, transaction_id: int, now: datetime) -> tuple[Event, ...]:
        """How an open transaction stands at this moment; nothing where it has ended."""
        session = self._sessions.get(transaction_id)
        end = microseconds(now)
        if session is None or session.closed or end <= session.newest:
            return ()
        if session.pricing is None:
            session = attrs.evolve(session, pricing=pricing_of(session))
            self._sessions.replace(session)
        self._last_tick[transaction_id] = end
        return (progressed_event(settle_so_far(session, end), now, by_clock=True),)

    # --- transactions ---

    def missing_transaction(self, event: Event) -> int | None:
        """The transaction that the event names and that is not kept here: it may be an older
        one, to be restored from the journal and adopted."""
        transaction_id: int | None = None
        if isinstance(event, MeterSampled | TransactionStopped):
            transaction_id = event.transaction_id
        elif isinstance(event, TransactionStarted):
            transaction_id = event.transaction_id if event.repeated else None
        elif isinstance(event, DataTransferred):
            unplugging = unplugging_of(event)
            transaction_id = unplugging and unplugging.transaction_id
        if transaction_id is None or not 0 < transaction_id <= _GREATEST_ID:
            return None
        return transaction_id if self._sessions.get(transaction_id) is None else None

    def adopt(self, other: Ledger, transaction_id: int) -> None:
        """Take a transaction over from another ledger, which may lack it too."""
        session = other.session(transaction_id)
        if session is None:
            return
        if session.closed:
            self._sessions.adopt(session)
        else:
            self._keep(session)

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
            for session in self._sessions.open_sessions()
            for opening in (session.opening,)
        ]

    def session(self, transaction_id: int) -> Session | None:
        """A transaction as far as it is kept here."""
        return self._sessions.get(transaction_id)

    # --- one handler for each event; `publish`: derived events are wanted ---

    def _on_transaction_started(self, event: TransactionStarted, publish: bool) -> Changes:
        repeated = self._sessions.get(event.transaction_id)
        if repeated is not None:
            return Changes([start_repeated(repeated)], [])
        changes = Changes([], [])
        connector = event.charge_point_id, event.connector_id
        terms = self.tariff_book.terms_for(event.charge_point_id, event.connector_id, event.at)
        status = self._statuses.get(connector)
        before = self._sessions.last_closed(connector)
        unended = self._sessions.open_on(connector)
        if unended is not None:  # a new start proves the old one's end, which was never reported
            changes.extend(self._settled(end_inferred(unended, "Inferred"), event, publish))
            status = before = None
        if before is not None and before.opening.energy_scale != event.energy_scale:
            before = None  # registers multiplied by different factors have no gap between them
        session = started(event, terms, status, before, priced=publish)
        changes.sessions.append(session)
        if publish:
            changes.derived.append(opened_event(settle_so_far(session), event.received_at))
        return changes

    def _on_meter_sampled(self, event: MeterSampled, publish: bool) -> Changes:
        if event.transaction_id is None:
            changes = Changes([], [])
            for session, readings in sessions_by_connector(self._sessions, event):
                transition = sampled(session, event, readings)
                changes.extend(self._changes(transition, event, publish, with_power=True))
            return changes
        found = session_of(self._sessions, event)
        if found is None:
            return Changes([], [orphan(event)])
        transition = sampled(found, event, event.timed_readings())
        return self._changes(transition, event, publish, with_power=True)

    def _on_transaction_stopped(self, event: TransactionStopped, publish: bool) -> Changes:
        session = session_of(self._sessions, event)
        if session is None:
            return Changes([], [orphan(event)])
        return self._changes(stopped(session, event), event, publish)

    def _on_status_changed(self, event: ConnectorStatusChanged, publish: bool) -> Changes:
        session = self._sessions.open_on((event.charge_point_id, event.connector_id))
        if session is None:
            return Changes([], [])
        return self._changes(status_changed(session, event), event, publish)

    def _on_data_transferred(self, event: DataTransferred, publish: bool) -> Changes:
        unplugging = unplugging_of(event)
        if unplugging is None:
            return Changes([], [])
        session = self._sessions.of_charge_point(unplugging.transaction_id, event.charge_point_id)
        if session is None:
            return Changes([], [])
        when, _ = instant_of(parse_timestamp(unplugging.timestamp), event.received_at)
        at = microseconds(when)
        if at < session.opening.start:  # nothing of a transaction is before its start
            at = microseconds(event.received_at)
        return self._changes(unplugged(session, at), event, publish)

    def _on_charge_point_booted(self, event: ChargePointBooted, publish: bool) -> Changes:
        """Transactions outlive a boot (OCPP 1.6 §4.10, PowerLoss), but not the hardware."""
        changes = Changes([], [])
        if event.replaced:
            for session in self._sessions.open_sessions():
                if session.opening.charge_point_id != event.charge_point_id:
                    continue
                replaced = end_inferred(session, "Replaced")
                replaced = attrs.evolve(replaced, flags=replaced.flags | {REPLACED})
                changes.extend(self._settled(replaced, event, publish))
        return changes

    def _on_transaction_closed(self, event: TransactionClosed, publish: bool) -> Changes:
        session = self._sessions.of_charge_point(event.transaction_id, event.charge_point_id)
        if session is None or session.closed:
            return Changes([], [])
        return self._settled(end_inferred(session, event.reason), event, publish)

    # --- parts ---

    def _settled(self, session: Session, event: Event, publish: bool) -> Changes:
        return self._changes(Transition(session, NextStep.SETTLE), event, publish)

    def _changes(
        self, transition: Transition, event: Event, publish: bool, *, with_power: bool = False
    ) -> Changes:
        """The session to keep, and what is to be published about it."""
        session, next_step = transition
        if next_step is NextStep.SETTLE:
            session = attrs.evolve(session, closed=True, version=session.version + 1)
        if not publish or next_step is NextStep.NOTHING:
            return Changes([session], [])
        if next_step is NextStep.SETTLE:
            receipt = settled_event(settle(session), event.received_at, self._software)
            return Changes([session], [receipt])
        if session.pricing is None:
            session = attrs.evolve(session, pricing=pricing_of(session))
        # Not earlier than the last tick: ThingsBoard shows the value of the latest instant.
        end = max(session.newest, self._last_tick.get(session.opening.transaction_id, 0))
        progressed = progressed_event(
            settle_so_far(session, end), event.received_at, with_power=with_power
        )
        return Changes([session], [progressed])

    def _keep_all(self, event: Event, sessions: list[Session]) -> None:
        for session in sessions:
            self._keep(session)
            long_ago = microseconds(event.received_at) - session.newest > _LONG_AGO
            if long_ago and not session.closed:
                self._queued.add(session.opening.transaction_id)
            else:
                self._queued.discard(session.opening.transaction_id)
        if isinstance(event, ConnectorStatusChanged):
            at = microseconds(event.at)
            self._statuses[event.charge_point_id, event.connector_id] = (at, event.status)

    def _keep(self, session: Session) -> None:
        if self._sessions.keep(session):
            self._last_tick.pop(session.opening.transaction_id, None)
            self._queued.discard(session.opening.transaction_id)
            # The status was that session's, and says nothing of the next.
            self._statuses.pop(session.connector, None)
