"""`compat = "node-red"`: the keys and the RPC of the Node-RED prototype, beside our own.

Its dashboards go on working: the same keys on the charge point's device, but from the right
charge point and the right transaction, and with numbers as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from ..bus import Entry
from ..domain import events
from ..domain.clock import milliseconds
from ..domain.events import Event
from ..domain.measurands import instantaneous
from ..domain.redaction import shortened
from .rpc_messages import RpcRequest
from .telemetry import TelemetryRow

METHOD, CONNECTOR = "settest", 1


def map_rpc(rpc: RpcRequest) -> RpcRequest:
    """The prototype's one RPC, `settest` true or false on a charge point, is its connector 1's."""
    if rpc.method == METHOD and "/" not in rpc.device:
        return attrs.evolve(rpc, device=f"{rpc.device}/{CONNECTOR}", method="setCharging")
    return rpc


_ACTIONS: Mapping[type[Event], str] = {
    events.ChargePointBooted: "BootNotification",
    events.HeartbeatReceived: "Heartbeat",
    events.IdTagPresented: "Authorize",
    events.ConnectorStatusChanged: "StatusNotification",
    events.TransactionStarted: "StartTransaction",
    events.MeterSampled: "MeterValues",
    events.TransactionStopped: "StopTransaction",
}


@attrs.define
class _Charge:
    """The last transaction of a connector.  soc: the state of charge that was sampled in it."""

    tx: int
    soc: float | None = None
    stopped: bool = False


class PrototypeKeys:
    """Owns: the last transaction of each connector, for what only the summary at stop has.

    It is forgotten when the next one starts, and not when it is published: that may be repeated.
    """

    def __init__(self) -> None:
        self._charges: dict[str, dict[int, _Charge]] = {}  # by charge point, then connector

    def rows(self, entry: Entry) -> tuple[TelemetryRow, ...]:
        """What the prototype published for an event, on the charge point's device."""
        event = entry.event
        values: dict[str, Any] = {}
        if action := _ACTIONS.get(type(event)):
            values = {"Charge Box Id": event.charge_point_id, "Command": action}
        for more in self._values_of(event):
            values |= more
        if not values:
            return ()
        values = {k: shortened(v) if isinstance(v, str) else v for k, v in values.items()}
        return (TelemetryRow(event.charge_point_id, milliseconds(event.at), values),)

    def _values_of(self, event: Event) -> Iterator[Mapping[str, Any]]:
        match event:
            case events.ChargePointConnected():
                yield {"Charge Box Id": event.charge_point_id, "Connection": "ONLINE"}
            case events.ChargePointDisconnected():
                yield {
                    "Charge Box Id": event.charge_point_id,
                    "Connection": "OFFLINE",
                    "Status": "Not Available",
                }
            case events.ChargePointBooted():
                yield {
                    "Charge Point Vendor": event.vendor,
                    "Charge Point Model": event.model,
                    "Connection": "ONLINE",
                    "Status": "Available",
                }
            case events.HeartbeatReceived():
                yield {"Connection": "ONLINE", "Connectivity": "Healthy"}
            case events.IdTagPresented():
                yield {"Id Tag Authorization": event.id_tag}
            case events.ConnectorStatusChanged():
                yield {"Status": event.status}
            case events.TransactionStarted():
                if not event.repeated:
                    self._charges_of(event)[event.connector_id] = _Charge(event.transaction_id)
                yield {"Status": "Charging", "Remote-Start": "true"}
            case events.TransactionStopped():
                for charge in self._charges_of(event).values():
                    charge.stopped |= charge.tx == event.transaction_id
            case events.MeterSampled():
                yield from self._sampled(event)
            case events.TransactionSettled(version=1):
                yield self._summary(event)
            case events.CommandCarriedOut(connector_id=1, tx_active=bool(active)):
                # Refused, the switch falls back: it shows what is, not what was asked for.
                yield {"Remote-Start": "true" if active else "false"}

    def _sampled(self, event: events.MeterSampled) -> Iterator[Mapping[str, Any]]:
        for reading in event.readings:
            measured = instantaneous(reading.samples, energy_scale=event.energy_scale)
            if (register := measured.get("meter_wh")) is not None:
                yield {"Energy Active Import Register": register}
            if (soc := measured.get("soc_percent")) is not None:
                self._note_soc(event, soc)
                yield {"SoC": soc}

    def _note_soc(self, event: events.MeterSampled, soc: float) -> None:
        charges, tx = self._charges_of(event), event.transaction_id
        charge = charges.get(event.connector_id)
        if charge is None and tx is not None:  # begun before this process
            charge = charges[event.connector_id] = _Charge(tx)
        if charge is not None and (tx == charge.tx or (tx is None and not charge.stopped)):
            charge.soc = soc

    def _charges_of(self, event: Event) -> dict[int, _Charge]:
        return self._charges.setdefault(event.charge_point_id, {})

    def _summary(self, event: events.TransactionSettled) -> Mapping[str, Any]:
        receipt = event.receipt
        charge = self._charges_of(event).get(event.connector_id)
        if charge is not None and charge.tx != event.transaction_id:
            charge = None
        meter_stop = _register(receipt.get("meter_stop_wh"))
        summary = {
            "Charge Box Id": event.charge_point_id,
            "Status": "Available",
            "Remote-Start": "false",
            "Connector Id": event.connector_id,
            "Id Tag": receipt.get("id_tag"),
            "Start Time": receipt.get("started_at"),
            "Meter Start": _register(receipt.get("meter_start_wh")),
            "Transaction Id": event.transaction_id,
            "Stop Time": receipt.get("stopped_at"),
            "Meter Stop": meter_stop,
            "Energy Active Import Register Final": meter_stop,
            "SoC Final": None if charge is None else charge.soc,
            "Energy Active Import Register": 0,
        }
        return {key: value for key, value in summary.items() if value is not None}


def _register(shown: int | str | None) -> float | None:
    """A receipt's register as a number: with decimals, it is text there."""
    return round(float(shown), 6) if isinstance(shown, str) else shown
