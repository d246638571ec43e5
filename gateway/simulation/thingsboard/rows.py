"""Rows and attributes as they come: judged, typed, and stored (thingsboard-contract 4)."""

from __future__ import annotations

from typing import Any, Final

from .core import Core
from .publish_outcomes import QUOTA_EXCEEDED, STORED, Part, Refused
from .store import ClientConnection, Device, fault_of_key
from .values import Stored, json_type, long_of, store_value

_EARLIEST_TS: Final = 1_420_070_400_000  # 2015-01-01, thingsboard-contract J3
_LATEST_AHEAD: Final = 24 * 3600 * 1000


def save_rows(
    board: Core, session: ClientConnection, device: Device, rows: list[tuple[int, dict[str, Any]]]
) -> Part:
    """Store one device's rows, unless they exceed its budget."""
    stored = [(ts, values_of(board, device, values)) for ts, values in rows]
    points = sum(len(values or ()) for _, values in stored)
    if not session.budget.allows(points):
        return over_budget(board, device.name)
    board.publishes.data_points += points
    for ts, values in stored:
        if values:
            board.save_row(device, ts, values)
    return STORED


def over_budget(board: Core, name: str) -> Part:
    """Report and answer a message beyond the rate limit."""
    board.report("8", "FAIL", f"{name!r}: rate limit exceeded")
    return Part(QUOTA_EXCEEDED if board.profile.ack_on_failure else None, close=True)


def save_attributes(
    board: Core, session: ClientConnection, device: Device, members: dict[str, Any]
) -> Part:
    """Store one device's client attributes, unless they exceed its budget."""
    stored = values_of(board, device, members) if members else {}
    if not session.budget.allows(len(stored or ())):
        return over_budget(board, device.name)
    if stored:
        board.publishes.data_points += len(stored)
        board.save_attributes(device, stored)
    return STORED


def row_of(board: Core, name: str, item: Any, *, in_gateway: bool) -> tuple[int, dict[str, Any]]:
    """One entry as (ts, values) (thingsboard-contract J3 to J5)."""
    if not isinstance(item, dict):
        raise Refused("BAD-D", "an item is not an object")
    if in_gateway and "metadata" in item:
        _check_metadata(item["metadata"])
        item = {key: value for key, value in item.items() if key != "metadata"}
    if "ts" in item and "values" in item:
        try:
            ts = long_of(item["ts"])
        except ValueError as exc:
            raise Refused("BAD-D", f"ts: {exc}") from exc
        if not isinstance(item["values"], dict):
            raise Refused("BAD-D", "values is not an object")
        if not _EARLIEST_TS <= ts <= board.now_ms() + _LATEST_AHEAD:
            board.report("J3", "WARN", f"{name!r}: ts {ts} cannot be right")
        return ts, item["values"]
    for half in item.keys() & {"ts", "values"}:
        board.report("J4", "FAIL", f"{name!r}: {half} alone makes every member a key")
    return board.now_ms(), item


def _check_metadata(metadata: Any) -> None:
    try:
        if not isinstance(metadata["connector"], str):
            raise Refused("BAD-D", "metadata without a connector's name")
        long_of(metadata["receivedTs"])
        long_of(metadata["publishedTs"])
    except (TypeError, KeyError, ValueError) as exc:
        raise Refused("BAD-D", "bad metadata") from exc


def values_of(board: Core, device: Device, values: dict[str, Any]) -> dict[str, Stored] | None:
    """The values as they are stored; None when the rule engine rejects all of them."""
    stored: dict[str, Stored] = {}
    is_rejected = False
    for key, value in values.items():
        if fault := fault_of_key(key):
            board.violate(fault)
            is_rejected = is_rejected or fault.assertion == "J8"
        kept, complaint = store_value(value)
        if complaint:
            what = f"{device.name!r} {key!r}: {complaint.what}"
            board.report(complaint.assertion, complaint.severity, what)
        if kept is None:
            continue
        stored[key] = kept
        kind = json_type(value)
        first = device.kinds.setdefault(key, kind)
        if first != kind:
            what = f"{device.name!r} {key!r} was {first} and is now {kind}"
            board.report("J6c", "WARN", what)
    if not stored:  # the rule node fails: "Msg body is empty"
        board.report("J10", "FAIL", f"{device.name!r}: a row without any value is lost")
    return None if is_rejected else stored
