"""A read-only copy of a dashboard: it has no RPC widgets and no actions.

It protects nothing: in ThingsBoard CE a user who may see a device may also send it RPC
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
    """A copy that has no widget of type `rpc`, and only actions that navigate."""
    copied: dict[str, Any] = copy.deepcopy(dict(dashboard))
    copied["title"] = dashboard["title"] + SUFFIX
    if "name" in copied:
        copied["name"] = copied["title"]
    configuration = copied.get("configuration", {})
    widgets = configuration.get("widgets", {})
    rpc_widgets = {key for key, widget in widgets.items() if widget.get("type") == "rpc"}
    for key in rpc_widgets:
        del widgets[key]
    for widget in widgets.values():
        _restrict_actions(widget)
    for state in configuration.get("states", {}).values():
        for layout in state.get("layouts", {}).values():
            _remove_widgets(rpc_widgets, layout.get("widgets", {}))
    return copied


def _remove_widgets(rpc_widgets: set[str], layout: dict[str, dict[str, Any]]) -> None:
    """Remove the widgets from the layout, and move the others up to its top."""
    for key in rpc_widgets & layout.keys():
        del layout[key]
    top = min((position.get("row", 0) for position in layout.values()), default=0)
    for position in layout.values():
        if "row" in position:
            position["row"] -= top


def _restrict_actions(widget: dict[str, Any]) -> None:
    config = widget.setdefault("config", {})
    for source, actions in config.get("actions", {}).items():
        config["actions"][source] = [one for one in actions if one.get("type") in _HARMLESS]
    if widget.get("type") == "alarm":
        config["settings"] = {**config.get("settings", {}), **_ALARMS_STAY}
