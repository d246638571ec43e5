"""Messages of a charge point whose clock is odd: when received, and what they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.domain.events import (
    ConnectorStatusChanged,
    TransactionStarted,
)

EIGHT = datetime(2026, 3, 2, 8, tzinfo=UTC)


def m(minutes: float) -> datetime:
    return EIGHT + timedelta(minutes=minutes)


UNSET = [datetime(y, 1, 1, 0, 5, tzinfo=UTC) for y in (1970, 2000, 2010, 2014, 2020, 2023, 2025)]


def status(received_at: datetime, said: datetime | None) -> ConnectorStatusChanged:
    return ConnectorStatusChanged(
        charge_point_id="CP", received_at=received_at, timestamp=said, connector_id=1, status="X"
    )


def started(received_at: datetime, said: datetime | None, **more: Any) -> TransactionStarted:
    return TransactionStarted(
        charge_point_id="CP",
        received_at=received_at,
        timestamp=said,
        connector_id=1,
        id_tag="T",
        meter_start="0",
        **more,
    )
