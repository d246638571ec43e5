"""Sessions whose charge point never ends them: closed by an operator, or by time, and corrected."""

from __future__ import annotations

from datetime import timedelta

import trio

from gateway.app import AppSettings
from gateway.domain.events import TransactionSettled

from .conftest import open_gateway

HOUR = 3600


def receipts(gateway):
    return [
        (event.version, event.receipt["energy_wh"], event.receipt["stop_reason"])
        for event in gateway.events(TransactionSettled)
    ]


async def test_an_operator_closes_a_session_and_a_late_stop_corrects_it(gateway):
    """Closed at 4 kWh; the charge point's own stop at 5 kWh is version 2 of the same receipt."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(meter_wh=0)
        await trio.sleep(HOUR)
        await charger.sample(tx, "4000")
    await gateway.settled()
    answer = await gateway.thingsboard.rpc("CP-1/1", "closeSession")
    assert answer["status"] == "Closed"
    assert receipts(gateway) == [(1, "4000", "Operator")]
    (settled,) = gateway.events(TransactionSettled)
    assert settled.receipt["receipt_id"] == answer["receipt_id"]
    assert settled.receipt["needs_review"]
    assert await gateway.thingsboard.rpc("CP-1/1", "closeSession") == {
        "status": "Rejected",
        "reason": "NoTransaction",
    }
    await trio.sleep(HOUR)
    async with gateway.charger("CP-1") as charger:
        await charger.stop(tx, meter_wh=5_000)
    await gateway.settled()
    assert receipts(gateway) == [(1, "4000", "Operator"), (2, "5000", "Local")]
    first, second = gateway.events(TransactionSettled)
    assert first.published_ms == second.published_ms
    assert gateway.thingsboard.latest("ocpp-gateway sessions")["receipt"]["version"] == 2


async def test_a_session_is_given_up_when_its_charge_point_stays_away():
    async with open_gateway(settings=AppSettings(stale_session=timedelta(hours=2))) as gateway:
        async with gateway.charger("CP-2") as other:
            await other.start(meter_wh=0)
            async with gateway.charger("CP-1") as charger:
                tx = await charger.start(meter_wh=0)
                await trio.sleep(45)
                await charger.sample(tx, "4000")
            for _ in range(3 * 12):  # the other one is silent about its session, but it is there
                await other.ask("Heartbeat")
                await trio.sleep(300)
            await trio.sleep(7)  # trio-websocket's client falls over a ping that meets its close
        await gateway.settled()
        assert receipts(gateway) == [(1, "4000", "Stale")]


async def test_a_restart_remembers_what_was_given_up(gateway):
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(meter_wh=0)
        await trio.sleep(HOUR)
        await charger.sample(tx, "4000")
    await gateway.thingsboard.rpc("CP-1/1", "closeSession")
    await gateway.settled()
    async with open_gateway(journal=gateway.journal) as again, again.charger("CP-1") as charger:
        await charger.stop(tx, meter_wh=5_000)
        await again.settled()
    assert [version for version, *_ in receipts(gateway)] == [1, 2]
