"""The wall clock jumps: times that count come from chargers and from Trio's clock (HC-135)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio

from gateway.domain.clock import milliseconds
from gateway.domain.events import (
    ChargePointDisconnected,
    FramesRejected,
    TransactionSettled,
    TransactionStarted,
)

from .conftest import open_gateway
from .fakes import now, stamp

JUMPS = [timedelta(hours=-1), timedelta(days=1), timedelta(days=400)]
HOUR = 3_600


class Clock:
    """The gateway's wall clock; the chargers' own goes on as it did."""

    off = timedelta(0)

    def __call__(self):
        return now() + self.off


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_a_clock_that_jumps_disconnects_nobody_and_bills_nobody_wrongly(jump):
    """HC-135: 10 kWh in an hour by the charger's clock cost 3.00, whatever ours says."""
    clock = Clock()
    async with (
        open_gateway(now=clock) as gateway,
        gateway.charger("CP-1") as one,
        gateway.charger("CP-2") as two,
    ):
        started_at = now()
        first = await one.start(0)
        await trio.sleep(HOUR / 2)
        await one.sample(first, "5000")
        clock.off = jump
        for _ in range(5):
            await trio.sleep(HOUR / 10)
            assert "currentTime" in await one.ask("Heartbeat")
            assert "currentTime" in await two.ask("Heartbeat")
        second = await two.start(0)
        await one.stop(first, 10_000)
        third = await one.start(10_000)
        await gateway.settled()
        assert gateway.events(ChargePointDisconnected) == []
        begun = [event.transaction_id for event in gateway.events(TransactionStarted)]
        assert begun == [first, second, third] == sorted({first, second, third})
        (settled,) = gateway.events(TransactionSettled)
        assert settled.receipt["energy_wh"] == "10000", settled.receipt
        assert settled.receipt["total_excl_vat"] == "3.00"
        assert settled.receipt["duration_s"] == HOUR
        assert settled.started_at == started_at
        # A time of the charger's that our clock calls the future is not published as it is.
        for ts, _ in gateway.thingsboard.rows("CP-1/1"):
            assert ts <= milliseconds(max(now(), clock()) + timedelta(seconds=60))


async def test_what_is_reported_of_rejected_frames_does_not_wait_for_the_clock():
    """HC-135: back by a day, it would be published once in a day."""
    clock = Clock()
    async with open_gateway(now=clock) as gateway, gateway.charger("CP-1") as charger:
        await charger.send("no OCPP")
        await charger.ask("Heartbeat")
        clock.off = timedelta(days=-1)
        await trio.sleep(11)
        await charger.send("no OCPP")
        await charger.ask("Heartbeat")
        assert [event.total for event in gateway.events(FramesRejected)] == [1, 2]


async def test_a_power_cut_that_sets_the_clock_back_gives_no_id_twice():
    """HC-135: the journal counts, not the clock."""
    clock = Clock()
    async with open_gateway(now=clock) as gateway, gateway.charger("CP-1") as charger:
        first = await charger.start(0)
        await charger.stop(first, 1_000)
        await gateway.settled()
        journal = gateway.journal
    clock.off = timedelta(days=-1)
    async with (
        open_gateway(now=clock, journal=journal) as gateway,
        gateway.charger("CP-1") as charger,
    ):
        assert await charger.start(0) == first + 1
        again = await charger.ask(
            "StartTransaction", connectorId=1, idTag="T", meterStart=5, timestamp=stamp()
        )
        assert again["transactionId"] == first + 2
        await gateway.settled()
    rows = gateway.thingsboard.rows("ocpp-gateway sessions")
    assert len({ts for ts, _ in rows}) == len(rows)
