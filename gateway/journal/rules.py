"""What every journal must agree on: what makes two requests one, and what is kept for whom."""

from __future__ import annotations

from datetime import datetime

from ..domain import events

ACCOUNTED = (
    events.TransactionStarted,
    events.MeterSampled,
    events.TransactionStopped,
    events.TransactionClosed,
    events.ConnectorStatusChanged,
    events.DataTransferred,
    events.TransactionOpened,
    events.TransactionSettled,
)
"""What the accountant reads again to restore the transactions of a charge point."""

StartKey = tuple[str, int, str, str, str]


def start_key(event: events.TransactionStarted) -> StartKey:
    """The natural key of a transaction: a retried request has the same, under a new message id."""
    return (
        event.charge_point_id,
        event.connector_id,
        event.id_tag,
        event.timestamp.isoformat() if event.timestamp else "",
        event.meter_start or "",
    )


def receipt_key(event: events.TransactionSettled) -> str:
    return str(event.receipt["receipt_id"])


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
