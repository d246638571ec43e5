"""How a simulated charge point answers what a central system asks of it (OCPP 1.6 chapter 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import trio

from . import payload_fields
from .configuration_keys import PASSWORD
from .connector import Connector, Reservation, SimulatedSession
from .maintenance import Maintenance
from .ocpp_connection import Payload, Reply, Unanswerable
from .request_context import RequestContext

_ACCEPTED, _REJECTED = {"status": "Accepted"}, {"status": "Rejected"}


@attrs.define
class _LocalList:
    version: int = 0
    statuses: dict[str, str] = attrs.field(factory=dict)


class RequestHandlers:
    """Owns: the availability of the whole, and the local list."""

    def __init__(self, charger: RequestContext) -> None:
        self._charger = charger
        self._local_list = _LocalList()
        self._inoperative = False
        self._errands = Maintenance(charger)
        self._answers: Mapping[str, Callable[[Payload], Reply]] = {
            "CancelReservation": self._cancel_reservation,
            "ChangeAvailability": self._change_availability,
            "ChangeConfiguration": self._change_configuration,
            "ClearCache": lambda _: Reply(_ACCEPTED),
            "ClearChargingProfile": self._clear_charging_profile,
            "DataTransfer": self._data_transfer,
            "GetCompositeSchedule": self._get_composite_schedule,
            "GetConfiguration": self._get_configuration,
            "GetDiagnostics": self._errands.get_diagnostics,
            "GetLocalListVersion": lambda _: Reply({"listVersion": self._local_list.version}),
            "RemoteStartTransaction": self._remote_start,
            "RemoteStopTransaction": self._remote_stop,
            "ReserveNow": self._reserve_now,
            "Reset": self._reset,
            "SendLocalList": self._send_local_list,
            "SetChargingProfile": self._set_charging_profile,
            "TriggerMessage": self._errands.trigger_message,
            "UnlockConnector": self._unlock_connector,
            "UpdateFirmware": self._errands.update_firmware,
        }

    @property
    def status(self) -> str:
        """The status of connector 0: Available or Unavailable."""
        return "Unavailable" if self._inoperative else "Available"

    @property
    def firmware_version(self) -> str:
        return self._errands.firmware_version

    def listed(self, id_tag: str) -> str | None:
        """What the local list says of a tag; None if it is not on it."""
        return self._local_list.statuses.get(id_tag)

    def answer(self, action: str, payload: Payload) -> Reply:
        """The reply to one call; raises Unanswerable."""
        if action not in self._answers:
            raise Unanswerable("NotImplemented", f"{action} is not known here")
        return self._answers[action](payload)

    # Sessions

    def _remote_start(self, payload: Payload) -> Reply:
        id_tag, number = (
            payload_fields.text(payload, "idTag", 20),
            payload_fields.maybe_whole(payload, "connectorId"),
        )
        connectors = self._charger.connectors
        chosen = connectors.values() if number is None else _some(connectors.get(number))
        free = next((c for c in chosen if c.open_to(id_tag)), None)
        if free is None or not self._charger.uplink.booted:
            return Reply(_REJECTED)
        if "chargingProfile" in payload:
            self._charger.profiles.install(free.number, payload["chargingProfile"])
        begin = self._charger.begin(free, SimulatedSession(id_tag=id_tag, remote=True))
        return Reply(_ACCEPTED, begin)

    def _remote_stop(self, payload: Payload) -> Reply:
        tx_id = payload_fields.whole(payload, "transactionId")
        for connector in self._charger.connectors.values():
            session = connector.session
            if session is None or session.transaction is None or session.stop_reason is not None:
                continue
            if session.transaction.id == tx_id:
                return Reply(_ACCEPTED, _later(session.stop, "Remote"))
        return Reply(_REJECTED)

    def _unlock_connector(self, payload: Payload) -> Reply:
        connector = self._charger.connectors.get(payload_fields.whole(payload, "connectorId"))
        if connector is None:
            return Reply({"status": "NotSupported"})
        session = connector.session
        stop = None if session is None else _later(session.stop, "UnlockCommand")
        return Reply({"status": "Unlocked"}, stop)

    def _reset(self, payload: Payload) -> Reply:
        kind = payload_fields.one_of(payload, "type", "Hard", "Soft")
        return Reply(_ACCEPTED, partial(self._charger.reboot, f"{kind}Reset"))

    # Availability and reservations

    def _change_availability(self, payload: Payload) -> Reply:
        number = payload_fields.whole(payload, "connectorId")
        inoperative = (
            payload_fields.one_of(payload, "type", "Inoperative", "Operative") == "Inoperative"
        )
        connectors = self._charger.connectors
        if number and number not in connectors:
            return Reply(_REJECTED)
        chosen = [connectors[number]] if number else list(connectors.values())
        for connector in chosen:
            connector.inoperative = inoperative
        if not number:
            self._inoperative = inoperative
        busy = inoperative and any(c.session is not None for c in chosen)
        numbers = [0] if not number else []
        return Reply(
            {"status": "Scheduled" if busy else "Accepted"},
            partial(self._show_availability, numbers, chosen),
        )

    async def _show_availability(self, numbers: list[int], chosen: list[Connector]) -> None:
        for number in numbers:
            await self._charger.send_status(number)
        for connector in chosen:
            await connector.settle_status()

    def _reserve_now(self, payload: Payload) -> Reply:
        reservation = Reservation(
            reservation_id=payload_fields.whole(payload, "reservationId"),
            id_tag=payload_fields.text(payload, "idTag", 20),
            expires_at=payload_fields.time(payload, "expiryDate"),
        )
        connector = self._charger.connectors.get(payload_fields.whole(payload, "connectorId"))
        if connector is None:  # 0 too: ReserveConnectorZeroSupported is not
            return Reply(_REJECTED)
        if connector.inoperative:
            return Reply({"status": "Unavailable"})
        held = connector.reservation
        other = held is not None and held.reservation_id != reservation.reservation_id
        if connector.session is not None or other:
            return Reply({"status": "Occupied"})
        connector.reservation = reservation
        return Reply(_ACCEPTED, partial(self._keep_reserved, connector, reservation))

    async def _keep_reserved(self, connector: Connector, reservation: Reservation) -> None:
        await connector.settle_status()
        left = (reservation.expires_at - self._charger.now()).total_seconds()
        await trio.sleep(max(0.0, left))
        if connector.reservation is reservation:
            connector.reservation = None
            await connector.settle_status()

    def _cancel_reservation(self, payload: Payload) -> Reply:
        wanted = payload_fields.whole(payload, "reservationId")
        for connector in self._charger.connectors.values():
            held = connector.reservation
            if held is not None and held.reservation_id == wanted:
                connector.reservation = None
                return Reply(_ACCEPTED, connector.settle_status)
        return Reply(_REJECTED)

    # Configuration and lists

    def _change_configuration(self, payload: Payload) -> Reply:
        key, value = (
            payload_fields.text(payload, "key", 50),
            payload_fields.text(payload, "value", 500),
        )
        status = self._charger.settings.change(key, value)
        if key == PASSWORD and status == "Accepted":
            uplink = self._charger.uplink
            uplink.password = value  # shown from the next connection on
            return Reply({"status": status}, uplink.hang_up)
        return Reply({"status": status})

    def _get_configuration(self, payload: Payload) -> Reply:
        keys = payload.get("key", [])
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise Unanswerable("TypeConstraintViolation", "key is no list of texts")
        return Reply(self._charger.settings.answer(keys))

    def _send_local_list(self, payload: Payload) -> Reply:
        kind = payload_fields.one_of(payload, "updateType", "Differential", "Full")
        version = payload_fields.whole(payload, "listVersion")
        entries = payload.get("localAuthorizationList") or []
        old = self._local_list
        if kind == "Differential" and version <= old.version:
            return Reply({"status": "VersionMismatch"})
        statuses = {} if kind == "Full" else dict(old.statuses)
        try:
            for entry in entries:
                if "idTagInfo" in entry:
                    statuses[str(entry["idTag"])] = str(entry["idTagInfo"]["status"])
                else:  # §5.15: in a differential update this removes the tag
                    statuses.pop(str(entry["idTag"]), None)
        except (KeyError, TypeError) as exc:
            raise Unanswerable("FormationViolation", f"localAuthorizationList: {exc}") from exc
        self._local_list = _LocalList(version, statuses)
        return Reply(_ACCEPTED)

    def _data_transfer(self, payload: Payload) -> Reply:
        payload_fields.text(payload, "vendorId", 255)
        return Reply({"status": "UnknownVendorId"})

    # Smart charging

    def _set_charging_profile(self, payload: Payload) -> Reply:
        number, profile = (
            payload_fields.whole(payload, "connectorId"),
            payload.get("csChargingProfiles"),
        )
        connector = self._charger.connectors.get(number)
        if number and connector is None:
            return Reply(_REJECTED)
        if isinstance(profile, dict) and profile.get("chargingProfilePurpose") == "TxProfile":
            session = None if connector is None else connector.session
            open_tx = None if session is None else session.transaction
            wanted = profile.get("transactionId")
            if open_tx is None or wanted not in (None, open_tx.id):
                return Reply(_REJECTED)  # §5.16.2: only for a transaction that is going on
        self._charger.profiles.install(number, profile)
        return Reply(_ACCEPTED, self._apply_limits)

    def _clear_charging_profile(self, payload: Payload) -> Reply:
        purpose = payload.get("chargingProfilePurpose")
        cleared = self._charger.profiles.clear(
            payload_fields.maybe_whole(payload, "id"),
            payload_fields.maybe_whole(payload, "connectorId"),
            None if purpose is None else str(purpose),
            payload_fields.maybe_whole(payload, "stackLevel"),
        )
        return Reply({"status": "Accepted" if cleared else "Unknown"}, self._apply_limits)

    async def _apply_limits(self) -> None:
        for connector in self._charger.connectors.values():
            if connector.session is not None:
                connector.session.woken.set()

    def _get_composite_schedule(self, payload: Payload) -> Reply:
        number, seconds = (
            payload_fields.whole(payload, "connectorId"),
            payload_fields.whole(payload, "duration"),
        )
        unit = payload_fields.one_of(
            {"chargingRateUnit": "W"} | payload, "chargingRateUnit", "A", "W"
        )
        connector = self._charger.connectors.get(number or 1)
        if connector is None:
            return Reply(_REJECTED)
        at = self._charger.now()
        schedule = self._charger.profiles.composite(
            number, connector.meter.outlet, at, min(seconds, 86_400), unit
        )
        start = {"connectorId": number, "scheduleStart": self._charger.stamp(at)}
        return Reply(_ACCEPTED | start | {"chargingSchedule": schedule})


def _some(connector: Connector | None) -> list[Connector]:
    return [] if connector is None else [connector]


def _later(function: Callable[[str], None], reason: str) -> Callable[[], Any]:
    async def run() -> None:
        function(reason)
        await trio.lowlevel.checkpoint()

    return run
