"""Odd clocks over the wire: ids, absences and restarts, as the running gateway sees them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import trio

from gateway.domain.events import (
    ChargePointConnected,
    ConnectorStatusChanged,
    TransactionSettled,
    TransactionStarted,
)

from .conftest import open_gateway
from .fakes import now

UNSET = "2014-01-01T00:05:00Z"
HOUR = 3_600


def clock(seconds: float) -> str:
    """So long from now."""
    return (now() + timedelta(seconds=seconds)).isoformat()


async def start(charger, timestamp: str, meter_wh: int = 0) -> int:
    payload = {"connectorId": 1, "idTag": "TAG", "meterStart": meter_wh, "timestamp": timestamp}
    return (await charger.ask("StartTransaction", **payload))["transactionId"]


def flags(gateway) -> list[set[str]]:
    return [set(event.receipt["flags"]) for event in gateway.events(TransactionSettled)]


@pytest.mark.parametrize("stops", [True, False])
async def test_three_power_ups_of_one_stamp_are_three_transactions(gateway, stops):
    """The clock begins anew at each, and so may the register."""
    ids = []
    for _ in range(3):
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
            ids.append(await start(charger, UNSET))
            assert await start(charger, UNSET) == ids[-1]  # a retry is one all the same
            await trio.sleep(HOUR + 7)  # not when a ping is due
            if stops:
                await charger.ask(
                    "StopTransaction", transactionId=ids[-1], meterStop=0, timestamp=UNSET
                )
        await trio.sleep(60)
    assert len(set(ids)) == 3
    await gateway.settled()
    assert all("needs_review" in found for found in flags(gateway))


@pytest.mark.parametrize("stops", [True, False])
async def test_so_they_are_where_its_statuses_tell_the_offset(gateway, stops):
    """Each power-up has another one, so that one stamp stands for three times."""
    begun = datetime.fromisoformat(UNSET)
    ids = []
    for _ in range(3):
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
            for seconds, status in ((-240, "Available"), (-30, "Preparing")):
                stamp = (begun + timedelta(seconds=seconds)).isoformat()
                await charger.ask(
                    "StatusNotification",
                    connectorId=1,
                    status=status,
                    errorCode="NoError",
                    timestamp=stamp,
                )
                await trio.sleep(210 if status == "Available" else 30)
            ids.append(await start(charger, UNSET))
            assert await start(charger, UNSET) == ids[-1]  # a retry is one all the same
            await trio.sleep(HOUR + 7)  # not when a ping is due
            if stops:
                await charger.ask(
                    "StopTransaction",
                    transactionId=ids[-1],
                    meterStop=0,
                    timestamp=(begun + timedelta(seconds=HOUR + 7)).isoformat(),
                )
        await trio.sleep(60)
    assert len(set(ids)) == 3
    await gateway.settled()
    if stops:
        settled = gateway.events(TransactionSettled)
        assert [event.receipt["duration_s"] for event in settled] == [HOUR + 7] * 3


async def test_a_stamp_from_while_it_was_connected_is_not_believed_but_one_from_its_absence(
    gateway,
):
    async with gateway.charger("CP-1") as charger:
        await trio.sleep(5 * HOUR)
        assert await start(charger, clock(-3 * HOUR))
    await trio.sleep(5 * HOUR)
    async with gateway.charger("CP-1") as charger:
        assert await start(charger, clock(-3 * HOUR), 5)
    first, second = gateway.events(TransactionStarted)
    assert first.at == first.received_at
    assert second.at == second.received_at - timedelta(hours=3)


async def test_what_was_while_the_gateway_was_away_is_believed_after_it_is_back(gateway):
    async with gateway.charger("CP-1"):
        await trio.sleep(24 * HOUR + 7)  # not when a ping is due
    gone = now()
    await gateway.settled()
    journal = gateway.journal
    gateway.stop.set()
    await trio.sleep(10 * HOUR)
    async with open_gateway(journal=journal) as again, again.charger("CP-1") as charger:
        await trio.sleep(HOUR)
        await start(charger, clock(-6 * HOUR))
        await start(charger, clock(-20 * HOUR), 5)
        absent, connected = again.events(TransactionStarted), again.events(ChargePointConnected)
        assert absent[-2].at == absent[-2].received_at - timedelta(hours=6)
        assert absent[-1].at == absent[-1].received_at
        assert connected[-1].away[-1][0] <= gone.timestamp() * 1000


async def test_telemetry_carries_the_time_that_is_billed(gateway):
    """One judgement for all: a status that is two hours ahead, and a start by the same clock."""
    async with gateway.charger("CP-1") as charger:
        ahead = 2 * HOUR
        await charger.ask(
            "StatusNotification",
            connectorId=1,
            status="Preparing",
            errorCode="NoError",
            timestamp=clock(ahead),
        )
        tx = await start(charger, clock(ahead))
        begun = now()
        await trio.sleep(HOUR)
        await charger.ask(
            "StopTransaction", transactionId=tx, meterStop=1_000, timestamp=clock(ahead)
        )
        await gateway.settled()
    (event,) = gateway.events(ConnectorStatusChanged)
    assert event.at == event.received_at
    assert gateway.thingsboard.latest("CP-1")["clock_skew_s"] == ahead
    (settled,) = gateway.events(TransactionSettled)
    assert settled.receipt["duration_s"] == HOUR
    assert settled.started_at == begun
    assert settled.receipt["flags"] == ["timestamp_corrected"]
    assert all(
        ts <= (now().timestamp() + 60) * 1000 for ts, _ in gateway.thingsboard.rows("CP-1/1")
    )
