"""ThingsBoard's bundled widgets that send RPC: a switch, and buttons.

They send their RPC one-way (`action-widget.models.ts`: `sendOneWayCommand`) and get no response.
So a switch reads its state from telemetry, to which it stays subscribed (`TimeSeriesValueGetter`),
and the gateway publishes `tx_active` again when a command fails; for all other commands there is
`last_command_result`.

ThingsBoard merges these settings into its defaults only one level deep: each group must be whole.
"""

from __future__ import annotations

from typing import Any

from .devices import Alias
from .ids import Json
from .widgets import BLACK, WHITE, background, font, widget

_TIMEOUT = 10_000  # ms; for a device session to exist, not for the command


def switch(label: str, of: Alias, method: str, *, state: str) -> Json:
    """Sends `method` with true or false; shows the bool telemetry `state`.

    single-switch-widget.models.ts.
    """
    settings = {
        "initialState": _when(state, True),
        "disabledState": _when("connected", False),
        "onUpdateState": _send(method, True),
        "offUpdateState": _send(method, False),
        "layout": "right",
        "autoScale": True,
        "showLabel": True,
        "label": label,
        "labelFont": font(16, "500"),
        "labelColor": BLACK,
        "showIcon": True,
        "icon": "ev_station",
        "iconSize": 24,
        "iconSizeUnit": "px",
        "iconColor": BLACK,
        "switchColorOn": "#2e7d32",
        "switchColorOff": "rgba(46, 125, 50, 0.30)",
        "switchColorDisabled": "#d5d7e5",
        "tumblerColorOn": WHITE,
        "tumblerColorOff": WHITE,
        "tumblerColorDisabled": WHITE,
        "showOnLabel": False,
        "onLabel": "On",
        "onLabelFont": font(16, "400"),
        "onLabelColor": "rgba(0, 0, 0, 0.38)",
        "showOffLabel": False,
        "offLabel": "Off",
        "offLabelFont": font(16, "400"),
        "offLabelColor": "rgba(0, 0, 0, 0.38)",
        "background": background(),
    }
    return _control("single_switch", label, of, settings)


def button(
    label: str, of: Alias, method: str, params: Any, icon: str, *, color: str = "#305680"
) -> Json:
    """Sends `method` with `params`; grey while the charge point is not connected.

    command-button-widget.models.ts, widget-button.models.ts.
    """
    settings = {
        "appearance": {
            "type": "outlined",
            "autoScale": True,
            "showLabel": True,
            "label": label,
            "showIcon": True,
            "icon": icon,
            "iconSize": 24,
            "iconSizeUnit": "px",
            "borderRadius": "4px",
            "mainColor": color,
            "backgroundColor": WHITE,
            "customStyle": {
                "enabled": None,
                "hovered": None,
                "pressed": None,
                "activated": None,
                "disabled": None,
            },
        },
        "onClickState": _send(method, params),
        "disabledState": _when("connected", False),
    }
    return _control("command_button", label, of, settings)


def _control(fqn: str, label: str, of: Alias, settings: Json) -> Json:
    return widget(
        fqn,
        "rpc",
        label,
        settings,
        targetDevice={"type": "entity", "entityAliasId": of.id},
        showTitle=False,
        padding="0px",
        enableFullscreen=False,
        useDashboardTimewindow=False,
    )


def _when(key: str, value: bool) -> Json:
    """True while the latest value of a key is this one (`GetValueSettings`)."""
    return {
        "action": "GET_TIME_SERIES",
        "defaultValue": False,
        "getAttribute": {"key": key, "scope": None},
        "getTimeSeries": {"key": key},
        "getAlarmStatus": {"severityList": None, "typeList": None},
        "dataToValue": {
            "type": "NONE",
            "compareToValue": value,  # the key's value as JSON, and no function
            "dataToValueFunction": "return data;",
        },
    }


def _send(method: str, params: Any) -> Json:
    """An RPC (`SetValueSettings`)."""
    return {
        "action": "EXECUTE_RPC",
        "executeRpc": {
            "method": method,
            "requestTimeout": _TIMEOUT,
            "requestPersistent": False,
            "persistentPollingInterval": 1000,
        },
        "setAttribute": {"key": "state", "scope": "SERVER_SCOPE"},
        "putTimeSeries": {"key": "state"},
        "valueToData": {
            "type": "NONE" if params is None else "CONSTANT",
            "constantValue": params,
            "valueToDataFunction": "return value;",
        },
    }
