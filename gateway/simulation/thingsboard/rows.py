"""Rows and attributes of devices: checked, typed and stored (thingsboard-contract 4)."""

from __future__ import annotations

from typing import Any, Final

from .core import Core
from .publish_outcomes import QUOTA_EXCEEDED, STORED, DeviceOutcome, PayloadRefused
from .store import ClientConnection, Device, fault_of_key
from .values import Stored, json_type, long_of, store_value

_EARLIEST_TS: Final = 1_420_070_400_000  # 2015-01-01, thingsboard-contract J3
_LATEST_AHEAD: Final = 24 * 3600 * 1000


def save_rows(
    core: Core, connection: ClientConnection, device: Device, rows: list[tuple[int, dict[str, Any]]]
) -> DeviceOutcome:
    """Store one device's rows, unless they exceed its budget."""
    stored = [(ts, values_of(core, device, values)) for ts, values in rows]
    points = sum(len(values or ()) for _, values in stored)
    if not connection.budget.allows(points):
        return over_budget(core, device.name)
    core.publishes.data_points += points
    for ts, values in stored:
        if values:
            core.save_row(device, ts, values)
    return STORED


def over_budget(core: Core, name: str) -> DeviceOutcome:
    """Report a message beyond the rate limit; returns what its client gets."""
    core.report_violation("8", "FAIL", f"{name!r}: rate limit exceeded")
    return DeviceOutcome(QUOTA_EXCEEDED if core.profile.ack_on_failure else None, close=True)


def save_attributes(
    core: Core, connection: ClientConnection, device: Device, members: dict[str, Any]
) -> DeviceOutcome:
    """Store one device's client attributes, unless they exceed its budget."""
    stored = values_of(core, device, members) if members else {}
    if not connection.budget.allows(len(stored or ())):
        return over_budget(core, device.name)
    if stored:
        core.publishes.data_points += len(stored)
        core.save_attributes(device, stored)
    return STORED


def row_of(core: Core, name: str, item: Any, *, in_gateway: bool) -> tuple[int, dict[str, Any]]:
    """One entry as (ts, values) (thingsboard-contract J3 to J5).

    Raises PayloadRefused where ThingsBoard refuses the entry.
    """
    if not isinstance(item, dict):
        raise PayloadRefused("BAD-D", "an item is not an object")
    if in_gateway and "metadata" in item:
        _check_metadata(item["metadata"])
        item = {key: value for key, value in item.items() if key != "metadata"}
    if "ts" in item and "values" in item:
        try:
            ts = long_of(item["ts"])
        except ValueError as exc:
            raise PayloadRefused("BAD-D", f"ts: {exc}") from exc
        if not isinstance(item["values"], dict):
            raise PayloadRefused("BAD-D", "values is not an object")
        if not _EARLIEST_TS <= ts <= core.now_ms() + _LATEST_AHEAD:
            core.report_violation("J3", "WARN", f"{name!r}: ts {ts} cannot be right")
        return ts, item["values"]
    for half in item.keys() & {"ts", "values"}:
        core.report_violation("J4", "FAIL", f"{name!r}: {half} alone makes every member a key")
    return core.now_ms(), item


def _check_metadata(metadata: Any) -> None:
    try:
        if not isinstance(metadata["connector"], str):
            raise PayloadRefused("BAD-D", "metadata without a connector's name")
        long_of(metadata["receivedTs"])
        long_of(metadata["publishedTs"])
    except (TypeError, KeyError, ValueError) as exc:
        raise PayloadRefused("BAD-D", "bad metadata") from exc


def values_of(core: Core, device: Device, values: dict[str, Any]) -> dict[str, Stored] | None:
    """The values as they are stored; None when the rule engine rejects all of them."""
    stored: dict[str, Stored] = {}
    is_rejected = False
    for key, value in values.items():
        if fault := fault_of_key(key):
            core.add_violation(fault)
            is_rejected = is_rejected or fault.assertion == "J8"
        kept, issue = store_value(value)
        if issue:
            what = f"{device.name!r} {key!r}: {issue.what}"
            core.report_violation(issue.assertion, issue.severity, what)
        if kept is None:
            continue
        stored[key] = kept
        kind = json_type(value)
        first = device.json_types.setdefault(key, kind)
        if first != kind:
            what = f"{device.name!r} {key!r} was {first} and is now {kind}"
            core.report_violation("J6c", "WARN", what)
    if not stored:  # the rule node fails: "Msg body is empty"
        core.report_violation("J10", "FAIL", f"{device.name!r}: a row without any value is lost")
    return None if is_rejected else stored
