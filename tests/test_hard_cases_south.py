"""What frames are answered, and the hard cases' group B, over the wire.

Each case ends with a Heartbeat on the same connection: whatever was said, it is served on.
"""

# ruff: noqa: UP031  JSON is full of the braces that str.format wants for itself

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.app import AppSettings
from gateway.domain.events import (
    ConnectorStatusChanged,
    DataTransferred,
    FramesRejected,
    TransactionStarted,
)
from gateway.southbound.settings import SouthboundSettings

from .conftest import Gateway, open_gateway
from .fakes import Refused
from .southbound.raw_websocket import TEXT, frame, opened

LAST = b'[2,"last","Heartbeat",{}]'
SURROGATE = '"\\ud800"'


async def answers(gateway: Gateway, *texts: str | bytes) -> list[Any]:
    """What is answered to the texts, before the answer to a last Heartbeat."""
    async with opened(gateway, "CP-1") as peer:
        for text in (*texts, LAST):
            await peer.send(frame(TEXT, text.encode() if isinstance(text, str) else text))
        responses = []
        while (message := await peer.message())[1] != "last":
            responses.append(message)
        assert message[0] == 3
        return responses


SILENT = {
    "HC-30 a word": "hello",
    "HC-30 nothing": "",
    "HC-30 cut": '[2,"1',
    "HC-30 byte order mark": '\ufeff{"a":1',
    "HC-31 object": "{}",
    "HC-31 text": '"x"',
    "HC-31 null": "null",
    "HC-31 number": "12",
    "HC-31 empty": "[]",
    "HC-31 only a type": "[2]",
    "HC-31 nulls": "[null,null]",
    "HC-31 nested": "[[2]]",
    "HC-32 type 9": '[9,"m","Heartbeat",{}]',
    "HC-32 type -1": '[-1,"m","Heartbeat",{}]',
    "HC-32 type as text": '["2","m","Heartbeat",{}]',
    "HC-32 true": '[true,"m","Heartbeat",{}]',
    "HC-32 2.0": '[2.0,"m","Heartbeat",{}]',
    "HC-42 no id": '[2,null,"Heartbeat",{}]',
    "HC-42 a list as id": '[2,[1],"Heartbeat",{}]',
    "HC-42 an object as id": '[2,{"a":1},"Heartbeat",{}]',
    "HC-44 result": '[3,"nope",{}]',
    "HC-44 error": '[4,"nope"]',
    "HC-44 nulls": "[3,null,null]",
    "HC-44 objects": "[3,{},{}]",
    "HC-44 a list": "[4,[],1,2,3]",
    "HC-44 one that we might have sent": '[3,"g1",{"status":"Accepted"}]',
    "HC-55 deep": "[" * 200_000,
}


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT)
async def test_what_cannot_be_answered_is_counted_and_the_connection_serves_on(gateway, text):
    assert await answers(gateway, text) == []
    (event,) = gateway.events(FramesRejected)
    assert event.total == 1
    assert sum(gateway.running.connections.rejected_frames.values()) == 1


BOOT_WITHOUT_MODEL = '{"chargePointVendor":"x"}'
STATUS = '"connectorId":%s,"status":"Available","errorCode":"NoError"'
ERRORS = {
    "HC-33 unknown action": ('"NoSuchAction",{}', "NotImplemented"),
    "HC-33 MicroOcpp": ('"CustomOperation",{}', "NotImplemented"),
    "HC-35 case": ('"heartbeat",{}', "NotImplemented"),
    "a path": ('"../../../etc/passwd",{}', "NotImplemented"),
    "HC-34 Reset": ('"Reset",{"type":"Hard"}', "NotSupported"),
    "HC-34 RemoteStart": ('"RemoteStartTransaction",{"idTag":"A"}', "NotSupported"),
    "no text as action": ("7,{}", "FormationViolation"),
    "HC-36 nothing": ('"Authorize",{}', "OccurenceConstraintViolation"),
    "HC-36 half": (f'"BootNotification",{BOOT_WITHOUT_MODEL}', "OccurenceConstraintViolation"),
    "HC-37 no text": ('"Authorize",{"idTag":[5]}', "TypeConstraintViolation"),
    "HC-37 no number": (
        '"StatusNotification",{%s}' % (STATUS % '"one"'),
        "TypeConstraintViolation",
    ),
    "a fraction of a connector": (
        '"StatusNotification",{%s}' % (STATUS % '"1.5"'),
        "TypeConstraintViolation",
    ),
    "HC-56 2^63 elsewhere": (
        '"StatusNotification",{%s}' % (STATUS % 2**63),
        "PropertyConstraintViolation",
    ),
    "a list as payload": ('"Authorize",["A"]', "FormationViolation"),
    "a text as payload": ('"Heartbeat","x"', "FormationViolation"),
    "Start with a list": ('"StartTransaction",[]', "FormationViolation"),
    "Stop with a text": ('"StopTransaction","x"', "FormationViolation"),
    "MeterValues with a number": ('"MeterValues",5', "FormationViolation"),
    "HC-30 cut": ('"Heartbeat",{', "FormationViolation"),
    "HC-54 NaN": ('"StartTransaction",{"meterStart":NaN}', "FormationViolation"),
    "HC-54 Infinity": ('"StartTransaction",{"meterStart":Infinity}', "FormationViolation"),
    "HC-54 -Infinity": ('"StartTransaction",{"meterStart":-Infinity}', "FormationViolation"),
    "HC-55 deep data":
        ('"DataTransfer",{"data":%s%s}' % ("[" * 50_000, "]" * 50_000), "FormationViolation"),
}  # fmt: skip


@pytest.mark.parametrize(("rest", "code"), ERRORS.values(), ids=ERRORS)
async def test_a_wrong_call_gets_an_error_in_the_words_of_ocpp_1_6(gateway, rest, code):
    """Five elements, an object for details (OCPP-J 4.2.3)."""
    (answer,) = await answers(gateway, f'[2,"m",{rest}]')
    assert answer[:3] == [4, "m", code]
    assert isinstance(answer[3], str)
    assert answer[4:] == [{}]
    assert gateway.running.connections.rejected_frames[code] == 1


SERVED = {
    "HC-41 null": '[2,"m","Heartbeat",null]',
    "HC-41 three elements": '[2,"m","Heartbeat"]',
    "HC-48 five elements": '[2,"m","Heartbeat",{},{"a":1}]',
    "HC-59 blanks": ' \n[ 2 ,\t"m", "Heartbeat" , { } ]\r\n ',
    "HC-59 escapes": '[2,"\\u006d","\\u0048eartbeat",{}]',
    "HC-37 text as number": '[2,"m","StatusNotification",{%s}]' % (STATUS % '"1"'),
    "HC-59 1.0": '[2,"m","StatusNotification",{%s}]' % (STATUS % "1.0"),
    "HC-37 number as text": '[2,"m","Authorize",{"idTag":5}]',
    "HC-38 long tag": '[2,"m","Authorize",{"idTag":"%s"}]' % ("x" * 21),
    "HC-39 more": '[2,"m","StatusNotification",{%s,"more":{"a":[1]}}]' % (STATUS % "1"),
    "HC-40 enums": '[2,"m","StatusNotification",{"connectorId":1,"status":"?","errorCode":"!"}]',
    "HC-58 half a character": '[2,"m","DataTransfer",{"vendorId":"v","data":%s}]' % SURROGATE,
    "HC-58 zero byte": '[2,"m","DataTransfer",{"vendorId":"v","data":"A\\u0000B"}]',
    "HC-58 right to left": '[2,"m","DataTransfer",{"vendorId":"v","data":"\\u202eabc"}]',
    "HC-58 emoji": '[2,"m","Authorize",{"idTag":"\N{GRINNING FACE}"}]',
    "HC-56 2^63": '[2,"m","StopTransaction",{"transactionId":9223372036854775808}]',
    "HC-56 10^30": '[2,"m","StartTransaction",{"meterStart":1%s}]' % ("0" * 30),
    "HC-56 5000 digits": '[2,"m","StartTransaction",{"meterStart":%s}]' % ("9" * 5_000),
    "HC-56 5000 digits and half a character":
        '[2,"m","StartTransaction",{"meterStart":%s,"idTag":%s}]' % ("9" * 5_000, SURROGATE),
    "HC-56 a fraction": '[2,"m","StartTransaction",{"meterStart":1.5}]',
    "HC-54 1e999": '[2,"m","StartTransaction",{"meterStart":1e999}]',
    "1e9999999999999999999": '[2,"m","StartTransaction",{"meterStart":1e9999999999999999999}]',
    "1e-9999999999999999999": '[2,"m","MeterValues",{"transactionId":1e-9999999999999999999}]',
    "1e400 and half a character":
        '[2,"m","StartTransaction",{"meterStart":1e400,"idTag":%s}]' % SURROGATE,
    "Start of nothing": '[2,"m","StartTransaction",{}]',
    "Stop of null": '[2,"m","StopTransaction",null]',
    "MeterValues of nothing": '[2,"m","MeterValues"]',
}  # fmt: skip


@pytest.mark.parametrize("text", SERVED.values(), ids=SERVED)
async def test_what_can_be_read_is_answered(gateway, quiet_logs, text):
    (answer,) = await answers(gateway, text)
    assert answer[:2] == [3, "m"]
    assert [log for log in quiet_logs if log["log_level"] in ("error", "critical")] == []


async def test_numbers_beyond_reason_do_not_upset_what_they_stand_in(gateway):
    """HC-56: elsewhere than in a transaction they are of the wrong type."""
    for number in ("9" * 5_000, "1e9999999999999999999"):
        text = '[2,"m","StatusNotification",{%s}]' % (STATUS % number)
        assert (await answers(gateway, text))[0][:2] == [4, "m"]


@pytest.mark.parametrize(
    "unique_id", ['"x"', '""', "17", "1.50", "0", '"%s"' % ("x" * 400), '"\\u0000"', "1e400"]
)
@pytest.mark.parametrize(("action", "kind"), [("Heartbeat", 3), ("Nope", 4)])
async def test_the_message_id_comes_back_as_it_went(gateway, unique_id, action, kind):
    """HC-42."""
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(TEXT, f'[2,{unique_id},"{action}",{{}}]'.encode()))
        _, payload = await peer.frame()
    assert payload.decode().replace("E+", "e").startswith(f"[{kind},{unique_id},")


async def test_the_same_message_id_may_come_again(gateway):
    """HC-43."""
    responses = await answers(gateway, *['[2,"m","Heartbeat",{}]'] * 2, '[2,"m","Nope",{}]')
    assert [answer[:2] for answer in responses] == [[3, "m"], [3, "m"], [4, "m"]]


async def test_the_last_of_equal_keys_counts_for_judging_and_for_keeping(gateway):
    """HC-57."""
    text = '[2,"m","StartTransaction",{"idTag":"%s","idTag":"OK","connectorId":1}]' % ("x" * 21)
    (answer,) = await answers(gateway, text)
    assert answer[2]["idTagInfo"]["status"] == "Accepted"
    assert gateway.events(TransactionStarted)[0].id_tag == "OK"


async def test_what_is_read_leniently_is_kept_as_meant(gateway):
    await answers(gateway, SERVED["HC-37 text as number"], SERVED["HC-58 half a character"])
    assert gateway.events(ConnectorStatusChanged)[0].connector_id == 1
    assert gateway.events(DataTransferred)[0].data == "?"
    assert gateway.running.connections.deviating_requests == 1


async def test_a_strict_gateway_refuses_what_a_lenient_one_reads_but_no_transaction():
    """`lenient = false`."""
    async with open_gateway(
        settings=AppSettings(southbound=SouthboundSettings(lenient=False))
    ) as gateway:
        responses = await answers(
            gateway,
            SERVED["HC-37 text as number"],
            SERVED["HC-39 more"],
            SERVED["Start of nothing"],
            SERVED["MeterValues of nothing"],
        )
    assert [answer[0] for answer in responses] == [4, 4, 3, 3]
    assert responses[0][2] == responses[1][2] == "FormationViolation"


async def test_an_error_text_is_short_whatever_was_said(gateway):
    """OCPP-J 4.2.3: at most 255 characters."""
    (answer,) = await answers(gateway, json.dumps([2, "m", "y" * 100_000, {"y" * 1000: 1}]))
    assert answer[2] == "NotImplemented"
    assert len(answer[3]) <= 255


async def test_a_refused_call_leaves_no_trace_in_the_books(gateway):
    async with gateway.charger("CP-1") as charger:
        with pytest.raises(Refused):
            await charger.ask("StatusNotification", connectorId=1, errorCode="NoError")
        await gateway.settled()
    assert gateway.events(ConnectorStatusChanged) == []
    assert gateway.thingsboard.latest("CP-1")["rejected_frames"] == 1


@pytest.mark.parametrize("number", ["1e999999999", "-1e999999999", "1e-999999999", "0e999999999"])
@pytest.mark.parametrize(
    "frame",
    [
        '[2,"m","StartTransaction",{"connectorId":%s,"idTag":"A","meterStart":%s,"timestamp":"x"}]',
        '[2,"m","MeterValues",{"connectorId":%s,"transactionId":%s,"meterValue":[]}]',
        '[2,"m","StopTransaction",{"transactionId":%s,"meterStop":%s,"timestamp":"x"}]',
    ],
)
async def test_a_number_that_no_arithmetic_holds_is_answered_too(gateway, frame, number):
    """HC-56, HC-54: an exponent of nine digits overflows where it is only made positive."""
    ((kind, *_),) = await answers(gateway, frame % (number, number))
    assert kind == 3
