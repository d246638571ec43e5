"""The device API: topics `v1/devices/me/...`, by which the gateway speaks for its own device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .core import Core
from .message import Message, PublishHandler
from .publish_outcomes import PayloadRefused, PublishOutcome, acknowledge
from .rows import row_of, save_attributes, save_rows
from .store import ClientConnection
from .values import plain


def _own_telemetry(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    root = message.json(core)
    items = root if isinstance(root, list) else [root]
    if not all(isinstance(item, dict) for item in items):
        raise PayloadRefused("BAD-A", "neither an object nor an array of objects")
    try:
        rows = [row_of(core, connection.own.name, item, in_gateway=False) for item in items]
    except PayloadRefused as refused:
        # ThingsBoard does not catch this error: the connection closes whatever the version.
        kind = "CLOSE" if str(refused).startswith("ts:") else "BAD-A"
        raise PayloadRefused(kind, str(refused)) from refused
    return acknowledge(core.profile, [save_rows(core, connection, connection.own, rows)])


def _own_attributes(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    root = message.json(core)
    if not isinstance(root, dict):
        raise PayloadRefused("BAD-A", "not an object")
    return acknowledge(core.profile, [save_attributes(core, connection, connection.own, root)])


def _own_attributes_request(
    core: Core, connection: ClientConnection, message: Message
) -> PublishOutcome:
    root = message.json(core)
    if not isinstance(root, dict):
        raise PayloadRefused("BAD-A", "not an object")
    scopes = {"client": connection.own.attributes, "shared": connection.own.shared}
    answer = {}
    for scope, known in scopes.items():
        names = _names(root.get(f"{scope}Keys"))
        if found := {name: known[name] for name in names if name in known}:
            answer[scope] = found
    connection.send_json(f"v1/devices/me/attributes/response/{_tail(message.topic)}", answer)
    return PublishOutcome()


def _names(listed: Any) -> Iterable[str]:
    return listed.split(",") if isinstance(listed, str) else ()


def _own_rpc_request(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    root = message.json(core)
    if not isinstance(root, dict) or not isinstance(root.get("method"), str):
        raise PayloadRefused("BAD-A", "no method")
    if root["method"] == "getSessionLimits" and core.profile.session_limits:
        topic = f"v1/devices/me/rpc/response/{_tail(message.topic)}"
        connection.send_json(topic, dict(core.session_limits))
    return PublishOutcome()


def _own_rpc_answer(core: Core, connection: ClientConnection, message: Message) -> PublishOutcome:
    if not (number := _tail(message.topic)).isdecimal():
        raise PayloadRefused("BAD-A", "the topic ends without a request id")
    core.complete_rpc(connection.own, int(number), plain(message.json(core)))
    return PublishOutcome()


def _tail(topic: str) -> str:
    return topic.rpartition("/")[2]


_TOPICS: Final[dict[str, PublishHandler]] = {
    "v1/devices/me/telemetry": _own_telemetry,
    "v1/devices/me/attributes": _own_attributes,
}
_PREFIXES: Final[dict[str, PublishHandler]] = {
    "v1/devices/me/attributes/request": _own_attributes_request,
    "v1/devices/me/rpc/request": _own_rpc_request,
    "v1/devices/me/rpc/response": _own_rpc_answer,
}


def device_api_handler(topic: str) -> PublishHandler | None:
    """The handler of this topic; None for a topic that the device API does not have."""
    return _TOPICS.get(topic) or _PREFIXES.get(topic.rpartition("/")[0])
