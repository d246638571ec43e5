"""What is known of each device now: a fold over events, kept by journals and by the house alike.

A device is a charge point (`CP-1`) or one of its connectors (`CP-1/1`), as ThingsBoard sees
them.  Whoever keeps devices applies the patches of each event in journal order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import attrs

from . import events
from .clock import milliseconds
from .events import Event

MOST_CONNECTORS = 256
"""A connector beyond this is accounted for, but gets no device: no charge point has so many."""

Patch = tuple[str, Mapping[str, Any]]


def device_name(charge_point_id: str, connector_id: int = 0) -> str:
    return f"{charge_point_id}/{connector_id}" if connector_id else charge_point_id


def split_name(device: str) -> tuple[str, int] | None:
    """(charge point id, connector id or 0); None for a name that no device of ours has."""
    charge_point_id, slash, connector = device.partition("/")
    if not slash:
        return charge_point_id, 0
    if connector.isascii() and connector.isdigit() and not connector.startswith("0"):
        return charge_point_id, int(connector)
    return None


def patches(event: Event) -> tuple[Patch, ...]:
    """What an event changes about devices; a device of a first patch is new.

    Charge point: connected (bool), reason, remote_address, security_profile, charger (JSON of
    BootNotification), status, error_code.  Connector: connected (its charge point is), status,
    error_code, since_ms, tx (the id of its open transaction or None), tx_tag, tx_tag_status
    (what its start was answered), tx_ms (when ThingsBoard was last told of `tx`),
    tx_energy_scale (a transaction's id and what its registers are multiplied by, where not by 1).
    """
    name = event.charge_point_id
    match event:
        case events.ChargePointConnected():
            return (
                (
                    name,
                    {
                        "connected": True,
                        "reason": "",
                        "remote_address": event.remote_address,
                        "security_profile": event.security_profile,
                    },
                ),
                *_each(name, event.connectors, {"connected": True}),
            )
        case events.ChargePointDisconnected():
            return (
                (name, {"connected": False, "reason": event.reason}),
                *_each(name, event.connectors, {"connected": False}),
            )
        case events.ChargePointBooted():
            return ((name, {"charger": charger_attributes(event)}),)
        case events.ConnectorStatusChanged(connector_id=connector):
            told = {
                "status": event.status,
                "error_code": event.error_code,
                "since_ms": milliseconds(event.at),
            }
            # Who speaks is there: so a connector that is new is known to be, too.
            return _of_connector(name, connector, told | ({"connected": True} if connector else {}))
        case events.TransactionOpened(connector_id=connector):
            opened = {"tx": event.transaction_id, "tx_tag": event.id_tag}
            return _of_connector(name, connector, opened | {"tx_ms": milliseconds(event.at)})
        case events.TransactionSettled(connector_id=connector, version=1):
            over = {"tx": None, "tx_tag": None, "tx_tag_status": None}
            return _of_connector(name, connector, over | {"tx_ms": milliseconds(event.at)})
        case events.TransactionStarted(connector_id=connector) if connector:
            # Before the accountant has opened it: who starts may want to stop at once.
            begun: dict[str, Any] = {
                "tx": event.transaction_id,
                "tx_tag": event.id_tag,
                "tx_tag_status": event.id_tag_status,
            }
            if event.energy_scale is not None:
                begun["tx_energy_scale"] = [event.transaction_id, str(event.energy_scale)]
            return _of_connector(name, connector, {} if event.repeated else begun)
        case events.MeterSampled(connector_id=connector) if connector:
            return _of_connector(name, connector, {})
        case _:
            return ()


def _of_connector(name: str, connector_id: int, patch: Mapping[str, Any]) -> tuple[Patch, ...]:
    if not 0 <= connector_id <= MOST_CONNECTORS:
        return ()
    return ((device_name(name, connector_id), patch),)


def _each(name: str, connectors: Iterable[int], patch: Mapping[str, Any]) -> Iterable[Patch]:
    return [(device_name(name, connector), patch) for connector in connectors]


def charger_attributes(event: events.ChargePointBooted) -> dict[str, str]:
    """What BootNotification told of the hardware, without what it did not tell."""
    told = {
        "vendor": event.vendor,
        "model": event.model,
        "serial": event.serial_number,
        "firmware": event.firmware,
        "iccid": event.iccid,
        "imsi": event.imsi,
        "meter_type": event.meter_type,
        "meter_serial": event.meter_serial_number,
    }
    return {key: text for key, text in told.items() if text}


def is_another(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether other hardware answers to the name now, as far as both say what they are.

    before, after: of `charger_attributes`.  Firmware may change, and with it how a model
    is spelled.
    """
    names = ("serial",) if {"serial"} <= before.keys() & after.keys() else ("vendor", "model")
    return any(name in before and name in after and before[name] != after[name] for name in names)


@attrs.define
class Fleet:
    """Every device that was ever seen, by name, with what is known of it now."""

    devices: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, known: Mapping[str, Mapping[str, Any]]) -> Fleet:
        return cls({name: dict(state) for name, state in known.items()})

    def apply(self, event: Event) -> None:
        for name, patch in patches(event):
            self.devices.setdefault(name, {}).update(patch)

    def knows(self, device: str) -> bool:
        return device in self.devices

    def about(self, device: str) -> Mapping[str, Any]:
        """What is known of a device; empty for one that is not."""
        return self.devices.get(device, {})

    def charge_points(self) -> Iterable[str]:
        return [name for name in self.devices if "/" not in name]

    def connectors(self, charge_point_id: str) -> tuple[int, ...]:
        """Connectors seen of a charge point, ascending."""
        # Asked at every connection: by name, for a walk over a whole fleet would be dear.
        numbers = range(1, MOST_CONNECTORS + 1)
        return tuple(n for n in numbers if self.knows(device_name(charge_point_id, n)))

    def busy_tags(self, *, but: str) -> set[str]:
        """The id tags that charge somewhere now, in lower case; those of the device `but` aside."""
        return {
            str(state["tx_tag"]).lower()
            for name, state in self.devices.items()
            if state.get("tx") is not None and name != but
            if state.get("tx_tag_status", "Accepted") == "Accepted"
        }

    def energy_scale(
        self,
        charge_point_id: str,
        connector_id: int,
        transaction_id: int | None,
        configured: Decimal | None,
    ) -> Decimal | None:
        """What a connector's registers are multiplied by now, None for 1: an open transaction
        keeps the factor that it began with, whatever the configuration has become.

        connector_id: 0, the charge point as a whole, stands for the transaction's connector.
        """
        among = [connector_id] if connector_id else self.connectors(charge_point_id)
        for connector in among:
            state = self.about(device_name(charge_point_id, connector))
            tx = state.get("tx")
            if tx is not None and (connector_id or tx == transaction_id):
                told = state.get("tx_energy_scale")
                return Decimal(told[1]) if told and told[0] == tx else None
        return configured

    def open_transaction(self, charge_point_id: str, connector_id: int) -> int | None:
        tx = self.about(device_name(charge_point_id, connector_id)).get("tx")
        return tx if isinstance(tx, int) else None
