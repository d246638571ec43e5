"""Orders of operators, from ThingsBoard's RPC to the charge point and back."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import jsonschema_rs
import pytest
import trio

from gateway.app import AppSettings
from gateway.bus import EventBus, Overflow
from gateway.domain.commands import Command
from gateway.domain.events import CommandCarriedOut, TransactionSettled
from gateway.domain.fleet import Fleet
from gateway.observability.frame_tap import FrameTap
from gateway.southbound.commands import CommandRunner
from gateway.southbound.registry import Registry
from tests.memory_journal import MemoryJournal

from ..conftest import Gateway, open_gateway
from ..fakes import EPOCH, FakeCharger
from .raw_websocket import TEXT, frame, opened, until

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


class Operator:
    """Gives one order at a time and remembers how it ended."""

    def __init__(self, gateway: Gateway, nursery: trio.Nursery) -> None:
        self._gateway = gateway
        self._nursery = nursery
        self.answers: list[Any] = []
        self.times: list[float] = []

    def order(self, device: str, method: str, params: Any = None) -> None:
        async def ask() -> None:
            answer = await self._gateway.thingsboard.rpc(device, method, params, within=600)
            self.answers.append(answer)
            self.times.append(trio.current_time())

        self._nursery.start_soon(ask)

    async def has_heard(self, number: int = 1) -> list[Any]:
        await until(lambda: len(self.answers) >= number, within=600)
        return self.answers

    @property
    def codes(self) -> list[str]:
        return [answer["error"]["code"] for answer in self.answers]


@pytest.fixture
async def operator(gateway, nursery):
    operator = Operator(gateway, nursery)
    yield operator
    nursery.cancel_scope.cancel()


@asynccontextmanager
async def plugged(gateway: Gateway, name: str = "CP-1"):
    """A charge point that is online and whose connector 1 ThingsBoard knows."""
    async with gateway.charger(name) as charger:
        await charger.boot()
        await charger.status("Preparing")
        await gateway.settled()
        yield charger


# --- OCPP's own messages ----------------------------------------------------------------------


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
        operator.order("CP-1", action, params)
        unique_id, heard, payload = await charger.next_call()
        assert (heard, payload) == (action, params)
        schema = json.loads((SCHEMAS / f"{action}.json").read_text("utf-8-sig"))
        jsonschema_rs.Draft4Validator(schema).validate(payload)
        await charger.reply(unique_id, **reply)
        assert await operator.has_heard() == [reply]
        await gateway.settled()
        latest = gateway.thingsboard.latest("CP-1")
        assert latest["last_command"] == action
        assert latest["last_command_result"] == reply.get("status", "Accepted")


def test_every_message_of_the_surface_was_tried():
    """docs/rpc.md, commands on a charger."""
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
        operator.order("CP-1", method, params)
        await operator.has_heard()
        assert operator.codes == ["InvalidParams"]
        assert operator.answers[0]["error"]["message"]
        assert charger.calls.statistics().current_buffer_used == 0


@pytest.mark.parametrize(
    ("device", "method"),
    [
        ("CP-1", "Heartbeat"),
        ("CP-1", "StartTransaction"),
        ("CP-1", "reset"),
        ("CP-1", "remoteStart"),
        ("CP-1", ""),
        ("CP-1", "x" * 10_000),
        ("CP-1/1", "Reset"),
        ("CP-1/1", "RemoteStart"),
    ],
)
async def test_a_method_that_a_device_does_not_have_is_unknown(gateway, operator, device, method):
    async with plugged(gateway) as charger:
        operator.order(device, method, {})
        await operator.has_heard()
        assert operator.codes == ["UnknownMethod"]
        assert charger.calls.statistics().current_buffer_used == 0


@pytest.mark.parametrize(
    ("device", "method", "params"),
    [
        ("CP-1", "Reset", {"type": "Hard"}),
        ("CP-1/1", "remoteStart", {"idTag": "A"}),
        ("CP-1/1", "remoteStop", None),
        ("CP-1/1", "unlock", None),
        ("CP-1/1", "setAvailable", True),
    ],
)
async def test_who_is_away_is_not_connected(gateway, operator, device, method, params):
    """HC-105: at once."""
    async with plugged(gateway):
        pass
    await gateway.settled()
    before = trio.current_time()
    operator.order(device, method, params)
    await operator.has_heard()
    assert operator.codes == ["NotConnected"]
    assert operator.times[0] - before < 1


# --- one call at a time -------------------------------------------------------------------------


async def test_one_call_at_a_time_and_first_come_first_served(gateway, operator):
    """HC-62, OCPP-J 4.1.1."""
    keys = [f"key {number}" for number in range(3)]
    async with plugged(gateway) as charger:
        for key in keys:
            operator.order("CP-1", "GetConfiguration", {"key": [key]})
            await gateway.settled()
        ids = []
        for key in keys:
            unique_id, _, payload = await charger.next_call()
            ids.append(unique_id)
            assert payload == {"key": [key]}
            await trio.sleep(5)
            assert charger.calls.statistics().current_buffer_used == 0
            await charger.reply(unique_id, unknownKey=[key])
        assert await operator.has_heard(3) == [{"unknownKey": [key]} for key in keys]
        assert len(set(ids)) == 3


async def test_several_charge_points_are_called_at_once(gateway, operator):
    """HC-63."""
    async with plugged(gateway, "A") as one, plugged(gateway, "B") as two:
        operator.order("A", "ClearCache")
        operator.order("B", "ClearCache")
        await one.next_call()
        unique_id, _, _ = await two.next_call()
        await two.reply(unique_id, status="Accepted")
        assert await operator.has_heard() == [{"status": "Accepted"}]


async def test_a_charge_point_may_ask_before_it_answers(gateway, operator):
    """HC-64, HC-70: it authorises a remote start, begins it, and answers then."""
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        unique_id, _, payload = await charger.next_call()
        assert payload == {"connectorId": 1, "idTag": "TAG"}
        before = trio.current_time()
        await charger.ask("Authorize", idTag="TAG")
        tx = await charger.start(0)
        assert trio.current_time() == before
        await trio.sleep(2)
        await charger.reply(unique_id, status="Accepted")
        assert await operator.has_heard() == [{"status": "Accepted", "transactionId": tx}]


async def test_a_call_that_is_not_answered_times_out_and_the_next_is_sent(gateway, operator):
    """HC-66, HC-67, HC-106: its late answer is nobody's, least of all the next call's.

    Nor is the call made again: a Reset that was only slow would come twice.
    """
    async with plugged(gateway) as charger:
        before = trio.current_time()
        operator.order("CP-1", "ClearCache")
        late, _, _ = await charger.next_call()
        operator.order("CP-1", "GetLocalListVersion")
        await operator.has_heard()
        assert operator.codes == ["Timeout"]
        assert "ClearCache" in operator.answers[0]["error"]["message"]
        assert 30 <= operator.times[0] - before < 31
        unique_id, action, _ = await charger.next_call()
        assert action == "GetLocalListVersion"
        await charger.reply(late, status="Accepted")
        await charger.reply(unique_id, listVersion=5)
        assert (await operator.has_heard(2))[1] == {"listVersion": 5}
        assert gateway.running.connections.rejected_frames["UnaskedAnswer"] == 1


async def test_the_time_to_answer_counts_from_the_sending(gateway, operator):
    """Who waited 25 s for an earlier call still gives the charge point its 30."""
    async with plugged(gateway) as charger:
        operator.order("CP-1", "ClearCache")
        first, _, _ = await charger.next_call()
        operator.order("CP-1", "GetLocalListVersion")
        await trio.sleep(25)
        await charger.reply(first, status="Accepted")
        second, _, _ = await charger.next_call()
        await trio.sleep(25)
        await charger.reply(second, listVersion=1)
        assert (await operator.has_heard(2))[1] == {"listVersion": 1}


async def test_an_answer_that_comes_after_all_is_over_is_counted(gateway, operator):
    async with plugged(gateway) as charger:
        operator.order("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await operator.has_heard()
        await charger.reply(unique_id, status="Accepted")
        await charger.ask("Heartbeat")
        assert gateway.running.connections.rejected_frames["UnaskedAnswer"] == 1


async def test_of_two_answers_in_one_breath_the_first_counts(gateway, operator):
    """HC-45: twenty times, for which task runs first is Trio's to choose."""
    async with opened(gateway, "CP-1") as peer:
        for number in range(20):
            operator.order("CP-1", "GetConfiguration", {"key": [str(number)]})
            unique_id = (await peer.message())[1]
            await peer.send(
                b"".join(
                    frame(TEXT, json.dumps([3, unique_id, {"unknownKey": [key]}]).encode())
                    for key in ("first", "second")
                )
            )
            answers = await operator.has_heard(number + 1)
            assert answers[number] == {"unknownKey": ["first"]}


async def test_a_second_answer_is_ignored(gateway, operator):
    """HC-45."""
    async with plugged(gateway) as charger:
        operator.order("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.reply(unique_id, status="Accepted")
        await charger.reply(unique_id, status="Rejected")
        await charger.send([4, unique_id, "GenericError", "", {}])
        assert await operator.has_heard() == [{"status": "Accepted"}]
        await charger.ask("Heartbeat")


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ([4, "?"], {"ocpp_code": "GenericError", "details": None}),
        ([4, "?", "NotSupported"], {"ocpp_code": "NotSupported", "details": None}),
        ([4, "?", "NotSupported", "no"], {"ocpp_code": "NotSupported", "message": "no"}),
        ([4, "?", "Odd", "no", {"a": 1}], {"ocpp_code": "Odd", "details": {"a": 1}}),
        ([4, "?", "Odd", "no", {"a": 1}, 6], {"ocpp_code": "Odd", "details": {"a": 1}}),
        ([4, "?", None, None, None], {"ocpp_code": "GenericError", "details": None}),
        ([4, "?", 5, ["x"], "y"], {"ocpp_code": "5", "details": "y"}),
    ],
)
async def test_a_callerror_is_told_however_many_elements_it_has(gateway, operator, frame, error):
    """HC-46; and the next call is sent."""
    async with plugged(gateway) as charger:
        operator.order("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.send([frame[0], unique_id, *frame[2:]])
        await operator.has_heard()
        told = operator.answers[0]["error"]
        assert told["code"] == "CallError"
        assert {key: told[key] for key in error} == error
        assert told["message"]
        operator.order("CP-1", "ClearCache")
        await charger.next_call()


@pytest.mark.parametrize(
    "answer",
    [
        [3, {"configurationKey": {"AuthorizationKey": "s3cret"}}],
        [3, {"configurationKey": [{"key": "AuthorizationKey", "value": "s3cret", "readonly": 5}]}],
        [4, "InternalError", "AuthorizationKey: s3cret", {"AuthorizationKey": "s3cret"}],
    ],
    ids=["no key", "no bool", "an error"],
)
async def test_a_password_is_not_told_with_an_answer_that_is_wrong(gateway, operator, answer):
    """HC-114: neither as it came nor in the words about it."""
    async with plugged(gateway) as charger:
        operator.order("CP-1", "GetConfiguration")
        unique_id, _, _ = await charger.next_call()
        await charger.send([answer[0], unique_id, *answer[1:]])
        await operator.has_heard()
        told = operator.answers[0]
        assert told["error"]["code"] == "CallError"
        assert "s3cret" not in json.dumps(told)


@pytest.mark.parametrize(
    "payload",
    [{"status": "Maybe"}, {}, [], None, "Accepted", 5, {"status": None}, {"status": ["Accepted"]}],
    ids=str,
)
async def test_an_answer_that_breaks_its_schema_is_told_as_it_came(gateway, operator, payload):
    """HC-47, HC-117."""
    async with plugged(gateway) as charger:
        operator.order("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.send([3, unique_id, payload])
        await operator.has_heard()
        told = operator.answers[0]["error"]
        assert (told["code"], told["details"]) == ("CallError", payload)
        await charger.ask("Heartbeat")


async def test_an_answer_without_a_payload_is_no_answer(gateway, operator):
    async with plugged(gateway) as charger:
        operator.order("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.send([3, unique_id])
        await operator.has_heard()
        assert operator.codes == ["CallError"]


async def test_an_order_fails_as_soon_as_the_connection_is_lost(gateway, operator):
    """HC-68: also those that waited for their turn."""
    async with opened(gateway, "CP-1") as peer:
        for number in range(3):
            operator.order("CP-1", "GetConfiguration", {"key": [str(number)]})
        assert (await peer.message())[2] == "GetConfiguration"
        before = trio.current_time()
        await peer.stream.aclose()
        await operator.has_heard(3)
        assert operator.codes == ["NotConnected"] * 3
        assert max(operator.times) - before < 1


async def test_too_many_orders_for_one_charge_point_are_refused(gateway, operator):
    """HC-110: 50 at once; each is answered once."""
    async with plugged(gateway) as charger:
        for number in range(50):
            operator.order("CP-1", "GetConfiguration", {"key": [str(number)]})
        await gateway.settled()
        refused = len(operator.answers)
        assert operator.codes == ["Busy"] * refused
        assert 25 <= refused <= 30
        for _ in range(50 - refused):
            unique_id, _, payload = await charger.next_call()
            await charger.reply(unique_id, unknownKey=payload["key"])
        await operator.has_heard(50)
        told = [answer["unknownKey"][0] for answer in operator.answers if "error" not in answer]
        assert len(set(told)) == 50 - refused
        operator.order("CP-1", "ClearCache")
        await charger.next_call()


# --- what answers may hold -----------------------------------------------------------------------


async def test_a_configuration_of_two_hundred_keys_comes_without_the_password(gateway, operator):
    """HC-114: MicroOcpp tells its AuthorizationKey in clear; values may be missing."""
    keys = [{"key": f"Key{number}", "readonly": False, "value": "v"} for number in range(198)]
    secret = {"key": "authorizationKey", "readonly": False, "value": "AABBCCDD"}
    answer = {"configurationKey": [*keys, secret, {"key": "Empty", "readonly": True}]}
    async with plugged(gateway) as charger:
        operator.order("CP-1", "GetConfiguration", {"key": []})
        unique_id, _, _ = await charger.next_call()
        await charger.reply(unique_id, **answer)
        (told,) = await operator.has_heard()
    assert told["configurationKey"] == [
        *keys,
        {**secret, "value": "***"},
        {"key": "Empty", "readonly": True},
    ]


async def test_an_answer_that_breaks_its_schema_comes_without_the_password(gateway, operator):
    """HC-114: `readonly` is missing."""
    async with plugged(gateway) as charger:
        operator.order("CP-1", "GetConfiguration", {})
        unique_id, _, _ = await charger.next_call()
        told = [{"key": "AuthorizationKey", "value": "AABBCCDD"}, "odd", {"key": 5, "value": 6}]
        await charger.send([3, unique_id, {"configurationKey": told}])
        await operator.has_heard()
    assert operator.answers[0]["error"]["details"] == {
        "configurationKey": [{**told[0], "value": "***"}, *told[1:]]
    }


# --- a reset -------------------------------------------------------------------------------------


@pytest.mark.parametrize("boots", [True, False])
async def test_a_reset_that_is_answered_is_done_however_the_charge_point_returns(
    gateway, operator, boots
):
    """HC-113."""
    async with plugged(gateway) as charger:
        operator.order("CP-1", "Reset", {"type": "Soft"})
        unique_id, _, _ = await charger.next_call()
        await charger.reply(unique_id, status="Accepted")
        assert await operator.has_heard() == [{"status": "Accepted"}]
    async with gateway.charger("CP-1") as charger:
        if boots:
            await charger.boot()
        operator.order("CP-1", "ClearCache")
        assert (await charger.next_call())[1] == "ClearCache"  # and no second Reset


async def test_a_reset_whose_answer_is_lost_fails_and_is_not_sent_again(gateway, operator):
    """HC-113, HC-106: it may have been carried out, so only the operator can tell what to do."""
    async with opened(gateway, "CP-1") as peer:
        operator.order("CP-1", "Reset", {"type": "Hard"})
        assert (await peer.message())[2] == "Reset"
    await operator.has_heard()
    assert operator.codes == ["NotConnected"]
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        operator.order("CP-1", "ClearCache")
        assert (await charger.next_call())[1] == "ClearCache"


async def test_a_stop_in_the_middle_of_a_reset_is_counted_once(gateway, operator):
    """HC-113: the charge point went down before it heard the answer, so it says it again."""
    stop = {"meterStop": 2_000, "timestamp": WHEN, "reason": "HardReset"}
    async with charging(gateway) as (charger, tx):
        operator.order("CP-1", "Reset", {"type": "Hard"})
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
        operator.order("CP-1", "RemoteStopTransaction", {"transactionId": tx})
        assert await accept(charger, "Rejected") == (
            "RemoteStopTransaction",
            {"transactionId": tx},
        )
        assert await operator.has_heard() == [{"status": "Rejected"}]
        assert another.calls.statistics().current_buffer_used == 0


# --- orders to a connector ------------------------------------------------------------------------


@asynccontextmanager
async def charging(gateway: Gateway):
    async with plugged(gateway) as charger:
        tx = await charger.start(1_000)
        await gateway.settled()
        yield charger, tx


async def accept(charger: FakeCharger, status: str = "Accepted") -> tuple[str, Any]:
    """Answer the next call; gives what it was."""
    unique_id, action, payload = await charger.next_call()
    await charger.reply(unique_id, status=status)
    return action, payload


async def test_a_remote_start_is_answered_once_the_transaction_has_begun(gateway, operator):
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        assert await accept(charger) == (
            "RemoteStartTransaction",
            {"connectorId": 1, "idTag": "TAG"},
        )
        await trio.sleep(20)
        assert operator.answers == []
        tx = await charger.start(0)
        assert await operator.has_heard() == [{"status": "Accepted", "transactionId": tx}]
        await gateway.settled()
        assert gateway.events(CommandCarriedOut)[0].method == "remoteStart"


async def test_another_tags_start_elsewhere_is_not_the_one_that_was_ordered(gateway, operator):
    async with plugged(gateway) as charger, plugged(gateway, "CP-2") as another:
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        await charger.start(0, connector=2, tag="OTHER")
        await another.start(0)
        await trio.sleep(1)
        assert operator.answers == []
        tx = await charger.start(5)
        assert (await operator.has_heard())[0]["transactionId"] == tx


@pytest.mark.parametrize("method", ["remoteStart", "setCharging"])
async def test_a_start_on_another_connector_says_on_which(method):
    """The car is there, or connectors are counted otherwise."""
    settings = AppSettings(default_id_tag="TAG")
    async with open_gateway(settings=settings) as gateway, plugged(gateway) as charger:
        async with trio.open_nursery() as nursery:
            operator = Operator(gateway, nursery)
            operator.order("CP-1/1", method, True if method == "setCharging" else {"idTag": "TAG"})
            await accept(charger)
            tx = await charger.start(0, connector=2, tag="tag")  # a tag knows no case
            assert await operator.has_heard() == [
                {"status": "Accepted", "connectorId": 2, "transactionId": tx}
            ]
        await gateway.settled()
        assert switch(gateway) is False  # nothing has begun where the switch is
        assert gateway.thingsboard.latest("CP-1/2")["tx_active"] is True


async def test_a_refused_start_on_another_connector_says_on_which(operator, gateway):
    async with plugged(gateway) as charger:
        operator.order("CP-1/3", "remoteStart", {"idTag": "TAG"})
        before = gateway.running.bus.fleet.devices
        assert "CP-1/3" not in before
        await trio.sleep(1)
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        yesterday = await charger.ask(
            "StartTransaction",
            connectorId=2,
            idTag="TAG",
            meterStart=0,
            timestamp="2025-12-30T00:00:00Z",
        )
        await trio.sleep(1)
        assert operator.answers == []  # it began before it was ordered, elsewhere
        tx = await charger.start(0)
        assert tx != yesterday["transactionId"]
        assert await operator.has_heard() == [{"status": "Accepted", "transactionId": tx}]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_of_two_remote_starts_with_one_tag_each_gets_its_own(gateway, operator, order):
    async with plugged(gateway) as charger:
        await charger.status("Preparing", 2)
        await gateway.settled()
        for connector in (1, 2):
            operator.order(f"CP-1/{connector}", "remoteStart", {"idTag": "TAG"})
            await accept(charger)
        began = {connector: await charger.start(0, connector=connector) for connector in order}
        assert await operator.has_heard(2) == [
            {"status": "Accepted", "transactionId": began[connector]} for connector in order
        ]


async def test_of_two_remote_starts_the_tag_says_which_began_elsewhere(gateway, operator):
    async with plugged(gateway) as charger:
        await charger.status("Preparing", 2)
        await gateway.settled()
        for connector, tag in ((1, "A"), (2, "B")):
            operator.order(f"CP-1/{connector}", "remoteStart", {"idTag": tag})
            await accept(charger)
        crossed = await charger.start(0, connector=2, tag="A")
        assert await operator.has_heard() == [
            {"status": "Accepted", "connectorId": 2, "transactionId": crossed}
        ]
        third = await charger.start(0, connector=3, tag="B")
        assert (await operator.has_heard(2))[1] == {
            "status": "Accepted",
            "connectorId": 3,
            "transactionId": third,
        }


async def test_of_two_remote_starts_with_one_tag_the_older_gets_what_begins_elsewhere(
    gateway, operator
):
    async with plugged(gateway) as charger:
        await charger.status("Preparing", 2)
        await gateway.settled()
        for connector in (1, 2):
            operator.order(f"CP-1/{connector}", "remoteStart", {"idTag": "TAG"})
            await accept(charger)
        elsewhere = await charger.start(0, connector=3)
        assert (await operator.has_heard())[0]["transactionId"] == elsewhere
        there = await charger.start(0, connector=1)
        assert await operator.has_heard(2) == [
            {"status": "Accepted", "connectorId": 3, "transactionId": elsewhere},
            {"status": "Accepted", "connectorId": 1, "transactionId": there},
        ]


@pytest.mark.parametrize("by", ["remoteStop", "setCharging", "RemoteStopTransaction"])
@pytest.mark.parametrize("reason", [None, "EVDisconnected"])
@pytest.mark.parametrize("answer", ["Accepted", "Rejected", "afterwards", None])
async def test_a_stop_that_was_ordered_says_so_where_the_charge_point_does_not(
    gateway, operator, by, reason, answer
):
    more = {} if reason is None else {"reason": reason}
    device, params = {
        "remoteStop": ("CP-1/1", None),
        "setCharging": ("CP-1/1", False),
        "RemoteStopTransaction": ("CP-1", {"transactionId": 1}),
    }[by]
    async with charging(gateway) as (charger, tx):
        assert tx == 1
        operator.order(device, by, params)
        unique_id, _, _ = await charger.next_call()
        if answer == "afterwards":
            await charger.stop(tx, 2_000, **more)
            await charger.reply(unique_id, status="Accepted")
        elif answer is None:  # it says nothing, and stops later for reasons of its own
            await trio.sleep(300)
            await charger.stop(tx, 2_000, **more)
        else:
            await charger.reply(unique_id, status=answer)
            await charger.stop(tx, 2_000, **more)
        await gateway.settled()
    (settled,) = gateway.events(TransactionSettled)
    ordered = answer in ("Accepted", "afterwards")
    assert settled.receipt["stop_reason"] == reason or ("Remote" if ordered else "Local")


async def test_a_stop_that_was_ordered_says_so_after_a_restart():
    """It was accepted before, and the stop comes out of the queue of the charge point."""
    journal = MemoryJournal()
    async with open_gateway(journal=journal) as first, trio.open_nursery() as nursery:
        operator = Operator(first, nursery)
        async with charging(first) as (charger, tx):
            other = await charger.start(0, connector=2)
            operator.order("CP-1", "RemoteStopTransaction", {"transactionId": tx})
            await accept(charger)
            assert await operator.has_heard() == [{"status": "Accepted"}]
    async with open_gateway(journal=journal) as second, second.charger("CP-1") as charger:
        await charger.stop(other, 10)
        await charger.stop(tx, 2_000)
        await second.settled()
    reasons = [event.receipt["stop_reason"] for event in second.events(TransactionSettled)]
    assert reasons == ["Local", "Remote"]


async def test_a_start_that_is_only_repeated_is_not_the_one_that_was_ordered(gateway, operator):
    """The answer to it was lost, so it comes again; HC-71."""
    start = {"connectorId": 1, "idTag": "TAG", "meterStart": 0, "timestamp": WHEN}
    async with plugged(gateway) as charger:
        old = await charger.ask("StartTransaction", **start)
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        assert await charger.ask("StartTransaction", **start) == old
        await trio.sleep(1)
        assert operator.answers == []
        tx = await charger.start(5)
        assert (await operator.has_heard())[0]["transactionId"] == tx


async def test_another_connectors_stop_is_not_the_one_that_was_ordered(gateway, operator):
    async with charging(gateway) as (charger, tx):
        other = await charger.start(0, connector=2)
        operator.order("CP-1/1", "remoteStop")
        await accept(charger)
        await charger.stop(other, 5)
        await trio.sleep(1)
        assert operator.answers == []
        await charger.stop(tx, 2_000)
        assert (await operator.has_heard())[0]["status"] == "Stopped"


async def test_a_remote_start_without_a_tag_takes_the_configured_one():
    async with (
        open_gateway(settings=AppSettings(default_id_tag="HOUSE")) as gateway,
        plugged(gateway) as charger,
        trio.open_nursery() as nursery,
    ):
        operator = Operator(gateway, nursery)
        for params in (None, {}):
            operator.order("CP-1/1", "remoteStart", params)
            _, payload = await accept(charger, "Rejected")
            assert payload["idTag"] == "HOUSE"
        assert await operator.has_heard(2) == [{"status": "Rejected"}] * 2


@pytest.mark.parametrize("params", [None, {}, {"idTag": 5}, {"idtag": "x"}, "TAG", True, ["TAG"],
                                    {"idTag": ""}, {"idTag": "x" * 21}])  # fmt: skip
async def test_a_remote_start_needs_a_tag_from_somewhere(gateway, operator, params):
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", "remoteStart", params)
        if params == {"idTag": ""}:
            await accept(charger, "Rejected")  # OCPP allows it
            return
        await operator.has_heard()
        assert operator.codes == ["InvalidParams"]
        assert charger.calls.statistics().current_buffer_used == 0


async def test_a_remote_start_that_is_rejected_is_a_result(gateway, operator):
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger, "Rejected")
        assert await operator.has_heard() == [{"status": "Rejected"}]


async def test_a_remote_start_that_nothing_follows_times_out(gateway, operator):
    """HC-111: accepted, but nobody plugged in; there is no phantom transaction."""
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        before = trio.current_time()
        await operator.has_heard()
        assert operator.codes == ["Timeout"]
        assert 60 <= operator.times[0] - before < 61
        assert gateway.running.bus.fleet.open_transaction("CP-1", 1) is None


async def test_a_remote_stop_is_answered_with_its_receipt(gateway, operator):
    async with charging(gateway) as (charger, tx):
        operator.order("CP-1/1", "remoteStop")
        assert await accept(charger) == ("RemoteStopTransaction", {"transactionId": tx})
        await trio.sleep(3)
        assert operator.answers == []
        await charger.stop(tx, 2_000, reason="Remote")
        (answer,) = await operator.has_heard()
        (settled,) = gateway.events(TransactionSettled)
        assert answer == {"status": "Stopped", "receipt_id": settled.receipt["receipt_id"]}


async def test_a_remote_stop_that_is_rejected_is_a_result(gateway, operator):
    async with charging(gateway) as (charger, _):
        operator.order("CP-1/1", "remoteStop", {})
        await accept(charger, "Rejected")
        assert await operator.has_heard() == [{"status": "Rejected"}]


async def test_a_remote_stop_that_nothing_follows_times_out(gateway, operator):
    async with charging(gateway) as (charger, _):
        operator.order("CP-1/1", "remoteStop")
        await accept(charger)
        await operator.has_heard()
        assert operator.codes == ["Timeout"]


async def test_a_remote_stop_without_a_transaction_is_rejected(gateway, operator):
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", "remoteStop")
        assert await operator.has_heard() == [{"status": "Rejected", "reason": "NoTransaction"}]
        assert charger.calls.statistics().current_buffer_used == 0


async def test_a_remote_stop_of_one_who_is_away_is_not_connected(gateway, operator):
    async with charging(gateway):
        pass
    await gateway.settled()
    operator.order("CP-1/1", "remoteStop")
    await operator.has_heard()
    assert operator.codes == ["NotConnected"]


async def test_a_switch_starts_and_stops():
    """`setCharging` answers as the two do."""
    async with (
        open_gateway(settings=AppSettings(default_id_tag="HOUSE")) as gateway,
        plugged(gateway) as charger,
        trio.open_nursery() as nursery,
    ):
        operator = Operator(gateway, nursery)
        operator.order("CP-1/1", "setCharging", True)
        assert await accept(charger) == (
            "RemoteStartTransaction",
            {"connectorId": 1, "idTag": "HOUSE"},
        )
        tx = await charger.start(0, tag="HOUSE")
        await operator.has_heard()
        await gateway.settled()
        operator.order("CP-1/1", "setCharging", False)
        assert await accept(charger) == ("RemoteStopTransaction", {"transactionId": tx})
        await charger.stop(tx, 10)
        first, second = await operator.has_heard(2)
        assert first == {"status": "Accepted", "transactionId": tx}
        assert second["status"] == "Stopped"


def switch(gateway: Gateway) -> Any:
    """What a switch on a dashboard shows: the last that was told of it."""
    return gateway.thingsboard.latest("CP-1/1").get("tx_active")


@pytest.mark.parametrize("refusal", ["Rejected", "Timeout", "NotConnected"])
async def test_a_start_that_does_not_come_to_pass_lets_the_switch_fall_back(
    gateway, operator, refusal
):
    """ThingsBoard's switches send one-way and show what they asked for, until told otherwise."""
    async with plugged(gateway) as charger:
        assert switch(gateway) is None
        if refusal != "NotConnected":
            operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
            await accept(charger, "Accepted" if refusal == "Timeout" else refusal)
            await operator.has_heard()
    if refusal == "NotConnected":
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await operator.has_heard()
    await gateway.settled()
    assert gateway.events(CommandCarriedOut)[0].result == refusal
    assert switch(gateway) is False


async def test_a_stop_that_does_not_come_to_pass_lets_the_switch_fall_back(gateway, operator):
    async with charging(gateway) as (charger, _):
        before = gateway.thingsboard.values("CP-1/1", "tx_active")
        for _ in range(2):  # every time, though nothing has changed
            operator.order("CP-1/1", "setCharging", False)
            await accept(charger, "Rejected")
            await trio.sleep(40)  # longer than an order is taken for its own repetition
        await gateway.settled()
        assert gateway.thingsboard.values("CP-1/1", "tx_active") == [*before, True, True]


async def test_a_refused_start_does_not_outlast_what_a_slow_clock_says_next(gateway, operator):
    """The charge point is a year behind: told at our time, `false` would stay the latest."""
    async with plugged(gateway) as charger:
        long_ago = "2025-01-01T00:00:00Z"
        await charger.ask(
            "StatusNotification",
            connectorId=1,
            errorCode="NoError",
            status="Preparing",
            timestamp=long_ago,
        )
        await gateway.settled()
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger, "Rejected")
        await operator.has_heard()
        await gateway.settled()
        assert switch(gateway) is False
        await charger.ask(
            "StartTransaction",
            connectorId=1,
            idTag="TAG",
            meterStart=0,
            timestamp="2025-01-01T00:01:00Z",
        )
        await gateway.settled()
        assert switch(gateway) is True


async def test_an_order_to_a_connector_that_was_never_seen_tells_nothing_of_it():
    """As the prototype's `settest` may give, which means connector 1: telling would create it."""
    bus = EventBus(MemoryJournal(), Fleet())
    orders = CommandRunner(bus, Registry(), lambda: EPOCH, FrameTap(lambda: EPOCH))
    with bus.subscribe(CommandCarriedOut, overflow=Overflow.DROP_OLDEST) as heard:
        command = Command(
            charge_point_id="CP-1", connector_id=1, method="setCharging", params=False
        )
        assert (await orders.carry_out(command)).result == "NotConnected"
        async for entry in heard:
            assert entry.event.tx_active is None
            break


@pytest.mark.parametrize("method", ["setCharging", "setAvailable"])
@pytest.mark.parametrize("params", ["true", 1, None, {}, {"value": True}])
async def test_a_switch_takes_true_or_false(gateway, operator, method, params):
    async with plugged(gateway):
        operator.order("CP-1/1", method, params)
        await operator.has_heard()
        assert operator.codes == ["InvalidParams"]


@pytest.mark.parametrize(
    ("method", "params", "call", "status"),
    [
        ("unlock", None, ("UnlockConnector", {"connectorId": 1}), "UnlockFailed"),
        ("setAvailable", True,
         ("ChangeAvailability", {"connectorId": 1, "type": "Operative"}), "Accepted"),
        ("setAvailable", False,
         ("ChangeAvailability", {"connectorId": 1, "type": "Inoperative"}), "Scheduled"),
    ],
)  # fmt: skip
async def test_unlock_and_availability_give_the_charge_points_own_answer(
    gateway, operator, method, params, call, status
):
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", method, params)
        assert await accept(charger, status) == call
        assert await operator.has_heard() == [{"status": status}]


async def test_a_start_that_the_tag_may_not_make_is_told_with_its_reason(gateway, operator):
    """The charge point began it all the same, so it has an id, and will end it itself."""
    async with plugged(gateway) as charger:
        operator.order("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        tx = await charger.start(0, tag="")
        assert await operator.has_heard() == [
            {"status": "Rejected", "reason": "Invalid", "transactionId": tx}
        ]
