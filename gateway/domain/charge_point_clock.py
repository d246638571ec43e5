"""Which of a charge point's timestamps can be believed, judged by what is known of it.

A clock that was never set says 1970, 2014 or 2023; one that runs on local time is hours ahead; a
charge point that was offline sends weeks of transactions at once, after its boot and its status.
No fixed window tells these apart, but relations do:

Law 1: nothing has happened more than `AHEAD` after it was received.
Law 2: a timestamp that agrees with its receipt is right.
Law 3: a timestamp from long ago needs a charge point that can have been away so long: it was not
       connected then, or it is new here and `NEW_BACKLOG` is enough.  Readings and stops may also
       reach back to the start of their transaction.
Law 4: a start is not before the stop before it on its connector, nor a stop before its start, or
       before a reading of its transaction that came first (OCPP 1.6 §3.7 has them in order).
Law 5: a steady offset, seen where a message is sent at once (StatusNotification, OCPP 1.6 §4.9), is
       added to the charge point's timestamps.  A timestamp ahead of its receipt proves one by
       itself; one behind it may be old, so it takes two that agree, of which a start may be the
       second.  A boot ends it: the charge point sets its clock by our response (OCPP 1.6 §4.2).
       Where it is seen only after the start of a transaction that was as far behind, all of that
       transaction stays on one clock.
Law 6: where nothing helps, the time of receipt stands in, and the session is reviewed.

| the timestamp, beside its receipt | read as |
| --- | --- |
| missing, or in the future and no offset is known | RECEIPT |
| within a minute of it | OWN |
| off by the steady offset of the clock | CORRECTED |
| old, and the charge point can have been away then | OWN |
| old, and it was connected then | RECEIPT |

For example, a clock is two hours ahead.  A StatusNotification is received at 10:00 and stamped
12:00: that proves an offset of -2 h.  A StartTransaction received at 10:05 and stamped 12:05 began
at 10:05 (CORRECTED), and a StopTransaction received at 11:05 and stamped 13:05 ended at 11:05.
Nobody has to review the session.  Without the status, the start would be counted from its receipt.

The judgement is made once, when the message comes in, and is journaled with the event: telemetry,
accounting, transaction ids and the choice of a tariff all rest on the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import attrs

from . import events
from .clock import AGREES, AHEAD, EARLIEST, ClockJudgement, TimeSource, milliseconds

STEADY = timedelta(seconds=10)
"""Two offsets that differ by no more are one."""
DELAYED = timedelta(minutes=15)
"""A message that is sent at once may wait or be repeated for so long."""
GATHERED = timedelta(hours=24)
"""Readings may be gathered for so long before they are sent."""
NEW_BACKLOG = timedelta(weeks=13)
"""What a charge point that is new here may have kept of its past."""
SILENT = timedelta(minutes=5)
"""Where connections are not known (replay), silence of this length may have been an absence."""
_MAX_ABSENCES = 8
_MAX_TRANSACTIONS, _MAX_CONNECTORS = 64, 256

Absence = tuple[int, int]
"""From, to: ms since 1970."""

_AnyEvent = TypeVar("_AnyEvent", bound=events.Event)


class _Lag(NamedTuple):
    """How far behind its receipt a start was that was not corrected, and whether it was believed
    all the same."""

    by: timedelta
    believed: bool


@attrs.define
class _Start:
    """A start whose timestamp is not right: a clock that begins anew gives the same one again.

    at: when it was, as far as is known.
    not_repeated: the charge point does not repeat it any more, so an equal start that follows is
        another transaction's, unless its timestamp, corrected, comes to the same time.
    """

    transaction_id: int
    at: datetime
    not_repeated: bool = False

    def repeated_by(self, event: events.TransactionStarted) -> bool:
        at, source = event.instant()
        same = source is TimeSource.CORRECTED and abs(at - self.at) <= AGREES
        return not self.not_repeated or same


@attrs.define
class ChargePointClock:
    """What is known of one charge point's clock; fed with each message in the order of receipt.

    absences: when it was not connected, as far as that is kept.
    """

    absences: tuple[Absence, ...] = ()
    _last_message_at: datetime | None = None
    _latest_present: datetime | None = None
    _offset: timedelta = timedelta()
    _steady: bool = False  # the offset was seen where messages are sent at once
    _behind: tuple[datetime, timedelta] | None = None  # a timestamp and its offset, unconfirmed
    _starts: dict[int, datetime] = attrs.field(factory=dict)
    _connectors: dict[int, int] = attrs.field(factory=dict)
    _stops: dict[int, datetime] = attrs.field(factory=dict)
    _readings: dict[int, datetime] = attrs.field(factory=dict)  # the newest of a transaction
    _lags: dict[int, _Lag] = attrs.field(factory=dict)  # of connectors' newest starts
    _uncertain_starts: dict[tuple[Any, ...], _Start] = attrs.field(factory=dict)

    @classmethod
    def of(
        cls, about: Mapping[str, Any], connectors: Mapping[int, Mapping[str, Any]]
    ) -> ChargePointClock:
        """What a fleet's states of the charge point and its connectors say."""
        clock = cls(absences=tuple((int(a), int(b)) for a, b in about.get("away", ())))
        for connector, state in connectors.items():
            transaction_id, started = state.get("tx"), state.get("tx_start_ms")
            if isinstance(transaction_id, int) and started is not None:
                clock._keep_start(transaction_id, connector, _instant(started))
            elif transaction_id is None and state.get("tx_ms") is not None:
                clock._stops[connector] = _instant(state["tx_ms"])
        return clock

    # --- what happens ---

    def note_message(self, received_at: datetime) -> None:
        """A message came, where connections are not known: a long silence was an absence."""
        if self._last_message_at is None:
            self.absences = first_absence(received_at)
        elif received_at - self._last_message_at > SILENT:
            self.absences = with_absence(self.absences, self._last_message_at, received_at)
        self._last_message_at = received_at

    def judged(self, event: _AnyEvent, present: datetime | None = None) -> _AnyEvent:
        """The event with how its timestamps are to be read.

        present: the latest that the present can be, where that is not the time of receipt: the
            gateway's own clock was set back.
        """
        self._latest_present = present
        match event:
            case events.ChargePointBooted():
                self._offset, self._steady, self._behind = timedelta(), False, None
                for start in self._uncertain_starts.values():
                    start.not_repeated = True
            case events.ConnectorStatusChanged():
                self._observe_offset(event)
                lag = self._lags.get(event.connector_id)
                source = self._judge(event.timestamp, event.received_at, lag=lag)
                return self._with_sources(event, [source])
            case events.TransactionStarted():
                return self._judged_start(event)  # type: ignore[return-value]
            case events.MeterSampled():
                self._note_named(event.transaction_id)
                return self._judged_sample(event)  # type: ignore[return-value]
            case events.TransactionStopped():
                self._note_named(event.transaction_id)
                return self._judged_stop(event)  # type: ignore[return-value]
            case events.SecurityEventReported():
                return self._with_sources(event, [self._judge(event.timestamp, event.received_at)])
        return event

    def started(self, event: events.TransactionStarted) -> None:
        """The transaction got its id."""
        if event.repeated and event.transaction_id in self._starts:
            return
        self._keep_start(event.transaction_id, event.connector_id, event.at)
        if event.instant().source is not TimeSource.OWN:
            self._uncertain_starts[_start_key(event)] = _Start(event.transaction_id, event.at)
            _drop_oldest(self._uncertain_starts)

    # --- judging ---

    def _judged_start(self, event: events.TransactionStarted) -> events.TransactionStarted:
        source = self._judge(event.timestamp, event.received_at)
        if source is TimeSource.OWN and self._confirms_offset(event):
            source = self._judge(event.timestamp, event.received_at)
        before = self._stops.get(event.connector_id)
        judged = self._with_sources(event, [source])
        if (
            before is not None
            and source is not TimeSource.RECEIPT
            and judged.at < before - AGREES
            and not self._agrees_with_receipt(event)
        ):
            source = TimeSource.RECEIPT
            judged = self._with_sources(event, [source])
        self._lags.pop(event.connector_id, None)
        if event.timestamp is not None and source is not TimeSource.CORRECTED:
            lag = event.received_at - event.timestamp
            if lag > AGREES:
                self._lags[event.connector_id] = _Lag(lag, source is TimeSource.OWN)
        earlier = self._uncertain_starts.get(_start_key(event))
        if source is not TimeSource.OWN and earlier is not None and not earlier.repeated_by(judged):
            return attrs.evolve(judged, new_transaction=True)
        return judged

    def _judged_sample(self, event: events.MeterSampled) -> events.MeterSampled:
        judged = self._with_sources(event, [TimeSource.OWN, *self._judge_readings(event)])
        if event.transaction_id is not None:
            newest = self._readings.pop(event.transaction_id, None)
            instants = [
                at for _, at, source in judged.timed_readings() if source is not TimeSource.RECEIPT
            ]
            if newest is not None:
                instants.append(newest)
            if instants:
                self._readings[event.transaction_id] = max(instants)
                _drop_oldest(self._readings)
        return judged

    def _judged_stop(self, event: events.TransactionStopped) -> events.TransactionStopped:
        start = self._start_of(event.transaction_id)
        lag = self._lag_of(event.transaction_id)
        source = self._judge(event.timestamp, event.received_at, GATHERED, since=start, lag=lag)
        judged = self._with_sources(event, [source, *self._judge_readings(event)])
        newest = self._readings.pop(event.transaction_id or 0, start)
        first = max((at for at in (start, newest) if at is not None), default=None)
        if (
            first is not None
            and source is not TimeSource.RECEIPT
            and judged.at < first - AHEAD
            and not self._agrees_with_receipt(event)
        ):
            source = TimeSource.RECEIPT
            judged = self._with_sources(event, [source, *self._judge_readings(event)])
        connector = self._connectors.get(event.transaction_id or 0)
        if connector is not None and source is not TimeSource.RECEIPT:
            self._stops[connector] = max(judged.at, self._stops.get(connector, judged.at))
        return judged

    def _judge_readings(
        self, event: events.MeterSampled | events.TransactionStopped
    ) -> list[TimeSource]:
        since = self._start_of(event.transaction_id)
        lag = self._lag_of(event.transaction_id)
        if lag is None and isinstance(event, events.MeterSampled):
            lag = self._lags.get(event.connector_id)
        return [
            self._judge(reading.timestamp, event.received_at, GATHERED, since=since, lag=lag)
            for reading in event.readings
        ]

    def _judge(
        self,
        timestamp: datetime | None,
        received_at: datetime,
        delay: timedelta = DELAYED,
        *,
        since: datetime | None = None,
        lag: _Lag | None = None,
    ) -> TimeSource:
        """delay: how long such a message may have waited.  since, lag: its transaction's start."""
        if timestamp is None:
            return TimeSource.RECEIPT
        offset = received_at - timestamp
        latest = max(received_at, self._latest_present or received_at) + AHEAD
        if offset <= AGREES and timestamp <= latest:
            if not self._steady:
                self._offset = timedelta()
            return TimeSource.OWN

        def is_possible(at: datetime) -> bool:
            return at <= latest and (
                at >= received_at - delay
                or (since is not None and at >= since)
                or self._may_have_been_away(at, delay)
            )

        own = is_possible(timestamp) and timestamp >= EARLIEST
        if own and lag is not None and not lag.believed and abs(offset - lag.by) <= STEADY:
            own = False  # it is by the same clock as the start, which was not believed
        same_clock = own and lag is not None and abs(lag.by - self._offset) <= STEADY
        if self._offset and (self._steady or not own) and not same_clock:
            with suppress(OverflowError):  # the years 1 and 9999
                if is_possible(timestamp + self._offset):
                    return TimeSource.CORRECTED
        if own:
            return TimeSource.OWN
        if timestamp > latest and not self._steady and offset < self._offset:
            self._offset = offset
        return TimeSource.RECEIPT

    def _may_have_been_away(self, at: datetime, delay: timedelta) -> bool:
        ms, margin = milliseconds(at), int(min(delay, DELAYED).total_seconds() * 1000)
        return any(gone - margin <= ms <= back for gone, back in self.absences)

    def _observe_offset(self, event: events.ConnectorStatusChanged) -> None:
        """A status is sent at once, so its timestamp shows the clock's offset."""
        timestamp = event.timestamp
        if timestamp is None:
            return
        offset = event.received_at - timestamp
        behind, self._behind = self._behind, None
        if -AHEAD <= offset <= AGREES:
            self._offset, self._steady = timedelta(), False
        elif offset < -AHEAD:
            self._offset, self._steady = offset, True
        elif self._steady and abs(offset - self._offset) <= STEADY:
            self._offset = offset
        else:
            self._offset, self._steady = timedelta(), False
            self._behind = timestamp, offset
            if behind is not None and _agree(behind, self._behind):
                self._offset, self._steady = offset, True

    def _confirms_offset(self, event: events.TransactionStarted) -> bool:
        """Whether a start that could be an old one shows the offset of the status before it."""
        if event.timestamp is None or self._behind is None or self._steady:
            return False
        offset = event.received_at - event.timestamp
        if not _agree(self._behind, (event.timestamp, offset)):
            return False
        self._offset, self._steady = offset, True
        return True

    def _agrees_with_receipt(self, event: events.Event) -> bool:
        return (
            event.timestamp is not None and -AHEAD <= event.received_at - event.timestamp <= AGREES
        )

    def _with_sources(self, event: _AnyEvent, sources: list[TimeSource]) -> _AnyEvent:
        """sources: of the message's own timestamp, then of its readings'."""
        if all(source is TimeSource.OWN for source in sources) and not self._latest_present:
            return event
        judgement = ClockJudgement(
            offset_us=self._offset // timedelta(microseconds=1),
            corrected=_indexes(sources, TimeSource.CORRECTED),
            untimed=_indexes(sources, TimeSource.RECEIPT),
        )
        return attrs.evolve(event, clock=judgement)

    # --- transactions ---

    def _keep_start(self, transaction_id: int, connector_id: int, at: datetime) -> None:
        self._starts[transaction_id] = at
        self._connectors[transaction_id] = connector_id
        _drop_oldest(self._starts, self._connectors)
        _drop_oldest(self._stops, self._lags, limit=_MAX_CONNECTORS)

    def _start_of(self, transaction_id: int | None) -> datetime | None:
        return None if transaction_id is None else self._starts.get(transaction_id)

    def _lag_of(self, transaction_id: int | None) -> _Lag | None:
        connector = self._connectors.get(transaction_id or 0)
        return None if connector is None else self._lags.get(connector)

    def _note_named(self, transaction_id: int | None) -> None:
        """The charge point has the response to a start whose transaction it names: no retries."""
        for start in self._uncertain_starts.values():
            if start.transaction_id == transaction_id:
                start.not_repeated = True


def first_absence(connected_at: datetime) -> tuple[Absence, ...]:
    """Of a charge point that is new here."""
    return ((milliseconds(connected_at - NEW_BACKLOG), milliseconds(connected_at)),)


def with_absence(
    absences: Iterable[Absence], gone_at: datetime, back_at: datetime
) -> tuple[Absence, ...]:
    """One more, the newest; the shortest are forgotten, those that touch are one."""
    gone, back = milliseconds(min(gone_at, back_at)), milliseconds(back_at)
    kept = [(int(a), int(b)) for a, b in absences]
    if kept and gone - kept[-1][1] <= SILENT.total_seconds() * 1000:
        gone = min(gone, kept.pop()[0])
    if len(kept) >= _MAX_ABSENCES:
        kept.remove(min(kept, key=lambda absence: absence[1] - absence[0]))
    return (*kept, (gone, back))


def _indexes(sources: list[TimeSource], wanted: TimeSource) -> tuple[int, ...]:
    return tuple(index for index, source in enumerate(sources) if source is wanted)


def _agree(one: tuple[datetime, timedelta], other: tuple[datetime, timedelta]) -> bool:
    """Whether two timestamps show one offset, and are not of the same moment."""
    return other[0] - one[0] >= STEADY and abs(other[1] - one[1]) <= STEADY


def _start_key(event: events.TransactionStarted) -> tuple[Any, ...]:
    return event.connector_id, event.id_tag, event.timestamp, event.meter_start


def _drop_oldest(*dicts: dict[Any, Any], limit: int = _MAX_TRANSACTIONS) -> None:
    for kept in dicts:
        while len(kept) > limit:
            del kept[next(iter(kept))]


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)
