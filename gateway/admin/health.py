"""/readyz: whether charge points are served, and how far ThingsBoard is behind."""

from __future__ import annotations

import json

from ..app import RunningGateway
from ..northbound.statistics import DeliveryStatistics
from .http import Response

_SLOW_COMMIT = 5.0  # seconds after which the store is said not to write


def readiness(running: RunningGateway) -> Response:
    """503 once the store fails or does not write.

    A gateway without MQTT is ready: charge points are served, and ThingsBoard is behind.
    """
    journal = running.bus.journal.statistics()
    problem = journal.failure
    if problem is None and journal.writing_s > _SLOW_COMMIT:
        problem = f"a commit has been under way for {journal.writing_s:.0f} s"
    ready = problem is None
    entries, seconds = running.lag()
    body = {
        "ready": ready,
        "store": problem or "ok",
        "charge_points": len(running.registry.connections()),
        "mqtt": _mqtt_status(running.delivery),
        "behind_entries": entries,
        "behind_seconds": round(seconds, 1),
    }
    return 200 if ready else 503, "application/json", json.dumps(body).encode() + b"\n"


def _mqtt_status(delivery: DeliveryStatistics) -> str:
    """A connection that is up may be unsteady: it is lost again and again for the same reason."""
    if not delivery.connected:
        return f"behind: {delivery.why}"
    return f"unsteady: {delivery.why}" if delivery.why else "connected"
