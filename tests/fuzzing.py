"""What a broken or hostile peer might send, and what must hold whatever it was.

`frame` and `rpc` make a message from a source of chance (Hypothesis' own, or a seeded one over a
real socket); `feed_frame` and `feed_rpc` hand it to the parsers and check what comes of it.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

from gateway.domain.commands import Failed
from gateway.journal.codec import dump, load
from gateway.northbound.rpc_messages import RpcError, command_of, read_rpc, response_message
from gateway.northbound.telemetry import telemetry_rows
from gateway.southbound.messages import (
    CHARGE_POINT_ACTIONS,
    FrameError,
    Request,
    decode,
    encode_error,
    encode_result,
)
from gateway.southbound.request_events import event_of

NOW = datetime(2026, 6, 1, 10, tzinfo=UTC)
WHEN = "2026-06-01T10:00:00Z"
CODES = {
    "NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError",
    "FormationViolation", "PropertyConstraintViolation", "OccurenceConstraintViolation",
    "TypeConstraintViolation", "GenericError",
}  # fmt: skip
_SAMPLE = {"value": "1234", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
_PAYLOADS: dict[str, dict[str, Any]] = {
    "Authorize": {"idTag": "TAG"},
    "BootNotification": {"chargePointVendor": "V", "chargePointModel": "M", "iccid": "1"},
    "DataTransfer": {"vendorId": "V", "messageId": "M", "data": "D"},
    "DiagnosticsStatusNotification": {"status": "Idle"},
    "FirmwareStatusNotification": {"status": "Idle"},
    "Heartbeat": {},
    "MeterValues": {
        "connectorId": 1,
        "transactionId": 1,
        "meterValue": [{"timestamp": WHEN, "sampledValue": [_SAMPLE, {"value": "16"}]}],
    },
    "SecurityEventNotification": {"type": "T", "timestamp": WHEN, "techInfo": "I"},
    "StartTransaction": {"connectorId": 1, "idTag": "TAG", "meterStart": 0, "timestamp": WHEN},
    "StatusNotification": {"connectorId": 1, "status": "Available", "errorCode": "NoError"},
    "StopTransaction": {
        "transactionId": 1,
        "meterStop": 9,
        "timestamp": WHEN,
        "transactionData": [{"timestamp": WHEN, "sampledValue": [_SAMPLE]}],
    },
}
_ACTIONS = sorted(CHARGE_POINT_ACTIONS | {"Reset", "heartbeat", "__class__", ""})
_RPCS: list[Any] = [
    {"device": "CP-1", "data": {"id": 1, "method": "Reset", "params": {"type": "Soft"}}},
    {"device": "CP-1/1", "data": {"id": 0, "method": "remoteStart", "params": None}},
    {"device": "CP-1", "id": 1, "data": {"status": "Accepted"}},
]
_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.1, 1e308, "", " ", "0",
    "-1", "1e9", "NaN", "0x1", "x" * 60, "\0", "\u202e", "\ud800", "\N{GRINNING FACE}", "٣", "1_0",
    [], {}, [[]], {"": {}}, "1970-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "2026-02-30",
    "Wh", "kWh", "Energy.Active.Import.Interval", "SignedData", "CP-1/99999999999", "/", "CP-1/",
]  # fmt: skip
_PIECES = [
    "[", "]", "{", "}", ",", ":", '"', "\\", "null", "NaN", "1e999", "-", "\\ud800", "\x00", "é",
    "9" * 400, "[" * 300, '"timestamp"', '{"":', "\ufeff",
]  # fmt: skip


def frame(chance: random.Random, unique_id: str = "") -> str:
    """A frame that is nearly one of OCPP-J, or one, or nothing of the kind.

    unique_id: its message id, where it has one; else it is whatever chance says.
    """
    action = chance.choice(_ACTIONS)
    message: list[Any] = [
        2 if chance.random() < 0.85 else chance.choice([3, 4, 5, "2", None]),
        unique_id or chance.choice(["1", "a-long-id", "", 7, None]),
        action,
        _bent(chance, _PAYLOADS.get(action, {})),
    ]
    if chance.random() < 0.1:
        del message[chance.randrange(4) :]
    return _torn(chance, json.dumps(message))


def rpc(chance: random.Random) -> bytes:
    """A message on the RPC topic, likewise."""
    text = _torn(chance, json.dumps(_bent(chance, chance.choice(_RPCS))))
    return text.encode(errors="surrogatepass")


def _bent(chance: random.Random, value: Any) -> Any:
    """A copy in which some values are odd, missing or doubled."""
    if chance.random() < 0.06:
        return chance.choice(_ODD)
    if isinstance(value, dict):
        kept = {key: _bent(chance, inner) for key, inner in value.items() if chance.random() < 0.94}
        if chance.random() < 0.06:
            kept[str(chance.choice(_ODD))] = chance.choice(_ODD)
        return kept
    if isinstance(value, list):
        return [_bent(chance, inner) for inner in value for _ in range(chance.choice([1, 1, 1, 2]))]
    return value


def _torn(chance: random.Random, text: str) -> str:
    """Mostly whole; else cut, or with a piece put somewhere."""
    if chance.random() < 0.8:
        return text
    at = chance.randrange(len(text) + 1)
    if chance.random() < 0.3:
        return text[:at]
    return text[:at] + chance.choice(_PIECES) + text[at + chance.choice([0, 0, 1, 5]) :]


# --- what must hold ----------------------------------------------------------------------------


def feed_frame(text: str) -> None:
    """It is read, refused in OCPP's words or passed over; what is read can be published."""
    try:
        message = decode(text)
    except FrameError as error:
        _check_refusal(error)
        return
    if not isinstance(message, Request):
        return
    assert isinstance(message.payload, dict)
    assert json.loads(encode_result(message.unique_id, {}))[0] == 3
    event = event_of(message.action, message.payload, charge_point_id="CP-1", received_at=NOW)
    if event is None:
        return
    assert load(*dump(event)) == event
    for row in telemetry_rows(event, "log"):
        json.dumps(row.values, allow_nan=False)


def _check_refusal(error: FrameError) -> None:
    if error.unique_id is None:
        return
    answer = json.loads(encode_error(error.unique_id, error.code, error.why))
    kind, unique_id, code, why, details = answer
    assert (kind, details) == (4, {})
    assert _same(unique_id, error.unique_id)
    assert code in CODES
    assert len(why) <= 255


def feed_rpc(payload: bytes) -> None:
    """It is a command, an echo of ours or no RPC; a command can be told apart and answered."""
    try:
        order = read_rpc(payload)
    except RpcError:
        return
    if order is None:
        return
    assert order.key == order.key
    command_of(order)
    answer = json.loads(response_message(order, Failed("NotConnected", "x")).payload)
    assert (answer["device"], answer["id"]) == (order.device, order.id)


def _same(shown: Any, given: Any) -> bool:
    return bool(shown == given or str(shown) == str(given) or isinstance(shown, float))
