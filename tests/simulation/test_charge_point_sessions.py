"""Sessions on a simulated charge point: drivers, remote commands, meters, profiles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import trio
from central_system import CentralSystem, now
from charge_points import (
    ACCEPTED,
    REJECTED,
    open_charge_point,
    simulated_charge_point,
    start_remotely,
    time_of,
    value_of,
)

from gateway.simulation.car import AC_22, DC_60
from gateway.simulation.charging_profiles import Profiles


async def test_a_session_is_told_in_the_order_that_ocpp_demands(autojump_clock):
    central = CentralSystem()
    events = []
    await simulated_charge_point(central, sessions=1, report=events.append).run()

    order = [
        payload["status"] if action == "StatusNotification" else action
        for action, payload in central.calls
        if action not in ("MeterValues", "Heartbeat")
    ]
    assert order == [
        "BootNotification", "Available", "Available",
        "Preparing", "Authorize", "StartTransaction", "Charging", "SuspendedEV",
        "StopTransaction", "Finishing", "Available",
    ]  # fmt: skip
    (finished,) = [e for e in events if e["event"] == "session_finished"]
    assert (finished["connector"], finished["tx_id"], finished["reason"]) == (1, 1, "Local")


async def test_the_register_climbs_from_start_to_stop_and_the_stop_has_the_last_word(
    autojump_clock,
):
    """20 kWh or so in 40 minutes or so, sampled once a minute."""
    central = CentralSystem()
    await simulated_charge_point(central, sessions=1, outlets=[DC_60]).run()

    (start,), (stop,) = central.payloads("StartTransaction"), central.payloads("StopTransaction")
    samples = central.payloads("MeterValues")
    registers = [
        start["meterStart"],
        *(int(value_of(s, "Energy.Active.Import.Register")) for s in samples),
        stop["meterStop"],
    ]
    assert registers == sorted(registers)
    assert 10_000 < stop["meterStop"] - start["meterStart"] < 45_000
    lasted = time_of(stop) - time_of(start)
    assert timedelta(minutes=25) < lasted < timedelta(minutes=90)
    assert abs(len(samples) - lasted / timedelta(minutes=1)) < 2
    assert {s["transactionId"] for s in samples} == {stop["transactionId"]} == {1}
    (end,) = stop["transactionData"]
    assert end["sampledValue"][0]["value"] == str(stop["meterStop"])
    assert end["sampledValue"][0]["context"] == "Transaction.End"


async def test_power_tapers_while_the_state_of_charge_climbs(autojump_clock):
    central = CentralSystem()
    await simulated_charge_point(central, sessions=1, outlets=[DC_60]).run()

    samples = central.payloads("MeterValues")
    power = [float(value_of(s, "Power.Active.Import")) for s in samples]
    soc = [float(value_of(s, "SoC")) for s in samples]
    assert soc == sorted(soc)
    assert soc[-1] > soc[0] + 10
    assert power == sorted(power, reverse=True)
    assert power[0] > 40_000
    assert power[-1] == 0


async def test_an_ac_charger_measures_current_and_voltage_on_each_phase(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        await start_remotely(central)
        sample = await central.wait_call("MeterValues")
    values = sample["meterValue"][0]["sampledValue"]
    phases = {(v["measurand"], v.get("phase")) for v in values}
    assert {("Current.Import", f"L{n}") for n in (1, 2, 3)} <= phases
    assert {("Voltage", f"L{n}-N") for n in (1, 2, 3)} <= phases
    assert not any(v["measurand"] == "SoC" for v in values)


@pytest.mark.parametrize("outlet", [AC_22, DC_60])
@pytest.mark.parametrize("speed", [1, 7, 60, 1_000])
async def test_however_fast_the_cars_live_the_register_stays_below_400_kw(
    outlet, speed, autojump_clock
):
    central = CentralSystem()
    await simulated_charge_point(central, sessions=2, outlets=[outlet], speed=speed).run()

    readings = sorted(
        (time_of(s["meterValue"][0]), int(value_of(s, "Energy.Active.Import.Register")))
        for s in central.payloads("MeterValues")
    )
    for (before, low), (after, high) in pairwise(readings):
        assert high - low <= 400_000 / 3600 * (after - before).total_seconds() + 1
    assert all(time_of(stop) <= now() for stop in central.payloads("StopTransaction"))
    assert len(central.payloads("StopTransaction")) == 2


async def test_a_remote_start_begins_a_session_with_its_tag_and_a_remote_stop_ends_it(
    autojump_clock,
):
    central = CentralSystem()
    async with open_charge_point(central):
        tx_id = await start_remotely(central, "APP-1")
        assert central.payloads("Authorize") == [{"idTag": "APP-1"}]
        assert central.payloads("StartTransaction")[0]["idTag"] == "APP-1"
        start = {"idTag": "APP-2", "connectorId": 1}
        assert await central.call("RemoteStartTransaction", start) == REJECTED
        stop = {"transactionId": tx_id + 1}
        assert await central.call("RemoteStopTransaction", stop) == REJECTED
        stop = {"transactionId": tx_id}
        assert await central.call("RemoteStopTransaction", stop) == ACCEPTED
        stopped = await central.wait_call("StopTransaction")
        assert (stopped["transactionId"], stopped["reason"]) == (tx_id, "Remote")
        await central.wait_call("StatusNotification", status="Finishing")
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")
        assert await central.call("RemoteStopTransaction", stop) == REJECTED


async def test_a_tag_that_is_not_accepted_charges_nothing(autojump_clock):
    central = CentralSystem(Authorize={"idTagInfo": {"status": "Blocked"}})
    simulated = simulated_charge_point(central, sessions=1)
    await simulated.run()
    assert central.payloads("StartTransaction") == []
    assert central.statuses() == ["Available", "Preparing", "Available"]
    assert len(simulated.failures) == 1
    assert "Blocked" in simulated.failures[0]


async def test_a_start_answered_with_an_invalid_tag_is_stopped_as_deauthorised(autojump_clock):
    refused = {"transactionId": 9, "idTagInfo": {"status": "Invalid"}}
    central = CentralSystem(StartTransaction=refused)
    await simulated_charge_point(central, sessions=1).run()
    (stop,) = central.payloads("StopTransaction")
    assert (stop["transactionId"], stop["reason"]) == (9, "DeAuthorized")


async def test_unlocking_a_connector_ends_its_session(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        await start_remotely(central)
        unlock = {"connectorId": 1}
        assert await central.call("UnlockConnector", unlock) == {"status": "Unlocked"}
        assert (await central.wait_call("StopTransaction"))["reason"] == "UnlockCommand"
        unknown = {"connectorId": 9}
        assert await central.call("UnlockConnector", unknown) == {"status": "NotSupported"}


async def test_a_connector_in_use_becomes_unavailable_after_its_session(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        tx_id = await start_remotely(central)
        change = {"connectorId": 1, "type": "Inoperative"}
        assert await central.call("ChangeAvailability", change) == {"status": "Scheduled"}
        await central.call("RemoteStopTransaction", {"transactionId": tx_id})
        await central.wait_call("StatusNotification", connectorId=1, status="Unavailable")
        assert await central.call("RemoteStartTransaction", {"idTag": "T"}) == REJECTED
        change = {"connectorId": 0, "type": "Operative"}
        assert await central.call("ChangeAvailability", change) == ACCEPTED
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")
        change = {"connectorId": 0, "type": "Inoperative"}
        assert await central.call("ChangeAvailability", change) == ACCEPTED
        await central.wait_call("StatusNotification", connectorId=0, status="Unavailable")
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Unavailable")


async def test_a_reservation_keeps_others_out_until_it_is_used_cancelled_or_expired(autojump_clock):
    central = CentralSystem()

    def reserve(reservation_id):
        expiry = (now() + timedelta(minutes=5)).isoformat()
        wanted = {"connectorId": 1, "expiryDate": expiry, "idTag": "MINE"}
        return central.call("ReserveNow", wanted | {"reservationId": reservation_id})

    async with open_charge_point(central):
        assert await reserve(1) == ACCEPTED
        await central.wait_call("StatusNotification", status="Reserved")
        assert await reserve(2) == {"status": "Occupied"}
        assert await central.call("RemoteStartTransaction", {"idTag": "OTHER"}) == REJECTED
        assert await central.call("CancelReservation", {"reservationId": 8}) == REJECTED
        assert await central.call("CancelReservation", {"reservationId": 1}) == ACCEPTED
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")

        await reserve(3)
        began = trio.current_time()
        await central.wait_call("StatusNotification", 3, connectorId=1, status="Available")
        assert trio.current_time() - began == pytest.approx(300, abs=1)

        await reserve(4)
        await start_remotely(central, "MINE")
        assert central.payloads("StartTransaction")[0]["reservationId"] == 4


async def test_a_charging_profile_bounds_the_power_and_zero_suspends(autojump_clock):
    central = CentralSystem()

    def profile(limit, unit="A", **more):
        return {
            "connectorId": 1,
            "csChargingProfiles": {
                "chargingProfileId": 1,
                "stackLevel": 0,
                "chargingProfilePurpose": "TxDefaultProfile",
                "chargingProfileKind": "Relative",
                "chargingSchedule": {
                    "chargingRateUnit": unit,
                    "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}],
                },
            }
            | more,
        }

    async with open_charge_point(central):
        assert await central.call("SetChargingProfile", profile(6)) == ACCEPTED
        tx_id = await start_remotely(central)
        sample = await central.wait_call("MeterValues", 2)
        assert float(value_of(sample, "Power.Active.Import")) == 6 * 3 * 230
        composite = {"connectorId": 1, "duration": 600, "chargingRateUnit": "A"}
        schedule = (await central.call("GetCompositeSchedule", composite))["chargingSchedule"]
        assert schedule["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 6.0}]

        stop = profile(0, "W", chargingProfilePurpose="TxProfile", transactionId=tx_id)
        stop["csChargingProfiles"]["chargingProfileId"] = 2
        assert await central.call("SetChargingProfile", stop) == ACCEPTED
        await central.wait_call("StatusNotification", status="SuspendedEVSE")
        assert await central.call("ClearChargingProfile", {"id": 2}) == ACCEPTED
        assert await central.call("ClearChargingProfile", {"id": 2}) == {"status": "Unknown"}
        await central.wait_call("StatusNotification", 2, status="Charging")


def test_a_daily_profile_applies_at_its_hours_and_within_its_validity():
    """10 A from 12:00 to 14:00, then 20 A until 18:00, for the first three days of May."""
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    profiles = Profiles()
    schedule = {
        "startSchedule": noon.isoformat(),
        "duration": 6 * 3600,
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [
            {"startPeriod": 0, "limit": 10},
            {"startPeriod": 7200, "limit": 20},
        ],
    }
    profile = {
        "chargingProfileId": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": "ChargePointMaxProfile",
        "chargingProfileKind": "Recurring",
        "recurrencyKind": "Daily",
        "validFrom": noon.isoformat(),
        "validTo": (noon + timedelta(days=3)).isoformat(),
        "chargingSchedule": schedule,
    }
    profiles.install(0, profile)

    def limit(hours):
        return profiles.limit_w(1, AC_22, noon + timedelta(hours=hours), None)

    assert [limit(h) for h in (-1, 1, 3, 7, 25, 27, 73)] == [
        None, 6_900, 13_800, None, 6_900, 13_800, None,
    ]  # fmt: skip
    composite = profiles.composite(1, AC_22, noon - timedelta(hours=1), 86_400, "W")
    assert composite["chargingSchedulePeriod"] == [
        {"startPeriod": 0, "limit": 22_080},
        {"startPeriod": 3_600, "limit": 6_900},
        {"startPeriod": 3 * 3_600, "limit": 13_800},
        {"startPeriod": 7 * 3_600, "limit": 22_080},
    ]
