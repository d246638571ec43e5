"""Which of a charge point's timestamps can be believed, and by whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_FIRST_BELIEVED = datetime(2015, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(seconds=60)


def believed(timestamp: datetime | None, received_at: datetime) -> datetime:
    """The instant that telemetry carries: the charge point's own, or that of receipt.

    Believed from 2015-01-01 to 60 s after receipt: a clock that was never set says 1970, and
    ThingsBoard keeps a value from the future as the latest one until that future comes.
    """
    if timestamp is None or not _FIRST_BELIEVED <= timestamp <= received_at + _AHEAD:
        return received_at
    return timestamp


def milliseconds(at: datetime) -> int:
    """Since 1970, as ThingsBoard counts."""
    return int(at.timestamp() * 1000)


def parse_timestamp(text: object) -> datetime | None:
    """An OCPP dateTime (ISO 8601, OCPP 1.6 §3.14), aware; None where it cannot be read.

    Without a zone it is UTC, as OCPP recommends; lower-case `t` and `z` and a blank between
    date and time are read; fractions beyond microseconds are cut.
    """
    if not isinstance(text, str) or not 10 < len(text) < 64 or not text.isascii():
        return None
    try:
        at = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError:  # the years 1 and 9999 with an offset
        return None
