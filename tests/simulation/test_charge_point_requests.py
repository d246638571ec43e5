"""How a simulated charge point handles configuration, triggers, lists, firmware and diagnostics."""

from __future__ import annotations

from datetime import timedelta

import pytest
from central_system import CentralSystem, now
from charge_points import (
    ACCEPTED,
    REJECTED,
    open_charge_point,
    start_remotely,
    time_of,
)

from gateway.simulation.car import AC_22


async def test_the_configuration_is_real(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central, outlets=[AC_22, AC_22]):
        keys = ["NumberOfConnectors", "MeterValueSampleInterval", "Wings"]
        assert await central.call("GetConfiguration", {"key": keys}) == {
            "configurationKey": [
                {"key": "NumberOfConnectors", "readonly": True, "value": "2"},
                {"key": "MeterValueSampleInterval", "readonly": False, "value": "60"},
            ],
            "unknownKey": ["Wings"],
        }
        everything = await central.call("GetConfiguration", {})
        assert len(everything["configurationKey"]) > 20
        for key, value, status in [
            ("Wings", "2", "NotSupported"),
            ("NumberOfConnectors", "3", "Rejected"),
            ("MeterValueSampleInterval", "-1", "Rejected"),
            ("MeterValueSampleInterval", "10", "Accepted"),
            ("MeterValuesSampledData", "Energy.Active.Import.Register", "Accepted"),
        ]:
            change = {"key": key, "value": value}
            assert await central.call("ChangeConfiguration", change) == {"status": status}
        await start_remotely(central)
        first = await central.wait_call("MeterValues", 1)
        second = await central.wait_call("MeterValues", 2)
        assert len(first["meterValue"][0]["sampledValue"]) == 1
        between = time_of(second["meterValue"][0]) - time_of(first["meterValue"][0])
        assert between == timedelta(seconds=10)


@pytest.mark.parametrize(
    "wanted",
    [
        "BootNotification",
        "DiagnosticsStatusNotification",
        "FirmwareStatusNotification",
        "Heartbeat",
        "MeterValues",
        "StatusNotification",
    ],
)
async def test_each_message_can_be_triggered(wanted, autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        before = len(central.payloads(wanted))
        assert await central.call("TriggerMessage", {"requestedMessage": wanted}) == ACCEPTED
        await central.wait_call(wanted, before + 1)
        absent = {"requestedMessage": wanted, "connectorId": 2}
        assert await central.call("TriggerMessage", absent) == REJECTED


async def test_triggered_meter_values_of_a_session_belong_to_its_transaction(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        tx_id = await start_remotely(central)
        trigger = {"requestedMessage": "MeterValues", "connectorId": 1}
        await central.call("TriggerMessage", trigger)
        sample = await central.wait_call("MeterValues")
        assert sample["transactionId"] == tx_id
        assert sample["meterValue"][0]["sampledValue"][0]["context"] == "Trigger"


async def test_the_local_list_is_kept_by_version_and_used_when_offline(autojump_clock):
    central = CentralSystem()

    def local_list(kind, version, **statuses):
        entries = [{"idTag": t, "idTagInfo": {"status": s}} for t, s in statuses.items()]
        update = {"listVersion": version, "updateType": kind, "localAuthorizationList": entries}
        return central.call("SendLocalList", update)

    async with open_charge_point(central) as simulated:
        assert await central.call("GetLocalListVersion", {}) == {"listVersion": 0}
        assert await local_list("Full", 3, GOOD="Accepted", BAD="Blocked") == ACCEPTED
        assert await local_list("Differential", 3) == {"status": "VersionMismatch"}
        assert await central.call("GetLocalListVersion", {}) == {"listVersion": 3}
        central.reachable = False
        await central.drop()
        assert await simulated.authorise("GOOD", remote=False) is None
        assert await simulated.authorise("BAD", remote=False) == "Blocked"


async def test_firmware_and_diagnostics_are_told_step_by_step(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        upload = {"location": "ftp://host/logs"}
        assert await central.call("GetDiagnostics", upload) == {"fileName": "diagnostics.log"}
        await central.wait_call("DiagnosticsStatusNotification", status="Uploaded")
        update = {"location": "http://host/fw", "retrieveDate": now().isoformat()}
        assert await central.call("UpdateFirmware", update) == {}
        await central.wait_call("FirmwareStatusNotification", status="Installed")
        statuses = [p["status"] for p in central.payloads("FirmwareStatusNotification")]
        assert statuses == ["Downloading", "Downloaded", "Installing", "Installed"]
        versions = [p["firmwareVersion"] for p in central.payloads("BootNotification")]
        assert versions == ["1.0.0", "1.0.1"]


async def test_a_data_transfer_is_of_an_unknown_vendor(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        answer = await central.call("DataTransfer", {"vendorId": "org.example"})
        assert answer == {"status": "UnknownVendorId"}
