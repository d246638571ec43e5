"""What an event means only together with the state of its connector before it.  Pure.

Telemetry is made of events alone, so that the same event gives the same rows for ever.  What
depends on the past is therefore written into the event before it is journaled:

zeros: the currents that were published of the connector and that fall to 0 with its power, at a
    stop and with each status in which nothing flows; no other keys are published for their sake.
zeros_ms: the instant to publish these zeros at, where the event's own is not later than the newest
    reading of the connector: ThingsBoard shows the value of the latest instant, so a zero that
    is published at an earlier one would never be seen.  0 where the event's own instant will do.

Values of a transaction that has stopped come late, with the power that it had: from the stop on
they do not show what flows, until another transaction starts.

The newest reading is kept in memory only.  After a restart the zeros of the first stop are
published at its own instant, which is the latest one unless the charge point's clock was set back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs

from .clock import milliseconds
from .events import (
    ConnectorStatusChanged,
    Event,
    MeterSampled,
    StatusInferred,
    TransactionSettled,
    TransactionStarted,
    TransactionStopped,
)
from .fleet import MAX_CONNECTORS, Fleet, device_name, known_key
from .measurands import CURRENTS, REGISTERS, instantaneous, lasting_keys

NO_FLOW = frozenset({"Available", "Finishing", "SuspendedEV", "SuspendedEVSE"})
_LIVE = timedelta(minutes=1)  # a status that is older than the newest reading by more was queued
_REPORTED, _INFERRED = "reported", "inferred"

DeviceState = Mapping[str, Any]


def completed(event: Event, fleet: Fleet) -> Event:
    """The event with what the fleet knows of its connector, to be journaled next."""
    match event:
        case MeterSampled():
            return _sampled(event, fleet)
        case ConnectorStatusChanged(connector_id=connector) if _is_connector(connector):
            return _status(event, fleet)
        case TransactionStopped():
            return _stopped(event, fleet)
        case TransactionSettled(connector_id=connector, version=1) if _is_connector(connector):
            return _settled(event, fleet)
    return event


def inferred(event: Event, fleet: Fleet) -> tuple[StatusInferred, ...]:
    """The status that follows from a transaction's begin or end, where none is reported.

    event: completed.
    """
    match event:
        case TransactionStarted(repeated=False, connector_id=connector):
            status = "Charging"
        case TransactionStopped(connector_id=connector, stopped_id=int()):
            status = "Available"
        case TransactionSettled(connector_id=connector, version=1) if _is_newest(
            event.transaction_id, _state_of(fleet, event, connector)
        ):
            status = "Available"
        case _:
            return ()
    return status_inferred(event, connector, status, fleet)


def status_inferred(
    event: Event, connector_id: int, status: str, fleet: Fleet
) -> tuple[StatusInferred, ...]:
    """The event of an inferred status; none where it is known, or where one is reported.

    event: what it follows from.
    """
    state = _state_of(fleet, event, connector_id)
    if (
        not _is_connector(connector_id)
        or _source(state) == _REPORTED
        or state.get("status") == status
    ):
        return ()
    return (
        StatusInferred(
            charge_point_id=event.charge_point_id,
            received_at=event.received_at,
            timestamp=event.timestamp,
            clock=event.clock,
            connector_id=connector_id,
            status=status,
            new="connected" not in state,
            status_ms=max(milliseconds(event.at), state.get("since_ms", -1) + 1),
        ),
    )


# --- one for each event ------------------------------------------------------------------------


def _sampled(event: MeterSampled, fleet: Fleet) -> MeterSampled:
    name, named, connector = event.charge_point_id, event.transaction_id, event.connector_id
    if connector == 0 and named is not None:
        connector = fleet.connector_of(name, named)
        if connector:
            event = attrs.evolve(event, transaction_connector_id=connector)
    if not _is_connector(connector):
        return event
    state = fleet.state_of(device_name(name, connector))
    running = is_running(state)
    first = _first_keys(event, state)
    if first:
        event = attrs.evolve(event, first_keys=first)
    stopped_id = state.get("stopped_tx")
    of_stopped = named is not None and 0 < named <= (stopped_id or 0)
    if stopped_id is not None and (of_stopped or named is None or named <= 0):
        event = attrs.evolve(
            event,
            stopped_ms=state["stopped_ms"],
            resumed_ms=state.get("last_tx_ms", 0) if running else 0,
            of_stopped=of_stopped,
        )
    # One that begins each session at 0 shows what the last one came to until the next begins.
    if not running:
        seen = tuple(key for key in REGISTERS if state.get(known_key(key)))
        event = attrs.evolve(event, nonzero_keys=seen)
    return event


def _first_keys(event: MeterSampled, state: DeviceState) -> tuple[str, ...]:
    """Keys that are published of a connector for the first time, registers once they are above
    0.
    """
    first: list[str] = []
    for reading in event.readings:
        unknown = {k for k in lasting_keys(reading.samples) if not state.get(known_key(k))}
        if unknown:
            values = instantaneous(reading.samples)
            published = {k for k in unknown & values.keys() if k in CURRENTS or values[k]}
            first += sorted(published.difference(first))
    return tuple(first)


def _status(event: ConnectorStatusChanged, fleet: Fleet) -> ConnectorStatusChanged:
    device = device_name(event.charge_point_id, event.connector_id)
    state = fleet.state_of(device)
    at = milliseconds(event.at)
    # A connector that reports a status is connected, also where it was not known before.
    event = attrs.evolve(
        event, new="connected" not in state, first=state.get("status_source") != _REPORTED
    )
    if _source(state) == _INFERRED and at <= state["since_ms"]:
        event = attrs.evolve(event, status_ms=state["since_ms"] + 1)
    if event.status not in NO_FLOW:
        return event
    newest = fleet.newest_ms.get(device, -1)
    queued = at < newest - _LIVE / timedelta(milliseconds=1) and is_running(state)
    return attrs.evolve(
        event,
        zeros=_zeros(state),
        zeros_ms=0 if queued or at > newest else newest + 1,
    )


def _stopped(event: TransactionStopped, fleet: Fleet) -> TransactionStopped:
    name, named = event.charge_point_id, event.transaction_id
    if named is None:
        return event
    connector = fleet.connector_of(name, named)
    device = device_name(name, connector)
    state = fleet.state_of(device)
    newest_id = state.get("tx") or state.get("last_tx")
    if not connector or newest_id is None or newest_id == state.get("stopped_tx"):
        return event
    at, newest = milliseconds(event.at), fleet.newest_ms.get(device, -1)
    event = attrs.evolve(event, remote=newest_id == state.get("stop_tx"), connector_id=connector)
    if named != newest_id and (named != 0 or at < state.get("last_tx_ms", 0)):
        # Mostly a stop that is repeated, or was late, of a transaction before the one that runs.
        # The accountant decides whether it is that one's stop, and the zeros come when it settles.
        return event
    return attrs.evolve(
        event,
        stopped_id=newest_id,
        zeros=_zeros(state),
        zeros_ms=max(at, newest + 1),
    )


def _settled(event: TransactionSettled, fleet: Fleet) -> TransactionSettled:
    """An inferred end has its zeros here; a reported one had them at the stop."""
    device = device_name(event.charge_point_id, event.connector_id)
    state = fleet.state_of(device)
    at, newest = milliseconds(event.at), fleet.newest_ms.get(device, -1)
    reported = state.get("stopped_tx") == event.transaction_id
    late = at <= newest and not reported and _is_newest(event.transaction_id, state)
    return attrs.evolve(event, zeros=_zeros(state), zeros_ms=newest + 1 if late else 0)


# --- parts -------------------------------------------------------------------------------------


def is_running(state: DeviceState) -> bool:
    """Whether a transaction has begun on a connector, and its stop was not reported."""
    return state.get("tx") is not None and state["tx"] != state.get("stopped_tx")


def _is_newest(transaction_id: int, state: DeviceState) -> bool:
    return transaction_id == (state.get("tx") or state.get("last_tx") or transaction_id)


def _is_connector(connector_id: int) -> bool:
    return 0 < connector_id <= MAX_CONNECTORS


def _state_of(fleet: Fleet, event: Event, connector_id: int) -> DeviceState:
    return fleet.state_of(device_name(event.charge_point_id, connector_id))


def _source(state: DeviceState) -> str | None:
    """How the status is known; journals of earlier versions held reported ones only."""
    source: str | None = state.get("status_source", _REPORTED if "status" in state else None)
    return source


def _zeros(state: DeviceState) -> tuple[str, ...]:
    return tuple(key for key in CURRENTS if state.get(known_key(key)))
