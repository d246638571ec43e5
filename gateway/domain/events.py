"""What happened.  Every event is a frozen fact; nothing changes one.

Events are journaled as JSON (`gateway.journal.codec`), so: a new field gets a default, a
name is never used for something else, and old journals load for ever.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import attrs

from .clock import ClockJudgement, Instant, TimeSource, instant_of
from .event_values import Progress as Progress
from .event_values import Reading as Reading
from .event_values import Sample as Sample


@attrs.frozen(kw_only=True)
class Event:
    """A fact about one charge point.

    charge_point_id: the last path segment of the charge point's WebSocket URL.
    received_at: when the gateway received it, or (for a derived fact) concluded it; aware.
    timestamp: the charge point's own word for when it happened, aware; None where it gave
        none that can be read.  It may be absurd: `instant` says what it stands for.
    clock: how the message's timestamps are to be read (see `charge_point_clock`); None where
        they are right.
    """

    charge_point_id: str
    received_at: datetime
    timestamp: datetime | None = None
    clock: ClockJudgement | None = None

    def instant(self) -> Instant:
        """When it happened, and what says so: for telemetry, accounting and ids alike."""
        return instant_of(self.timestamp, self.received_at, self.clock)

    @property
    def at(self) -> datetime:
        """When it happened."""
        return self.instant().at


# --- from charge points ---------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ChargePointConnected(Event):
    """security_profile: 0 none, 1 password, 2 TLS and password, 3 TLS with a client certificate.

    connectors: those seen of it so far, which are reached again with it.
    away: when it was not connected, from and to in ms since 1970, as far as that is kept.
    """

    remote_address: str
    security_profile: int = 0
    connectors: tuple[int, ...] = ()
    away: tuple[tuple[int, int], ...] = ()


@attrs.frozen(kw_only=True)
class ChargePointDisconnected(Event):
    """connectors: those seen of it so far, which are out of reach with it.

    last_heard_at: of its last frame; None: no later than this was received.
    """

    reason: str
    connectors: tuple[int, ...] = ()
    last_heard_at: datetime | None = None


@attrs.frozen(kw_only=True)
class ChargePointBooted(Event):
    """BootNotification (OCPP 1.6 §4.2).

    serial_number: chargePointSerialNumber, or chargeBoxSerialNumber where that is absent.
    charge_point_serial_number, charge_box_serial_number: each as reported.
    replaced: other hardware than before answers to this charge point's name.
    """

    vendor: str = ""
    model: str = ""
    serial_number: str = ""
    charge_point_serial_number: str = ""
    charge_box_serial_number: str = ""
    firmware: str = ""
    iccid: str = ""
    imsi: str = ""
    meter_type: str = ""
    meter_serial_number: str = ""
    status: str = "Accepted"
    replaced: bool = False


@attrs.frozen(kw_only=True)
class HeartbeatReceived(Event):
    """Published only where the prototype's keys are asked for (`compat = "node-red"`)."""


@attrs.frozen(kw_only=True)
class IdTagPresented(Event):
    """Authorize (OCPP 1.6 §4.1).  status: what the charge point was answered."""

    id_tag: str
    status: str


@attrs.frozen(kw_only=True)
class ConnectorStatusChanged(Event):
    """StatusNotification (OCPP 1.6 §4.9).  connector_id 0 is the charge point as a whole.

    new: this connector was not known before.
    first: it is the first status that the charge point reports of this connector.
    zeros, zeros_ms: see `connector_state`.
    status_ms: the instant to tell it at, ms since 1970, where it replaces an inferred status that
        was published of a later one; else 0.
    """

    connector_id: int
    status: str
    error_code: str = "NoError"
    info: str = ""
    vendor_id: str = ""
    vendor_error_code: str = ""
    new: bool = False
    first: bool = False
    zeros: tuple[str, ...] = ()
    zeros_ms: int = 0
    status_ms: int = 0


@attrs.frozen(kw_only=True)
class StatusInferred(Event):
    """The status of a connector whose charge point reports none, as its transactions have it.

    new: this connector was not known before.
    status_ms: the instant to tell it at, ms since 1970.
    """

    connector_id: int
    status: str
    new: bool = False
    status_ms: int = 0


class TimedReading(NamedTuple):
    """A reading, when it was taken, and what says so."""

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

    transaction_id: given by the journal when it is appended (0 until then), the same for a
        retried request; positive int32.
    repeated: the journal knew this transaction already: the request is a retry.
    new_transaction: it is none, though it equals an earlier request: the clock was not set, and
        the charge point has heard of that one's id, or has booted, since.
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


@attrs.frozen(kw_only=True)
class DataTransferred(Event):
    """DataTransfer from the charge point (OCPP 1.6 §4.3).  data: text as it came."""

    vendor_id: str
    message_id: str | None = None
    data: str | None = None


@attrs.frozen(kw_only=True)
class FirmwareStatusChanged(Event):
    """FirmwareStatusNotification or SignedFirmwareStatusNotification."""

    status: str


@attrs.frozen(kw_only=True)
class DiagnosticsStatusChanged(Event):
    """DiagnosticsStatusNotification or LogStatusNotification."""

    status: str


@attrs.frozen(kw_only=True)
class SecurityEventReported(Event):
    type: str
    tech_info: str | None = None


@attrs.frozen(kw_only=True)
class FramesRejected(Event):
    """total: frames of this charge point that broke the protocol since it connected."""

    total: int
    code: str
    why: str


@attrs.frozen(kw_only=True)
class SchemaDeviated(Event):
    """A message broke its schema but was read all the same.

    total: such messages of this charge point since it connected.
    action: of the message, or of our call that it answers.  what: the first of its deviations.
    """

    total: int
    action: str
    what: str


# --- from operators -------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class CommandCarriedOut(Event):
    """method: the RPC's; result: the charge point's status, or our error code.

    connector_id: 0 for a command to the charge point itself.
    tx_active: of a command to begin or end a transaction that did not come to pass: whether the
        connector has one now, for switches that show already what was requested; else None.
    tx_active_ms: the instant to publish that at, ms since 1970: just after it was last published.
    """

    method: str
    result: str
    connector_id: int = 0
    tx_active: bool | None = None
    tx_active_ms: int = 0


@attrs.frozen(kw_only=True)
class RemoteStopRequested(Event):
    """RemoteStopTransaction is about to be sent (OCPP 1.6 §5.11).

    Told before the sending, as charge points may stop before they answer.
    withdrawn: the charge point did not accept it.
    """

    transaction_id: int
    connector_id: int
    withdrawn: bool = False


@attrs.frozen(kw_only=True)
class TransactionClosed(Event):
    """An open transaction that nobody will stop any more is to end at its last reading.

    reason: `Operator`, or `Stale` for one whose charge point never came back.
    """

    transaction_id: int
    connector_id: int
    reason: str


# --- derived by the accountant --------------------------------------------------------------


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
    status, status_at: the connector's last word from before StartTransaction came, where it
        says something about the transaction.
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
