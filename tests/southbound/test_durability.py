"""Durable first, then answer; and what is recorded of connections."""

from __future__ import annotations

import pytest
import trio

from gateway.domain.events import FramesRejected, TransactionStarted
from gateway.journal import JournalError

from ..conftest import Gateway, open_gateway
from .connections import SlowJournal, serves
from .raw_websocket import call, opened

# --- durable first, then answer ------------------------------------------------------------------

BOOT = call("BootNotification", chargePointVendor="v", chargePointModel="m")
START = call("StartTransaction", connectorId=1, idTag="A", meterStart=0,
             timestamp="2026-01-01T00:00:00Z")  # fmt: skip
DURABLE = {
    "BootNotification": BOOT,
    "StartTransaction": START,
    "StopTransaction": call("StopTransaction", transactionId=1, meterStop=0,
                            timestamp="2026-01-01T00:00:00Z"),
    "MeterValues": call("MeterValues", connectorId=1, meterValue=[]),
    "StatusNotification": call("StatusNotification", connectorId=1, status="Available",
                               errorCode="NoError"),
    "DataTransfer": call("DataTransfer", vendorId="x"),
    "FirmwareStatusNotification": call("FirmwareStatusNotification", status="Idle"),
    "SecurityEventNotification": call("SecurityEventNotification", type="x",
                                      timestamp="2026-01-01T00:00:00Z"),
}  # fmt: skip


@pytest.mark.parametrize("message", DURABLE.values(), ids=DURABLE)
async def test_no_answer_before_what_was_said_is_durable(message):
    """And no charge point waits for another's."""
    async with (
        open_gateway(journal=SlowJournal()) as gateway,
        opened(gateway, "CP-1") as peer,
        gateway.charger("OTHER") as other,
    ):
        await gateway.settled()
        gateway.journal.held = trio.Event()
        await peer.send(message)
        with trio.move_on_after(5) as waited:
            await peer.message()
        assert waited.cancelled_caught
        assert await serves(other)
        gateway.journal.held.set()
        assert (await peer.message())[:2] == [3, "m"]


async def test_a_heartbeat_and_an_authorize_wait_for_no_disk():
    async with (
        open_gateway(journal=SlowJournal()) as gateway,
        gateway.charger("CP-1") as charger,
    ):
        await gateway.settled()
        gateway.journal.held = trio.Event()
        before = trio.current_time()
        assert await serves(charger)
        assert (await charger.ask("Authorize", idTag="A"))["idTagInfo"]["status"] == "Accepted"
        assert trio.current_time() == before
        gateway.journal.held.set()


@pytest.mark.parametrize("message", DURABLE.values(), ids=DURABLE)
async def test_when_the_store_fails_the_house_falls_and_nothing_was_promised(message):
    gateway = Gateway(journal=SlowJournal())
    said = b""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run)
            async with opened(gateway, "CP-1") as peer:
                await gateway.settled()
                gateway.journal.fails = True
                await peer.send(message)
                with trio.CancelScope(shield=True), trio.fail_after(30):
                    said = await peer.end()
    assert caught.value.split(JournalError)[1] is None
    assert b"[3" not in said
    assert b"[4" not in said


# --- the records ---------------------------------------------------------------------------------


async def test_an_offence_is_counted_but_not_told_each_time(gateway):
    """One event in 10 s, with the sum, for a charge point that sends nothing but garbage."""
    async with gateway.charger("CP-1") as charger:
        for _ in range(50):
            await charger.send("garbage")
        await charger.ask("Heartbeat")
        assert [event.total for event in gateway.events(FramesRejected)] == [1]
        await trio.sleep(11)
        await charger.send("garbage")
        await charger.ask("Heartbeat")
        assert [event.total for event in gateway.events(FramesRejected)] == [1, 51]
        assert gateway.running.connections.rejected_frames["FormationViolation"] == 51


async def test_a_start_retried_on_a_new_connection_is_the_same_transaction(gateway):
    """HC-71: the answer was lost with the connection, twice."""
    answers = []
    for _ in range(3):
        async with opened(gateway, "CP-1") as peer:
            await peer.send(START)
            answers.append((await peer.message())[2]["transactionId"])
    assert len(set(answers)) == 1
    assert [event.repeated for event in gateway.events(TransactionStarted)] == [False, True, True]
