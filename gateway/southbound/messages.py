"""OCPP-J frames <-> values.  Sans-I/O: text in, values out; nothing here waits.

The schemas are the `ocpp` package's; they are compiled once into a fixed table by action, so
that no name which a peer sends is ever made into a path.  Numbers with a fraction are Decimal.
A payload that its schema allows is taken as it is; any other is read by `deviations`.
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

from ..domain import json_codec
from .deviations import FORMATION, INT64, Node, Reading, node_of, read

CALL, CALL_RESULT, CALL_ERROR = 2, 3, 4

TRANSACTION_ACTIONS = frozenset({"StartTransaction", "StopTransaction", "MeterValues"})
"""They always get a CALLRESULT, whatever is wrong with them: a charge point drops one that gets a
CALLERROR for good."""

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


class InvalidResponse(Exception):
    """The response to our call is not what OCPP allows.  payload: as it came."""

    def __init__(self, why: str, payload: Any) -> None:
        super().__init__(why)
        self.payload = payload


@attrs.frozen
class Request:
    """A CALL from the charge point.

    payload: as its schema means it, where that can be read.
    deviations: where it breaks the schema in a way that can be read all the same.
    long: reading it takes so long that it is done outside of the event loop.
    """

    unique_id: MessageId
    action: str
    payload: dict[str, Any]
    deviations: tuple[str, ...] = ()
    long: bool = False


@attrs.frozen
class CallResult:
    """A CALLRESULT to one of our calls, not validated yet: only the caller knows its action.

    payload: the whole frame, as text, where it is not JSON.
    """

    unique_id: str
    payload: Any


@attrs.frozen
class ValidResponse:
    """The response to a call of ours, its payload as the schema means it.

    action: of the call.  deviations: where it breaks the schema in a way that can be read all the
        same.
    """

    action: str
    payload: dict[str, Any]
    deviations: tuple[str, ...] = ()


@attrs.frozen
class CallError:
    """A CALLERROR to one of our calls."""

    unique_id: str
    code: str
    description: str
    details: Any


def decode(text: str, *, lenient: bool = True) -> Request | CallResult | CallError:
    """lenient: read what breaks its schema as far as it can be read; transaction messages always
    are.  Raises FrameError.
    """
    try:
        frame = _json(text)
    except FrameError as exc:
        kind, unique_id = _beginning(text)
        if kind in (CALL_RESULT, CALL_ERROR) and isinstance(unique_id, str):
            return CallResult(unique_id, text)  # the command's outcome shows what came
        raise FrameError(exc.code, exc.why, unique_id if kind == CALL else None) from exc
    if not isinstance(frame, list) or len(frame) < 2:
        raise FrameError(FORMATION, "not an OCPP-J message")
    kind, unique_id = frame[0], frame[1]
    if type(kind) is not int or kind not in (CALL, CALL_RESULT, CALL_ERROR):  # true == 1, 2.0 == 2
        raise FrameError(FORMATION, f"no message type {_shown(kind)}")
    if isinstance(unique_id, bool) or not isinstance(unique_id, str | int | Decimal):
        raise FrameError(FORMATION, "no usable message id")
    if kind == CALL:
        return _request(unique_id, frame, lenient)
    if not isinstance(unique_id, str):
        raise FrameError(FORMATION, "an answer to no call of ours")
    if kind == CALL_RESULT:
        return CallResult(unique_id, frame[2] if len(frame) > 2 else None)
    code, description, details = (*frame[2:5], None, None, None)[:3]
    return CallError(unique_id, str(code or "GenericError"), str(description or ""), details)


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


def read_result(action: str, payload: Any, *, lenient: bool = True) -> ValidResponse:
    """The response to our call, as its schema means it.  Raises InvalidResponse.

    lenient: read what breaks the schema but can be read.  Properties beyond it are let through
        in any case: they do no harm.
    """
    if payload is None and lenient and _RESPONSES[action].is_valid({}):
        return ValidResponse(action, {}, ("null",))  # or left out, as it may be in a request
    if not isinstance(payload, dict):
        raise InvalidResponse(f"{action}: the answer is no JSON object", payload)
    if _RESPONSES[action].is_valid(payload):
        return ValidResponse(action, payload)
    if not lenient:
        for error in _RESPONSES[action].iter_errors(payload):
            if error.schema_path[-1] != "additionalProperties":
                # The validator's own words would repeat the value, which may be a password.
                rule = f"breaks its schema's rule for {error.schema_path[-1]}"
                raise InvalidResponse(f"{action}: {_where(error)}{rule}", payload)
        return ValidResponse(action, payload)
    reading = read(_RESPONSE_NODES[action], payload)
    if reading.fault is not None:
        raise InvalidResponse(f"{action}: {reading.fault[1]}", payload)
    return ValidResponse(action, reading.payload, reading.deviations)


def read_request(action: str, payload: Mapping[str, Any]) -> Reading:
    """A request's payload as its schema means it.  action: one of `CHARGE_POINT_ACTIONS`."""
    if _REQUESTS[action].is_valid(payload):
        return Reading(payload)
    return read(_REQUEST_NODES[action], payload)


# --- decoding a request ------------------------------------------------------------------------


def _request(unique_id: MessageId, frame: list[Any], lenient: bool) -> Request:
    action = frame[2] if len(frame) > 2 else None
    if not isinstance(action, str):
        raise FrameError(FORMATION, "a CALL without an action", unique_id)
    if action not in CHARGE_POINT_ACTIONS:
        if action in CENTRAL_SYSTEM_ACTIONS:
            raise FrameError("NotSupported", f"{action} is for charge points", unique_id)
        raise FrameError("NotImplemented", f"no action {action[:60]!r} in OCPP 1.6", unique_id)
    payload = frame[3] if len(frame) > 3 else None
    if payload is None:  # OCPP-J 4.2.1: it may be null or left out
        payload = {}
    if not isinstance(payload, dict):
        raise FrameError(FORMATION, f"{action}: no JSON object", unique_id)
    reading = read_request(action, payload)
    if action not in TRANSACTION_ACTIONS:
        fault = reading.fault if lenient else reading.strictly
        if fault is not None:
            raise FrameError(fault[0], f"{action}: {fault[1]}", unique_id)
    return Request(unique_id, action, reading.payload, reading.deviations)


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
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_TOO_LONG = "Integer value out of range"  # msgspec's words
_MAX_DIGITS = 400


def _json(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        if _SURROGATE.search(text) or _TOO_LONG in str(exc):
            return _decoded_leniently(text)
        raise FrameError(FORMATION, f"not JSON: {str(exc)[:100]}") from exc


def _decoded_leniently(text: str) -> Any:
    """What is JSON, but can be neither stored nor counted with, made into what can.

    Half a character (`"\\ud800"`) becomes a question mark, an integer of thousands of digits text.
    """
    try:
        return _storable(
            json.loads(text, parse_float=_fraction, parse_int=_integer, parse_constant=_no_constant)
        )
    except (ValueError, RecursionError) as exc:
        raise FrameError(FORMATION, "not JSON") from exc


_BEGINNING = re.compile(
    r"""\ufeff?\s* \[ \s* (?P<kind>[234]) \s* , \s*
        (?: (?P<text> "(?:[^"\\]|\\.)*" )
          | '(?P<quoted> [^'"\\]* )'
          | (?P<number> -?[0-9]{1,20} (?:\.[0-9]{1,20})? ) \s* ,
        )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def _beginning(text: str) -> tuple[int | None, MessageId | None]:
    """Type and message id of what is not JSON further on; None where they cannot be read.

    A charge point that gets no response repeats the request for ever (a broken number, a comma
    too many, a frame cut short); one that gets a FormationViolation goes on.
    """
    found = _BEGINNING.match(text)
    if found is None:
        return None, None
    kind = int(found["kind"])
    if found["quoted"] is not None:
        return kind, found["quoted"]
    try:
        # Control characters in it are no reason to leave the request without a response.
        loosely = json.loads(found["text"] or found["number"], parse_float=Decimal, strict=False)
    except ValueError:  # "\x" or "\u00"
        return kind, None
    return kind, _storable(loosely)


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _shown(value: Any) -> str:
    return json_codec.encode_text(value)[:40]


def _dump(frame: list[Any]) -> str:
    return json_codec.encode_text(frame)


# --- the schemas, compiled once ----------------------------------------------------------------


def _schema(action: str, suffix: str) -> dict[str, Any]:
    folder = files("ocpp.v16") / "schemas"
    schema: dict[str, Any] = json.loads((folder / f"{action}{suffix}.json").read_text("utf-8-sig"))
    _bound_integers(schema)
    return schema


def _bound_integers(part: Any) -> None:
    """OCPP names no range for an integer, but none that we could keep is beyond 64 bits."""
    if isinstance(part, dict):
        if part.get("type") == "integer":
            part |= {"minimum": -INT64, "maximum": INT64 - 1}
        for inner in part.values():
            _bound_integers(inner)


def _compiled(suffix: str) -> dict[str, jsonschema_rs.Draft4Validator]:
    # Formats are left alone: an unreadable time must not refuse a transaction message, and
    # `request_events` judges times by itself.
    return {
        str(action.value): jsonschema_rs.Draft4Validator(
            _schema(action.value, suffix), validate_formats=False
        )
        for action in Action
    }


_REQUESTS: Mapping[str, jsonschema_rs.Draft4Validator] = _compiled("")
_RESPONSES: Mapping[str, jsonschema_rs.Draft4Validator] = _compiled("Response")
_REQUEST_NODES: Mapping[str, Node] = {
    action: node_of(_schema(action, ""), action) for action in CHARGE_POINT_ACTIONS
}
_RESPONSE_NODES: Mapping[str, Node] = {
    action: node_of(_schema(action, "Response"), f"{action}Response")
    for action in CENTRAL_SYSTEM_ACTIONS
}
