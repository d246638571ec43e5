"""Refusals on virtual time: what becomes a dead letter, and that all else is delivered."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest

from gateway.app import AppSettings
from gateway.domain.event_values import Progress
from gateway.domain.events import ChargePointConnected, TransactionSettled
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import NorthboundSettings

from ..conftest import open_gateway
from ..fakes import EPOCH
from .builders import firmware, open_publisher_alone, settled
from .faulty_board import Act, Fate, FaultyBoard


@pytest.mark.parametrize("code", [0x83, 0x99])
@pytest.mark.parametrize("batch_devices", [True, False])
async def test_what_is_refused_is_set_aside_for_people_and_blocks_nobody(code, batch_devices):
    settings = AppSettings(northbound=NorthboundSettings(batch_devices=batch_devices))
    async with open_gateway(settings=settings) as gateway:
        gateway.thingsboard.codes["Poison"] = code
        bus = gateway.running.bus
        events = [firmware("Poison" if n == 3 else f"S{n}", f"CP-{n % 2}", n) for n in range(6)]
        entries = await bus.publish(*events)
        await settled()
        (letter,) = await gateway.journal.dead_letters(READER)
        assert letter.seq == entries[3].seq
        assert f"0x{code:02x}" in letter.why
        assert gateway.thingsboard.latest("CP-0")["firmware_status"] == "S4"
        assert gateway.thingsboard.latest("CP-1")["firmware_status"] == "S5"
        assert {*gateway.thingsboard.values("CP-0", "firmware_status")} == {"S0", "S2", "S4"}
        assert {*gateway.thingsboard.values("CP-1", "firmware_status")} == {"S1", "S5"}
        tries = [sent for sent in gateway.thingsboard.by_link[0] if "Poison" in json.dumps(sent)]
        assert len(tries) == 4  # with others, and then three times alone
        assert (await gateway.journal.checkpoint(READER)).seq == entries[-1].seq
        assert gateway.running.delivery.dead_letters == 1
        assert gateway.thingsboard.links == 1


async def test_attributes_that_were_taken_are_not_told_again_over_newer_ones():
    """They have no time of their own, so the last that is sent is the one that stands."""

    def connected(address: str, after: float) -> ChargePointConnected:
        at = EPOCH + timedelta(seconds=after)
        return ChargePointConnected(charge_point_id="CP-1", received_at=at, remote_address=address)

    async with open_publisher_alone() as alone:
        alone.thingsboard.codes["Poison"] = 0x99
        alone.thingsboard.holding = True
        await alone.bus.publish(connected("old", 1), firmware("Poison", after=2))
        await settled()
        await alone.bus.publish(connected("new", 3))
        await settled()
        alone.thingsboard.release()
        await settled()
        assert alone.thingsboard.attributes("CP-1")["remote_address"] == "new"
        assert alone.statistics.dead_letters == 1


async def test_a_refusal_that_passes_loses_nothing():
    thingsboard = FaultyBoard(Fate(Act.REFUSE, '"Again"', code=0x80, times=1))
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await gateway.running.bus.publish(firmware("Again"))
        await settled()
        assert gateway.running.delivery.refused == 1
        assert gateway.thingsboard.values("CP-1", "firmware_status") == ["Again"]
        assert await gateway.journal.dead_letters(READER) == ()


async def test_a_row_that_no_message_can_hold_is_set_aside(gateway):
    """Texts are cut; signed meter values are not."""
    nothing = Progress(as_of=EPOCH, energy_wh=Decimal(0), duration_s=0, charging_s=0, idle_s=0)
    signed = TransactionSettled(
        charge_point_id="CP-1",
        received_at=EPOCH,
        transaction_id=1,
        connector_id=1,
        started_at=EPOCH,
        progress=nothing,
        receipt={"receipt_id": "R", "signed": ["x" * 70_000]},
        published_ms=1,
    )
    entries = await gateway.running.bus.publish(
        firmware("before"), signed, firmware("after", after=2)
    )
    await settled()
    (letter,) = await gateway.journal.dead_letters(READER)
    assert letter.seq == entries[1].seq
    assert "bytes" in letter.why
    assert gateway.thingsboard.values("CP-1", "firmware_status") == ["before", "after"]
    assert (await gateway.journal.checkpoint(READER)).seq == entries[-1].seq


async def test_an_event_that_cannot_be_told_stops_nobody(gateway, quiet_logs):
    also = NorthboundSettings(extra_rows=lambda entry: 1 / 0 if "bad" in str(entry) else ())
    async with open_gateway(settings=AppSettings(northbound=also)) as other:
        await other.running.bus.publish(firmware("bad"), firmware("good", after=1))
        await settled()
        assert other.thingsboard.values("CP-1", "firmware_status") == ["good"]
    assert [log for log in quiet_logs if log["event"] == "event not published"]
