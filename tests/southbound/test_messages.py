"""OCPP-J frames: what is read, what is answered, and in which words."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from importlib.resources import files

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.southbound import messages
from gateway.southbound.messages import (
    CHARGE_POINT_ACTIONS,
    TRANSACTION_ACTIONS,
    CallError,
    CallResult,
    FrameError,
    InvalidCall,
    InvalidResponse,
    Request,
    check_call,
    decode,
    encode_call,
    encode_error,
    encode_result,
    read_result,
)


def refused(text: str) -> FrameError:
    with pytest.raises(FrameError) as caught:
        decode(text)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        "{}",
        '"x"',
        "null",
        "12",
        "[]",
        "[2]",
        "[null,null]",
        "[[2]]",
        '[9,"1"]',
        '[-1,"1"]',
        '["2","1","Heartbeat",{}]',
        '[true,"1","Heartbeat",{}]',
        '[2.0,"1","Heartbeat",{}]',
        '[2,null,"Heartbeat",{}]',
        '[2,[1],"Heartbeat",{}]',
        '[2,{"a":1},"Heartbeat",{}]',
        '[2,true,"Heartbeat",{}]',
        '[2,null,"StartTransaction",{"meterStart":NaN}]',
        '[2,"1',
        "[2,12",
        '[2,"\\x","Heartbeat",{}]',
        '[3,1,{"status":NaN}]',
        '[2.0,"1","Heartbeat",NaN]',
        '[22,"1","Heartbeat",NaN]',
        '{"a":[2,"1","Heartbeat",NaN]}',
        "[" * 200_000,
        "[3,1,{}]",
        "[3,null,null]",
        "[4,[],1,2,3]",
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_what_is_no_message_has_no_id_to_answer_to(text):
    assert refused(text).unique_id is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('[2,"m"]', "FormationViolation"),
        ('[2,"m",7,{}]', "FormationViolation"),
        ('[2,"m",["x"],{}]', "FormationViolation"),
        ('[2,"m","NoSuchAction",{}]', "NotImplemented"),
        ('[2,"m","heartbeat",{}]', "NotImplemented"),
        ('[2,"m","../../v201/schemas/HeartbeatRequest",{}]', "NotImplemented"),
        ('[2,"m","Reset",{"type":"Hard"}]', "NotSupported"),
        ('[2,"m","Authorize",{}]', "OccurenceConstraintViolation"),
        ('[2,"m","BootNotification",{"chargePointVendor":"x"}]', "OccurenceConstraintViolation"),
        ('[2,"m","Authorize",{"idTag":true}]', "TypeConstraintViolation"),
        ('[2,"m","Authorize",{"idTag":{"id":"A"}}]', "TypeConstraintViolation"),
        ('[2,"m","Authorize",{"idTag":null}]', "TypeConstraintViolation"),
        ('[2,"m","StatusNotification",{"connectorId":1%s,"errorCode":"NoError",'
         '"status":"Available"}]' % ("0" * 30), "PropertyConstraintViolation"),
        ('[2,"m","StatusNotification",{"connectorId":9223372036854775808,"errorCode":"NoError",'
         '"status":"Available"}]', "PropertyConstraintViolation"),
        ('[2,"m","StatusNotification",{"connectorId":1,"errorCode":"NoError"}]',
         "OccurenceConstraintViolation"),
        ('[2,"m","StatusNotification",{"status":"Available","errorCode":"NoError"}]',
         "OccurenceConstraintViolation"),
        ('[2,"m","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Available",'
         '"info":{}}]', "TypeConstraintViolation"),
        ('[2,"m","FirmwareStatusNotification",{}]', "OccurenceConstraintViolation"),
        ('[2,"m","Authorize",[]]', "FormationViolation"),
        ('[2,"m","StartTransaction",[]]', "FormationViolation"),
        ('[2,"m","MeterValues","x"]', "FormationViolation"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_answered_in_the_words_of_ocpp_1_6(text, code):
    error = refused(text)
    assert (error.code, error.unique_id) == (code, "m")


STOP = '"StopTransaction",{"transactionId":1,"meterStop":%s,"timestamp":"x"}'
BROKEN = {
    "NaN": f'[2,"m",{STOP % "NaN"}]',
    "-Infinity": f'[2,"m",{STOP % "-Infinity"}]',
    "nan in lower case": f'[2,"m",{STOP % "nan"}]',
    "a number of nothing": f'[2,"m",{STOP % ""}]',
    "01": f'[2,"m",{STOP % "01"}]',
    "1.": f'[2,"m",{STOP % "1."}]',
    "+1": f'[2,"m",{STOP % "+1"}]',
    "hexadecimal": f'[2,"m",{STOP % "0x1F"}]',
    "words of Python": f'[2,"m",{STOP % "None"}]',
    "a comma too many": '[2,"m","Heartbeat",{},]',
    "a comma too many in an object": '[2,"m","Authorize",{"idTag":"A",}]',
    "no comma": '[2,"m","Authorize",{"idTag":"A" "x":1}]',
    "no colon": '[2,"m","Authorize",{"idTag" "A"}]',
    "single quotes": """[2,"m","Authorize",{'idTag':'A'}]""",
    "single quotes everywhere": """[2, 'm', 'Authorize', {'idTag': 'A'}]""",
    "names without quotes": '[2,"m","Authorize",{idTag:"A"}]',
    "a comment": '[2,"m","Heartbeat",{}/* all is well */]',
    "a line break in a text": '[2,"m","DataTransfer",{"vendorId":"a\nb"}]',
    "an escape that is none": r'[2,"m","DataTransfer",{"vendorId":"a\d"}]',
    "cut at its end": '[2,"m","Heartbeat",{}',
    "cut in its payload": '[2,"m","StatusNotification",{"connectorId":1,"sta',
    "cut in its action": '[2,"m","Status',
    "cut behind its id": '[2,"m"',
    "two messages": '[2,"m","Heartbeat",{}][2,"n","Heartbeat",{}]',
    "a zero byte behind": '[2,"m","Heartbeat",{}]\0',
    "a byte order mark": '\ufeff[2,"m","Heartbeat",{}]',
    "blanks": '\r\n [ 2 ,\t"m" , "Heartbeat" , NaN ]',
    "too deep": '[2,"m","DataTransfer",{"data":' + "[" * 50_000 + "]" * 50_000 + "}]",
    "half a character too": '[2,"m","DataTransfer",{"data":"\\ud800","x":NaN}]',
    "thousands of digits too": '[2,"m","Authorize",{"idTag":%s,"x":NaN}]' % ("9" * 5_000),
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_call_that_is_not_json_is_answered_where_its_id_can_be_read(text):
    """A charge point that hears nothing sends the same again, and its queue stands behind it."""
    error = refused(text)
    assert (error.code, error.unique_id) == ("FormationViolation", "m")


@pytest.mark.parametrize(
    ("written", "unique_id"),
    [
        ('""', ""),
        (r'"a\"b\\"', 'a"b\\'),
        (r'"\u006d\u00fc"', "mü"),
        ('"a\nb"', "a\nb"),
        ('"\\ud800"', "?"),
        ("17", 17),
        ("-1.50", Decimal("-1.50")),
    ],
)
def test_the_id_of_what_is_not_json_comes_back_as_it_went(written, unique_id):
    error = refused(f'[2,{written},"Heartbeat",NaN]')
    assert error.unique_id == unique_id
    assert json.loads(encode_error(error.unique_id, error.code, error.why))[0] == 4


@given(st.text(max_size=30), st.integers(0, 40), st.sampled_from(['"', "]", "}", ",", "NaN", "\\"]))
@settings(max_examples=300, deadline=None)
def test_a_torn_call_is_answered_with_its_own_id_or_not_at_all(unique_id, at, piece):
    text = json.dumps([2, unique_id, "Authorize", {"idTag": "A"}])
    head = len(json.dumps([2, unique_id])) - 1
    torn = text[: head + 1 + at] + piece + text[head + 1 + at :]
    try:
        answered = decode(torn).unique_id
    except FrameError as error:
        answered = error.unique_id
    assert answered == unique_id


@pytest.mark.parametrize("action", sorted(TRANSACTION_ACTIONS))
@pytest.mark.parametrize("payload", ["{}", "null", '{"x":1}', '{"connectorId":[],"idTag":7}'])
def test_a_transaction_message_is_never_refused_for_its_content(action, payload):
    request = decode(f'[2,"m","{action}",{payload}]')
    assert isinstance(request, Request)
    assert request.deviations


@pytest.mark.parametrize("frame", ['[2,"m","Heartbeat",null]', '[2,"m","Heartbeat"]'])
def test_a_payload_may_be_null_or_missing(frame):
    assert decode(frame) == Request("m", "Heartbeat", {})


@pytest.mark.parametrize("unique_id", ['"x"', '""', "17", "1.50", '"' + "x" * 400 + '"'])
def test_the_message_id_comes_back_as_it_went(unique_id):
    request = decode(f'[2,{unique_id},"Heartbeat",{{}}]')
    assert encode_result(request.unique_id, {}) == f"[3,{unique_id},{{}}]"


def test_a_fifth_element_is_tolerated():
    assert decode('[2,"m","Heartbeat",{},"more"]') == Request("m", "Heartbeat", {})


@pytest.mark.parametrize(
    "payload",
    [
        {"connectorId": 1, "status": "Weird", "errorCode": "Error"},
        {"connectorId": 1, "status": "Available", "errorCode": "NoError", "extra": {"a": 1}},
        {"connectorId": 1, "status": "Available", "errorCode": "NoError", "timestamp": "noon"},
    ],
)
def test_what_can_be_read_all_the_same_is_accepted(payload):
    request = decode(json.dumps([2, "m", "StatusNotification", payload]))
    assert request.payload == payload


def test_bends_are_named():
    request = decode(
        '[2,"m","StatusNotification",{"connectorId":"1","status":"?","errorCode":"NoError"}]'
    )
    assert [where.split(":")[0] for where in request.deviations] == ["connectorId", "status"]


def test_half_a_character_is_replaced_and_the_message_served():
    request = decode('[2,"m","Authorize",{"idTag":"A\\ud800B"}]')
    assert request.payload == {"idTag": "A?B"}
    assert decode('[2,"m","Authorize",{"idTag":"\\ud83d\\ude00"}]').payload == {"idTag": "😀"}


def test_a_repeated_key_counts_as_it_was_said_last():
    assert decode('[2,"m","Authorize",{"idTag":"BAD","idTag":"OK"}]').payload == {"idTag": "OK"}


def test_fractions_keep_their_digits():
    request = decode('[2,"m","StartTransaction",{"meterStart":0.15005000000000002}]')
    assert request.payload["meterStart"] == Decimal("0.15005000000000002")


def test_answers_are_read_as_they_come():
    assert decode('[3,"g1",{"status":"Accepted"}]') == CallResult("g1", {"status": "Accepted"})
    assert decode('[3,"g1"]') == CallResult("g1", None)
    assert decode('[4,"g1","InternalError","why",{"a":1}]') == CallError(
        "g1", "InternalError", "why", {"a": 1}
    )
    assert decode('[4,"g1"]') == CallError("g1", "GenericError", "", None)
    assert decode('[4,"g1",null,null]') == CallError("g1", "GenericError", "", None)
    assert decode('[4,"g1","X","d",{},1]').code == "X"


@pytest.mark.parametrize(
    "text", ['[3,"g1",{"status":NaN}]', '[3,"g1",{"status":', '[4,"g1","a "word""]']
)
def test_an_answer_that_is_not_json_is_kept_whole_for_whoever_asked(text):
    assert decode(text) == CallResult("g1", text)


def test_an_error_has_five_elements_and_a_bounded_text():
    assert json.loads(encode_error("m", "InternalError", "x" * 999)) == [
        4, "m", "InternalError", "x" * 255, {},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("Heartbeat", {}),
        ("NoSuchAction", {}),
        ("Reset", {}),
        ("Reset", {"type": "Medium"}),
        ("RemoteStartTransaction", {"idTag": "x" * 21}),
        ("RemoteStopTransaction", {"transactionId": "1"}),
        ("RemoteStopTransaction", {"transactionId": 1, "extra": 1}),
    ],
)
def test_we_never_send_what_ocpp_does_not_allow(action, payload):
    with pytest.raises(InvalidCall):
        check_call(action, payload)


def test_a_limit_with_one_decimal_goes_out_as_it_is():
    """`multipleOf 0.1` is checked exactly: 21.4 is a multiple, though no binary float is."""
    schedule = {
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": Decimal("21.4")}],
    }
    profile = {
        "chargingProfileId": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Absolute",
        "chargingSchedule": schedule,
    }
    payload = {"connectorId": 1, "csChargingProfiles": profile}
    check_call("SetChargingProfile", payload)
    assert '"limit":21.4}' in encode_call("1", "SetChargingProfile", payload)
    schedule["chargingSchedulePeriod"][0]["limit"] = Decimal("21.41")
    with pytest.raises(InvalidCall):
        check_call("SetChargingProfile", payload)


def test_an_answer_that_breaks_its_schema_is_told_with_its_payload():
    for payload in ({"status": "Maybe"}, {"status": None}, {"status": ""}, {}, [], None, "x"):
        with pytest.raises(InvalidResponse) as caught:
            read_result("Reset", payload)
        assert caught.value.payload == payload
    assert read_result("GetDiagnostics", {}).payload == {}
    answer = {"status": "Accepted", "extra": 1}
    assert read_result("Reset", answer).payload == answer
    assert read_result("Reset", answer, lenient=False).payload == answer


# --- held to the ocpp package's schemas by another validator -------------------------------------

SCHEMAS = files("ocpp.v16") / "schemas"


def schema_of(name: str) -> dict:
    return json.loads((SCHEMAS / f"{name}.json").read_text("utf-8-sig"))


def payloads(schema: dict) -> st.SearchStrategy:
    """JSON that nearly fits a schema: some of it does, some breaks it in one place."""
    junk = st.sampled_from([None, True, 5, "5", "x" * 501, [], {}, "Accepted"])
    if "enum" in schema:
        fitting: st.SearchStrategy = st.sampled_from(schema["enum"])
    elif schema.get("type") == "object":
        known = {key: payloads(inner) for key, inner in schema.get("properties", {}).items()}
        needed = {key: known[key] for key in schema.get("required", []) if key in known}
        rest = {key: value for key, value in known.items() if key not in needed}
        fitting = st.fixed_dictionaries(needed, optional=rest)
    elif schema.get("type") == "array":
        fitting = st.lists(payloads(schema["items"]), min_size=1, max_size=2)
    elif schema.get("type") == "integer":
        fitting = st.integers(-1, 100)
    elif schema.get("type") == "number":
        fitting = st.integers(0, 1000).map(lambda tenths: tenths / 10)
    else:
        fitting = st.text("aZ09", max_size=schema.get("maxLength", 20))
    return st.one_of(*[fitting] * 12, junk)


@pytest.mark.parametrize("action", sorted(CHARGE_POINT_ACTIONS))
def test_our_judgement_of_requests_is_the_schemas_own(action):
    """Two validators that share no code agree on generated payloads."""
    schema = schema_of(action)
    reference = jsonschema.Draft4Validator(schema)

    @given(payloads(schema).filter(lambda payload: isinstance(payload, dict)))
    @settings(max_examples=100, deadline=None)
    def agrees(payload):
        assert messages._REQUESTS[action].is_valid(payload) == reference.is_valid(payload)

    agrees()


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
@settings(max_examples=500, deadline=None)
def test_no_text_makes_decode_raise_anything_but_its_own_error(text):
    with suppress(FrameError):
        decode(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=20,
    )
)
@settings(max_examples=500, deadline=None)
def test_no_json_makes_decode_raise_anything_but_its_own_error(value):
    try:
        decode(json.dumps([2, "m", "StatusNotification", value]))
        decode(json.dumps(value))
    except FrameError:
        pass
