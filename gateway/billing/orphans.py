"""Transaction messages that belong to no transaction, as the charge point worded them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from ..domain.clock import iso
from ..domain.event_values import Reading
from ..domain.events import MessageOrphaned, MeterSampled, TransactionStopped


def orphan(event: MeterSampled | TransactionStopped) -> MessageOrphaned:
    """The derived event that keeps the message for people, who may know what to do with it."""
    sampled = isinstance(event, MeterSampled)
    return MessageOrphaned(
        charge_point_id=event.charge_point_id,
        received_at=event.received_at,
        timestamp=event.timestamp,
        message="MeterValues" if sampled else "StopTransaction",
        transaction_id=event.transaction_id,
        content=json.dumps(_meter(event) if isinstance(event, MeterSampled) else _stop(event)),
    )


def _meter(event: MeterSampled) -> dict[str, Any]:
    return _present(
        {
            "connectorId": event.connector_id,
            "transactionId": event.transaction_id,
            "meterValue": [_reading(reading) for reading in event.readings],
        }
    )


def _stop(event: TransactionStopped) -> dict[str, Any]:
    return _present(
        {
            "transactionId": event.transaction_id,
            "idTag": event.id_tag,
            "timestamp": _time(event.timestamp),
            "meterStop": event.meter_stop,
            "reason": event.reason,
            "transactionData": [_reading(reading) for reading in event.readings] or None,
        }
    )


def _reading(reading: Reading) -> dict[str, Any]:
    return _present(
        {
            "timestamp": _time(reading.timestamp),
            "sampledValue": [_present(attrs.asdict(sample)) for sample in reading.samples],
        }
    )


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _time(at: datetime | None) -> str | None:
    return None if at is None else iso(at)
