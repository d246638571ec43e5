"""The parts that every widget of ThingsBoard has.

The modules beside this one make the widgets of its stock, and each function says which file of
ThingsBoard's sources its settings are from: `X.json` under
`application/src/main/data/json/system/widget_types`, or an `X.models.ts` under `ui-ngx/src/app`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .devices import Alias, Filter
from .ids import Json, stable_id

WHITE, BLACK, DIM = "#ffffff", "rgba(0, 0, 0, 0.87)", "rgba(0, 0, 0, 0.54)"


def widget(fqn: str, kind: str, title: str, settings: Json, **config: Any) -> Json:
    """kind: latest, timeseries, alarm or rpc, as the widget's type says."""
    return {
        "typeFullFqn": f"system.{fqn}",
        "type": kind,
        "config": {
            "title": title,
            "showTitle": True,
            "showTitleIcon": False,
            "titleStyle": {"fontSize": "16px", "fontWeight": 400, "padding": "5px 10px 5px 10px"},
            "backgroundColor": WHITE,
            "color": BLACK,
            "padding": "4px",
            "margin": "0px",
            "borderRadius": "4px",
            "dropShadow": True,
            "enableFullscreen": True,
            "showLegend": False,
            "widgetStyle": {},
            "widgetCss": "",
            "noDataDisplayMessage": "",
            "pageSize": 1024,
            "units": "",
            "decimals": None,
            "datasources": [],
            "useDashboardTimewindow": True,
            "displayTimewindow": True,
            "actions": {},
            "configMode": "basic",
            "settings": settings,
            **config,
        },
    }


def source(of: Alias, keys: Iterable[Json], only: Filter | None = None) -> Json:
    return {
        "type": "entity",
        "name": None,
        "entityAliasId": of.id,
        "filterId": None if only is None else only.id,
        "dataKeys": list(keys),
    }


def on_row_click(state: str) -> Json:
    """Opens a state for the device of the row."""
    return {
        "rowClick": [
            {
                "id": stable_id("open", state),
                "name": "Open",
                "icon": "more_horiz",
                "type": "openDashboardState",
                "targetDashboardStateId": state,
                "setEntityId": True,
                "stateEntityParamName": None,
                "openRightLayout": False,
                "openInSeparateDialog": False,
                "openInPopover": False,
            }
        ]
    }


def timed(timewindow: Json | None) -> Json:
    if timewindow is None:
        return {"useDashboardTimewindow": True}
    return {"useDashboardTimewindow": False, "timewindow": timewindow}


def font(size: int, weight: str) -> Json:
    return {
        "family": "Roboto",
        "size": size,
        "sizeUnit": "px",
        "style": "normal",
        "weight": weight,
        "lineHeight": f"{size + 4}px",
    }


def constant(color: str) -> Json:
    """ColorSettings of widget-settings.models.ts."""
    return {"type": "constant", "color": color, "colorFunction": ""}


def background() -> Json:
    overlay = {"enabled": False, "color": "rgba(255, 255, 255, 0.72)", "blur": 3}
    return {"type": "color", "color": WHITE, "overlay": overlay}
