"""The simulated charge point against a scripted central system, on virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import trio
from central_system import SILENCE, CentralSystem, Refusal, now

from gateway.simulation.car import AC_22, DC_60
from gateway.simulation.charger import SimulatedCharger
from gateway.simulation.charging_profiles import Profiles

ACCEPTED = {"status": "Accepted"}
REJECTED = {"status": "Rejected"}
MISSING, OF_WRONG_TYPE = "OccurenceConstraintViolation", "TypeConstraintViolation"
A_LIST = {"listVersion": 1, "updateType": "Full"}
A_RESERVATION = {"connectorId": 1, "idTag": "T", "reservationId": 1}


def charger(central, **options):
    return SimulatedCharger("CP", central.connect, now=now, **options)


@asynccontextmanager
async def running(central, **options):
    """A charge point that nobody comes to, online, and stopped at the end."""
    options = {"drivers": ()} | options
    simulated = charger(central, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulated.run)
        await simulated.uplink.wait_online()
        await central.wait_call("StatusNotification", connectorId=len(simulated.connectors))
        yield simulated
        nursery.cancel_scope.cancel()


async def start_remotely(central, id_tag="TAG", **fields):
    """The transaction's id of a session that was started from afar and charges now."""
    starts = len(central.of("StartTransaction"))
    assert await central.ask("RemoteStartTransaction", {"idTag": id_tag} | fields) == ACCEPTED
    await central.wait_call("StatusNotification", starts + 1, status="Charging")
    return starts + 1


async def test_a_session_is_told_in_the_order_that_ocpp_demands(autojump_clock):
    central = CentralSystem()
    events = []
    await charger(central, sessions=1, report=events.append).run()

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
    await charger(central, sessions=1, outlets=[DC_60]).run()

    (start,), (stop,) = central.of("StartTransaction"), central.of("StopTransaction")
    samples = central.of("MeterValues")
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
    await charger(central, sessions=1, outlets=[DC_60]).run()

    samples = central.of("MeterValues")
    power = [float(value_of(s, "Power.Active.Import")) for s in samples]
    soc = [float(value_of(s, "SoC")) for s in samples]
    assert soc == sorted(soc)
    assert soc[-1] > soc[0] + 10
    assert power == sorted(power, reverse=True)
    assert power[0] > 40_000
    assert power[-1] == 0


async def test_an_ac_charger_measures_current_and_voltage_on_each_phase(autojump_clock):
    central = CentralSystem()
    async with running(central):
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
    await charger(central, sessions=2, outlets=[outlet], speed=speed).run()

    readings = sorted(
        (time_of(s["meterValue"][0]), int(value_of(s, "Energy.Active.Import.Register")))
        for s in central.of("MeterValues")
    )
    for (before, low), (after, high) in pairwise(readings):
        assert high - low <= 400_000 / 3600 * (after - before).total_seconds() + 1
    assert all(time_of(stop) <= now() for stop in central.of("StopTransaction"))
    assert len(central.of("StopTransaction")) == 2


async def test_heartbeats_come_at_the_interval_of_the_boot_answer(autojump_clock):
    boot = {"status": "Accepted", "interval": 20, "currentTime": "2026-05-01T12:00:00Z"}
    central = CentralSystem(BootNotification=boot)
    async with running(central):
        await trio.sleep(205)
        assert len(central.of("Heartbeat")) == 10
        change = {"key": "HeartbeatInterval", "value": "5"}
        assert await central.ask("ChangeConfiguration", change) == ACCEPTED
        await trio.sleep(100)
        assert len(central.of("Heartbeat")) > 25


async def test_a_pending_charge_point_boots_again_after_the_interval_and_is_silent_until_then(
    autojump_clock,
):
    answers = iter(["Pending", "Rejected", "Accepted"])
    central = CentralSystem(
        BootNotification=lambda _: {
            "status": next(answers),
            "interval": 50,
            "currentTime": "2026-05-01T12:00:00Z",
        }
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(charger(central, drivers=()).run)
        await central.wait_call("BootNotification")
        assert await central.ask("RemoteStartTransaction", {"idTag": "T"}) == REJECTED
        await central.wait_call("StatusNotification")
        assert trio.current_time() == pytest.approx(100)
        nursery.cancel_scope.cancel()
    assert [action for action, _ in central.calls[:4]] == ["BootNotification"] * 3 + [
        "StatusNotification"
    ]


async def test_a_remote_start_begins_a_session_with_its_tag_and_a_remote_stop_ends_it(
    autojump_clock,
):
    central = CentralSystem()
    async with running(central):
        tx_id = await start_remotely(central, "APP-1")
        assert central.of("Authorize") == [{"idTag": "APP-1"}]
        assert central.of("StartTransaction")[0]["idTag"] == "APP-1"
        start = {"idTag": "APP-2", "connectorId": 1}
        assert await central.ask("RemoteStartTransaction", start) == REJECTED
        stop = {"transactionId": tx_id + 1}
        assert await central.ask("RemoteStopTransaction", stop) == REJECTED
        stop = {"transactionId": tx_id}
        assert await central.ask("RemoteStopTransaction", stop) == ACCEPTED
        stopped = await central.wait_call("StopTransaction")
        assert (stopped["transactionId"], stopped["reason"]) == (tx_id, "Remote")
        await central.wait_call("StatusNotification", status="Finishing")
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")
        assert await central.ask("RemoteStopTransaction", stop) == REJECTED


async def test_a_tag_that_is_not_accepted_charges_nothing(autojump_clock):
    central = CentralSystem(Authorize={"idTagInfo": {"status": "Blocked"}})
    simulated = charger(central, sessions=1)
    await simulated.run()
    assert central.of("StartTransaction") == []
    assert central.statuses() == ["Available", "Preparing", "Available"]
    assert len(simulated.failures) == 1
    assert "Blocked" in simulated.failures[0]


async def test_a_start_answered_with_an_invalid_tag_is_stopped_as_deauthorised(autojump_clock):
    refused = {"transactionId": 9, "idTagInfo": {"status": "Invalid"}}
    central = CentralSystem(StartTransaction=refused)
    await charger(central, sessions=1).run()
    (stop,) = central.of("StopTransaction")
    assert (stop["transactionId"], stop["reason"]) == (9, "DeAuthorized")


async def test_an_unanswered_start_is_repeated_after_reconnecting_with_the_same_content(
    autojump_clock,
):
    """Its transaction's later messages wait for it, and carry the id that it gets at last."""
    answers = iter([SILENCE, SILENCE, {"transactionId": 77, "idTagInfo": ACCEPTED}])
    central = CentralSystem(StartTransaction=lambda _: next(answers))
    await charger(central, sessions=1).run()

    first, second, third = central.of("StartTransaction")
    assert first == second == third
    assert len(central.sockets) == 3
    assert len(central.of("BootNotification")) == 1
    (stop,) = central.of("StopTransaction")
    assert stop["transactionId"] == 77
    assert {s["transactionId"] for s in central.of("MeterValues")} == {77}


async def test_charging_goes_on_without_a_central_system_and_is_told_in_order_afterwards(
    autojump_clock,
):
    central = CentralSystem()
    async with running(central, drivers=None, sessions=1):
        await central.wait_call("StatusNotification", status="Charging")
        told = len(central.calls)
        central.reachable = False
        await central.drop()
        await trio.sleep(4 * 3600)
        assert len(central.calls) == told
        central.reachable = True
        await central.wait_call("StopTransaction")

        late = [action for action, _ in central.calls[told:] if action != "Heartbeat"]
        assert late[-1] == "StopTransaction"
        assert late.count("MeterValues") > 20
        assert "BootNotification" not in late
        times = [time_of(s["meterValue"][0]) for s in central.of("MeterValues")]
        assert times == sorted(times)
        assert time_of(central.of("StopTransaction")[0]) < now() - timedelta(hours=1)


async def test_sessions_survive_restarts_of_the_central_system(autojump_clock):
    central = CentralSystem()
    simulated = charger(central, sessions=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulated.run)
        for nth in (1, 2, 3):
            await central.wait_call("StatusNotification", nth, status="Charging")
            await central.drop()
    assert len(central.of("StartTransaction")) == len(central.of("StopTransaction")) == 3
    assert len(central.of("BootNotification")) == 1
    assert simulated.failures == []


async def test_a_message_refused_three_times_is_given_up_and_the_next_is_delivered(autojump_clock):
    central = CentralSystem(StartTransaction=Refusal())
    simulated = charger(central, sessions=1)
    await simulated.run()
    assert len(central.of("StartTransaction")) == 3
    (stop,) = central.of("StopTransaction")
    assert stop["transactionId"] == -1
    assert len(simulated.failures) == 1


@pytest.mark.parametrize("kind", ["Soft", "Hard"])
async def test_a_reset_stops_the_session_disconnects_and_boots(kind, autojump_clock):
    """Softly the stop is told before, hard only after the boot (OCPP 1.6 §5.14)."""
    central = CentralSystem()
    async with running(central):
        tx_id = await start_remotely(central)
        assert await central.ask("Reset", {"type": kind}) == ACCEPTED
        await central.wait_call("BootNotification", 2)
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")
        stop = await central.wait_call("StopTransaction")
        assert (stop["transactionId"], stop["reason"]) == (tx_id, f"{kind}Reset")
        actions = [action for action, _ in central.calls]
        second_boot = actions.index("BootNotification", 1)
        assert (actions.index("StopTransaction") < second_boot) == (kind == "Soft")
        assert len(central.sockets) == 2


async def test_unlocking_a_connector_ends_its_session(autojump_clock):
    central = CentralSystem()
    async with running(central):
        await start_remotely(central)
        unlock = {"connectorId": 1}
        assert await central.ask("UnlockConnector", unlock) == {"status": "Unlocked"}
        assert (await central.wait_call("StopTransaction"))["reason"] == "UnlockCommand"
        unknown = {"connectorId": 9}
        assert await central.ask("UnlockConnector", unknown) == {"status": "NotSupported"}


async def test_a_connector_in_use_becomes_unavailable_after_its_session(autojump_clock):
    central = CentralSystem()
    async with running(central):
        tx_id = await start_remotely(central)
        change = {"connectorId": 1, "type": "Inoperative"}
        assert await central.ask("ChangeAvailability", change) == {"status": "Scheduled"}
        await central.ask("RemoteStopTransaction", {"transactionId": tx_id})
        await central.wait_call("StatusNotification", connectorId=1, status="Unavailable")
        assert await central.ask("RemoteStartTransaction", {"idTag": "T"}) == REJECTED
        change = {"connectorId": 0, "type": "Operative"}
        assert await central.ask("ChangeAvailability", change) == ACCEPTED
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")
        change = {"connectorId": 0, "type": "Inoperative"}
        assert await central.ask("ChangeAvailability", change) == ACCEPTED
        await central.wait_call("StatusNotification", connectorId=0, status="Unavailable")
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Unavailable")


async def test_the_configuration_is_real(autojump_clock):
    central = CentralSystem()
    async with running(central, outlets=[AC_22, AC_22]):
        keys = ["NumberOfConnectors", "MeterValueSampleInterval", "Wings"]
        assert await central.ask("GetConfiguration", {"key": keys}) == {
            "configurationKey": [
                {"key": "NumberOfConnectors", "readonly": True, "value": "2"},
                {"key": "MeterValueSampleInterval", "readonly": False, "value": "60"},
            ],
            "unknownKey": ["Wings"],
        }
        everything = await central.ask("GetConfiguration", {})
        assert len(everything["configurationKey"]) > 20
        for key, value, status in [
            ("Wings", "2", "NotSupported"),
            ("NumberOfConnectors", "3", "Rejected"),
            ("MeterValueSampleInterval", "-1", "Rejected"),
            ("MeterValueSampleInterval", "10", "Accepted"),
            ("MeterValuesSampledData", "Energy.Active.Import.Register", "Accepted"),
        ]:
            change = {"key": key, "value": value}
            assert await central.ask("ChangeConfiguration", change) == {"status": status}
        await start_remotely(central)
        first = await central.wait_call("MeterValues", 1)
        second = await central.wait_call("MeterValues", 2)
        assert len(first["meterValue"][0]["sampledValue"]) == 1
        between = time_of(second["meterValue"][0]) - time_of(first["meterValue"][0])
        assert between == timedelta(seconds=10)


async def test_a_new_password_is_shown_on_the_next_connection(autojump_clock):
    central = CentralSystem()
    async with running(central, password="old"):
        change = {"key": "AuthorizationKey", "value": "0123456789abcdef"}
        assert await central.ask("ChangeConfiguration", change) == ACCEPTED
        await central.wait(lambda: len(central.sockets) == 2)
        assert [s.password for s in central.sockets] == ["old", "0123456789abcdef"]


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
    async with running(central):
        before = len(central.of(wanted))
        assert await central.ask("TriggerMessage", {"requestedMessage": wanted}) == ACCEPTED
        await central.wait_call(wanted, before + 1)
        absent = {"requestedMessage": wanted, "connectorId": 2}
        assert await central.ask("TriggerMessage", absent) == REJECTED


async def test_triggered_meter_values_of_a_session_belong_to_its_transaction(autojump_clock):
    central = CentralSystem()
    async with running(central):
        tx_id = await start_remotely(central)
        trigger = {"requestedMessage": "MeterValues", "connectorId": 1}
        await central.ask("TriggerMessage", trigger)
        sample = await central.wait_call("MeterValues")
        assert sample["transactionId"] == tx_id
        assert sample["meterValue"][0]["sampledValue"][0]["context"] == "Trigger"


async def test_the_local_list_is_kept_by_version_and_used_when_offline(autojump_clock):
    central = CentralSystem()

    def local_list(kind, version, **statuses):
        entries = [{"idTag": t, "idTagInfo": {"status": s}} for t, s in statuses.items()]
        update = {"listVersion": version, "updateType": kind, "localAuthorizationList": entries}
        return central.ask("SendLocalList", update)

    async with running(central) as simulated:
        assert await central.ask("GetLocalListVersion", {}) == {"listVersion": 0}
        assert await local_list("Full", 3, GOOD="Accepted", BAD="Blocked") == ACCEPTED
        assert await local_list("Differential", 3) == {"status": "VersionMismatch"}
        assert await central.ask("GetLocalListVersion", {}) == {"listVersion": 3}
        central.reachable = False
        await central.drop()
        assert await simulated.authorise("GOOD", remote=False) is None
        assert await simulated.authorise("BAD", remote=False) == "Blocked"


async def test_a_reservation_keeps_others_out_until_it_is_used_cancelled_or_expired(autojump_clock):
    central = CentralSystem()

    def reserve(reservation_id):
        expiry = (now() + timedelta(minutes=5)).isoformat()
        wanted = {"connectorId": 1, "expiryDate": expiry, "idTag": "MINE"}
        return central.ask("ReserveNow", wanted | {"reservationId": reservation_id})

    async with running(central):
        assert await reserve(1) == ACCEPTED
        await central.wait_call("StatusNotification", status="Reserved")
        assert await reserve(2) == {"status": "Occupied"}
        assert await central.ask("RemoteStartTransaction", {"idTag": "OTHER"}) == REJECTED
        assert await central.ask("CancelReservation", {"reservationId": 8}) == REJECTED
        assert await central.ask("CancelReservation", {"reservationId": 1}) == ACCEPTED
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")

        await reserve(3)
        began = trio.current_time()
        await central.wait_call("StatusNotification", 3, connectorId=1, status="Available")
        assert trio.current_time() - began == pytest.approx(300, abs=1)

        await reserve(4)
        await start_remotely(central, "MINE")
        assert central.of("StartTransaction")[0]["reservationId"] == 4


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

    async with running(central):
        assert await central.ask("SetChargingProfile", profile(6)) == ACCEPTED
        tx_id = await start_remotely(central)
        sample = await central.wait_call("MeterValues", 2)
        assert float(value_of(sample, "Power.Active.Import")) == 6 * 3 * 230
        composite = {"connectorId": 1, "duration": 600, "chargingRateUnit": "A"}
        schedule = (await central.ask("GetCompositeSchedule", composite))["chargingSchedule"]
        assert schedule["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 6.0}]

        stop = profile(0, "W", chargingProfilePurpose="TxProfile", transactionId=tx_id)
        stop["csChargingProfiles"]["chargingProfileId"] = 2
        assert await central.ask("SetChargingProfile", stop) == ACCEPTED
        await central.wait_call("StatusNotification", status="SuspendedEVSE")
        assert await central.ask("ClearChargingProfile", {"id": 2}) == ACCEPTED
        assert await central.ask("ClearChargingProfile", {"id": 2}) == {"status": "Unknown"}
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


async def test_firmware_and_diagnostics_are_told_step_by_step(autojump_clock):
    central = CentralSystem()
    async with running(central):
        upload = {"location": "ftp://host/logs"}
        assert await central.ask("GetDiagnostics", upload) == {"fileName": "diagnostics.log"}
        await central.wait_call("DiagnosticsStatusNotification", status="Uploaded")
        update = {"location": "http://host/fw", "retrieveDate": now().isoformat()}
        assert await central.ask("UpdateFirmware", update) == {}
        await central.wait_call("FirmwareStatusNotification", status="Installed")
        statuses = [p["status"] for p in central.of("FirmwareStatusNotification")]
        assert statuses == ["Downloading", "Downloaded", "Installing", "Installed"]
        versions = [p["firmwareVersion"] for p in central.of("BootNotification")]
        assert versions == ["1.0.0", "1.0.1"]


@pytest.mark.parametrize(
    ("action", "payload", "code"),
    [
        ("Dance", {}, "NotImplemented"),
        ("InstallCertificate", {}, "NotImplemented"),
        ("Reset", {}, MISSING),
        ("Reset", None, MISSING),
        ("Reset", {"type": "Gently"}, "PropertyConstraintViolation"),
        ("Reset", [], "FormationViolation"),
        ("RemoteStartTransaction", {"idTag": 5}, OF_WRONG_TYPE),
        ("RemoteStartTransaction", {"idTag": "T" * 21}, "PropertyConstraintViolation"),
        ("RemoteStopTransaction", {"transactionId": "1"}, OF_WRONG_TYPE),
        ("SetChargingProfile", {"connectorId": 1, "csChargingProfiles": 3}, OF_WRONG_TYPE),
        ("SetChargingProfile", {"connectorId": 1, "csChargingProfiles": {}}, MISSING),
        ("SendLocalList", A_LIST | {"localAuthorizationList": [1]}, "FormationViolation"),
        ("ReserveNow", A_RESERVATION | {"expiryDate": "soon"}, OF_WRONG_TYPE),
        ("ReserveNow", A_RESERVATION | {"expiryDate": "2026-05-01T12:00:00"}, OF_WRONG_TYPE),
        ("GetConfiguration", {"key": "all"}, OF_WRONG_TYPE),
    ],
)
async def test_a_faulty_call_gets_a_callerror(action, payload, code, autojump_clock):
    central = CentralSystem()
    async with running(central):
        assert await central.ask(action, payload) == code
        assert await central.ask("ClearCache", {}) == ACCEPTED
        assert len(central.sockets) == 1


@pytest.mark.parametrize(
    "rubbish",
    [
        "", "null", "{", "[", "[]", "[2]", "[2,5,\"Reset\",{}]", "[9,\"x\",{}]", "[3,\"x\",{}]",
        "[4,\"x\"]", "NaN", "[2,NaN]", "[" * 20_000, "\x00", b"\xff\xfe", b"[2]", "7",
        "[2,\"a\",7,{}]", "[3,[],{}]",
    ],
)  # fmt: skip
async def test_rubbish_from_the_central_system_is_survived(rubbish, autojump_clock):
    central = CentralSystem()
    async with running(central):
        await central.sockets[-1].send_message(rubbish)
        assert await central.ask("ClearCache", {}) == ACCEPTED
        assert len(central.sockets) == 1


@pytest.mark.parametrize("answer", [[], 5, "text", None, {"status": 7}, {"idTagInfo": []}])
async def test_rubbish_as_an_answer_is_survived(answer, autojump_clock):
    central = CentralSystem()
    async with running(central):
        central.answers |= dict.fromkeys(
            ["Authorize", "StartTransaction", "StatusNotification", "Heartbeat"], answer
        )
        await central.ask("RemoteStartTransaction", {"idTag": "T"})
        await trio.sleep(3600)
        assert await central.ask("ClearCache", {}) == ACCEPTED


async def test_a_data_transfer_is_of_an_unknown_vendor(autojump_clock):
    central = CentralSystem()
    async with running(central):
        answer = await central.ask("DataTransfer", {"vendorId": "org.example"})
        assert answer == {"status": "UnknownVendorId"}


async def test_leaving_is_told_with_1000(autojump_clock):
    central = CentralSystem()
    await charger(central, sessions=1).run()
    assert [s.closed.code for s in central.sockets] == [1000]


async def test_a_charge_point_gives_up_when_nobody_is_there(autojump_clock):
    central = CentralSystem()
    central.reachable = False
    simulated = charger(central, sessions=1, connect_timeout_s=20)
    await simulated.run()
    assert simulated.failures == ["CP: no connection: nobody there"]
    assert 20 <= trio.current_time() < 60


def value_of(meter_values, measurand):
    sampled = meter_values["meterValue"][0]["sampledValue"]
    return next(v["value"] for v in sampled if v["measurand"] == measurand)


def time_of(payload):
    return datetime.fromisoformat(payload["timestamp"])
