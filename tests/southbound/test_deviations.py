"""What breaks its schema and is read all the same: requests and answers, one table for both."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest

from gateway.domain.redaction import LONGEST_TEXT
from gateway.northbound.telemetry import telemetry_rows
from gateway.southbound.messages import (
    TRANSACTION_ACTIONS,
    FrameError,
    InvalidResponse,
    Request,
    decode,
    read_result,
)
from gateway.southbound.request_events import event_of

from .test_messages import schema_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STATUS = {"connectorId": 1, "status": "Available", "errorCode": "NoError"}
BOOT = {"chargePointVendor": "V", "chargePointModel": "M"}


def request(action: str, payload: Any) -> Request:
    message = decode(json.dumps([2, "m", action, payload]))
    assert isinstance(message, Request)
    return message


def fact(action: str, payload: Any) -> Any:
    return event_of(
        action, request(action, payload).payload, charge_point_id="CP-1", received_at=NOW
    )


# --- requests ------------------------------------------------------------------------------------

READ_AS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    # action, payload, what is read, where it deviates
    ("StatusNotification", STATUS | {"connectorId": "1"}, STATUS, "connectorId"),
    ("StatusNotification", STATUS | {"connectorId": " 1 "}, STATUS, "connectorId"),
    ("StatusNotification", STATUS | {"connectorId": "1.0"}, STATUS, "connectorId"),
    ("StatusNotification", STATUS | {"connectorId": 1.0}, STATUS, "connectorId"),
    ("StatusNotification", STATUS | {"info": None}, STATUS, "info"),
    ("StatusNotification", STATUS | {"timestamp": None}, STATUS, "timestamp"),
    ("StatusNotification", STATUS | {"status": "available"}, STATUS, "status"),
    ("StatusNotification", STATUS | {"vendorErrorCode": 0}, STATUS | {"vendorErrorCode": "0"},
     "vendorErrorCode"),
    ("StatusNotification", STATUS | {"vendorErrorCode": -1.50},
     STATUS | {"vendorErrorCode": "-1.5"}, "vendorErrorCode"),
    ("StatusNotification", STATUS | {"timestamp": 1_767_225_600},
     STATUS | {"timestamp": "1767225600"}, "timestamp"),
    ("StatusNotification", STATUS | {"info": "x" * 51}, STATUS | {"info": "x" * 51}, "info"),
    ("StatusNotification", STATUS | {"status": "Resting"}, STATUS | {"status": "Resting"},
     "status"),
    ("StatusNotification", {"ConnectorID": 1, "status": "Available", "errorCode": "NoError"},
     STATUS, "ConnectorID"),
    ("StatusNotification", {"connectorId": 1, "status": "Available"},
     {"connectorId": 1, "status": "Available"}, "errorCode"),
    ("StatusNotification", STATUS | {"errorCode": None},
     {"connectorId": 1, "status": "Available"}, "errorCode"),
    ("BootNotification", BOOT | {"chargePointVendor": None}, {"chargePointModel": "M"},
     "chargePointVendor"),
    ("BootNotification", BOOT | {"meterType": 7}, BOOT | {"meterType": "7"}, "meterType"),
    ("Authorize", {"idTag": 12345678}, {"idTag": "12345678"}, "idTag"),
    ("Authorize", {"idTag": "x" * 21}, {"idTag": "x" * 21}, "idTag"),
    ("DataTransfer", {"vendorId": "v", "data": {"a": [1, True, None]}},
     {"vendorId": "v", "data": '{"a":[1,true,null]}'}, "data"),
    ("DataTransfer", {"vendorId": "v", "data": 1.10}, {"vendorId": "v", "data": "1.1"}, "data"),
    ("DataTransfer", {"vendorId": 5, "data": ""}, {"vendorId": "5", "data": ""}, "vendorId"),
    ("DataTransfer", {"vendorId": "v", "messageId": None}, {"vendorId": "v"}, "messageId"),
    ("SecurityEventNotification", {"type": "Tamper"}, {"type": "Tamper"}, "timestamp"),
    ("LogStatusNotification", {"status": "Uploading", "requestId": "7"},
     {"status": "Uploading", "requestId": 7}, "requestId"),
    ("SignCertificate", {"csr": "x" * 5501}, {"csr": "x" * 5501}, "csr"),
    ("FirmwareStatusNotification", {"status": "INSTALLED"}, {"status": "Installed"}, "status"),
    ("Heartbeat", {"now": 1}, {"now": 1}, "now"),
    ("StartTransaction", {"connectorId": 1, "idTag": 7, "meterStart": "10", "timestamp": "x",
                          "reservationId": None},
     {"connectorId": 1, "idTag": "7", "meterStart": 10, "timestamp": "x"}, "idTag"),
    ("StopTransaction", {"transactionId": 1, "meterStop": 5, "timestamp": "x", "reason": ""},
     {"transactionId": 1, "meterStop": 5, "timestamp": "x"}, "reason"),
    ("StopTransaction", {"transactionId": 1, "meterStop": 5, "timestamp": "x",
                         "reason": "evdisconnected", "transactionData": None},
     {"transactionId": 1, "meterStop": 5, "timestamp": "x", "reason": "EVDisconnected"}, "reason"),
    ("MeterValues", {"connectorId": 1, "transactionId": "", "meterValue": []},
     {"connectorId": 1, "meterValue": []}, "transactionId"),
    ("MeterValues",
     {"connectorId": 1, "meterValue": {"timestamp": "x", "sampledValue": {"value": 1.5}}},
     {"connectorId": 1, "meterValue": [{"timestamp": "x", "sampledValue": [{"value": "1.5"}]}]},
     "meterValue"),
    ("MeterValues",
     {"connectorId": 1, "meterValue": [None, {"timestamp": "x", "sampledValue": [
         {"value": "1", "unit": "KWH", "phase": None, "context": ""}]}]},
     {"connectorId": 1, "meterValue": [
         {"timestamp": "x", "sampledValue": [{"value": "1", "unit": "kWh"}]}]},
     "meterValue.0"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "payload", "meant", "where"), READ_AS)
def test_a_request_is_read_as_it_is_meant(action, payload, meant, where):
    read = request(action, payload)
    assert read.payload == meant
    assert read.deviations[0].partition(": ")[0] == where


@pytest.mark.parametrize(("action", "payload", "meant", "where"), READ_AS)
def test_a_strict_gateway_refuses_it_but_no_transaction(action, payload, meant, where):
    text = json.dumps([2, "m", action, payload])
    if action in TRANSACTION_ACTIONS:
        assert decode(text, lenient=False) == decode(text)
    else:
        with pytest.raises(FrameError) as caught:
            decode(text, lenient=False)
        assert caught.value.unique_id == "m"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (STATUS | {"connectorId": "1"}, "FormationViolation"),
        (STATUS | {"status": "?"}, "FormationViolation"),
        (STATUS | {"more": 1}, "FormationViolation"),
        (STATUS | {"info": None}, "TypeConstraintViolation"),
        (STATUS | {"info": 5}, "TypeConstraintViolation"),
        (STATUS | {"info": "x" * 51}, "PropertyConstraintViolation"),
        ({"connectorId": 1, "status": "Available"}, "OccurenceConstraintViolation"),
        ({"connectorId": "1", "status": "?", "info": "x" * 51}, "OccurenceConstraintViolation"),
    ],
)
def test_a_strict_gateway_says_what_it_always_said(payload, code):
    with pytest.raises(FrameError) as caught:
        decode(json.dumps([2, "m", "StatusNotification", payload]), lenient=False)
    assert caught.value.code == code


def test_no_words_about_a_deviation_repeat_a_value():
    payload = STATUS | {"info": "correct horse" * 9, "status": "battery", "vendorId": 4711}
    told = "; ".join(request("StatusNotification", payload).deviations)
    assert not {"horse", "battery", "4711"} & set(told.replace(":", " ").split())
    assert "info: 117 characters, 50 are allowed" in told


def test_of_many_deviations_the_first_are_told():
    read = request("Heartbeat", {f"k{number}": 1 for number in range(5_000)})
    assert len(read.deviations) == 10


def test_a_field_spelled_otherwise_does_not_displace_the_one_that_is_spelled_right():
    read = request("Authorize", {"IDTAG": "no", "idTag": "yes", "IdTag": "no"})
    assert read.payload["idTag"] == "yes"


def test_too_long_text_is_whole_in_the_journal_and_cut_for_thingsboard():
    boot = fact("BootNotification", BOOT | {"chargePointModel": "m" * 4_000})
    assert boot.model == "m" * 4_000
    (row,) = telemetry_rows(boot, "log")
    assert row.values["charger"]["model"] == "m" * (LONGEST_TEXT - 1) + "…"
    status = fact(
        "StatusNotification", STATUS | {"connectorId": 0, "info": "i" * 300, "status": "s" * 300}
    )
    assert (status.info, status.status) == ("i" * 300, "s" * 300)
    (row,) = telemetry_rows(status, "log")
    assert [len(row.values[key]) for key in ("info", "status")] == [LONGEST_TEXT] * 2
    security = fact("SecurityEventNotification", {"type": "T", "techInfo": "t" * 300})
    (row,) = telemetry_rows(security, "log")
    assert security.tech_info == "t" * 300
    assert len(row.values["security_event"]["tech_info"]) == LONGEST_TEXT


@pytest.mark.parametrize(
    ("action", "payload", "names"),
    [
        ("BootNotification", BOOT | {"iccid": "", "firmwareVersion": ""}, {"iccid", "firmware"}),
        ("StatusNotification", STATUS | {"info": "", "vendorId": ""}, {"info", "vendor_id"}),
        ("StopTransaction", {"transactionId": 1, "meterStop": 1, "timestamp": "", "idTag": ""},
         {"id_tag", "reason"}),
        ("DataTransfer", {"vendorId": "v", "messageId": "", "data": ""}, {"message_id", "data"}),
        ("SecurityEventNotification", {"type": "T", "timestamp": "x", "techInfo": ""},
         {"tech_info"}),
    ],
)  # fmt: skip
def test_an_empty_optional_text_is_absence(action, payload, names):
    without = {key: value for key, value in payload.items() if value != ""}
    empty, absent = fact(action, payload), fact(action, without)
    assert attrs.asdict(empty, filter=lambda field, _: field.name in names) == attrs.asdict(
        absent, filter=lambda field, _: field.name in names
    )


# --- answers -------------------------------------------------------------------------------------

KEYS = "configurationKey"
ANSWERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("GetConfiguration", {KEYS: [{"key": "A", "readonly": False, "value": "x" * 501}]},
     {KEYS: [{"key": "A", "readonly": False, "value": "x" * 501}]}),
    ("GetConfiguration", {KEYS: [{"key": "A", "readonly": "True", "value": 300}]},
     {KEYS: [{"key": "A", "readonly": True, "value": "300"}]}),
    ("GetConfiguration", {KEYS: [{"key": "A", "readonly": 0, "value": Decimal("1.50")}]},
     {KEYS: [{"key": "A", "readonly": False, "value": "1.50"}]}),
    ("GetConfiguration", {KEYS: [{"key": "A", "readonly": "0", "value": True}]},
     {KEYS: [{"key": "A", "readonly": False, "value": "true"}]}),
    ("GetConfiguration", {KEYS: [{"key": "A", "readonly": Decimal(1), "value": ["a", 1]}]},
     {KEYS: [{"key": "A", "readonly": True, "value": '["a",1]'}]}),
    ("GetConfiguration", {KEYS: [{"key": "A", "value": None}], "unknownKey": None},
     {KEYS: [{"key": "A"}]}),
    ("GetConfiguration", {KEYS: [{"key": "A", "readonly": None}], "unknownKey": [7, None, "b"]},
     {KEYS: [{"key": "A"}], "unknownKey": ["7", "b"]}),
    ("GetConfiguration", {KEYS: {"key": "A", "readonly": True}, "unknownKey": "b"},
     {KEYS: [{"key": "A", "readonly": True}], "unknownKey": ["b"]}),
    ("GetConfiguration", {KEYS: [{"key": "A", "readonly": 1, "value": ""}]},
     {KEYS: [{"key": "A", "readonly": True, "value": ""}]}),
    ("GetConfiguration", {"ConfigurationKey": [{"Key": "A", "readOnly": True}]},
     {KEYS: [{"key": "A", "readonly": True}]}),
    ("GetConfiguration", {KEYS: None, "unknownKey": ["k" * 51]}, {"unknownKey": ["k" * 51]}),
    ("UnlockConnector", {"status": "Accepted"}, {"status": "Accepted"}),
    ("UnlockConnector", {"status": "unlocked"}, {"status": "Unlocked"}),
    ("Reset", {"status": "accepted"}, {"status": "Accepted"}),
    ("Reset", {"Status": "ACCEPTED"}, {"status": "Accepted"}),
    ("ClearCache", {"status": "notSupported"}, {"status": "NotSupported"}),
    ("SendLocalList", {"status": "HashError", "hash": None}, {"status": "HashError", "hash": None}),
    ("GetLocalListVersion", {"listVersion": "-1"}, {"listVersion": -1}),
    ("GetDiagnostics", {"fileName": None}, {}),
    ("GetDiagnostics", {"fileName": 7}, {"fileName": "7"}),
    ("DataTransfer", {"status": "Accepted", "data": {"a": 1}},
     {"status": "Accepted", "data": '{"a":1}'}),
    ("GetInstalledCertificateIds", {"status": "NotFound", "certificateHashData": []},
     {"status": "NotFound", "certificateHashData": []}),
    ("GetInstalledCertificateIds",
     {"status": "Accepted", "certificateHashData": {
         "hashAlgorithm": "sha256", "issuerNameHash": "a", "issuerKeyHash": "b",
         "serialNumber": 12}},
     {"status": "Accepted", "certificateHashData": [{
         "hashAlgorithm": "SHA256", "issuerNameHash": "a", "issuerKeyHash": "b",
         "serialNumber": "12"}]}),
    ("GetCompositeSchedule",
     {"status": "Accepted", "connectorId": "1", "chargingSchedule": {
         "chargingRateUnit": "a", "duration": None, "chargingSchedulePeriod": {
             "startPeriod": Decimal("0.0"), "limit": "16.05", "numberPhases": None}}},
     {"status": "Accepted", "connectorId": 1, "chargingSchedule": {
         "chargingRateUnit": "A", "chargingSchedulePeriod": [
             {"startPeriod": 0, "limit": Decimal("16.05")}]}}),
]  # fmt: skip


@pytest.mark.parametrize(("action", "payload", "meant"), ANSWERS)
def test_an_answer_is_read_as_it_is_meant(action, payload, meant):
    answer = read_result(action, payload)
    assert answer.payload == meant
    assert [type(value) for value in answer.payload.values()] == [
        type(value) for value in meant.values()
    ]
    assert answer.deviations
    if set(payload) <= set(schema_of(f"{action}Response")["properties"]):
        with pytest.raises(InvalidResponse) as caught:
            read_result(action, payload, lenient=False)
        assert caught.value.payload is payload


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("GetConfiguration", {KEYS: [{"readonly": True}]}),
        ("GetConfiguration", {KEYS: ["A"]}),
        ("GetConfiguration", {KEYS: [{"key": "A", "readonly": "perhaps"}]}),
        ("GetConfiguration", {"unknownKey": [{"a": 1}]}),
        ("UnlockConnector", {"status": "Perhaps"}),
        ("UnlockConnector", {"status": True}),
        ("UnlockConnector", {"status": ["Unlocked"]}),
        ("GetLocalListVersion", {"listVersion": "new"}),
        ("GetLocalListVersion", {"listVersion": None}),
    ],
)
def test_an_answer_that_cannot_be_read_keeps_its_payload(action, payload):
    with pytest.raises(InvalidResponse) as caught:
        read_result(action, payload)
    assert caught.value.payload is payload
    assert "A" not in str(caught.value).replace(action, "").replace(KEYS, "")


@pytest.mark.parametrize("action", ["UpdateFirmware", "GetDiagnostics", "GetConfiguration"])
def test_an_answer_without_a_payload_is_empty_where_it_may_be(action):
    answer = read_result(action, None)
    assert answer.payload == {}
    assert answer.deviations
    with pytest.raises(InvalidResponse):
        read_result(action, None, lenient=False)
    for needed in ("Reset", "UnlockConnector", "GetLocalListVersion"):
        with pytest.raises(InvalidResponse) as caught:
            read_result(needed, None)
        assert caught.value.payload is None
