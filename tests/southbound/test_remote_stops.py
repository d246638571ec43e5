"""Remote stops, which end with the receipt."""

from __future__ import annotations

import pytest
import trio

from gateway.domain.events import TransactionSettled
from tests.memory_journal import MemoryJournal

from ..conftest import open_gateway
from .operators import Operator, accept, charging, plugged


@pytest.mark.parametrize("by", ["remoteStop", "setCharging", "RemoteStopTransaction"])
@pytest.mark.parametrize("reason", [None, "EVDisconnected"])
@pytest.mark.parametrize("answer", ["Accepted", "Rejected", "afterwards", None])
async def test_a_stop_that_was_ordered_says_so_where_the_charge_point_does_not(
    gateway, operator, by, reason, answer
):
    more = {} if reason is None else {"reason": reason}
    device, params = {
        "remoteStop": ("CP-1/1", None),
        "setCharging": ("CP-1/1", False),
        "RemoteStopTransaction": ("CP-1", {"transactionId": 1}),
    }[by]
    async with charging(gateway) as (charger, tx):
        assert tx == 1
        operator.send(device, by, params)
        unique_id, _, _ = await charger.next_call()
        if answer == "afterwards":
            await charger.stop(tx, 2_000, **more)
            await charger.reply(unique_id, status="Accepted")
        elif answer is None:  # it says nothing, and stops later for reasons of its own
            await trio.sleep(300)
            await charger.stop(tx, 2_000, **more)
        else:
            await charger.reply(unique_id, status=answer)
            await charger.stop(tx, 2_000, **more)
        await gateway.settled()
    (settled,) = gateway.events(TransactionSettled)
    ordered = answer in ("Accepted", "afterwards")
    assert settled.receipt["stop_reason"] == reason or ("Remote" if ordered else "Local")


async def test_a_stop_that_was_ordered_says_so_after_a_restart():
    """It was accepted before, and the stop comes out of the queue of the charge point."""
    journal = MemoryJournal()
    async with open_gateway(journal=journal) as first, trio.open_nursery() as nursery:
        operator = Operator(first, nursery)
        async with charging(first) as (charger, tx):
            other = await charger.start(0, connector=2)
            operator.send("CP-1", "RemoteStopTransaction", {"transactionId": tx})
            await accept(charger)
            assert await operator.responses() == [{"status": "Accepted"}]
    async with open_gateway(journal=journal) as second, second.charger("CP-1") as charger:
        await charger.stop(other, 10)
        await charger.stop(tx, 2_000)
        await second.settled()
    reasons = [event.receipt["stop_reason"] for event in second.events(TransactionSettled)]
    assert reasons == ["Local", "Remote"]


async def test_another_connectors_stop_is_not_the_one_that_was_ordered(gateway, operator):
    async with charging(gateway) as (charger, tx):
        other = await charger.start(0, connector=2)
        operator.send("CP-1/1", "remoteStop")
        await accept(charger)
        await charger.stop(other, 5)
        await trio.sleep(1)
        assert operator.received == []
        await charger.stop(tx, 2_000)
        assert (await operator.responses())[0]["status"] == "Stopped"


async def test_a_remote_stop_is_answered_with_its_receipt(gateway, operator):
    async with charging(gateway) as (charger, tx):
        operator.send("CP-1/1", "remoteStop")
        assert await accept(charger) == ("RemoteStopTransaction", {"transactionId": tx})
        await trio.sleep(3)
        assert operator.received == []
        await charger.stop(tx, 2_000, reason="Remote")
        (answer,) = await operator.responses()
        (settled,) = gateway.events(TransactionSettled)
        assert answer == {"status": "Stopped", "receipt_id": settled.receipt["receipt_id"]}


async def test_a_remote_stop_that_is_rejected_is_a_result(gateway, operator):
    async with charging(gateway) as (charger, _):
        operator.send("CP-1/1", "remoteStop", {})
        await accept(charger, "Rejected")
        assert await operator.responses() == [{"status": "Rejected"}]


async def test_a_remote_stop_that_nothing_follows_times_out(gateway, operator):
    async with charging(gateway) as (charger, _):
        operator.send("CP-1/1", "remoteStop")
        await accept(charger)
        await operator.responses()
        assert operator.codes == ["Timeout"]


async def test_a_remote_stop_without_a_transaction_is_rejected(gateway, operator):
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", "remoteStop")
        assert await operator.responses() == [{"status": "Rejected", "reason": "NoTransaction"}]
        assert charger.calls.statistics().current_buffer_used == 0


async def test_a_remote_stop_of_one_who_is_away_is_not_connected(gateway, operator):
    async with charging(gateway):
        pass
    await gateway.settled()
    operator.send("CP-1/1", "remoteStop")
    await operator.responses()
    assert operator.codes == ["NotConnected"]
