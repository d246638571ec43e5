"""Events -> rows of telemetry and attributes for ThingsBoard.  Pure.

The same event gives the same rows for ever: a row that is sent again after an outage
replaces itself (ThingsBoard keeps one value per device, key and instant).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs

from ..domain import events, json_codec
from ..domain.clock import milliseconds
from ..domain.connector_state import NO_FLOW
from ..domain.event_values import Progress, Sample
from ..domain.events import Event
from ..domain.fleet import MAX_CONNECTORS, device_name, patches
from ..domain.measurands import CURRENTS, instantaneous
from ..domain.redaction import shortened

OCPP_VERSION = "ocpp1.6"
_FLOWS = frozenset({"power_w", *CURRENTS})
_AT_END = "Transaction.End"
_MAX_DOUBLE = 2.0**53
_LARGEST_RECEIPT = 50_000  # bytes; with the rest of its row it then fits a message
_NOT_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})  # and yet read as such by some

Values = Mapping[str, Any]


@attrs.frozen
class TelemetryRow:
    """ts: ms since 1970; None for client attributes, which have no time."""

    device: str
    ts: int | None
    values: Values


def telemetry_rows(event: Event, session_log: str) -> tuple[TelemetryRow, ...]:
    """The rows that an event is published as.  session_log: the name of the session log's
    device.
    """
    if isinstance(event, events.TransactionSettled):
        found: Iterable[TelemetryRow] = _settled(event, session_log)
    else:
        found = _ROWS.get(type(event), _nothing)(event)
    return tuple([row for row in found if row.values])


def sign_of_life(device: str, known: Values, now: datetime) -> TelemetryRow:
    """The row that keeps a device's session in ThingsBoard alive while it has nothing new to
    publish.
    """
    values = {"connected": known["connected"]} if "connected" in known else {}
    if "/" in device or not values:
        values |= _texts(status=known.get("status"))
    return TelemetryRow(device, milliseconds(now), values)


def attributes(device: str, known: Values) -> TelemetryRow:
    """The client attributes of a device as they are now (see `domain.fleet.patches`)."""
    values: dict[str, Any] = {}
    if "remote_address" in known:
        values["ocpp_version"] = OCPP_VERSION
        values["security_profile"] = known["security_profile"]
        values |= _texts(remote_address=known["remote_address"])
    if known.get("charger"):
        values["charger"] = known["charger"]
    return TelemetryRow(device, None, values)


def double(value: Decimal) -> float | None:
    """At most six decimals, as beyond 16 ThingsBoard keeps text; None where no double fits."""
    rounded = round(float(value), 6)
    return rounded if -_MAX_DOUBLE < rounded < _MAX_DOUBLE else None


def text_that_stays_text(value: str) -> str:
    """Text that stays text: ThingsBoard stores what parses as a number as a number."""
    whole, _, fraction = value.removeprefix("-").partition(".")
    looks_like_one = (whole + fraction).isdigit() and not value.endswith(".")
    return "'" + value if looks_like_one or value in _NOT_NUMBERS else value


# --- by event ----------------------------------------------------------------------------------


def _connected(event: events.ChargePointConnected) -> Iterator[TelemetryRow]:
    (device, known), *_ = patches(event)
    yield _of_charge_point(event, {"connected": True})
    yield attributes(device, known)
    yield from _of_connectors(event, {"connected": True})


def _disconnected(event: events.ChargePointDisconnected) -> Iterator[TelemetryRow]:
    values = {"connected": False, **_texts(disconnect_reason=event.reason)}
    yield _of_charge_point(event, values)
    yield from _of_connectors(event, {"connected": False})


def _of_connectors(
    event: events.ChargePointConnected | events.ChargePointDisconnected, values: Values
) -> Iterator[TelemetryRow]:
    for connector in event.connectors:
        name = device_name(event.charge_point_id, connector)
        yield TelemetryRow(name, milliseconds(event.at), values)


def _booted(event: events.ChargePointBooted) -> Iterable[TelemetryRow]:
    ((device, known),) = patches(event)
    return (attributes(device, known),)


def _firmware(event: events.FirmwareStatusChanged) -> Iterable[TelemetryRow]:
    return (_of_charge_point(event, _texts(firmware_status=event.status)),)


def _diagnostics(event: events.DiagnosticsStatusChanged) -> Iterable[TelemetryRow]:
    return (_of_charge_point(event, _texts(diagnostics_status=event.status)),)


def _security(event: events.SecurityEventReported) -> Iterable[TelemetryRow]:
    found = {"type": shortened(event.type), "tech_info": shortened(event.tech_info or "")}
    return (_of_charge_point(event, {"security_event": found}),)


def _command(event: events.CommandCarriedOut) -> Iterator[TelemetryRow]:
    values = _texts(last_command=event.method, last_command_result=event.result)
    yield _of_charge_point(event, values)
    if event.tx_active is not None:
        # ThingsBoard's switches send one-way and show it as done until they get another value.
        device = device_name(event.charge_point_id, event.connector_id)
        yield TelemetryRow(device, event.tx_active_ms, {"tx_active": event.tx_active})


def _rejected(event: events.FramesRejected) -> Iterable[TelemetryRow]:
    return (_of_charge_point(event, {"rejected_frames": event.total}),)


def _deviated(event: events.SchemaDeviated) -> Iterable[TelemetryRow]:
    return (_of_charge_point(event, {"schema_deviations": event.total}),)


def _of_charge_point(event: Event, values: Values) -> TelemetryRow:
    return TelemetryRow(event.charge_point_id, milliseconds(event.at), values)


def _nothing(_: Event) -> Iterable[TelemetryRow]:
    return ()


def _status(event: events.ConnectorStatusChanged) -> Iterator[TelemetryRow]:
    yield from _skew(event)
    ts = milliseconds(event.at)
    values = _texts(status=event.status, error_code=event.error_code)
    if event.connector_id == 0:
        values |= _texts(vendor_error_code=event.vendor_error_code, info=event.info)
        yield TelemetryRow(event.charge_point_id, ts, values)
    elif 0 < event.connector_id <= MAX_CONNECTORS:
        device = device_name(event.charge_point_id, event.connector_id)
        if event.first:
            values["status_source"] = "reported"
        status_at, zeros_at = max(ts, event.status_ms), max(ts, event.zeros_ms)
        zeros = _zeros(event.zeros) if event.status in NO_FLOW else {}
        if status_at == zeros_at:
            yield TelemetryRow(device, status_at, {**values, **zeros})
        else:
            yield TelemetryRow(device, status_at, values)
            yield TelemetryRow(device, zeros_at, zeros)
        if event.new:  # a connector that was known has it from the row of the connection
            yield TelemetryRow(device, milliseconds(event.received_at), {"connected": True})


def _sampled(event: events.MeterSampled) -> Iterator[TelemetryRow]:
    yield from _skew(event)
    connector = event.connector_id or event.transaction_connector_id
    if not 0 < connector <= MAX_CONNECTORS:  # 0: the main meter of the charge point
        return
    device = device_name(event.charge_point_id, connector)
    for ts, samples in _instants(event):
        values: dict[str, Any] = {**instantaneous(samples, energy_scale=event.energy_scale)}
        if _is_late(event, ts, samples):
            for key in _FLOWS & values.keys():
                del values[key]
        for key in event.nonzero_keys:
            if values.get(key) == 0:
                del values[key]
        if "power_w" in values:
            values["power_source"] = "measured"
        yield TelemetryRow(device, ts, values)


def _instants(event: events.MeterSampled) -> Iterator[tuple[int, Sequence[Sample]]]:
    """The samples by their instant: some charge points send each phase in a MeterValue apart.

    Where two give the same measurand for one instant, the later one holds.
    """
    found: dict[object, tuple[int, Sequence[Sample]]] = {}
    for number, (reading, at, _) in enumerate(event.timed_readings()):
        stamp = number if reading.timestamp is None else reading.timestamp
        _, others = found.get(stamp, (0, ()))
        found[stamp] = milliseconds(at), (*reading.samples, *others)
    yield from found.values()


def _is_late(event: events.MeterSampled, ts: int, samples: Iterable[Sample]) -> bool:
    """Whether they are of a transaction that had stopped by then, so that nothing flowed."""
    if not event.stopped_ms or ts < event.stopped_ms or 0 < event.resumed_ms <= ts:
        return False
    return event.of_stopped or any(sample.context == _AT_END for sample in samples)


def _zeros(keys: Iterable[str]) -> Values:
    """The values that are published when nothing flows."""
    return {"power_w": 0, **dict.fromkeys(keys, 0)}


def _inferred(event: events.StatusInferred) -> Iterator[TelemetryRow]:
    if 0 < event.connector_id <= MAX_CONNECTORS:
        values = {**_texts(status=event.status), "status_source": "inferred"}
        if event.new:
            values["connected"] = True
        device = device_name(event.charge_point_id, event.connector_id)
        yield TelemetryRow(device, event.status_ms, values)


def _stopped(event: events.TransactionStopped) -> Iterator[TelemetryRow]:
    yield from _skew(event)
    if event.stopped_id is not None and 0 < event.connector_id <= MAX_CONNECTORS:
        device = device_name(event.charge_point_id, event.connector_id)
        yield TelemetryRow(device, max(milliseconds(event.at), event.zeros_ms), _zeros(event.zeros))


def _opened(event: events.TransactionOpened) -> Iterable[TelemetryRow]:
    info = {"id_tag": shortened(event.id_tag)}
    if event.tariff is not None:
        info["tariff_id"] = str(event.tariff.get("id", ""))
    values = {
        "tx_active": True,
        "tx_id": event.transaction_id,
        "tx_started_at": milliseconds(event.started_at),
        "tx_info": info,
    }
    return _of_connector(event, milliseconds(event.at), values | _progress(event.progress))


def _progressed(event: events.TransactionProgressed) -> Iterable[TelemetryRow]:
    return _of_connector(event, milliseconds(event.at), _progress(event.progress))


def _settled(event: events.TransactionSettled, session_log: str) -> Iterator[TelemetryRow]:
    if event.version == 1:  # a correction does not tell what the connector does now
        ts, nothing = milliseconds(event.at), {**_zeros(event.zeros), "current_a": 0}
        idle = {"tx_active": False, **nothing}
        yield from _of_connector(event, ts, _progress(event.progress) | idle)
        if event.zeros_ms > ts:
            yield from _of_connector(event, event.zeros_ms, nothing)
    progress = event.progress
    session: dict[str, Any] = {
        **_receipt(event.receipt),
        "session_duration_s": progress.duration_s,
        "session_idle_s": progress.idle_s,
        "session_count": 1,
        **_numbers(
            {
                "session_energy_kwh": progress.energy_wh / 1000,
                "session_cost": progress.cost_total,
            }
        ),
    }
    if progress.cost_total is not None:
        session["session_cost_minor"] = progress.cost_total_minor
    yield from _of_connector(event, event.published_ms, session)
    session = session | {"session_connector": event.connector_id}
    yield TelemetryRow(event.charge_point_id, event.published_ms, session)
    where = {"session_charge_point": text_that_stays_text(event.charge_point_id)}
    yield TelemetryRow(session_log, event.published_ms, session | where)


def _receipt(receipt: Mapping[str, Any]) -> Values:
    """Signed meter values can be kilobytes each; where a message has no room, they go apart."""
    receipt = {**receipt, **_shortened(receipt, "id_tag", "stop_reason")}
    signed = receipt.get("signed")
    if not signed or len(json_codec.encode(receipt)) <= _LARGEST_RECEIPT:
        return {"receipt": receipt}
    rest = {key: value for key, value in receipt.items() if key != "signed"}
    return {"receipt": rest, "receipt_signed": signed}


def _shortened(receipt: Mapping[str, Any], *names: str) -> Values:
    """Those texts of a receipt that a charge point chose."""
    return {name: shortened(receipt[name]) for name in names if receipt.get(name)}


def _of_connector(event: events.TransactionFact, ts: int, values: Values) -> Iterable[TelemetryRow]:
    if not 0 < event.connector_id <= MAX_CONNECTORS:
        return ()
    return (TelemetryRow(device_name(event.charge_point_id, event.connector_id), ts, values),)


def _skew(event: Event) -> Iterator[TelemetryRow]:
    """The row that reports a charge point's clock that is not believed, at the gateway's time."""
    if event.timestamp is None or event.at == event.timestamp:
        return
    skew = (event.timestamp - event.received_at).total_seconds()
    ts = milliseconds(event.received_at)
    yield TelemetryRow(event.charge_point_id, ts, {"clock_skew_s": round(skew, 3)})


def _progress(progress: Progress) -> dict[str, Any]:
    amounts = {
        "tx_energy_wh": progress.energy_wh,
        "meter_wh": progress.meter_wh,
        "power_w": progress.power_w,
        "cost_total": progress.cost_total,
        "cost_energy": progress.cost_energy,
        "cost_time": progress.cost_time,
        "cost_idle": progress.cost_idle,
        "cost_fixed": progress.cost_fixed,
        "price_kwh": progress.price_kwh,
        "price_min": progress.price_min,
        "price_idle_min": progress.price_idle_min,
    }
    values: dict[str, Any] = {
        "tx_duration_s": progress.duration_s,
        "tx_charging_s": progress.charging_s,
        "tx_idle_s": progress.idle_s,
        "tx_flags": progress.flags,
        **_numbers(amounts),
    }
    if progress.power_w is not None:
        values["power_source"] = "derived"
    if progress.cost_total is not None:
        values["currency"] = progress.currency
        values["cost_total_minor"] = progress.cost_total_minor
        values["cost_as_of"] = milliseconds(progress.as_of)
    return values


def _numbers(amounts: Mapping[str, Decimal | None]) -> dict[str, Any]:
    """Numbers that ThingsBoard keeps as numbers; what is unknown is absent."""
    return {
        key: fit
        for key, value in amounts.items()
        if value is not None and (fit := double(value)) is not None
    }


def _texts(**values: str | None) -> dict[str, Any]:
    return {key: text_that_stays_text(shortened(value)) for key, value in values.items() if value}


_ROWS: Mapping[type[Event], Callable[[Any], Iterable[TelemetryRow]]] = {
    events.ChargePointConnected: _connected,
    events.ChargePointDisconnected: _disconnected,
    events.ChargePointBooted: _booted,
    events.ConnectorStatusChanged: _status,
    events.StatusInferred: _inferred,
    events.MeterSampled: _sampled,
    events.TransactionStarted: _skew,
    events.TransactionStopped: _stopped,
    events.TransactionOpened: _opened,
    events.TransactionProgressed: _progressed,
    events.FirmwareStatusChanged: _firmware,
    events.DiagnosticsStatusChanged: _diagnostics,
    events.SecurityEventReported: _security,
    events.CommandCarriedOut: _command,
    events.FramesRejected: _rejected,
    events.SchemaDeviated: _deviated,
}
