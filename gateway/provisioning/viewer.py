"""A dashboard for people who watch: the same, without anything that gives an order.

It is a courtesy, not a lock: in ThingsBoard CE a user who may see a device may also send it RPC
over the REST API (`CustomerUserPermissions` allows RPC_CALL on every device of the customer).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

SUFFIX = " (view only)"
_HARMLESS = frozenset({"openDashboardState", "updateDashboardState", "openDashboard", "doNothing"})
_ALARMS_STAY = {"allowAcknowledgment": False, "allowClear": False, "allowAssign": False}


def read_only(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that has no widget of type `rpc`, and no action but to look elsewhere."""
    viewed: dict[str, Any] = copy.deepcopy(dict(dashboard))
    viewed["title"] = dashboard["title"] + SUFFIX
    if "name" in viewed:
        viewed["name"] = viewed["title"]
    configuration = viewed.get("configuration", {})
    widgets = configuration.get("widgets", {})
    orders = {key for key, widget in widgets.items() if widget.get("type") == "rpc"}
    for key in orders:
        del widgets[key]
    for widget in widgets.values():
        _tame(widget)
    for state in configuration.get("states", {}).values():
        for layout in state.get("layouts", {}).values():
            _drop(orders, layout.get("widgets", {}))
    return viewed


def _drop(orders: set[str], places: dict[str, dict[str, Any]]) -> None:
    """Take them away, and move up what stood below them at the top of the page."""
    for key in orders & places.keys():
        del places[key]
    top = min((place.get("row", 0) for place in places.values()), default=0)
    for place in places.values():
        if "row" in place:
            place["row"] -= top


def _tame(widget: dict[str, Any]) -> None:
    config = widget.setdefault("config", {})
    for source, actions in config.get("actions", {}).items():
        config["actions"][source] = [one for one in actions if one.get("type") in _HARMLESS]
    if widget.get("type") == "alarm":
        config["settings"] = {**config.get("settings", {}), **_ALARMS_STAY}
