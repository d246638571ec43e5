"""What a charge point is, does and reports, transactions aside."""

from __future__ import annotations

from datetime import datetime

import attrs

from .base import Event


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
    status_ms: the instant to publish it at, ms since 1970, where it replaces an inferred status
        that was published of a later one; else 0.
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
    status_ms: the instant to publish it at, ms since 1970.
    """

    connector_id: int
    status: str
    new: bool = False
    status_ms: int = 0


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
