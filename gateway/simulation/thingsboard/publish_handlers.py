"""What ThingsBoard does with each PUBLISH: store it, or refuse it as ThingsBoard does.

No I/O: the connection sends what the PublishOutcome says.  Nothing is acknowledged before
all of it is stored (thingsboard-contract 6).
"""

from __future__ import annotations

from typing import Any, Final

from .core import Core
from .device_api import device_api_handler
from .message import Message, PublishHandler, excerpt
from .publish_outcomes import (
    PAYLOAD_INVALID,
    TOPIC_NAME_INVALID,
    DeviceOutcome,
    DeviceRefused,
    PayloadRefused,
    PublishOutcome,
    acknowledge,
    refusal_outcome,
)
from .rows import over_budget, row_of, save_attributes, save_rows
from .store import ClientConnection
from .values import long_of, plain


def handle_publish(
    core: Core, connection: ClientConnection, topic: str, payload: bytes
) -> PublishOutcome:
    """Store a message, or refuse it; every rule that it breaks is reported as a violation."""
    if topic.startswith("v1/gateway"):
        if not core.gateway_flag:  # the server only logs it, thingsboard-contract P3
            core.report_violation("P3", "FAIL", f"{topic} from a device that is not a gateway")
            return PublishOutcome(())
        handler = _GATEWAY.get(topic)
    else:
        handler = device_api_handler(topic)
    if handler is None:
        core.report_violation("P4", "FAIL", f"unknown topic {topic}")
        return PublishOutcome((TOPIC_NAME_INVALID,))
    try:
        return handler(core, connection, Message(topic, payload))
    except PayloadRefused as refused:
        core.report_violation(refused.kind, "FAIL", f"{topic}: {refused}: {excerpt(payload)}")
        return refusal_outcome(refused, connection)
    except DeviceRefused as refused:
        core.report_violation("5", "FAIL", f"{topic}: {refused}")
        return acknowledge(core.profile, [refused.outcome])


# --- the gateway's topics ------------------------------------------------------------------------


def _connect(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    root = message.object(core)
    kind = root.get("type")
    if isinstance(kind, dict | list):
        raise PayloadRefused("BAD-R", "type is not text")
    name = _device_name(root)
    _spend_message(core, connection)
    core.open_device_session(connection, name, kind=str(kind) if kind else None, is_connect=True)
    return PublishOutcome()


def _disconnect(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    core.close_device_session(connection, _device_name(message.object(core)))
    return PublishOutcome()


def _device_name(root: dict[str, Any]) -> str:
    name = root.get("device")
    if name is None or isinstance(name, dict | list) or name == "":
        raise PayloadRefused("BAD-R", "device is missing")
    return str(name)


def _telemetry(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    entries = _members(core, message, list, "array")
    return acknowledge(
        core.profile, [_device_rows(core, connection, name, rows) for name, rows in entries.items()]
    )


def _members(core: Core, message: Message, wanted: type, called: str) -> dict[str, Any]:
    """The members of the wanted type; the others are dropped silently."""
    root = message.object(core)
    entries = {name: member for name, member in root.items() if isinstance(member, wanted)}
    if not entries:
        raise PayloadRefused("BAD-R", f"no member is an {called}")
    for name in root.keys() - entries.keys():
        core.report_violation(
            "5", "FAIL", f"{message.topic}: {name!r} is no {called}: dropped silently"
        )
    return entries


def _device_rows(
    core: Core, connection: ClientConnection, name: str, items: list[Any]
) -> DeviceOutcome:
    try:
        device = core.open_device_session(connection, name)
    except DeviceRefused as refused:
        core.report_violation("5", "FAIL", str(refused))
        return refused.outcome
    if not items:
        core.report_violation("5", "FAIL", f"{name!r}: an empty array is never acknowledged")
        return DeviceOutcome(None)
    try:
        rows = [row_of(core, name, item, in_gateway=True) for item in items]
    except PayloadRefused as refused:
        core.report_violation("BAD-D", "FAIL", f"{name!r}: {refused}")
        return (
            DeviceOutcome(PAYLOAD_INVALID)
            if connection.sends_reason_codes
            else DeviceOutcome(None, close=True)
        )
    return save_rows(core, connection, device, rows)


def _spend_message(core: Core, connection: ClientConnection) -> None:
    if not connection.budget.allows():
        raise DeviceRefused(over_budget(core, "gateway"), "rate limit exceeded")


def _attributes(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    outcomes = []
    for name, members in _members(core, message, dict, "object").items():
        try:
            device = core.open_device_session(connection, name)
        except DeviceRefused as refused:
            core.report_violation("5", "FAIL", str(refused))
            outcomes.append(refused.outcome)
        else:
            outcomes.append(save_attributes(core, connection, device, members))
    return acknowledge(core.profile, outcomes)


def _attributes_request(
    core: Core, connection: ClientConnection, message: Message
) -> PublishOutcome:
    root = message.object(core)
    request_id = _int(root, "id")
    name, is_client = _device_name(root), root.get("client")
    keys = [root["key"]] if "key" in root else root.get("keys")
    if not isinstance(is_client, bool) or not isinstance(keys, list):
        raise PayloadRefused("BAD-R", "client is not a boolean, or neither key nor keys")
    _spend_message(core, connection)
    device = core.open_device_session(connection, name)
    known = device.attributes if is_client else device.shared
    found = {key: known[key] for key in map(str, keys) if key in known}
    answer: dict[str, Any] = {"id": request_id, "device": name}
    if len(keys) == 1 and found:  # the two shapes of thingsboard-contract R12
        answer["value"] = next(iter(found.values()))
    elif found:
        answer["values"] = found
    connection.send_json("v1/gateway/attributes/response", answer)
    return PublishOutcome()


def _rpc_answer(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    root = message.object(core)
    name, request_id = _device_name(root), _int(root, "id")
    if "data" not in root:
        raise PayloadRefused("BAD-R", "data is missing")
    _spend_message(core, connection)
    device = core.open_device_session(connection, name)
    core.complete_rpc(device, request_id, plain(root["data"]))
    return PublishOutcome()


def _int(root: dict[str, Any], name: str) -> int:
    try:
        return long_of(root.get(name))
    except ValueError as exc:
        raise PayloadRefused("BAD-R", f"{name} is not an integer") from exc


def _claim(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    for name in _members(core, message, dict, "object"):
        core.open_device_session(connection, name)
    return PublishOutcome()


_GATEWAY: Final[dict[str, PublishHandler]] = {
    "v1/gateway/connect": _connect,
    "v1/gateway/disconnect": _disconnect,
    "v1/gateway/telemetry": _telemetry,
    "v1/gateway/attributes": _attributes,
    "v1/gateway/attributes/request": _attributes_request,
    "v1/gateway/rpc": _rpc_answer,
    "v1/gateway/claim": _claim,
}
