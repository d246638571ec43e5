"""What happened.  Every event is a frozen fact; nothing changes one.

Events are journaled as JSON (`gateway.journal.codec`), so: a new field gets a default, a
name is never used for something else, and old journals load for ever.
"""

from __future__ import annotations

from ..event_values import Progress, Reading, Sample
from .accounting import (
    ACCOUNTED,
    MessageOrphaned,
    NotAccounted,
    TransactionFact,
    TransactionOpened,
    TransactionProgressed,
    TransactionSettled,
)
from .base import (
    Event,
)
from .charge_point import (
    ChargePointBooted,
    ChargePointConnected,
    ChargePointDisconnected,
    ConnectorStatusChanged,
    DataTransferred,
    DiagnosticsStatusChanged,
    FirmwareStatusChanged,
    FramesRejected,
    HeartbeatReceived,
    IdTagPresented,
    SchemaDeviated,
    SecurityEventReported,
    StatusInferred,
)
from .operators import (
    CommandCarriedOut,
    RemoteStopRequested,
    TransactionClosed,
)
from .transactions import (
    MeterMessage,
    MeterSampled,
    TimedReading,
    TransactionStarted,
    TransactionStopped,
)

__all__ = [
    "ACCOUNTED",
    "ChargePointBooted",
    "ChargePointConnected",
    "ChargePointDisconnected",
    "CommandCarriedOut",
    "ConnectorStatusChanged",
    "DataTransferred",
    "DiagnosticsStatusChanged",
    "Event",
    "FirmwareStatusChanged",
    "FramesRejected",
    "HeartbeatReceived",
    "IdTagPresented",
    "MessageOrphaned",
    "MeterMessage",
    "MeterSampled",
    "NotAccounted",
    "Progress",
    "Reading",
    "RemoteStopRequested",
    "Sample",
    "SchemaDeviated",
    "SecurityEventReported",
    "StatusInferred",
    "TimedReading",
    "TransactionClosed",
    "TransactionFact",
    "TransactionOpened",
    "TransactionProgressed",
    "TransactionSettled",
    "TransactionStarted",
    "TransactionStopped",
]
