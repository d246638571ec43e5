"""OCPP's own messages as commands: each goes through as it is, if OCPP allows it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema_rs
import pytest

from gateway.domain.events import TransactionSettled

from .operators import accept, charging, plugged
from .raw_websocket import opened

SCHEMAS = files("ocpp.v16") / "schemas"
SCHEDULE = {
    "chargingRateUnit": "A",
    "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 21.4, "numberPhases": 3}],
}
PROFILE = {
    "chargingProfileId": 1,
    "stackLevel": 0,
    "chargingProfilePurpose": "TxDefaultProfile",
    "chargingProfileKind": "Absolute",
    "chargingSchedule": SCHEDULE,
}
HASH_DATA = {
    "hashAlgorithm": "SHA384",
    "issuerNameHash": "a",
    "issuerKeyHash": "b",
    "serialNumber": "c",
}
WHEN = "2026-01-01T00:00:00Z"

MESSAGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "RemoteStartTransaction",
        {"idTag": "TAG", "chargingProfile": PROFILE},
        {"status": "Rejected"},
    ),
    ("RemoteStopTransaction", {"transactionId": 999_999}, {"status": "Rejected"}),
    ("Reset", {"type": "Hard"}, {"status": "Accepted"}),
    ("UnlockConnector", {"connectorId": 7}, {"status": "NotSupported"}),
    ("ChangeAvailability", {"connectorId": 0, "type": "Inoperative"}, {"status": "Scheduled"}),
    (
        "ChangeConfiguration",
        {"key": "MeterValueSampleInterval", "value": "-1"},
        {"status": "RebootRequired"},
    ),
    (
        "GetConfiguration",
        {"key": ["a"]},
        {"configurationKey": [{"key": "a", "readonly": True}], "unknownKey": ["b"]},
    ),
    ("GetConfiguration", {}, {}),
    ("ClearCache", {}, {"status": "Rejected"}),
    (
        "TriggerMessage",
        {"requestedMessage": "MeterValues", "connectorId": 9},
        {"status": "Rejected"},
    ),
    (
        "DataTransfer",
        {"vendorId": "v", "messageId": "m"},
        {"status": "UnknownVendorId", "data": "x"},
    ),
    ("GetDiagnostics", {"location": "ftp://x/y"}, {}),
    ("UpdateFirmware", {"location": "ftp://x/y", "retrieveDate": WHEN}, {}),
    (
        "SendLocalList",
        {
            "listVersion": 2,
            "updateType": "Full",
            "localAuthorizationList": [{"idTag": "A", "idTagInfo": {"status": "Accepted"}}],
        },
        {"status": "VersionMismatch"},
    ),
    ("GetLocalListVersion", {}, {"listVersion": -1}),
    (
        "ReserveNow",
        {
            "connectorId": 0,
            "expiryDate": WHEN,
            "idTag": "A",
            "parentIdTag": "P",
            "reservationId": 1,
        },
        {"status": "Faulted"},
    ),
    ("CancelReservation", {"reservationId": 404}, {"status": "Rejected"}),
    (
        "SetChargingProfile",
        {"connectorId": 1, "csChargingProfiles": PROFILE},
        {"status": "Accepted"},
    ),
    ("ClearChargingProfile", {}, {"status": "Unknown"}),
    ("ClearChargingProfile", {"id": 3, "stackLevel": 1}, {"status": "Accepted"}),
    (
        "GetCompositeSchedule",
        {"connectorId": 1, "duration": 60, "chargingRateUnit": "W"},
        {"status": "Accepted", "connectorId": 1, "chargingSchedule": SCHEDULE},
    ),
    (
        "ExtendedTriggerMessage",
        {"requestedMessage": "SignChargePointCertificate"},
        {"status": "NotImplemented"},
    ),
    (
        "GetLog",
        {"log": {"remoteLocation": "ftp://x"}, "logType": "SecurityLog", "requestId": 1},
        {"status": "AcceptedCanceled", "filename": "f"},
    ),
    (
        "SignedUpdateFirmware",
        {
            "requestId": 1,
            "firmware": {
                "location": "x",
                "retrieveDateTime": WHEN,
                "signingCertificate": "pem",
                "signature": "s",
            },
        },
        {"status": "InvalidCertificate"},
    ),
    (
        "InstallCertificate",
        {"certificateType": "CentralSystemRootCertificate", "certificate": "pem"},
        {"status": "Failed"},
    ),
    ("DeleteCertificate", {"certificateHashData": HASH_DATA}, {"status": "NotFound"}),
    (
        "GetInstalledCertificateIds",
        {"certificateType": "ManufacturerRootCertificate"},
        {"status": "Accepted", "certificateHashData": [HASH_DATA]},
    ),
    ("CertificateSigned", {"certificateChain": "pem"}, {"status": "Rejected"}),
]


@pytest.mark.parametrize(
    ("action", "params", "reply"), MESSAGES, ids=[message[0] for message in MESSAGES]
)
async def test_a_message_of_ocpp_goes_through_and_its_answer_comes_back(
    gateway, operator, action, params, reply
):
    """HC-107, HC-112, HC-115, HC-116: the charge point's own words are results, whatever they are.

    So an operator may also send what the charge point will reject, such as an unknown transaction.
    """
    async with plugged(gateway) as charger:
        operator.send("CP-1", action, params)
        unique_id, heard, payload = await charger.next_call()
        assert (heard, payload) == (action, params)
        schema = json.loads((SCHEMAS / f"{action}.json").read_text("utf-8-sig"))
        jsonschema_rs.Draft4Validator(schema).validate(payload)
        await charger.reply(unique_id, **reply)
        assert await operator.responses() == [reply]
        await gateway.settled()
        latest = gateway.thingsboard.latest("CP-1")
        assert latest["last_command"] == action
        assert latest["last_command_result"] == reply.get("status", "Accepted")


def test_every_message_of_the_surface_was_tried():
    """README, what operators can order of a charger."""
    assert len({action for action, _, _ in MESSAGES}) == 26


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("Reset", None),
        ("Reset", {"type": "Medium"}),
        ("Reset", {"type": "Hard", "more": 1}),
        ("Reset", "Hard"),
        ("Reset", ["Hard"]),
        ("Reset", True),
        ("RemoteStartTransaction", {"idTag": "x" * 21}),
        ("RemoteStopTransaction", {"transactionId": "1"}),
        ("SetChargingProfile", {"connectorId": 1, "csChargingProfiles": {}}),
        ("ChangeConfiguration", {"key": "k", "value": 5}),
        ("DataTransfer", {"vendorId": "v", "data": "x" * 2_000_000, "messageId": 1}),
        (
            "SendLocalList",  # HC-116: OCPP's word is expiryDate
            {
                "listVersion": 2,
                "updateType": "Full",
                "localAuthorizationList": [
                    {"idTag": "A", "idTagInfo": {"status": "Accepted", "expireDate": WHEN}}
                ],
            },
        ),
    ],
)
async def test_what_ocpp_does_not_allow_is_never_sent(gateway, operator, method, params):
    """HC-108, HC-116."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", method, params)
        await operator.responses()
        assert operator.codes == ["InvalidParams"]
        assert operator.received[0]["error"]["message"]
        assert charger.calls.statistics().current_buffer_used == 0


# --- a reset -------------------------------------------------------------------------------------


@pytest.mark.parametrize("boots", [True, False])
async def test_a_reset_that_is_answered_is_done_however_the_charge_point_returns(
    gateway, operator, boots
):
    """HC-113."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", "Reset", {"type": "Soft"})
        unique_id, _, _ = await charger.next_call()
        await charger.reply(unique_id, status="Accepted")
        assert await operator.responses() == [{"status": "Accepted"}]
    async with gateway.charger("CP-1") as charger:
        if boots:
            await charger.boot()
        operator.send("CP-1", "ClearCache")
        assert (await charger.next_call())[1] == "ClearCache"  # and no second Reset


async def test_a_reset_whose_answer_is_lost_fails_and_is_not_sent_again(gateway, operator):
    """HC-113, HC-106: it may have been carried out, so only the operator can tell what to do."""
    async with opened(gateway, "CP-1") as peer:
        operator.send("CP-1", "Reset", {"type": "Hard"})
        assert (await peer.message())[2] == "Reset"
    await operator.responses()
    assert operator.codes == ["NotConnected"]
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        operator.send("CP-1", "ClearCache")
        assert (await charger.next_call())[1] == "ClearCache"


async def test_a_stop_in_the_middle_of_a_reset_is_counted_once(gateway, operator):
    """HC-113: the charge point went down before it heard the answer, so it says it again."""
    stop = {"meterStop": 2_000, "timestamp": WHEN, "reason": "HardReset"}
    async with charging(gateway) as (charger, tx):
        operator.send("CP-1", "Reset", {"type": "Hard"})
        await accept(charger)
        await charger.send([2, "s1", "StopTransaction", {"transactionId": tx, **stop}])
        await gateway.settled()
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.ask("StopTransaction", transactionId=tx, **stop)
        await gateway.settled()
    assert len({event.receipt["receipt_id"] for event in gateway.events(TransactionSettled)}) == 1


@pytest.mark.parametrize("whose", ["another's", "stopped", "unknown"])
async def test_a_stop_of_any_transaction_is_the_charge_points_to_reject(gateway, operator, whose):
    """HC-112: certification asks that an unknown one can be sent (TC_028)."""
    async with charging(gateway) as (charger, tx), plugged(gateway, "CP-2") as another:
        if whose == "another's":
            tx = await another.start(0)
        elif whose == "stopped":
            await charger.stop(tx, 2_000)
        else:
            tx = 2**31 - 1
        operator.send("CP-1", "RemoteStopTransaction", {"transactionId": tx})
        assert await accept(charger, "Rejected") == (
            "RemoteStopTransaction",
            {"transactionId": tx},
        )
        assert await operator.responses() == [{"status": "Rejected"}]
        assert another.calls.statistics().current_buffer_used == 0
