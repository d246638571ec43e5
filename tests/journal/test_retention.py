"""`keep_days`: what is old goes by itself.  What must stay all the same is the journal's affair."""

from __future__ import annotations

from datetime import timedelta

import trio

from gateway.accountant import READER as ACCOUNTANT
from gateway.app import AppSettings
from gateway.config.load import load
from gateway.domain.events import ChargePointBooted
from gateway.journal import Checkpoint
from gateway.journal.retention import open_retention
from gateway.northbound.outbox import READER as THINGSBOARD
from tests.memory_journal import MemoryJournal

from ..fakes import now

HOUR = 3_600.0


async def test_what_is_older_than_keep_days_goes_a_little_at_a_time():
    journal = MemoryJournal()
    async with open_retention(journal, (ACCOUNTANT, THINGSBOARD), timedelta(days=7), now):
        for hour in range(60 * 24):
            places = [Checkpoint(reader, hour + 1) for reader in (ACCOUNTANT, THINGSBOARD)]
            for place in places:
                await journal.append(checkpoint=place)
            await journal.append(ChargePointBooted(charge_point_id="CP-1", received_at=now()))
            await trio.sleep(HOUR)
    kept = [entry.event.received_at for entry in await journal.read(after=0, limit=10_000)]
    assert timedelta(days=7) < kept[-1] - kept[0] <= timedelta(days=7, hours=500)


async def test_a_long_standing_surplus_goes_at_the_start():
    journal = MemoryJournal()
    for _ in range(5_000):
        await journal.append(ChargePointBooted(charge_point_id="CP-1", received_at=now()))
    for reader in (ACCOUNTANT, THINGSBOARD):
        await journal.append(checkpoint=Checkpoint(reader, 5_000))
    await trio.sleep(72 * HOUR)
    await journal.append(ChargePointBooted(charge_point_id="CP-1", received_at=now()))
    async with open_retention(journal, (ACCOUNTANT, THINGSBOARD), timedelta(days=1), now):
        await trio.sleep(60)
        assert len(await journal.read(after=0, limit=10_000)) == 1


def test_keep_days_is_what_the_configuration_says(tmp_path):
    config, _ = load(None, {"OCPP_GATEWAY_STORAGE_KEEP_DAYS": "30"})
    assert AppSettings.of(config).keep == timedelta(days=30)


async def test_a_wall_clock_years_ahead_takes_nothing_away():
    """What a wrong clock takes, nothing brings back (HC-135)."""
    journal, ahead = MemoryJournal(), timedelta(0)
    for _ in range(2_000):
        await journal.append(ChargePointBooted(charge_point_id="CP-1", received_at=now()))
    for reader in (ACCOUNTANT, THINGSBOARD):
        await journal.append(checkpoint=Checkpoint(reader, 2_000))
    async with open_retention(
        journal, (ACCOUNTANT, THINGSBOARD), timedelta(days=30), lambda: now() + ahead
    ):
        await trio.sleep(HOUR)
        ahead = timedelta(days=800)
        await trio.sleep(48 * HOUR)
        assert len(await journal.read(after=0, limit=10_000)) == 2_000
    async with open_retention(
        journal, (ACCOUNTANT, THINGSBOARD), timedelta(days=30), lambda: now() + ahead
    ):
        await trio.sleep(HOUR)
        assert len(await journal.read(after=0, limit=10_000)) == 2_000
