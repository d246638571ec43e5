"""Data keys: what a widget reads of a device, and how it shows it (`DataKey`, widget.models.ts)."""

from __future__ import annotations

import zlib
from typing import Any

from .ids import Json

BLUE, GREEN, ORANGE, PURPLE, GREY = "#2196f3", "#4caf50", "#ff9800", "#9c27b0", "#757575"


def telemetry(key: str, label: str, **how: Any) -> Json:
    return _key("timeseries", key, label, **how)


def attribute(key: str, label: str, **how: Any) -> Json:
    return _key("attribute", key, label, **how)


def column(
    key: Json,
    *,
    content: str | None = None,
    style: str | None = None,
    hidden: bool = False,
) -> Json:
    """A column of a table (`TableWidgetDataKeySettings`).

    content, style: bodies of JavaScript functions, see `cells`.  hidden: for those to read.
    """
    settings = {
        "columnWidth": "0px",
        "useCellStyleFunction": style is not None,
        "cellStyleFunction": style or "",
        "useCellContentFunction": content is not None,
        "cellContentFunction": content or "",
        "defaultColumnVisibility": "hidden" if hidden else "visible",
        "columnSelectionToDisplay": "disabled" if hidden else "enabled",
    }
    return {**key, "settings": settings}


def line(key: Json, axis: str = "default") -> Json:
    """A line of a chart (`TimeSeriesChartKeySettings`)."""
    settings = {
        "yAxisId": axis,
        "showInLegend": True,
        "dataHiddenByDefault": False,
        "type": "line",
        "lineSettings": {
            "showLine": True,
            "step": False,
            "stepType": "start",
            "smooth": False,
            "lineType": "solid",
            "lineWidth": 2,
            "showPoints": False,
            "showPointLabel": False,
            "pointShape": "circle",
            "pointSize": 4,
            "fillAreaSettings": {
                "type": "none",
                "opacity": 0.4,
                "gradient": {"start": 100, "end": 0},
            },
        },
    }
    return {**key, "settings": settings}


def bar(key: Json, axis: str = "default") -> Json:
    settings = {
        "yAxisId": axis,
        "showInLegend": True,
        "dataHiddenByDefault": False,
        "type": "bar",
        "barSettings": {
            "showBorder": False,
            "borderWidth": 2,
            "borderRadius": 2,
            "showLabel": False,
            "backgroundSettings": {
                "type": "none",
                "opacity": 0.4,
                "gradient": {"start": 100, "end": 0},
            },
        },
    }
    return {**key, "settings": settings}


def _key(
    kind: str,
    key: str,
    label: str,
    *,
    units: str | None = None,
    decimals: int | None = None,
    over_time: str | None = None,
    per: int | None = None,
    color: str = BLUE,
) -> Json:
    """over_time: SUM, AVG, ... over the time window, in a widget of latest values.

    per: the value is shown divided by this (3600 for hours of seconds).
    """
    return {
        "name": key,
        "type": kind,
        "label": label,
        "color": color,
        "settings": {},
        "_hash": zlib.crc32(f"{key} {label}".encode()) / 2**32,  # the browser needs any number here
        "units": units,
        "decimals": decimals,
        "aggregationType": over_time,
        "funcBody": None,
        "usePostProcessing": per is not None,
        "postFuncBody": None if per is None else f"return value / {per};",
    }
