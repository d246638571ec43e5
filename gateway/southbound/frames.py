"""OCPP-J frames <-> values.  Sans-I/O: text in, values out; nothing here waits.

The schemas are the `ocpp` package's; they are compiled once into a fixed table by action, so
that no name which a peer sends is ever made into a path.  Numbers with a fraction are Decimal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from typing import Any

import attrs
import jsonschema_rs
import msgspec
from ocpp.v16.enums import Action

CALL, CALL_RESULT, CALL_ERROR = 2, 3, 4

TRANSACTION_ACTIONS = frozenset({"StartTransaction", "StopTransaction", "MeterValues"})
"""Always answered with a CALLRESULT, whatever is wrong with them: chargers drop what is refused."""

CHARGE_POINT_ACTIONS = TRANSACTION_ACTIONS | {
    "Authorize",
    "BootNotification",
    "DataTransfer",
    "DiagnosticsStatusNotification",
    "FirmwareStatusNotification",
    "Heartbeat",
    "LogStatusNotification",
    "SecurityEventNotification",
    "SignCertificate",
    "SignedFirmwareStatusNotification",
    "StatusNotification",
}
CENTRAL_SYSTEM_ACTIONS = {str(action.value) for action in Action} - CHARGE_POINT_ACTIONS | {
    "DataTransfer"
}

MessageId = str | int | Decimal


class FrameError(Exception):
    """The charge point broke OCPP-J.

    code: of OCPP-J 1.6 table 7, in its own spelling.
    unique_id: of the CALL that may be answered with a CALLERROR; None where there is none.
    """

    def __init__(self, code: str, why: str, unique_id: MessageId | None = None) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why
        self.unique_id = unique_id


class InvalidCall(Exception):
    """We were about to send what OCPP does not allow."""


class InvalidAnswer(Exception):
    """The charge point answered our call with what OCPP does not allow.  payload: as it came."""

    def __init__(self, why: str, payload: Any) -> None:
        super().__init__(why)
        self.payload = payload


@attrs.frozen
class Request:
    """A CALL from the charge point.

    bent: where it breaks the schema in a way that can be read all the same.
    long: it takes so long to read that the event loop is to serve others meanwhile.
    """

    unique_id: MessageId
    action: str
    payload: dict[str, Any]
    bent: tuple[str, ...] = ()
    long: bool = False


@attrs.frozen
class Result:
    """A CALLRESULT to one of our calls, not validated yet: only the caller knows its action."""

    unique_id: str
    payload: Any


@attrs.frozen
class Refusal:
    """A CALLERROR to one of our calls."""

    unique_id: str
    code: str
    description: str
    details: Any


def decode(text: str) -> Request | Result | Refusal:
    """Raises FrameError."""
    frame = _json(text)
    if not isinstance(frame, list) or len(frame) < 2:
        raise FrameError("FormationViolation", "not an OCPP-J message")
    kind, unique_id = frame[0], frame[1]
    if type(kind) is not int or kind not in (CALL, CALL_RESULT, CALL_ERROR):  # true == 1, 2.0 == 2
        raise FrameError("FormationViolation", f"no message type {str(kind)[:40]!r}")
    if isinstance(unique_id, bool) or not isinstance(unique_id, str | int | Decimal):
        raise FrameError("FormationViolation", "no usable message id")
    if kind == CALL:
        return _request(unique_id, frame)
    if not isinstance(unique_id, str):
        raise FrameError("FormationViolation", "an answer to no call of ours")
    if kind == CALL_RESULT:
        return Result(unique_id, frame[2] if len(frame) > 2 else None)
    code, description, details = (*frame[2:5], None, None, None)[:3]
    return Refusal(unique_id, str(code or "GenericError"), str(description or ""), details)


def check_call(action: str, payload: Mapping[str, Any]) -> None:
    """Raises InvalidCall where OCPP does not allow us to send this."""
    if action not in CENTRAL_SYSTEM_ACTIONS:
        raise InvalidCall(f"{action} is no message that a central system sends")
    for error in _REQUESTS[action].iter_errors(payload):
        raise InvalidCall(f"{action}: {_where(error)}{error.message}")


def encode_call(unique_id: str, action: str, payload: Mapping[str, Any]) -> str:
    """payload: checked by `check_call`."""
    return _dump([CALL, unique_id, action, payload])


def encode_result(unique_id: MessageId, payload: Mapping[str, Any]) -> str:
    return _dump([CALL_RESULT, unique_id, payload])


def encode_error(unique_id: MessageId, code: str, why: str) -> str:
    return _dump([CALL_ERROR, unique_id, code, why[:255], {}])


def read_result(action: str, payload: Any) -> dict[str, Any]:
    """The payload of an answer, valid against its schema.  Raises InvalidAnswer.

    Properties beyond the schema are let through: they do no harm to anybody.
    """
    if not isinstance(payload, dict):
        raise InvalidAnswer(f"{action}: the answer is no JSON object", payload)
    for error in _RESPONSES[action].iter_errors(payload):
        if error.schema_path[-1] != "additionalProperties":
            # The validator's own words would repeat the value, which may be a password.
            rule = f"breaks its schema's rule for {error.schema_path[-1]}"
            raise InvalidAnswer(f"{action}: {_where(error)}{rule}", payload)
    return payload


# --- decoding a request ------------------------------------------------------------------------


def _request(unique_id: MessageId, frame: list[Any]) -> Request:
    action = frame[2] if len(frame) > 2 else None
    if not isinstance(action, str):
        raise FrameError("FormationViolation", "a CALL without an action", unique_id)
    if action not in CHARGE_POINT_ACTIONS:
        if action in CENTRAL_SYSTEM_ACTIONS:
            raise FrameError("NotSupported", f"{action} is for charge points", unique_id)
        raise FrameError("NotImplemented", f"no action {action[:60]!r} in OCPP 1.6", unique_id)
    payload = frame[3] if len(frame) > 3 else None
    if payload is None:  # OCPP-J 4.2.1: it may be null or left out
        payload = {}
    if not isinstance(payload, dict):
        raise FrameError("FormationViolation", f"{action}: no JSON object", unique_id)
    if _REQUESTS[action].is_valid(payload):
        return Request(unique_id, action, payload)
    if action in TRANSACTION_ACTIONS:
        return Request(unique_id, action, payload, (f"{action} breaks its schema",))
    return Request(unique_id, action, payload, _bent(unique_id, action, payload))


_CODES = {"required": "OccurenceConstraintViolation", "type": "TypeConstraintViolation"}
_WORST_FIRST = (*_CODES.values(), "PropertyConstraintViolation")
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


def _bent(unique_id: MessageId, action: str, payload: dict[str, Any]) -> tuple[str, ...]:
    """What of a payload breaks the schema but can be read; raises FrameError for what cannot."""
    bent: list[str] = []
    broken: dict[str, str] = {}
    for error in _REQUESTS[action].iter_errors(payload):
        keyword = str(error.schema_path[-1])
        told = f"{_where(error)}{error.message}"[:200]
        if keyword in ("additionalProperties", "enum") or _readable_integer(error):
            bent.append(told)
        else:
            broken.setdefault(_CODES.get(keyword, _WORST_FIRST[-1]), told)
    for code in _WORST_FIRST:
        if code in broken:
            raise FrameError(code, f"{action}: {broken[code]}", unique_id)
    return tuple(bent)


def _readable_integer(error: jsonschema_rs.ValidationError) -> bool:
    """Some chargers write every number as text (`"connectorId": "1"`), or an integer as `1.0`."""
    kind, value = error.kind, error.instance
    if not isinstance(kind, jsonschema_rs.ValidationErrorKind.Type) or "integer" not in kind.types:
        return False
    if isinstance(value, str):
        return _INTEGER.fullmatch(value) is not None
    return isinstance(value, float) and value.is_integer() and abs(value) < 2**63


def _where(error: jsonschema_rs.ValidationError) -> str:
    path = ".".join(str(step) for step in error.instance_path)
    return f"{path}: " if path else ""


# --- JSON --------------------------------------------------------------------------------------


def _fraction(digits: str) -> Decimal | str:
    """A number that no Decimal can hold (`1e9999999999999999999`) stays text."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        return digits


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=_fraction)
_encoder = msgspec.json.Encoder(decimal_format="number")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_TOO_LONG = "Integer value out of range"  # msgspec's words
_MOST_DIGITS = 400


def _json(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        if _SURROGATE.search(text) or _TOO_LONG in str(exc):
            return _loosely(text)
        raise FrameError("FormationViolation", f"not JSON: {str(exc)[:100]}") from exc


def _loosely(text: str) -> Any:
    """What is JSON, but can be neither stored nor counted with, made into what can.

    Half a character (`"\\ud800"`) becomes a question mark, an integer of thousands of digits text.
    """
    try:
        return _whole(
            json.loads(text, parse_float=_fraction, parse_int=_integer, parse_constant=_no_constant)
        )
    except (ValueError, RecursionError) as exc:
        raise FrameError("FormationViolation", "not JSON") from exc


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _dump(frame: list[Any]) -> str:
    return _encoder.encode(frame).decode()


# --- the schemas, compiled once ----------------------------------------------------------------


def _compiled(suffix: str) -> dict[str, jsonschema_rs.Draft4Validator]:
    # Formats are left alone: an unreadable time must not refuse a transaction message, and
    # `facts` judges times by itself.
    folder = files("ocpp.v16") / "schemas"
    return {
        str(action.value): jsonschema_rs.Draft4Validator(
            json.loads((folder / f"{action.value}{suffix}.json").read_text("utf-8-sig")),
            validate_formats=False,
        )
        for action in Action
    }


_REQUESTS: Mapping[str, jsonschema_rs.Draft4Validator] = _compiled("")
_RESPONSES: Mapping[str, jsonschema_rs.Draft4Validator] = _compiled("Response")
