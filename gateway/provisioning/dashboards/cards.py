"""Widgets that are one number."""

from __future__ import annotations

from .columns import GREY
from .devices import Alias, Filter
from .ids import Json
from .widgets import BLACK, DIM, WHITE, background, constant, font, source, timed, widget
from .windows import DAY, last


def device_count(label: str, of: Alias, icon: str, color: str, only: Filter) -> Json:
    """How many devices there are (entity_count.json)."""
    counted = {"type": "entityCount", "name": None, "entityAliasId": of.id, "filterId": only.id}
    return _count("entity_count", label, counted, icon, constant(color))


def alarm_count(label: str, of: Alias) -> Json:
    """How many alarms are active; red where there is one (alarm_count.json)."""
    counted = {
        "type": "alarmCount",
        "name": None,
        "entityAliasId": of.id,
        "filterId": None,
        "alarmFilterConfig": {"statusList": ["ACTIVE"]},
    }
    color = {
        "type": "range",
        "color": "#00695c",
        "rangeList": [
            {"from": 0, "to": 1, "color": "#00695c"},
            {"from": 1, "to": None, "color": "#d12730"},
        ],
        "colorFunction": "",
    }
    return _count("alarm_count", label, counted, "warning", color)


def _count(fqn: str, label: str, counted: Json, icon: str, color: Json) -> Json:
    settings = {
        "layout": "column",
        "showLabel": True,
        "label": label,
        "labelFont": font(12, "400"),
        "labelColor": constant(DIM),
        "showIcon": True,
        "icon": icon,
        "iconSize": 20,
        "iconSizeUnit": "px",
        "iconColor": constant(WHITE),
        "showIconBackground": True,
        "iconBackgroundSize": 36,
        "iconBackgroundSizeUnit": "px",
        "iconBackgroundColor": color,
        "valueFont": font(20, "500"),
        "valueColor": constant(BLACK),
        "showChevron": False,
        "chevronSize": 24,
        "chevronSizeUnit": "px",
        "chevronColor": "rgba(0, 0, 0, 0.38)",
    }
    key = {"name": "count", "type": "count", "label": "count", "color": GREY, "settings": {},
           "_hash": 0.5}  # fmt: skip
    return widget(
        fqn,
        "latest",
        label,
        settings,
        datasources=[{**counted, "dataKeys": [key]}],
        showTitle=False,
        padding="0px",
        enableFullscreen=False,
        displayTimewindow=False,
        **timed(last(30 * DAY, aggregation="NONE")),
    )


def value_card(key: Json, of: Alias, icon: str, color: str) -> Json:
    """One value in large digits (value_card.json).  Units and decimals are those of the key."""
    settings = {
        "layout": "square",
        "autoScale": True,
        "labelPosition": "top",
        "showLabel": True,
        "labelFont": font(14, "500"),
        "labelColor": constant(BLACK),
        "showIcon": True,
        "icon": icon,
        "iconSize": 32,
        "iconSizeUnit": "px",
        "iconColor": constant(color),
        "valueFont": font(36, "500"),
        "valueColor": constant(BLACK),
        "showDate": False,
        "dateFormat": {"format": None, "lastUpdateAgo": True, "custom": False},
        "dateFont": font(12, "500"),
        "dateColor": constant("rgba(0, 0, 0, 0.38)"),
        "background": background(),
    }
    return widget(
        "cards.value_card",
        "latest",
        key["label"],
        settings,
        datasources=[source(of, [key])],
        showTitle=False,
        padding="0px",
        enableFullscreen=False,
        displayTimewindow=False,
        units=key["units"] or "",
        decimals=key["decimals"],
    )
