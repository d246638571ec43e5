"""Messages on demand, diagnostics and firmware of a simulated charge point.

Nothing is fetched or uploaded: what is played is what the central system gets to see of it.
"""

from __future__ import annotations

from functools import partial

import trio

from . import payload_fields
from .ocpp_connection import Payload, Reply
from .request_context import RequestContext

_STEP_S = 20.0  # of the cars' time, between two statuses


class Maintenance:
    """Owns: how far an upload or an update is."""

    def __init__(self, charger: RequestContext) -> None:
        self._charger = charger
        self._firmware_status = self._diagnostics_status = "Idle"
        self.firmware_version = "1.0.0"

    def trigger_message(self, payload: Payload) -> Reply:
        """§5.17: the message asked for follows the answer."""
        number, charger = payload_fields.maybe_whole(payload, "connectorId"), self._charger
        wanted = payload_fields.text(payload, "requestedMessage", 50)
        if number is not None and number != 0 and number not in charger.connectors:
            return Reply({"status": "Rejected"})
        all_of_them = list(charger.connectors)
        match wanted:
            case "BootNotification":
                then = partial(self._tell, wanted, charger.boot_notification())
            case "Heartbeat":
                then = partial(self._tell, wanted, {})
            case "FirmwareStatusNotification":
                then = partial(self._tell, wanted, {"status": self._firmware_status})
            case "DiagnosticsStatusNotification":
                then = partial(self._tell, wanted, {"status": self._diagnostics_status})
            case "StatusNotification":
                chosen = [0, *all_of_them] if number is None else [number]
                return Reply({"status": "Accepted"}, partial(self._tell_statuses, chosen))
            case "MeterValues" if number == 0:
                return Reply({"status": "Rejected"})  # there is no main meter
            case "MeterValues":
                chosen = all_of_them if number is None else [number]
                return Reply({"status": "Accepted"}, partial(self._tell_meters, chosen))
            case _:
                return Reply({"status": "NotImplemented"})
        return Reply({"status": "Accepted"}, then)

    def get_diagnostics(self, payload: Payload) -> Reply:
        location = payload_fields.text(payload, "location", 2_000)
        return Reply({"fileName": "diagnostics.log"}, partial(self._upload, location))

    def update_firmware(self, payload: Payload) -> Reply:
        location = payload_fields.text(payload, "location", 2_000)
        at = payload_fields.time(payload, "retrieveDate")
        wait_s = max(0.0, (at - self._charger.now()).total_seconds())
        return Reply({}, partial(self._update, location, wait_s))

    async def _tell(self, action: str, payload: Payload) -> None:
        await self._charger.uplink.send(action, payload)

    async def _tell_statuses(self, numbers: list[int]) -> None:
        for number in numbers:
            await self._charger.send_status(number, again=True)

    async def _tell_meters(self, numbers: list[int]) -> None:
        for number in numbers:
            connector = self._charger.connectors[number]
            session = connector.session
            if session is None or session.transaction is None or session.stopped.is_set():
                await self._tell("MeterValues", connector.sample("Trigger"))
            else:
                connector.put_sample(session.transaction, "Trigger")

    async def _upload(self, location: str) -> None:
        for status in ("Uploading", "Uploaded" if "://" in location else "UploadFailed"):
            self._diagnostics_status = status
            await self._tell("DiagnosticsStatusNotification", {"status": status})
            await self._charger.sleep_simulated(_STEP_S)
        self._diagnostics_status = "Idle"

    async def _update(self, location: str, wait_s: float) -> None:
        await trio.sleep(wait_s)
        await self._show("Downloading")
        if "://" not in location:
            await self._show("DownloadFailed")
            self._firmware_status = "Idle"
            return
        await self._show("Downloaded")
        for connector in self._charger.connectors.values():
            await connector.wait_unused()
        await self._show("Installing")
        major, minor, patch = self.firmware_version.split(".")
        self.firmware_version = f"{major}.{minor}.{int(patch) + 1}"
        await self._charger.reboot("Reboot")
        await self._charger.uplink.wait_online()
        await self._show("Installed")
        self._firmware_status = "Idle"

    async def _show(self, status: str) -> None:
        self._firmware_status = status
        await self._tell("FirmwareStatusNotification", {"status": status})
        await self._charger.sleep_simulated(_STEP_S)
