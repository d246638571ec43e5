"""A simulated charge point's connection: boot, heartbeats, outages, resets, faulty frames."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from central_system import NO_RESPONSE, CallErrorResponse, CentralSystem, now
from charge_points import (
    ACCEPTED,
    REJECTED,
    open_charge_point,
    simulated_charge_point,
    start_remotely,
    time_of,
)

MISSING, OF_WRONG_TYPE = "OccurenceConstraintViolation", "TypeConstraintViolation"
A_LIST = {"listVersion": 1, "updateType": "Full"}
A_RESERVATION = {"connectorId": 1, "idTag": "T", "reservationId": 1}


async def test_heartbeats_come_at_the_interval_of_the_boot_answer(autojump_clock):
    boot = {"status": "Accepted", "interval": 20, "currentTime": "2026-05-01T12:00:00Z"}
    central = CentralSystem(BootNotification=boot)
    async with open_charge_point(central):
        await trio.sleep(205)
        assert len(central.payloads("Heartbeat")) == 10
        change = {"key": "HeartbeatInterval", "value": "5"}
        assert await central.call("ChangeConfiguration", change) == ACCEPTED
        await trio.sleep(100)
        assert len(central.payloads("Heartbeat")) > 25


async def test_a_pending_charge_point_boots_again_after_the_interval_and_is_silent_until_then(
    autojump_clock,
):
    responses = iter(["Pending", "Rejected", "Accepted"])
    central = CentralSystem(
        BootNotification=lambda _: {
            "status": next(responses),
            "interval": 50,
            "currentTime": "2026-05-01T12:00:00Z",
        }
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulated_charge_point(central, drivers=()).run)
        await central.wait_call("BootNotification")
        assert await central.call("RemoteStartTransaction", {"idTag": "T"}) == REJECTED
        await central.wait_call("StatusNotification")
        assert trio.current_time() == pytest.approx(100)
        nursery.cancel_scope.cancel()
    assert [action for action, _ in central.calls[:4]] == ["BootNotification"] * 3 + [
        "StatusNotification"
    ]


async def test_an_unanswered_start_is_repeated_after_reconnecting_with_the_same_content(
    autojump_clock,
):
    """Its transaction's later messages wait for it, and carry the id that it gets at last."""
    responses = iter([NO_RESPONSE, NO_RESPONSE, {"transactionId": 77, "idTagInfo": ACCEPTED}])
    central = CentralSystem(StartTransaction=lambda _: next(responses))
    await simulated_charge_point(central, sessions=1).run()

    first, second, third = central.payloads("StartTransaction")
    assert first == second == third
    assert len(central.sockets) == 3
    assert len(central.payloads("BootNotification")) == 1
    (stop,) = central.payloads("StopTransaction")
    assert stop["transactionId"] == 77
    assert {s["transactionId"] for s in central.payloads("MeterValues")} == {77}


async def test_charging_goes_on_without_a_central_system_and_is_told_in_order_afterwards(
    autojump_clock,
):
    central = CentralSystem()
    async with open_charge_point(central, drivers=None, sessions=1):
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
        times = [time_of(s["meterValue"][0]) for s in central.payloads("MeterValues")]
        assert times == sorted(times)
        assert time_of(central.payloads("StopTransaction")[0]) < now() - timedelta(hours=1)


async def test_sessions_survive_restarts_of_the_central_system(autojump_clock):
    central = CentralSystem()
    simulated = simulated_charge_point(central, sessions=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulated.run)
        for nth in (1, 2, 3):
            await central.wait_call("StatusNotification", nth, status="Charging")
            await central.drop()
    assert (
        len(central.payloads("StartTransaction")) == len(central.payloads("StopTransaction")) == 3
    )
    assert len(central.payloads("BootNotification")) == 1
    assert simulated.failures == []


async def test_a_message_refused_three_times_is_given_up_and_the_next_is_delivered(autojump_clock):
    central = CentralSystem(StartTransaction=CallErrorResponse())
    simulated = simulated_charge_point(central, sessions=1)
    await simulated.run()
    assert len(central.payloads("StartTransaction")) == 3
    (stop,) = central.payloads("StopTransaction")
    assert stop["transactionId"] == -1
    assert len(simulated.failures) == 1


@pytest.mark.parametrize("kind", ["Soft", "Hard"])
async def test_a_reset_stops_the_session_disconnects_and_boots(kind, autojump_clock):
    """Softly the stop is told before, hard only after the boot (OCPP 1.6 §5.14)."""
    central = CentralSystem()
    async with open_charge_point(central):
        tx_id = await start_remotely(central)
        assert await central.call("Reset", {"type": kind}) == ACCEPTED
        await central.wait_call("BootNotification", 2)
        await central.wait_call("StatusNotification", 2, connectorId=1, status="Available")
        stop = await central.wait_call("StopTransaction")
        assert (stop["transactionId"], stop["reason"]) == (tx_id, f"{kind}Reset")
        actions = [action for action, _ in central.calls]
        second_boot = actions.index("BootNotification", 1)
        assert (actions.index("StopTransaction") < second_boot) == (kind == "Soft")
        assert len(central.sockets) == 2


async def test_a_new_password_is_shown_on_the_next_connection(autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central, password="old"):
        change = {"key": "AuthorizationKey", "value": "0123456789abcdef"}
        assert await central.call("ChangeConfiguration", change) == ACCEPTED
        await central.wait(lambda: len(central.sockets) == 2)
        assert [s.password for s in central.sockets] == ["old", "0123456789abcdef"]


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
    async with open_charge_point(central):
        assert await central.call(action, payload) == code
        assert await central.call("ClearCache", {}) == ACCEPTED
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
    async with open_charge_point(central):
        await central.sockets[-1].send_message(rubbish)
        assert await central.call("ClearCache", {}) == ACCEPTED
        assert len(central.sockets) == 1


@pytest.mark.parametrize("answer", [[], 5, "text", None, {"status": 7}, {"idTagInfo": []}])
async def test_rubbish_as_an_answer_is_survived(answer, autojump_clock):
    central = CentralSystem()
    async with open_charge_point(central):
        central.responses |= dict.fromkeys(
            ["Authorize", "StartTransaction", "StatusNotification", "Heartbeat"], answer
        )
        await central.call("RemoteStartTransaction", {"idTag": "T"})
        await trio.sleep(3600)
        assert await central.call("ClearCache", {}) == ACCEPTED


async def test_leaving_is_told_with_1000(autojump_clock):
    central = CentralSystem()
    await simulated_charge_point(central, sessions=1).run()
    assert [s.closed.code for s in central.sockets] == [1000]


async def test_a_charge_point_gives_up_when_nobody_is_there(autojump_clock):
    central = CentralSystem()
    central.reachable = False
    simulated = simulated_charge_point(central, sessions=1, connect_timeout_s=20)
    await simulated.run()
    assert simulated.failures == ["CP: no connection: connection refused"]
    assert 20 <= trio.current_time() < 60
