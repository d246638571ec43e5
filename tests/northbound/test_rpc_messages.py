"""ThingsBoard's requests: what is one, what is none, and that none can do harm."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.commands import Command, Done, Failed
from gateway.northbound.rpc_messages import (
    RPC_TOPIC,
    RpcError,
    RpcRequest,
    command_of,
    read_rpc,
    response_message,
)


def message(device="CP-1", **data) -> bytes:
    return json.dumps({"device": device, "data": data}).encode()


@pytest.mark.parametrize("params", [None, True, False, 0, 1.5, "x", "", {}, [], {"a": [1, None]}])
def test_params_may_be_any_json(params):
    rpc = read_rpc(message(id=0, method="m", params=params))
    assert rpc == RpcRequest("CP-1", 0, "m", params)


def test_params_may_be_missing():
    assert read_rpc(message(id=0, method="m")) == RpcRequest("CP-1", 0, "m", None)


def test_the_id_0_is_answered_like_any_other():
    rpc = read_rpc(message(id=0, method="Reset", params={}))
    reply = response_message(rpc, Done({"status": "Accepted"}))
    assert reply.topic == RPC_TOPIC
    assert json.loads(reply.payload) == {"device": "CP-1", "id": 0, "data": {"status": "Accepted"}}


def test_a_failure_is_told_inside_the_answer():
    reply = response_message(
        RpcRequest("CP-1", 3, "Reset", None), Failed("NotConnected", "it is away")
    )
    error = {"code": "NotConnected", "message": "it is away"}
    assert json.loads(reply.payload) == {"device": "CP-1", "id": 3, "data": {"error": error}}


@given(st.integers(0), st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=9)))
def test_the_echo_of_an_answer_is_no_request(number, payload):
    assert (
        read_rpc(response_message(RpcRequest("CP-1", number, "m", None), Done(payload)).payload)
        is None
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"NaN",
        b"\xff\xfe",
        b'"\\ud800"',
        b"[" * 100_000,
        b'{"device":"CP-1"}',
        b'{"data":{"id":1,"method":"m"}}',
        b'{"device":7,"data":{"id":1,"method":"m"}}',
        b'{"device":"CP-1","data":[]}',
        message(id="1", method="m"),
        message(id=True, method="m"),
        message(id=None, method="m"),
        message(id=1.0, method="m"),
        message(method="m"),
        message(id=1),
        message(id=1, method=None),
        message(id=1, method={}),
    ],
)
def test_what_asks_for_nothing_that_could_be_answered_says_so(payload):
    with pytest.raises(RpcError):
        read_rpc(payload)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_data = st.fixed_dictionaries({}, optional={"id": _json, "method": _json, "params": _json})
_messages = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet='{}[]",:0123456789.eE-+ \\ntrfalsu', max_size=60).map(str.encode),
    _json.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
    st.fixed_dictionaries(
        {}, optional={"device": st.text() | _json, "data": _data, "id": _json}
    ).map(lambda value: json.dumps(value).encode()),
)


@given(_messages)
def test_whatever_comes_is_a_request_or_no_request_and_nothing_else(payload):
    try:
        rpc = read_rpc(payload)
    except RpcError:
        return
    if rpc is not None:
        assert rpc.key == rpc.key
        command = command_of(rpc)
        assert command is None or command.method == rpc.method
        response_message(rpc, Done({"status": "Accepted"}))


@pytest.mark.parametrize(
    ("device", "whom"),
    [
        ("CP-1", ("CP-1", 0)),
        ("CP-1/2", ("CP-1", 2)),
        ("CP-1/0", None),
        ("CP-1/02", None),
        ("CP-1/x", None),
        ("CP-1/", None),
        ("CP-1/1/2", None),
        ("CP-1/²", None),
    ],
)
def test_a_device_is_a_charge_point_or_its_connector(device, whom):
    command = command_of(RpcRequest(device, 1, "m", {"a": 1}))
    if whom is None:
        assert command is None
    else:
        assert command == Command(
            charge_point_id=whom[0], connector_id=whom[1], method="m", params={"a": 1}
        )


def test_only_what_is_wholly_equal_is_a_repetition():
    first = RpcRequest("CP-1", 1, "m", {"a": 1})
    assert first.key == RpcRequest("CP-1", 1, "m", {"a": 1}).key
    others = [
        RpcRequest("CP-2", 1, "m", {"a": 1}),
        RpcRequest("CP-1", 2, "m", {"a": 1}),
        RpcRequest("CP-1", 1, "n", {"a": 1}),
        RpcRequest("CP-1", 1, "m", {"a": True}),
        RpcRequest("CP-1", 1, "m", None),
    ]
    assert first.key not in {other.key for other in others}
