"""What ThingsBoard does with each PUBLISH: store it, or refuse it the way it refuses.

No I/O: the session sends what the Outcome says.  Nothing is acknowledged before all of it is
stored (thingsboard-contract 6).
"""

from __future__ import annotations

from typing import Any, Final

from .core import Core
from .device_api import device_api_handler
from .message import Message, PublishHandler, excerpt
from .publish_outcomes import (
    PAYLOAD_INVALID,
    TOPIC_NAME_INVALID,
    DeviceRefused,
    Part,
    PublishOutcome,
    Refused,
    acknowledge,
    outcome_of,
)
from .rows import over_budget, row_of, save_attributes, save_rows
from .store import ClientConnection
from .values import long_of, plain


def handle_publish(
    board: Core, session: ClientConnection, topic: str, payload: bytes
) -> PublishOutcome:
    """Store a message, or refuse it; every rule that it breaks is reported to the board."""
    if topic.startswith("v1/gateway"):
        if not board.gateway_flag:  # only a line in the server's log, thingsboard-contract P3
            board.report("P3", "FAIL", f"{topic} from a device that is not a gateway")
            return PublishOutcome(())
        handler = _GATEWAY.get(topic)
    else:
        handler = device_api_handler(topic)
    if handler is None:
        board.report("P4", "FAIL", f"unknown topic {topic}")
        return PublishOutcome((TOPIC_NAME_INVALID,))
    try:
        return handler(board, session, Message(topic, payload))
    except Refused as refused:
        board.report(refused.kind, "FAIL", f"{topic}: {refused}: {excerpt(payload)}")
        return outcome_of(refused, session)
    except DeviceRefused as refused:
        board.report("5", "FAIL", f"{topic}: {refused}")
        return acknowledge(board.profile, [refused.part])


# --- the gateway's topics ------------------------------------------------------------------------


def _connect(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    root = message.object(board)
    kind = root.get("type")
    if isinstance(kind, dict | list):
        raise Refused("BAD-R", "type is not text")
    name = _device_name(root)
    _spend(board, session)
    board.open_device(session, name, kind=str(kind) if kind else None, is_greeting=True)
    return PublishOutcome()


def _disconnect(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    board.close_device(session, _device_name(message.object(board)))
    return PublishOutcome()


def _device_name(root: dict[str, Any]) -> str:
    name = root.get("device")
    if name is None or isinstance(name, dict | list) or name == "":
        raise Refused("BAD-R", "device is missing")
    return str(name)


def _telemetry(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    entries = _members(board, message, list, "array")
    return acknowledge(
        board.profile, [_device_rows(board, session, name, rows) for name, rows in entries.items()]
    )


def _members(board: Core, message: Message, wanted: type, called: str) -> dict[str, Any]:
    """The members of the wanted type; the others are dropped without a word."""
    root = message.object(board)
    entries = {name: member for name, member in root.items() if isinstance(member, wanted)}
    if not entries:
        raise Refused("BAD-R", f"no member is an {called}")
    for name in root.keys() - entries.keys():
        board.report("5", "FAIL", f"{message.topic}: {name!r} is no {called}: dropped silently")
    return entries


def _device_rows(board: Core, session: ClientConnection, name: str, items: list[Any]) -> Part:
    try:
        device = board.open_device(session, name)
    except DeviceRefused as refused:
        board.report("5", "FAIL", str(refused))
        return refused.part
    if not items:
        board.report("5", "FAIL", f"{name!r}: an empty array is never acknowledged")
        return Part(None)
    try:
        rows = [row_of(board, name, item, in_gateway=True) for item in items]
    except Refused as refused:
        board.report("BAD-D", "FAIL", f"{name!r}: {refused}")
        return Part(PAYLOAD_INVALID) if session.tells_reasons else Part(None, close=True)
    return save_rows(board, session, device, rows)


def _spend(board: Core, session: ClientConnection) -> None:
    if not session.budget.allows():
        raise DeviceRefused(over_budget(board, "gateway"), "rate limit exceeded")


def _attributes(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    parts = []
    for name, members in _members(board, message, dict, "object").items():
        try:
            device = board.open_device(session, name)
        except DeviceRefused as refused:
            board.report("5", "FAIL", str(refused))
            parts.append(refused.part)
        else:
            parts.append(save_attributes(board, session, device, members))
    return acknowledge(board.profile, parts)


def _attributes_request(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    root = message.object(board)
    request_id = _int(root, "id")
    name, is_client = _device_name(root), root.get("client")
    keys = [root["key"]] if "key" in root else root.get("keys")
    if not isinstance(is_client, bool) or not isinstance(keys, list):
        raise Refused("BAD-R", "client is not a boolean, or neither key nor keys")
    _spend(board, session)
    device = board.open_device(session, name)
    known = device.attributes if is_client else device.shared
    found = {key: known[key] for key in map(str, keys) if key in known}
    answer: dict[str, Any] = {"id": request_id, "device": name}
    if len(keys) == 1 and found:  # the two shapes of thingsboard-contract R12
        answer["value"] = next(iter(found.values()))
    elif found:
        answer["values"] = found
    session.send_json("v1/gateway/attributes/response", answer)
    return PublishOutcome()


def _rpc_answer(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    root = message.object(board)
    name, request_id = _device_name(root), _int(root, "id")
    if "data" not in root:
        raise Refused("BAD-R", "data is missing")
    _spend(board, session)
    device = board.open_device(session, name)
    board.settle_rpc(device, request_id, plain(root["data"]))
    return PublishOutcome()


def _int(root: dict[str, Any], name: str) -> int:
    try:
        return long_of(root.get(name))
    except ValueError as exc:
        raise Refused("BAD-R", f"{name} is not an integer") from exc


def _claim(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    for name in _members(board, message, dict, "object"):
        board.open_device(session, name)
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
