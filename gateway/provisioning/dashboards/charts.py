"""Widgets that show values over time."""

from __future__ import annotations

from collections.abc import Iterable

from .devices import Alias
from .ids import Json
from .widgets import DIM, background, font, source, timed, widget


def chart(
    title: str,
    of: Alias,
    keys: Iterable[Json],
    axes: dict[str, Json],
    *,
    timewindow: Json | None = None,
) -> Json:
    """Over time (time_series_chart.json).  axes: by the ids that the keys name."""
    settings = {
        "showLegend": True,
        "legendConfig": {
            "direction": "column",
            "position": "top",
            "sortDataKeys": False,
            "showMin": False,
            "showMax": True,
            "showAvg": True,
            "showTotal": False,
            "showLatest": True,
        },
        "legendLabelFont": font(12, "400"),
        "legendLabelColor": "rgba(0, 0, 0, 0.76)",
        "thresholds": [],
        "dataZoom": True,
        "stack": False,
        "yAxes": {name: {**axis, "id": name} for name, axis in axes.items()},
        "xAxis": {**_axis("", "bottom"), "ticksFormat": {}},
        "showTooltip": True,
        "tooltipTrigger": "axis",
        "tooltipShowDate": True,
        "tooltipDateInterval": True,
        "background": background(),
        "padding": "12px",
    }
    return widget(
        "time_series_chart",
        "timeseries",
        title,
        settings,
        datasources=[{**source(of, keys), "latestDataKeys": None}],
        titleFont=font(16, "500"),
        titleStyle=None,
        backgroundColor="rgba(0, 0, 0, 0)",
        padding="0px",
        **timed(timewindow),
    )


def axis(label: str, *, order: int = 0, decimals: int = 0, right: bool = False) -> Json:
    """A scale for values (`TimeSeriesChartYAxisSettings`)."""
    return {
        **_axis(label, "right" if right else "left"),
        "units": None,
        "decimals": decimals,
        "order": order,
        "ticksFormatter": None,
    }


def _axis(label: str, position: str) -> Json:
    return {
        "show": True,
        "label": label,
        "labelFont": font(12, "600"),
        "labelColor": DIM,
        "position": position,
        "showTickLabels": True,
        "tickLabelFont": font(10, "400"),
        "tickLabelColor": DIM,
        "showTicks": True,
        "ticksColor": DIM,
        "showLine": True,
        "lineColor": DIM,
        "showSplitLines": position != "right",
        "splitLinesColor": "rgba(0, 0, 0, 0.12)",
    }
