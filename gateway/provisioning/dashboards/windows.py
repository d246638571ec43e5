"""Time windows (`Timewindow`, time.models.ts).  All are realtime: they show new values."""

from __future__ import annotations

from .ids import Json

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000  # milliseconds

MAX_POINTS = 1000
"""Of one series: a receipt is some kB, and a browser holds every point that it shows."""


def last(milliseconds: int, *, aggregation: str, interval: int = 1000) -> Json:
    """The time up to now.  interval: of one point, milliseconds."""
    return _window(
        {"realtimeType": 0, "timewindowMs": milliseconds, "interval": interval}, aggregation
    )


def this_month(*, aggregation: str, interval: int = 1000) -> Json:
    """The calendar month up to now: it begins at midnight, and so do intervals of a day."""
    return _window(
        {"realtimeType": 1, "quickInterval": "CURRENT_MONTH_SO_FAR", "interval": interval},
        aggregation,
    )


def _window(realtime: Json, aggregation: str) -> Json:
    return {
        "hideAggregation": False,
        "hideAggInterval": False,
        "hideTimezone": False,
        "selectedTab": 0,  # realtime: new values appear by themselves
        "realtime": realtime,
        "aggregation": {"type": aggregation, "limit": MAX_POINTS},
        "timezone": None,
    }
