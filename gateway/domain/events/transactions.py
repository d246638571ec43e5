"""What a charge point reports about a transaction: its start, its meter values, its stop."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import attrs

from ..clock import TimeSource, instant_of
from ..event_values import Reading
from .base import Event


class TimedReading(NamedTuple):
    """A reading, when it was taken, and what that rests on."""

    reading: Reading
    at: datetime
    source: TimeSource


@attrs.frozen(kw_only=True)
class MeterMessage(Event):
    """A message that carries meter values."""

    readings: tuple[Reading, ...] = ()

    def timed_readings(self) -> tuple[TimedReading, ...]:
        """The readings with the instants that their timestamps stand for."""
        return tuple(
            TimedReading(reading, *instant_of(reading.timestamp, self.received_at, self.clock, n))
            for n, reading in enumerate(self.readings, 1)
        )


@attrs.frozen(kw_only=True)
class MeterSampled(MeterMessage):
    """MeterValues (OCPP 1.6 §4.7).

    transaction_id: as the charge point gave it, also where it means nothing (-1, 0, 2^63-1);
        None where it gave none.
    transaction_connector_id: where connector_id is 0, that of the transaction which it names; 0
        where that is not known.
    first_keys: telemetry keys that were never published of the connector before (see
        `connector_state`).
    stopped_ms: since when nothing flows for the transaction that stopped last on the connector, ms
        since 1970; 0 where none has, or where these readings name a newer one.
    resumed_ms: when the next one started, ms since 1970; 0 where none has.
    of_stopped: it names a transaction that has stopped.
    nonzero_keys: registers that are known to be above 0, and that no transaction moves now: a 0
        of theirs is a fault.
    energy_scale: what telemetry multiplies the registers by: that of the connector's open
        transaction, else the configured one; None for 1.  The samples stay verbatim.
    """

    connector_id: int
    transaction_id: int | None = None
    defects: tuple[str, ...] = ()
    transaction_connector_id: int = 0
    first_keys: tuple[str, ...] = ()
    stopped_ms: int = 0
    resumed_ms: int = 0
    of_stopped: bool = False
    nonzero_keys: tuple[str, ...] = ()
    energy_scale: Decimal | None = None


@attrs.frozen(kw_only=True)
class TransactionStarted(Event):
    """StartTransaction (OCPP 1.6 §4.8).

    transaction_id: the journal gives the transaction id when the event is appended (0 until then),
        the same for a retried request; positive int32.
    repeated: the journal knew this transaction already: the request is a retry.
    new_transaction: it is none, though it equals an earlier request: the clock was not set, and
        the charge point has received that one's id, or has booted, since.
    meter_start: the register at the start as the charge point wrote it, meant to be Wh;
        None where it was missing.
    id_tag_status: what the charge point was answered; only "Accepted" means it may charge,
        but a refused transaction is accounted for too: energy may have flowed.
    defects: names of the fields that broke the schema, for the session's flags.
    energy_scale: what every register of the transaction is multiplied by (`[charge_points]
        energy_scale` as it was at the start); None for 1.
    """

    connector_id: int
    id_tag: str
    meter_start: str | None
    transaction_id: int = 0
    repeated: bool = False
    new_transaction: bool = False
    id_tag_status: str = "Accepted"
    reservation_id: int | None = None
    defects: tuple[str, ...] = ()
    energy_scale: Decimal | None = None


@attrs.frozen(kw_only=True)
class TransactionStopped(MeterMessage):
    """StopTransaction (OCPP 1.6 §4.10).

    transaction_id: as the charge point gave it; None where it was missing or unreadable.
    meter_stop: as the charge point wrote it, meant to be Wh; None where it was missing.
    reason: as given; None means Local (OCPP 1.6 §6.55), or Remote where `remote` says so.
    readings: transactionData.
    remote: an operator asked for this stop (RemoteStopTransaction), and was not refused.
    connector_id, stopped_id: the connector whose running transaction this ends, and that
        transaction's id; 0 and None where that is not known, or where it has stopped before.
    zeros, zeros_ms: see `connector_state`.
    """

    transaction_id: int | None
    meter_stop: str | None
    reason: str | None = None
    id_tag: str | None = None
    defects: tuple[str, ...] = ()
    remote: bool = False
    connector_id: int = 0
    stopped_id: int | None = None
    zeros: tuple[str, ...] = ()
    zeros_ms: int = 0
