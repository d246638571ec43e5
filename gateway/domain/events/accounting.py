"""What the accountant concludes from other events: energy, time and money of each transaction."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs

from ..event_values import Progress
from .base import Event
from .charge_point import ChargePointBooted, ConnectorStatusChanged, DataTransferred
from .operators import TransactionClosed
from .transactions import MeterSampled, TransactionStarted, TransactionStopped


@attrs.frozen(kw_only=True)
class TransactionFact(Event):
    """Derived.  `timestamp` is the instant of the data that the fact rests on."""

    transaction_id: int
    connector_id: int


@attrs.frozen(kw_only=True)
class TransactionOpened(TransactionFact):
    """A new transaction, with the price that holds for all of it.

    tariff, policy, time_zone: the snapshot it is priced by, as read from the tariff file;
        tariff is None where none applies.
    status, status_at: the connector's last status from before StartTransaction came, where it
        is one of the transaction.
    meter_gap_wh: by how much meterStart differs from the meterStop before on that connector, which
        it should not (OCPP 1.6 §7.31); None where that is not known.
    """

    started_at: datetime
    id_tag: str
    progress: Progress
    tariff: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    time_zone: str | None = None
    status: str | None = None
    status_at: datetime | None = None
    meter_gap_wh: Decimal | None = None


@attrs.frozen(kw_only=True)
class TransactionProgressed(TransactionFact):
    """by_clock: no message came; it is time alone that went on."""

    by_clock: bool = False
    started_at: datetime
    progress: Progress


@attrs.frozen(kw_only=True)
class TransactionSettled(TransactionFact):
    """Final, or a correction of what was final.

    receipt: the receipt's JSON object; amounts are decimal text in it.
    version: 1, or one more than the version it corrects.
    published_ms: the receipt's place in time on the session log, ms since 1970; unique there,
        given by the journal when it is appended (0 until then), the same for all versions.
    zeros, zeros_ms: see `connector_state`.
    """

    started_at: datetime
    progress: Progress
    receipt: dict[str, Any]
    version: int = 1
    published_ms: int = 0
    zeros: tuple[str, ...] = ()
    zeros_ms: int = 0


@attrs.frozen(kw_only=True)
class MessageOrphaned(Event):
    """A transaction message that belongs to no transaction we know, kept whole for people.

    message: the OCPP action; content: its payload as JSON text.
    """

    message: str
    transaction_id: int | None
    content: str


@attrs.frozen(kw_only=True)
class NotAccounted(Event):
    """The entry that the accountant could not account for: a bug of ours."""

    seq: int
    why: str


ACCOUNTED: tuple[type[Event], ...] = (
    TransactionStarted,
    MeterSampled,
    TransactionStopped,
    ConnectorStatusChanged,
    DataTransferred,
    ChargePointBooted,
    TransactionClosed,
    TransactionOpened,
    TransactionSettled,
)
"""What the accountant reads of the journal: the events that it accounts for, and its own results
that it needs to restore open transactions."""
