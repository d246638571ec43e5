"""Messages that break their schema, read as they are meant.  Pure.

Half of the charge points in the field break a schema somewhere, and do no harm: a serial
number of 34 characters, a null for what is absent, `"1"` for 1.  A message is read along its
schema, and what comes of it is a payload of the types that the schema names:

| what came                                    | is read as                                     |
|----------------------------------------------|------------------------------------------------|
| text longer than is allowed                  | itself, whole                                  |
| null where absence is allowed                | absence                                        |
| empty text for a number or an enumeration    | absence, where that is allowed                 |
| a number for text                            | its digits                                     |
| text for a number (`"1"`, `"1.0"`), `1.0`    | the number                                     |
| `0`, `1`, `"true"` for a boolean             | the boolean                                    |
| what belongs into an array, without the array| an array of one                                |
| null within an array                         | absence                                        |
| another case (`"accepted"`, `"IdTag"`)       | OCPP's own spelling                            |
| an unknown value of an enumeration           | itself                                         |
| an unknown field                             | itself                                         |
| `_MAY_BE_ABSENT`, absent                     | absence                                        |
| `_ANY_JSON`, of another type                 | its JSON text                                  |

What cannot be read is left as it came, and `Reading.fault` says what is wrong with it.  No text
made here repeats a value, which may be a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import attrs

from ..domain import json_codec

FORMATION = "FormationViolation"
PROPERTY = "PropertyConstraintViolation"
OCCURENCE = "OccurenceConstraintViolation"  # spelled so in OCPP 1.6
TYPE = "TypeConstraintViolation"
_WORST_FIRST = (OCCURENCE, TYPE, PROPERTY, FORMATION)

INT64 = 2**63
_MAX_NAMED = 10  # deviations of one message that are named in words
_MAX_ZEROS = 30  # before the decimal point, and behind it

_MAY_BE_ABSENT = frozenset(
    {
        # A charge point without a vendor is in service all the same; its model is required.
        ("BootNotification", "chargePointVendor"),
        ("StatusNotification", "errorCode"),  # then there is no error
        ("SecurityEventNotification", "timestamp"),  # then it is the time of receipt
        ("GetConfigurationResponse", "configurationKey.readonly"),
    }
)
"""Required fields that nothing depends on, by message and path."""

_ANY_JSON = frozenset(
    {
        ("DataTransfer", "data"),
        ("DataTransferResponse", "data"),
        ("GetConfigurationResponse", "configurationKey.value"),
    }
)
"""Texts that some charge points send as whatever they hold: an object, a list, true."""

_STATUSES_OF_RESPONSES = (
    "Accepted", "AcceptedCanceled", "Failed", "Faulted", "HashError", "InvalidCertificate",
    "NotFound", "NotImplemented", "NotSupported", "Occupied", "RebootRequired", "Rejected",
    "RevokedCertificate", "Scheduled", "Unavailable", "Unknown", "UnknownMessageId",
    "UnknownVendorId", "UnlockFailed", "Unlocked", "VersionMismatch",
)  # fmt: skip
"""Every status that some response of OCPP 1.5 or 1.6 may have.

One of another message than its own (UnlockConnector was `Accepted` in 1.5) is passed on as it came.
A word that no response has does not say what the charge point did, and is not read.
"""

_TRUE_OR_FALSE: Mapping[Any, bool] = {
    "true": True, "1": True, "false": False, "0": False,
}  # fmt: skip
_INTEGER = re.compile(r"([+-]?[0-9]{1,20})(?:\.0{0,20})?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,20})?")


def text_of(value: object) -> str | None:
    """Text as it came; a number's own digits, without an exponent; None for anything else."""
    if isinstance(value, str):
        return value
    if (
        isinstance(value, Decimal)
        and value.is_finite()
        and -_MAX_ZEROS <= value.adjusted() <= _MAX_ZEROS
    ):
        return f"{value:f}"
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    return None


def integer_of(value: object) -> int | None:
    """An int64, also where it is spelled as text or as 1.0; None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif (
        isinstance(value, Decimal)
        and -INT64 <= value < INT64  # before all arithmetic, which may overflow: 1e999999999
        and value == value.to_integral_value()
    ):
        number = int(value)
    elif isinstance(value, str) and (digits := _INTEGER.fullmatch(value.strip())):
        number = int(digits[1])
    else:
        return None
    return number if -INT64 <= number < INT64 else None


Fault = tuple[str, str]
"""A code of OCPP-J 1.6 table 7, and what is wrong where, in words."""


@attrs.frozen
class Reading:
    """payload: as far as it can be read.  deviations: the first ways in which it breaks its schema.

    fault: the worst of what cannot be read; None where all can.
    strictly: the worst of all deviations, for `lenient = false`; None where there is none.
    """

    payload: Any
    deviations: tuple[str, ...] = ()
    fault: Fault | None = None
    strictly: Fault | None = None


@attrs.frozen(eq=False)
class Node:
    """One node of a schema, prepared for reading.

    kind: its `type` in JSON Schema, as min_items, max_length and multiple_of are its words too.
    where: message and path, without array indexes: ("MeterValues", "meterValue.timestamp").
    enum: lower case -> OCPP's spelling of each allowed value.  status: the same for the statuses
        that are passed on although this message does not allow them.
    spelled: lower case -> OCPP's spelling of each property's name.
    """

    kind: str
    where: tuple[str, str]
    properties: Mapping[str, Node] = attrs.field(factory=dict)
    spelled: Mapping[str, str] = attrs.field(factory=dict)
    required: tuple[str, ...] = ()
    items: Node | None = None
    min_items: int = 0
    max_length: int | None = None
    enum: Mapping[str, str] | None = None
    status: Mapping[str, str] | None = None
    multiple_of: Decimal | None = None

    @property
    def may_be_absent(self) -> bool:
        return self.where in _MAY_BE_ABSENT


def node_of(schema: Mapping[str, Any], message: str) -> Node:
    """message: the schema's name, `StatusNotification` or `ResetResponse`."""
    definitions = schema.get("definitions", {})

    def node(part: Mapping[str, Any], path: str) -> Node:
        if "$ref" in part:
            part = definitions[part["$ref"].removeprefix("#/definitions/")]
        prefix = f"{path}." if path else ""
        properties = {
            name: node(inner, prefix + name) for name, inner in part.get("properties", {}).items()
        }
        enum = part.get("enum")
        decides = message.endswith("Response") and path == "status"
        return Node(
            kind=part["type"],
            where=(message, path),
            properties=properties,
            spelled=_by_lower_case(properties),
            required=tuple(part.get("required", ())),
            items=node(part["items"], path) if "items" in part else None,
            min_items=part.get("minItems", 0),
            max_length=part.get("maxLength"),
            enum=None if enum is None else _by_lower_case(enum),
            status=_by_lower_case(_STATUSES_OF_RESPONSES) if decides else None,
            multiple_of=Decimal(str(part["multipleOf"])) if "multipleOf" in part else None,
        )

    return node(schema, "")


def _by_lower_case(words: Any) -> dict[str, str]:
    return {word.lower(): word for word in words}


def read(node: Node, payload: Any) -> Reading:
    """A payload as its schema means it."""
    reader = _Reader()
    meant = reader.value(node, payload, "")
    return Reading(meant, tuple(reader.deviations), reader.fault, reader.strictly)


_ABSENT = object()


@attrs.define
class _Reader:
    deviations: list[str] = attrs.field(factory=list)
    fault: Fault | None = None
    strictly: Fault | None = None

    def value(self, node: Node, value: Any, at: str) -> Any:
        """The value as its schema means it, or as it came where it cannot be read."""
        match node.kind:
            case "object":
                return self._object(node, value, at)
            case "array":
                return self._array(node, value, at)
            case "integer":
                return self._integer(value, at)
            case "number":
                return self._number(node, value, at)
            case "boolean":
                return self._boolean(value, at)
        return self._text(node, value, at)

    def _object(self, node: Node, value: Any, at: str) -> Any:
        if not isinstance(value, dict):
            return self._unreadable(value, at, TYPE, "no object")
        found: dict[str, Any] = {}
        prefix = f"{at}." if at else ""
        for name, item in value.items():
            known = name if name in node.properties else node.spelled.get(name.lower())
            if known is None or (known != name and known in value):
                self._deviates(prefix + name, FORMATION, "an unknown field")
                found[name] = item
                continue
            if known != name:
                code = OCCURENCE if known in node.required else FORMATION
                self._deviates(prefix + name, code, f"spelled otherwise than {known}")
            inner = node.properties[known]
            optional = known not in node.required or inner.may_be_absent
            read = self._property(inner, item, prefix + known, optional=optional)
            if read is not _ABSENT:
                found[known] = read
        for name in node.required:
            if name in found:
                continue
            if not node.properties[name].may_be_absent:
                self._unreadable(value, prefix + name, OCCURENCE, "missing")
            elif name not in value:
                self._deviates(prefix + name, OCCURENCE, "missing")
        return found

    def _property(self, node: Node, value: Any, at: str, *, optional: bool) -> Any:
        if optional and value is None:
            self._deviates(at, TYPE, "null")
            return _ABSENT
        if optional and value == "" and (node.kind != "string" or node.enum is not None):
            self._deviates(at, FORMATION if node.kind == "string" else TYPE, "empty text")
            return _ABSENT
        return self.value(node, value, at)

    def _array(self, node: Node, value: Any, at: str) -> Any:
        assert node.items is not None  # noqa: S101  each array of OCPP's says what it holds
        if value is None:
            return self._unreadable(value, at, TYPE, "null")
        if not isinstance(value, list):
            self._deviates(at, TYPE, "no array")
            value = [value]
        if len(value) < node.min_items:
            self._deviates(at, PROPERTY, "an empty array")
        found = []
        for index, item in enumerate(value):
            if item is None:
                self._deviates(f"{at}.{index}", TYPE, "null")
            else:
                found.append(self.value(node.items, item, f"{at}.{index}"))
        return found

    def _integer(self, value: Any, at: str) -> Any:
        number = integer_of(value)
        if number is None and not isinstance(value, bool) and _is_integer(value):
            return self._unreadable(value, at, PROPERTY, "an integer beyond 64 bits")
        if number is None:
            return self._unreadable(value, at, TYPE, "no integer")
        if number is not value:
            # FormationViolation, as schema validators answer to it: `lenient = false` keeps that.
            self._deviates(at, FORMATION, "an integer as text or with a fraction")
        return number

    def _number(self, node: Node, value: Any, at: str) -> Any:
        number = value
        if isinstance(value, str) and (digits := _NUMBER.fullmatch(value.strip())):
            number = Decimal(digits[0])
            self._deviates(at, TYPE, "a number as text")
        if not isinstance(number, int | Decimal) or isinstance(number, bool):
            return self._unreadable(value, at, TYPE, "no number")
        if node.multiple_of is not None and not _is_multiple(number, node.multiple_of):
            self._deviates(at, PROPERTY, f"no multiple of {node.multiple_of}")
        return number

    def _boolean(self, value: Any, at: str) -> Any:
        if isinstance(value, bool):
            return value
        found = _TRUE_OR_FALSE.get((text_of(value) or "").strip().lower())
        if found is None:
            return self._unreadable(value, at, TYPE, "neither true nor false")
        self._deviates(at, TYPE, "a boolean as number or text")
        return found

    def _text(self, node: Node, value: Any, at: str) -> Any:
        text = text_of(value)
        if text is None and value is not None and node.where in _ANY_JSON:
            text = json_codec.encode_text(value)
        if text is None:
            return self._unreadable(value, at, TYPE, "no text")
        if text is not value:
            self._deviates(at, TYPE, "not written as text")
        if node.max_length is not None and len(text) > node.max_length:
            self._deviates(at, PROPERTY, f"{len(text)} characters, {node.max_length} are allowed")
        if node.enum is None:
            return text
        word = node.enum.get(text.lower())
        if word is None and node.status is not None:
            word = node.status.get(text.lower())
            if word is None:
                return self._unreadable(value, at, FORMATION, "no status that OCPP knows")
            self._deviates(at, FORMATION, "the status of another message")
        elif word is None:
            self._deviates(at, FORMATION, "not one of OCPP's values")
            return text
        elif word != text:
            self._deviates(at, FORMATION, f"spelled otherwise than {word}")
        return word

    # --- what is found ---------------------------------------------------------------------------

    def _deviates(self, at: str, code: str, what: str) -> None:
        if len(self.deviations) < _MAX_NAMED:
            self.deviations.append(_described(at, what))
        self.strictly = _worse(self.strictly, code, at, what)

    def _unreadable(self, value: Any, at: str, code: str, what: str) -> Any:
        self._deviates(at, code, what)
        self.fault = _worse(self.fault, code, at, what)
        return value


def _described(at: str, what: str) -> str:
    return f"{at[-100:]}: {what}" if at else what


def _worse(before: Fault | None, code: str, at: str, what: str) -> Fault:
    if before is None or _WORST_FIRST.index(code) < _WORST_FIRST.index(before[0]):
        return code, _described(at, what)
    return before


def _is_integer(value: object) -> bool:
    return isinstance(value, int) or (
        isinstance(value, str) and value.strip().removeprefix("-").isdecimal()
    )


def _is_multiple(number: int | Decimal, step: Decimal) -> bool:
    try:
        return Decimal(number) % step == 0
    except InvalidOperation:  # 1e999 has no remainder that could be held
        return True
