"""Request payload -> event.  Pure, and it never refuses.

A transaction message that can be parsed at all must be kept and answered (OCPP 1.6 §4.7, 4.8,
4.10: a sanity check "SHOULD NOT ever cause the Central System to not respond"), so whatever
breaks the schema is read as far as it goes and named in the event's `defects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import attrs
import msgspec

from ..domain import events
from ..domain.clock import parse_timestamp
from ..domain.event_values import Reading, Sample
from ..domain.events import Event
from .deviations import integer_of, text_of

_SAMPLE_FIELDS = tuple(field.name for field in attrs.fields(Sample))

Payload = Mapping[str, Any]
T = TypeVar("T")


def event_of(
    action: str, payload: Payload, *, charge_point_id: str, received_at: datetime
) -> Event | None:
    """The event that a request reports; None for a request that is not recorded.

    payload: a JSON object as decoded, numbers with a fraction as Decimal.
    """
    read = _READERS.get(action)
    if read is None:
        return None
    return read(payload, {"charge_point_id": charge_point_id, "received_at": received_at})


# --- one reader for each request ---------------------------------------------------------------


def _texts_named(payload: Payload, names: Mapping[str, str]) -> dict[str, Any]:
    return {field: text_of(payload.get(name)) or "" for field, name in names.items()}


def _boot(payload: Payload, about: dict[str, Any]) -> Event:
    names = {
        "vendor": "chargePointVendor",
        "model": "chargePointModel",
        "charge_point_serial_number": "chargePointSerialNumber",
        "charge_box_serial_number": "chargeBoxSerialNumber",
        "firmware": "firmwareVersion",
        "iccid": "iccid",
        "imsi": "imsi",
        "meter_type": "meterType",
        "meter_serial_number": "meterSerialNumber",
    }
    read: dict[str, Any] = _texts_named(payload, names)
    own, box = read["charge_point_serial_number"], read["charge_box_serial_number"]
    read["serial_number"] = own or box
    return events.ChargePointBooted(**about, **read)


def _status(payload: Payload, about: dict[str, Any]) -> Event:
    return events.ConnectorStatusChanged(
        **about,
        timestamp=parse_timestamp(payload.get("timestamp")),
        connector_id=_connector(payload, []),
        status=text_of(payload.get("status")) or "Unknown",
        error_code=text_of(payload.get("errorCode")) or "NoError",
        info=text_of(payload.get("info")) or "",
        vendor_id=text_of(payload.get("vendorId")) or "",
        vendor_error_code=text_of(payload.get("vendorErrorCode")) or "",
    )


def _start(payload: Payload, about: dict[str, Any]) -> Event:
    defects: list[str] = []
    return events.TransactionStarted(
        **about,
        timestamp=_timestamp(payload, defects),
        connector_id=_connector(payload, defects),
        id_tag=_present(text_of(payload.get("idTag")), "idTag", defects) or "",
        meter_start=_present(text_of(payload.get("meterStart")), "meterStart", defects),
        reservation_id=integer_of(payload.get("reservationId")),
        defects=tuple(defects),
    )


def _meter(payload: Payload, about: dict[str, Any]) -> Event:
    defects: list[str] = []
    readings = _readings(payload.get("meterValue"), "meterValue", defects)
    return events.MeterSampled(
        **about,
        timestamp=next((r.timestamp for r in reversed(readings) if r.timestamp), None),
        connector_id=_connector(payload, defects),
        transaction_id=integer_of(payload.get("transactionId")),
        readings=readings,
        defects=tuple(defects),
    )


def _stop(payload: Payload, about: dict[str, Any]) -> Event:
    defects: list[str] = []
    data = payload.get("transactionData")
    return events.TransactionStopped(
        **about,
        timestamp=_timestamp(payload, defects),
        transaction_id=_present(integer_of(payload.get("transactionId")), "transactionId", defects),
        meter_stop=_present(text_of(payload.get("meterStop")), "meterStop", defects),
        reason=text_of(payload.get("reason")) or None,
        id_tag=text_of(payload.get("idTag")) or None,
        readings=() if data is None else _readings(data, "transactionData", defects),
        defects=tuple(defects),
    )


def _data(payload: Payload, about: dict[str, Any]) -> Event:
    data = payload.get("data")
    return events.DataTransferred(
        **about,
        vendor_id=text_of(payload.get("vendorId")) or "",
        message_id=text_of(payload.get("messageId")) or None,
        data=_json(data) if data is not None and not isinstance(data, str) else data or None,
    )


def _security(payload: Payload, about: dict[str, Any]) -> Event:
    return events.SecurityEventReported(
        **about,
        timestamp=parse_timestamp(payload.get("timestamp")),
        type=text_of(payload.get("type")) or "Unknown",
        tech_info=text_of(payload.get("techInfo")) or None,
    )


def _status_event(
    kind: type[events.FirmwareStatusChanged] | type[events.DiagnosticsStatusChanged],
) -> Callable[[Payload, dict[str, Any]], Event]:
    def read(payload: Payload, about: dict[str, Any]) -> Event:
        return kind(**about, status=text_of(payload.get("status")) or "Unknown")

    return read


_READERS: Mapping[str, Callable[[Payload, dict[str, Any]], Event]] = {
    "BootNotification": _boot,
    "StatusNotification": _status,
    "StartTransaction": _start,
    "MeterValues": _meter,
    "StopTransaction": _stop,
    "DataTransfer": _data,
    "FirmwareStatusNotification": _status_event(events.FirmwareStatusChanged),
    "SignedFirmwareStatusNotification": _status_event(events.FirmwareStatusChanged),
    "DiagnosticsStatusNotification": _status_event(events.DiagnosticsStatusChanged),
    "LogStatusNotification": _status_event(events.DiagnosticsStatusChanged),
    "SecurityEventNotification": _security,
}


# --- the parts they share --------------------------------------------------------------------


def _present(value: T | None, name: str, defects: list[str]) -> T | None:
    if value is None:
        _add_defect(name, defects)
    return value


def _add_defect(name: str, defects: list[str]) -> None:
    """Each name once: a StopTransaction may hold a million readings without a timestamp."""
    if name not in defects:
        defects.append(name)


def _timestamp(payload: Payload, defects: list[str]) -> datetime | None:
    return _present(parse_timestamp(payload.get("timestamp")), "timestamp", defects)


def _connector(payload: Payload, defects: list[str]) -> int:
    connector_id = _present(integer_of(payload.get("connectorId")), "connectorId", defects)
    return 0 if connector_id is None else connector_id


def _readings(value: object, name: str, defects: list[str]) -> tuple[Reading, ...]:
    if not isinstance(value, list):
        _add_defect(name, defects)
        return ()
    readings = []
    for item in value:
        if not isinstance(item, dict):
            _add_defect(name, defects)
            continue
        at = _timestamp(item, defects)
        samples = item.get("sampledValue")
        try:
            readings.append(Reading(at, msgspec.convert(samples, tuple[Sample, ...])))
        except msgspec.ValidationError:
            readings.append(Reading(at, _lenient_samples(samples, defects)))
    return tuple(readings)


def _lenient_samples(value: object, defects: list[str]) -> tuple[Sample, ...]:
    _add_defect("sampledValue", defects)
    if not isinstance(value, list):
        return ()
    return tuple(
        Sample(**{"value": "", **_texts(item)}) for item in value if isinstance(item, dict)
    )


def _texts(item: Payload) -> dict[str, str]:
    return {name: text for name in _SAMPLE_FIELDS if (text := text_of(item.get(name))) is not None}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
