"""A server that ends the connection at a message: the guilty are found, and nobody else is."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import trio

from gateway.bus import EventBus
from gateway.domain.events import ChargePointConnected, FirmwareStatusChanged
from gateway.domain.fleet import Fleet
from gateway.northbound.mqtt import Delivery
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import NorthboundSettings, open_publisher
from gateway.northbound.telemetry import TelemetryRow
from tests.memory_journal import MemoryJournal

from ..fakes import CONNECT, TELEMETRY, FakeThingsBoard, now
from .test_publisher import Desk, firmware, settled, wait_until


class Odd(FakeThingsBoard):
    """What it does with a message is said by `fate`: "take", "lose" it, or "close" at it."""

    def fate(self, topic: str, text: str) -> str:
        return "take"

    async def send(self, publication):
        fate = self.fate(publication.topic, publication.payload.decode())
        if fate == "take":
            return await super().send(publication)
        await trio.lowlevel.checkpoint()
        if fate == "close":
            self.cut()
        return Delivery()


@asynccontextmanager
async def open_publisher_alone(thingsboard: FakeThingsBoard, *names: str, **settings):
    journal = MemoryJournal()
    bus = EventBus(journal, Fleet())
    for name in names or ("CP-1",):
        await bus.publish(
            ChargePointConnected(charge_point_id=name, received_at=now(), remote_address="x")
        )
    north = open_publisher(
        thingsboard.open_link, bus, Desk().carry_out, now, NorthboundSettings(**settings)
    )
    async with north as statistics:
        await settled()
        yield bus, journal, statistics


def all_told(statistics, journal) -> bool:
    return statistics.delivered_seq == journal.statistics().last_seq


async def test_what_is_lost_before_the_server_has_taken_a_sign_of_life_does_not_count():
    class Board(Odd):
        lost = 0

        def fate(self, topic, text):
            if "Poison" not in text or self.lost == 4:
                return "take"
            self.lost += 1
            return "close"

        async def send(self, publication):
            if self.links == 2 and "connected" in publication.payload.decode():
                await trio.sleep(5)  # signs of life: the doubted entry goes, and is lost, first
            return await super().send(publication)

    thingsboard = Board()
    async with open_publisher_alone(thingsboard) as (bus, journal, statistics):
        await bus.publish(firmware("Poison"))
        await wait_until(lambda: all_told(statistics, journal))
        assert thingsboard.lost == 4  # among others, before a sign, and twice after one
        assert await journal.dead_letters(READER) == ()
        assert thingsboard.values("CP-1", "firmware_status") == ["Poison"]


async def test_a_device_that_is_never_answered_does_not_keep_what_is_doubted_from_being_told():
    """ThingsBoard before 4.2.1.1 says nothing, ever, to a device that it cannot create."""

    class Board(Odd):
        def fate(self, topic, text):
            return "lose" if topic == CONNECT and json.loads(text)["device"] == "CP-9" else "take"

    thingsboard = Board()
    async with open_publisher_alone(thingsboard, "CP-1", "CP-9") as (bus, _, _):
        await trio.sleep(60)
        thingsboard.holding = True
        await bus.publish(firmware("Doubted", after=100))
        await settled()
        thingsboard.cut()
        thingsboard.holding = False
        await bus.publish(firmware("Later", after=200))
        await wait_until(lambda: "Later" in thingsboard.values("CP-1", "firmware_status"))


async def test_of_a_row_in_several_messages_each_is_told_until_it_is_acknowledged():
    """A receipt and its signed values: one has arrived, which says nothing of the other."""
    big = TelemetryRow(
        "CP-1", 1_700_000_000_000, {"receipt": "r" * 50_000, "receipt_signed": "s" * 50_000}
    )

    class Board(Odd):
        lost = 0

        def fate(self, topic, text):
            if '"receipt_signed"' in text and self.lost < 2:
                self.lost += 1
                return "close"
            return "lose" if '"receipt"' in text and not self.lost else "take"

    def also(entry):
        is_big = isinstance(entry.event, FirmwareStatusChanged) and entry.event.status == "Big"
        return [big] if is_big else []

    thingsboard = Board()
    async with open_publisher_alone(thingsboard, extra_rows=also) as (bus, journal, statistics):
        await bus.publish(firmware("Big", after=100))
        await wait_until(lambda: all_told(statistics, journal))
        assert thingsboard.lost == 2
        assert await journal.dead_letters(READER) == ()
        for key in big.values:
            assert thingsboard.values("CP-1", key) == [big.values[key]]


async def test_an_entry_of_several_messages_is_not_guilty_of_as_many_losses():
    """Each of three was lost in turn, and each was taken when it was told again."""
    row = TelemetryRow("CP-1", 1_700_000_000_000, {key: key * 30_000 for key in "abc"})

    class Board(Odd):
        lost = ""

        def fate(self, topic, text):
            key = next((key for key in "abc" if key * 30_000 in text), "")
            if key and self.lost.count(key) < 2:
                self.lost += key
                return "close"
            return "take"

    def also(entry):
        is_big = isinstance(entry.event, FirmwareStatusChanged) and entry.event.status == "Big"
        return [row] if is_big else []

    thingsboard = Board()
    async with open_publisher_alone(thingsboard, extra_rows=also) as (bus, journal, statistics):
        await bus.publish(firmware("Big", after=100))
        await wait_until(lambda: all_told(statistics, journal))
        assert await journal.dead_letters(READER) == ()
        assert {key for _, values in thingsboard.rows("CP-1") for key in values} >= {*"abc"}


async def test_what_was_lost_waits_for_a_sign_of_life_and_not_for_those_of_all_devices():
    class Board(Odd):
        lost = 0

        def fate(self, topic, text):
            if topic != TELEMETRY or "Poison" not in text or self.lost == 3:
                return "take"
            self.lost += 1
            return "close"

        async def send(self, publication):
            if self.lost and publication.topic == TELEMETRY and b"firm" not in publication.payload:
                await trio.sleep(30)  # so slow are limits to a fleet's signs of life
            return await super().send(publication)

    thingsboard = Board()
    names = [f"CP-{n}" for n in range(1, 201)]
    async with open_publisher_alone(thingsboard, *names, batch_devices=True) as (bus, _, _):
        await trio.sleep(60)
        await bus.publish(firmware("Poison", after=100))
        began = trio.current_time()
        await wait_until(
            lambda: "Poison" in thingsboard.values("CP-1", "firmware_status"), within=600
        )
        assert thingsboard.lost == 3
        assert trio.current_time() - began < 90
