"""How a simulated charge point handles the central system's requests (OCPP 1.6 chapter 5)."""

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
from .ocpp_connection import Payload, RequestError, Response
from .request_context import RequestContext

_ACCEPTED, _REJECTED = {"status": "Accepted"}, {"status": "Rejected"}


@attrs.define
class _LocalList:
    version: int = 0
    statuses: dict[str, str] = attrs.field(factory=dict)


class RequestHandlers:
    """Owns: the availability of the whole charge point, and the local list."""

    def __init__(self, charge_point: RequestContext) -> None:
        self._charge_point = charge_point
        self._local_list = _LocalList()
        self._inoperative = False
        self.maintenance = Maintenance(charge_point)
        self._handlers: Mapping[str, Callable[[Payload], Response]] = {
            "CancelReservation": self._cancel_reservation,
            "ChangeAvailability": self._change_availability,
            "ChangeConfiguration": self._change_configuration,
            "ClearCache": lambda _: Response(_ACCEPTED),
            "ClearChargingProfile": self._clear_charging_profile,
            "DataTransfer": self._data_transfer,
            "GetCompositeSchedule": self._get_composite_schedule,
            "GetConfiguration": self._get_configuration,
            "GetDiagnostics": self.maintenance.get_diagnostics,
            "GetLocalListVersion": lambda _: Response({"listVersion": self._local_list.version}),
            "RemoteStartTransaction": self._remote_start,
            "RemoteStopTransaction": self._remote_stop,
            "ReserveNow": self._reserve_now,
            "Reset": self._reset,
            "SendLocalList": self._send_local_list,
            "SetChargingProfile": self._set_charging_profile,
            "TriggerMessage": self.maintenance.trigger_message,
            "UnlockConnector": self._unlock_connector,
            "UpdateFirmware": self.maintenance.update_firmware,
        }

    @property
    def status(self) -> str:
        """The status of connector 0: Available or Unavailable."""
        return "Unavailable" if self._inoperative else "Available"

    def local_list_status(self, id_tag: str) -> str | None:
        """The tag's status in the local list; None for a tag that is not in it."""
        return self._local_list.statuses.get(id_tag)

    def handle_request(self, action: str, payload: Payload) -> Response:
        """The response to one call; raises RequestError."""
        if action not in self._handlers:
            raise RequestError("NotImplemented", f"{action} is not implemented")
        return self._handlers[action](payload)

    # Sessions

    def _remote_start(self, payload: Payload) -> Response:
        id_tag, number = (
            payload_fields.text(payload, "idTag", 20),
            payload_fields.optional_integer(payload, "connectorId"),
        )
        connectors = self._charge_point.connectors
        chosen = connectors.values() if number is None else _as_list(connectors.get(number))
        free = next((c for c in chosen if c.accepts(id_tag)), None)
        if free is None or not self._charge_point.client.booted:
            return Response(_REJECTED)
        if "chargingProfile" in payload:
            self._charge_point.profiles.install(free.number, payload["chargingProfile"])
        begin = self._charge_point.begin(free, SimulatedSession(id_tag=id_tag, remote=True))
        return Response(_ACCEPTED, begin)

    def _remote_stop(self, payload: Payload) -> Response:
        tx_id = payload_fields.integer(payload, "transactionId")
        for connector in self._charge_point.connectors.values():
            session = connector.session
            if session is None or session.transaction is None or session.stop_reason is not None:
                continue
            if session.transaction.id == tx_id:
                return Response(_ACCEPTED, _call_later(session.stop, "Remote"))
        return Response(_REJECTED)

    def _unlock_connector(self, payload: Payload) -> Response:
        connector = self._charge_point.connectors.get(
            payload_fields.integer(payload, "connectorId")
        )
        if connector is None:
            return Response({"status": "NotSupported"})
        session = connector.session
        stop = None if session is None else _call_later(session.stop, "UnlockCommand")
        return Response({"status": "Unlocked"}, stop)

    def _reset(self, payload: Payload) -> Response:
        kind = payload_fields.one_of(payload, "type", "Hard", "Soft")
        return Response(_ACCEPTED, partial(self._charge_point.reboot, f"{kind}Reset"))

    # Availability and reservations

    def _change_availability(self, payload: Payload) -> Response:
        number = payload_fields.integer(payload, "connectorId")
        inoperative = (
            payload_fields.one_of(payload, "type", "Inoperative", "Operative") == "Inoperative"
        )
        connectors = self._charge_point.connectors
        if number and number not in connectors:
            return Response(_REJECTED)
        chosen = [connectors[number]] if number else list(connectors.values())
        for connector in chosen:
            connector.inoperative = inoperative
        if not number:
            self._inoperative = inoperative
        busy = inoperative and any(c.session is not None for c in chosen)
        numbers = [0] if not number else []
        return Response(
            {"status": "Scheduled" if busy else "Accepted"},
            partial(self._show_availability, numbers, chosen),
        )

    async def _show_availability(self, numbers: list[int], chosen: list[Connector]) -> None:
        for number in numbers:
            await self._charge_point.send_status(number)
        for connector in chosen:
            await connector.update_idle_status()

    def _reserve_now(self, payload: Payload) -> Response:
        reservation = Reservation(
            reservation_id=payload_fields.integer(payload, "reservationId"),
            id_tag=payload_fields.text(payload, "idTag", 20),
            expires_at=payload_fields.time(payload, "expiryDate"),
        )
        connector = self._charge_point.connectors.get(
            payload_fields.integer(payload, "connectorId")
        )
        if connector is None:  # connector 0 too: ReserveConnectorZeroSupported is not implemented
            return Response(_REJECTED)
        if connector.inoperative:
            return Response({"status": "Unavailable"})
        held = connector.reservation
        other = held is not None and held.reservation_id != reservation.reservation_id
        if connector.session is not None or other:
            return Response({"status": "Occupied"})
        connector.reservation = reservation
        return Response(_ACCEPTED, partial(self._keep_reserved, connector, reservation))

    async def _keep_reserved(self, connector: Connector, reservation: Reservation) -> None:
        await connector.update_idle_status()
        left = (reservation.expires_at - self._charge_point.now()).total_seconds()
        await trio.sleep(max(0.0, left))
        if connector.reservation is reservation:
            connector.reservation = None
            await connector.update_idle_status()

    def _cancel_reservation(self, payload: Payload) -> Response:
        wanted = payload_fields.integer(payload, "reservationId")
        for connector in self._charge_point.connectors.values():
            held = connector.reservation
            if held is not None and held.reservation_id == wanted:
                connector.reservation = None
                return Response(_ACCEPTED, connector.update_idle_status)
        return Response(_REJECTED)

    # Configuration and lists

    def _change_configuration(self, payload: Payload) -> Response:
        key, value = (
            payload_fields.text(payload, "key", 50),
            payload_fields.text(payload, "value", 500),
        )
        status = self._charge_point.settings.change_configuration(key, value)
        if key == PASSWORD and status == "Accepted":
            client = self._charge_point.client
            client.password = value  # used from the next connection on
            return Response({"status": status}, client.disconnect)
        return Response({"status": status})

    def _get_configuration(self, payload: Payload) -> Response:
        keys = payload.get("key", [])
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise RequestError("TypeConstraintViolation", "key is no list of texts")
        return Response(self._charge_point.settings.get_configuration(keys))

    def _send_local_list(self, payload: Payload) -> Response:
        kind = payload_fields.one_of(payload, "updateType", "Differential", "Full")
        version = payload_fields.integer(payload, "listVersion")
        entries = payload.get("localAuthorizationList") or []
        old = self._local_list
        if kind == "Differential" and version <= old.version:
            return Response({"status": "VersionMismatch"})
        statuses = {} if kind == "Full" else dict(old.statuses)
        try:
            for entry in entries:
                if "idTagInfo" in entry:
                    statuses[str(entry["idTag"])] = str(entry["idTagInfo"]["status"])
                else:  # §5.15: in a differential update this removes the tag
                    statuses.pop(str(entry["idTag"]), None)
        except (KeyError, TypeError) as exc:
            raise RequestError("FormationViolation", f"localAuthorizationList: {exc}") from exc
        self._local_list = _LocalList(version, statuses)
        return Response(_ACCEPTED)

    def _data_transfer(self, payload: Payload) -> Response:
        payload_fields.text(payload, "vendorId", 255)
        return Response({"status": "UnknownVendorId"})

    # Smart charging

    def _set_charging_profile(self, payload: Payload) -> Response:
        number, profile = (
            payload_fields.integer(payload, "connectorId"),
            payload.get("csChargingProfiles"),
        )
        connector = self._charge_point.connectors.get(number)
        if number and connector is None:
            return Response(_REJECTED)
        if isinstance(profile, dict) and profile.get("chargingProfilePurpose") == "TxProfile":
            session = None if connector is None else connector.session
            open_tx = None if session is None else session.transaction
            wanted = profile.get("transactionId")
            if open_tx is None or wanted not in (None, open_tx.id):
                return Response(_REJECTED)  # §5.16.2: only for a transaction that is going on
        self._charge_point.profiles.install(number, profile)
        return Response(_ACCEPTED, self._apply_limits)

    def _clear_charging_profile(self, payload: Payload) -> Response:
        purpose = payload.get("chargingProfilePurpose")
        cleared = self._charge_point.profiles.clear(
            payload_fields.optional_integer(payload, "id"),
            payload_fields.optional_integer(payload, "connectorId"),
            None if purpose is None else str(purpose),
            payload_fields.optional_integer(payload, "stackLevel"),
        )
        return Response({"status": "Accepted" if cleared else "Unknown"}, self._apply_limits)

    async def _apply_limits(self) -> None:
        for connector in self._charge_point.connectors.values():
            if connector.session is not None:
                connector.session.changed.set()

    def _get_composite_schedule(self, payload: Payload) -> Response:
        number, seconds = (
            payload_fields.integer(payload, "connectorId"),
            payload_fields.integer(payload, "duration"),
        )
        unit = payload_fields.one_of(
            {"chargingRateUnit": "W"} | payload, "chargingRateUnit", "A", "W"
        )
        connector = self._charge_point.connectors.get(number or 1)
        if connector is None:
            return Response(_REJECTED)
        at = self._charge_point.now()
        schedule = self._charge_point.profiles.composite(
            number, connector.meter.outlet, at, min(seconds, 86_400), unit
        )
        start = {"connectorId": number, "scheduleStart": self._charge_point.stamp(at)}
        return Response(_ACCEPTED | start | {"chargingSchedule": schedule})


def _as_list(connector: Connector | None) -> list[Connector]:
    return [] if connector is None else [connector]


def _call_later(function: Callable[[str], None], reason: str) -> Callable[[], Any]:
    async def run() -> None:
        function(reason)
        await trio.lowlevel.checkpoint()

    return run
