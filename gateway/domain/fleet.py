"""The state of each device now: a fold over events, kept by journals and in memory alike.

A device is a charge point (`CP-1`) or one of its connectors (`CP-1/1`), as ThingsBoard sees
them.  A holder of devices applies the patches of each event in journal order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import attrs

from . import events
from .clock import milliseconds
from .events import Event
from .fixed_point import scaled
from .redaction import shortened

MAX_CONNECTORS = 256
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
    BootNotification), status, error_code, away (see `ChargePointConnected`), gone_ms (of its last
    frame), serial, box_serial (see `is_another`).
    Connector: connected (its charge point is), status, error_code, since_ms, status_source
    ("reported" or "inferred"), tx (the id of its open transaction or None), tx_tag, tx_tag_status
    (what its start was answered), tx_start_ms, tx_ms (when `tx` was last published),
    tx_energy_scale (a transaction's id and what its registers are multiplied by, where not by 1),
    last_tx (the newest that began here), stopped_tx and stopped_ms (the newest whose stop was
    reported, and since when nothing flows), stop_tx (the id that an operator wants stopped), and
    `known_key` of each telemetry key that was published of it.
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
                        "away": event.away,
                    },
                ),
                *_each(name, event.connectors, {"connected": True}),
            )
        case events.ChargePointDisconnected():
            return (
                (
                    name,
                    {
                        "connected": False,
                        "reason": event.reason,
                        "gone_ms": milliseconds(event.last_heard_at or event.received_at),
                    },
                ),
                *_each(name, event.connectors, {"connected": False}),
            )
        case events.ChargePointBooted():
            hardware: dict[str, Any] = {"charger": charger_attributes(event)}
            if event.replaced:
                hardware |= dict.fromkeys(SERIALS)
            return ((name, hardware | serials_of(event)),)
        case events.ConnectorStatusChanged(connector_id=connector):
            found = {
                "status": shortened(event.status),
                "error_code": shortened(event.error_code),
                "since_ms": max(milliseconds(event.at), event.status_ms),
                "status_source": "reported",
            }
            # A connector that reports a status is connected, also where it is new.
            return _of_connector(
                name, connector, found | ({"connected": True} if connector else {})
            )
        case events.StatusInferred(connector_id=connector):
            assumed = {
                "status": event.status,
                "since_ms": event.status_ms,
                "status_source": "inferred",
            }
            return _of_connector(
                name, connector, assumed | ({"connected": True} if event.new else {})
            )
        case events.TransactionOpened(connector_id=connector):
            opened = {"tx": event.transaction_id, "tx_tag": event.id_tag}
            return _of_connector(name, connector, opened | {"tx_ms": milliseconds(event.at)})
        case events.TransactionSettled(connector_id=connector, version=1):
            over = {"tx": None, "tx_tag": None, "tx_tag_status": None}
            return _of_connector(name, connector, over | {"tx_ms": milliseconds(event.at)})
        case events.TransactionStarted(connector_id=connector) if connector:
            # Before the accountant has opened it: a driver who starts may want to stop at once.
            meter_start = None if event.meter_start is None else scaled(event.meter_start, 9)
            begun: dict[str, Any] = {
                "tx": event.transaction_id,
                "tx_tag": event.id_tag,
                "tx_tag_status": event.id_tag_status,
                "tx_start_ms": milliseconds(event.at),
                "last_tx": event.transaction_id,
                "last_tx_ms": milliseconds(event.at),
            }
            if meter_start:
                begun[known_key("meter_wh")] = True
            if event.energy_scale is not None:
                begun["tx_energy_scale"] = [event.transaction_id, str(event.energy_scale)]
            return _of_connector(name, connector, {} if event.repeated else begun)
        case events.TransactionStopped(connector_id=connector, stopped_id=int()) if connector:
            stopped = {"stopped_tx": event.stopped_id, "stopped_ms": event.zeros_ms}
            return _of_connector(name, connector, stopped)
        case events.RemoteStopRequested(connector_id=connector):
            wanted = None if event.withdrawn else event.transaction_id
            return _of_connector(name, connector, {"stop_tx": wanted})
        case events.MeterSampled():
            sampled = event.connector_id or event.transaction_connector_id
            first = {known_key(key): True for key in event.first_keys}
            return _of_connector(name, sampled, first) if sampled else ()
        case _:
            return ()


def _of_connector(name: str, connector_id: int, patch: Mapping[str, Any]) -> tuple[Patch, ...]:
    if not 0 <= connector_id <= MAX_CONNECTORS:
        return ()
    return ((device_name(name, connector_id), patch),)


def _each(name: str, connectors: Iterable[int], patch: Mapping[str, Any]) -> Iterable[Patch]:
    return [(device_name(name, connector), patch) for connector in connectors]


def charger_attributes(event: events.ChargePointBooted) -> dict[str, str]:
    """What BootNotification says about the hardware, without empty fields."""
    found = {
        "vendor": event.vendor,
        "model": event.model,
        "serial": event.serial_number,
        "firmware": event.firmware,
        "iccid": event.iccid,
        "imsi": event.imsi,
        "meter_type": event.meter_type,
        "meter_serial": event.meter_serial_number,
    }
    return {key: shortened(text) for key, text in found.items() if text}


def known_key(key: str) -> str:
    """Where a device's state says that a telemetry key was published of it."""
    return f"knows_{key}"


SERIALS = ("serial", "box_serial")
_MEANINGLESS = frozenset({"", "unknown", "na", "none", "null", "nil", "undefined", "notavailable",
                          "notset", "notapplicable", "empty"})  # fmt: skip


def serials_of(event: events.ChargePointBooted) -> dict[str, str]:
    """The serial numbers that mean something, by which of the two fields they came in."""
    own, box = event.charge_point_serial_number, event.charge_box_serial_number
    if not own and not box:  # of a journal that did not know the two fields apart
        own = event.serial_number
    found = zip(SERIALS, (_normalised(own), _normalised(box)), strict=True)
    return {name: text for name, text in found if text}


def is_another(known: Mapping[str, Any], event: events.ChargePointBooted) -> bool:
    """Whether other hardware answers to the name now, as far as both say what they are.

    known: of the charge point (see `patches`).  A serial number that was known in either field is
    the same charger; one field with another number is another.  Where no field can be compared,
    vendor and model decide.  Firmware may change, and with it how a model is spelled, in which
    field the serial number comes, and in which case.
    """
    charger: Mapping[str, str] = known.get("charger") or {}
    before = {name: known[name] for name in SERIALS if known.get(name)}
    if not before and (serial := _normalised(charger.get("serial", ""))):
        before = {"serial": serial}
    after = serials_of(event)
    if set(before.values()) & set(after.values()):
        return False
    if both := before.keys() & after.keys():
        return any(before[name] != after[name] for name in both)
    pairs = (
        (_normalised(charger.get(name, "")), _normalised(shortened(text)))
        for name, text in (("vendor", event.vendor), ("model", event.model))
    )
    return any(one and other and one != other for one, other in pairs)


def _normalised(text: str) -> str:
    """Only letters and digits, in one case, without leading zeros; empty for what means nothing."""
    plain = "".join(filter(str.isalnum, text.casefold())).lstrip("0")
    return "" if plain in _MEANINGLESS else plain


@attrs.define
class Fleet:
    """Every device that was ever seen, by name, with what is known of it now.

    newest_ms: of the newest reading that was published of a connector, in memory only.
    """

    devices: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    newest_ms: dict[str, int] = attrs.field(factory=dict)

    @classmethod
    def of(cls, known: Mapping[str, Mapping[str, Any]]) -> Fleet:
        return cls({name: dict(state) for name, state in known.items()})

    def apply(self, event: Event) -> None:
        for name, patch in patches(event):
            self.devices.setdefault(name, {}).update(patch)
            if isinstance(event, events.MeterSampled) and event.readings:
                newest = max(at for _, at, _ in event.timed_readings())
                self.newest_ms[name] = max(self.newest_ms.get(name, -1), milliseconds(newest))

    def knows(self, device: str) -> bool:
        return device in self.devices

    def state_of(self, device: str) -> Mapping[str, Any]:
        """What is known of a device; empty for one that is not."""
        return self.devices.get(device, {})

    def charge_points(self) -> Iterable[str]:
        return [name for name in self.devices if "/" not in name]

    def connectors(self, charge_point_id: str) -> tuple[int, ...]:
        """Connectors seen of a charge point, ascending."""
        # Asked at every connection: by name, since a loop over the whole fleet would be slow.
        numbers = range(1, MAX_CONNECTORS + 1)
        return tuple(n for n in numbers if self.knows(device_name(charge_point_id, n)))

    def busy_tags(self, *, but: str) -> set[str]:
        """The id tags that charge somewhere now, in lower case; those of the device `but` aside."""
        return {
            str(state["tx_tag"]).lower()
            for name, state in self.devices.items()
            if state.get("tx") is not None and name != but
            if state.get("tx_tag_status", "Accepted") == "Accepted"
        }

    def connector_of(self, charge_point_id: str, transaction_id: int) -> int:
        """The connector on which a transaction is the newest; 0 where there is none.

        An id that is 0 or older than it is taken for that of the only open transaction of the
        charge point: some lose the id that they were given.
        """
        open_here = []
        for connector in self.connectors(charge_point_id):
            state = self.state_of(device_name(charge_point_id, connector))
            if transaction_id in (state.get("tx"), state.get("last_tx")):
                return connector
            if state.get("tx") is not None and state["tx"] != state.get("stopped_tx"):
                open_here.append((connector, state["tx"]))
        if len(open_here) == 1 and 0 <= transaction_id < open_here[0][1]:
            return open_here[0][0]
        return 0

    def takes_commands(self, device: str) -> bool:
        """Whether a device is known, or is connector 1 of a charge point that is connected and
        has reported no connector yet: every charge point has that one (OCPP 1.6 §3.8)."""
        if self.knows(device):
            return True
        charge_point_id, connector = split_name(device) or ("", 0)
        connected = self.state_of(charge_point_id).get("connected", False)
        return connector == 1 and connected and not self.connectors(charge_point_id)

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
            state = self.state_of(device_name(charge_point_id, connector))
            tx = state.get("tx")
            if tx is not None and (connector_id or tx == transaction_id):
                scale = state.get("tx_energy_scale")
                return Decimal(scale[1]) if scale and scale[0] == tx else None
        return configured

    def open_transaction(self, charge_point_id: str, connector_id: int) -> int | None:
        tx = self.state_of(device_name(charge_point_id, connector_id)).get("tx")
        return tx if isinstance(tx, int) else None
