"""The dashboards, each a complete dashboard object of ThingsBoard.  Pure.

They fit ThingsBoard CE 3.9 to 4.4: its bundled widgets only, settings as the widgets' own
defaults have them (`system/widget_types/*.json` and `*-widget.models.ts` of its sources).
"""

from __future__ import annotations

from typing import Any

from .charging import charging
from .sessions import sessions


def dashboards() -> list[dict[str, Any]]:
    """The bodies for `POST /api/dashboard`, without ThingsBoard's ids; always the same."""
    return [charging(), sessions()]
