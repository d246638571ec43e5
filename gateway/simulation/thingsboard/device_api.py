"""The device API: topics `v1/devices/me/...`, which a gateway uses for itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .core import Core
from .message import Message, PublishHandler
from .publish_outcomes import PublishOutcome, Refused, acknowledge
from .rows import row_of, save_attributes, save_rows
from .store import ClientConnection
from .values import plain


def _own_telemetry(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    root = message.json(board)
    items = root if isinstance(root, list) else [root]
    if not all(isinstance(item, dict) for item in items):
        raise Refused("BAD-A", "neither an object nor an array of objects")
    try:
        rows = [row_of(board, session.own.name, item, in_gateway=False) for item in items]
    except Refused as refused:
        # uncaught in the server: the connection closes whatever the version
        kind = "CLOSE" if str(refused).startswith("ts:") else "BAD-A"
        raise Refused(kind, str(refused)) from refused
    return acknowledge(board.profile, [save_rows(board, session, session.own, rows)])


def _own_attributes(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    root = message.json(board)
    if not isinstance(root, dict):
        raise Refused("BAD-A", "not an object")
    return acknowledge(board.profile, [save_attributes(board, session, session.own, root)])


def _own_attributes_request(
    board: Core, session: ClientConnection, message: Message
) -> PublishOutcome:
    root = message.json(board)
    if not isinstance(root, dict):
        raise Refused("BAD-A", "not an object")
    scopes = {"client": session.own.attributes, "shared": session.own.shared}
    answer = {}
    for scope, known in scopes.items():
        names = _names(root.get(f"{scope}Keys"))
        if found := {name: known[name] for name in names if name in known}:
            answer[scope] = found
    session.send_json(f"v1/devices/me/attributes/response/{_tail(message.topic)}", answer)
    return PublishOutcome()


def _names(listed: Any) -> Iterable[str]:
    return listed.split(",") if isinstance(listed, str) else ()


def _own_rpc_request(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    root = message.json(board)
    if not isinstance(root, dict) or not isinstance(root.get("method"), str):
        raise Refused("BAD-A", "no method")
    if root["method"] == "getSessionLimits" and board.profile.session_limits:
        topic = f"v1/devices/me/rpc/response/{_tail(message.topic)}"
        session.send_json(topic, dict(board.session_limits))
    return PublishOutcome()


def _own_rpc_answer(board: Core, session: ClientConnection, message: Message) -> PublishOutcome:
    if not (number := _tail(message.topic)).isdecimal():
        raise Refused("BAD-A", "the topic ends without a request id")
    board.settle_rpc(session.own, int(number), plain(message.json(board)))
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
    """Who takes this topic of the device API; None when nobody does."""
    return _TOPICS.get(topic) or _PREFIXES.get(topic.rpartition("/")[0])
