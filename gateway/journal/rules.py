"""What every journal must agree on: what makes two requests one, and what is kept for whom."""

from __future__ import annotations

from ..domain import events
from ..domain.clock import TimeSource

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


def retired(key: StartKey, transaction_id: int) -> StartKey:
    """The key of a settled transaction that leaves its own to another one: see `is_dated`."""
    *rest, started, meter_start = key
    return (*rest, f"{started} of {transaction_id}", meter_start)  # type: ignore[return-value]


def is_dated(event: events.TransactionStarted) -> bool:
    """Whether the charge point says when it started, as far as that can be believed.

    A clock that was never set says 1970 each time, or 2014, and its offset, where that is known,
    is another one each time.  Such a start repeats another one only while that is open: else all
    sessions of a tag would be taken for the first one.
    """
    return event.instant().source is TimeSource.OWN


def is_retry(event: events.TransactionStarted, *, settled: bool) -> bool:
    """Whether a start that equals an earlier one repeats it.  settled: the earlier one is."""
    return not event.new_transaction and (is_dated(event) or not settled)


def receipt_key(event: events.TransactionSettled) -> str:
    return str(event.receipt["receipt_id"])
