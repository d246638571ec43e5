"""Times as charge points write them, and the instants that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple

import attrs

EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)
"""No timestamp before it is believed: OCPP 1.6 is of October 2015."""
AHEAD = timedelta(seconds=60)
"""How far a timestamp may lie ahead of its receipt.  ThingsBoard keeps a value from the future as
the latest one until that future comes, and time that has not happened must not be billed."""

AGREES = timedelta(seconds=60)
"""A timestamp this near to its receipt is that of a clock that is right."""


class TimeSource(Enum):
    """What an instant rests on."""

    OWN = "own"  # the charge point's timestamp
    CORRECTED = "corrected"  # that and the steady offset of its clock
    RECEIPT = "receipt"  # the time at which the message was received


class Instant(NamedTuple):
    at: datetime
    source: TimeSource


@attrs.frozen(kw_only=True)
class ClockJudgement:
    """How the timestamps of one message are to be read, where one of them is not simply right.

    offset_us: what to add to a corrected one for the true instant.
    corrected, untimed: which they are: 0 the message's own, n that of its n-th reading, from 1.
    """

    offset_us: int = 0
    corrected: tuple[int, ...] = ()
    untimed: tuple[int, ...] = ()


def instant_of(
    timestamp: datetime | None,
    received_at: datetime,
    judgement: ClockJudgement | None = None,
    index: int = 0,
) -> Instant:
    """When it happened, by the charge point's timestamp as far as that can be believed.

    judgement: of `charge_point_clock`; None where each timestamp may count from `EARLIEST` to
        `AHEAD` after its receipt, as in events of old journals.
    """
    if timestamp is None:
        return Instant(received_at, TimeSource.RECEIPT)
    if judgement is not None:
        if index in judgement.untimed:
            return Instant(received_at, TimeSource.RECEIPT)
        if index in judgement.corrected:
            offset = timedelta(microseconds=judgement.offset_us)
            return Instant(timestamp + offset, TimeSource.CORRECTED)
        return Instant(timestamp, TimeSource.OWN)
    if EARLIEST <= timestamp <= received_at + AHEAD:
        return Instant(timestamp, TimeSource.OWN)
    return Instant(received_at, TimeSource.RECEIPT)


class SteadyClock:
    """Our own time as it would be if nobody had set the wall clock since the start.

    now: the wall clock.  monotonic: seconds of a clock that nobody sets.
    """

    def __init__(self, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._started_at, self._started = now(), monotonic()

    def when_set_back(self) -> datetime | None:
        """The steady time, where the wall clock lies more than `AHEAD` behind it; else None."""
        steady = self._started_at + timedelta(seconds=self._monotonic() - self._started)
        return steady if steady - self._now() > AHEAD else None


def milliseconds(at: datetime) -> int:
    """Since 1970, as ThingsBoard counts."""
    return int(at.timestamp() * 1000)


def iso(at: datetime, timespec: str = "auto") -> str:
    """The instant in UTC as ISO 8601 with a `Z`.  timespec: as of `datetime.isoformat`."""
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


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
