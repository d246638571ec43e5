"""A server that ends the connection at a message: the poison is found, and nothing else is lost."""

from __future__ import annotations

import trio

from gateway.domain.events import FirmwareStatusChanged
from gateway.northbound.telemetry import TelemetryRow

from ..fakes import CONNECT, TELEMETRY
from .builders import firmware, open_publisher_alone, settled, wait_until
from .faulty_board import Act, Fate, FaultyBoard


async def test_what_is_lost_before_the_server_has_taken_a_sign_of_life_does_not_count():
    poison = Fate(Act.CLOSE, "Poison", times=4)
    # On the second link signs of life are slow: the doubted entry goes, and is lost, first.
    slow_signs = Fate(contains="connected", seconds=5, first_link=2, last_link=2)
    thingsboard = FaultyBoard(poison, slow_signs)
    async with open_publisher_alone(thingsboard) as alone:
        await alone.bus.publish(firmware("Poison"))
        await wait_until(lambda: alone.all_delivered)
        assert poison.hits == 4  # among others, before a sign, and twice after one
        assert await alone.dead_letters() == set()
        assert thingsboard.values("CP-1", "firmware_status") == ["Poison"]


async def test_a_device_that_is_never_answered_does_not_keep_what_is_doubted_from_being_told():
    """ThingsBoard before 4.2.1.1 says nothing, ever, to a device that it cannot create."""
    thingsboard = FaultyBoard(Fate(Act.LOSE, '"CP-9"', topic=CONNECT))
    async with open_publisher_alone(thingsboard, "CP-1", "CP-9") as alone:
        await trio.sleep(60)
        thingsboard.holding = True
        await alone.bus.publish(firmware("Doubted", after=100))
        await settled()
        thingsboard.cut()
        thingsboard.holding = False
        await alone.bus.publish(firmware("Later", after=200))
        await wait_until(lambda: "Later" in thingsboard.values("CP-1", "firmware_status"))


def rows_of_big(row: TelemetryRow):
    """Extra rows: this one for an event "Big"."""

    def extra_rows(entry):
        is_big = isinstance(entry.event, FirmwareStatusChanged) and entry.event.status == "Big"
        return [row] if is_big else []

    return extra_rows


async def test_of_a_row_in_several_messages_each_is_told_until_it_is_acknowledged():
    """A receipt and its signed values: one has arrived, which says nothing of the other."""
    big = TelemetryRow(
        "CP-1", 1_700_000_000_000, {"receipt": "r" * 50_000, "receipt_signed": "s" * 50_000}
    )
    signed = Fate(Act.CLOSE, '"receipt_signed"', times=2)
    thingsboard = FaultyBoard(signed, Fate(Act.LOSE, '"receipt"', last_link=1))
    async with open_publisher_alone(thingsboard, extra_rows=rows_of_big(big)) as alone:
        await alone.bus.publish(firmware("Big", after=100))
        await wait_until(lambda: alone.all_delivered)
        assert signed.hits == 2
        assert await alone.dead_letters() == set()
        for key in big.values:
            assert thingsboard.values("CP-1", key) == [big.values[key]]


async def test_an_entry_of_several_messages_is_not_guilty_of_as_many_losses():
    """Each of three was lost in turn, and each was taken when it was sent again."""
    row = TelemetryRow("CP-1", 1_700_000_000_000, {key: key * 30_000 for key in "abc"})
    thingsboard = FaultyBoard(*(Fate(Act.CLOSE, key * 30_000, times=2) for key in "abc"))
    async with open_publisher_alone(thingsboard, extra_rows=rows_of_big(row)) as alone:
        await alone.bus.publish(firmware("Big", after=100))
        await wait_until(lambda: alone.all_delivered)
        assert await alone.dead_letters() == set()
        assert {key for _, values in thingsboard.rows("CP-1") for key in values} >= {*"abc"}


async def test_what_was_lost_waits_for_a_sign_of_life_and_not_for_those_of_all_devices():
    poison = Fate(Act.CLOSE, "Poison", topic=TELEMETRY, times=3)
    # So slow are limits to a fleet's signs of life.
    slow_signs = Fate(topic=TELEMETRY, lacks="firm", seconds=30, first_link=2)
    thingsboard = FaultyBoard(poison, slow_signs)
    names = [f"CP-{n}" for n in range(1, 201)]
    async with open_publisher_alone(thingsboard, *names, batch_devices=True) as alone:
        await trio.sleep(60)
        await alone.bus.publish(firmware("Poison", after=100))
        began = trio.current_time()
        await wait_until(
            lambda: "Poison" in thingsboard.values("CP-1", "firmware_status"), within=600
        )
        assert poison.hits == 3
        assert trio.current_time() - began < 90
