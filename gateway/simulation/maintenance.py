"""TriggerMessage, diagnostics and firmware updates of a simulated charge point.

Nothing is downloaded or uploaded: the charge point only sends the status notifications.
"""

from __future__ import annotations

from functools import partial

import trio

from . import payload_fields
from .ocpp_connection import Payload, Response
from .request_context import RequestContext

_STEP_S = 20.0  # of the cars' time, between two statuses


class Maintenance:
    """Owns: the status of the upload and of the update, and the firmware version."""

    def __init__(self, charge_point: RequestContext) -> None:
        self._charge_point = charge_point
        self._firmware_status = self._diagnostics_status = "Idle"
        self.firmware_version = "1.0.0"

    def trigger_message(self, payload: Payload) -> Response:
        """§5.17: the requested message follows the response."""
        number, charge_point = (
            payload_fields.optional_integer(payload, "connectorId"),
            self._charge_point,
        )
        wanted = payload_fields.text(payload, "requestedMessage", 50)
        if number is not None and number != 0 and number not in charge_point.connectors:
            return Response({"status": "Rejected"})
        all_numbers = list(charge_point.connectors)
        match wanted:
            case "BootNotification":
                then = partial(self._send, wanted, charge_point.boot_notification())
            case "Heartbeat":
                then = partial(self._send, wanted, {})
            case "FirmwareStatusNotification":
                then = partial(self._send, wanted, {"status": self._firmware_status})
            case "DiagnosticsStatusNotification":
                then = partial(self._send, wanted, {"status": self._diagnostics_status})
            case "StatusNotification":
                chosen = [0, *all_numbers] if number is None else [number]
                return Response({"status": "Accepted"}, partial(self._send_statuses, chosen))
            case "MeterValues" if number == 0:
                return Response({"status": "Rejected"})  # there is no main meter
            case "MeterValues":
                chosen = all_numbers if number is None else [number]
                return Response({"status": "Accepted"}, partial(self._send_meter_values, chosen))
            case _:
                return Response({"status": "NotImplemented"})
        return Response({"status": "Accepted"}, then)

    def get_diagnostics(self, payload: Payload) -> Response:
        location = payload_fields.text(payload, "location", 2_000)
        return Response({"fileName": "diagnostics.log"}, partial(self._upload, location))

    def update_firmware(self, payload: Payload) -> Response:
        location = payload_fields.text(payload, "location", 2_000)
        at = payload_fields.time(payload, "retrieveDate")
        wait_s = max(0.0, (at - self._charge_point.now()).total_seconds())
        return Response({}, partial(self._update, location, wait_s))

    async def _send(self, action: str, payload: Payload) -> None:
        await self._charge_point.client.send(action, payload)

    async def _send_statuses(self, numbers: list[int]) -> None:
        for number in numbers:
            await self._charge_point.send_status(number, again=True)

    async def _send_meter_values(self, numbers: list[int]) -> None:
        for number in numbers:
            connector = self._charge_point.connectors[number]
            session = connector.session
            if session is None or session.transaction is None or session.stopped.is_set():
                await self._send("MeterValues", connector.sample("Trigger"))
            else:
                connector.queue_sample(session.transaction, "Trigger")

    async def _upload(self, location: str) -> None:
        for status in ("Uploading", "Uploaded" if "://" in location else "UploadFailed"):
            self._diagnostics_status = status
            await self._send("DiagnosticsStatusNotification", {"status": status})
            await self._charge_point.sleep_simulated(_STEP_S)
        self._diagnostics_status = "Idle"

    async def _update(self, location: str, wait_s: float) -> None:
        await trio.sleep(wait_s)
        await self._send_firmware_status("Downloading")
        if "://" not in location:
            await self._send_firmware_status("DownloadFailed")
            self._firmware_status = "Idle"
            return
        await self._send_firmware_status("Downloaded")
        for connector in self._charge_point.connectors.values():
            await connector.wait_unused()
        await self._send_firmware_status("Installing")
        major, minor, patch = self.firmware_version.split(".")
        self.firmware_version = f"{major}.{minor}.{int(patch) + 1}"
        await self._charge_point.reboot("Reboot")
        await self._charge_point.client.wait_online()
        await self._send_firmware_status("Installed")
        self._firmware_status = "Idle"

    async def _send_firmware_status(self, status: str) -> None:
        self._firmware_status = status
        await self._send("FirmwareStatusNotification", {"status": status})
        await self._charge_point.sleep_simulated(_STEP_S)
