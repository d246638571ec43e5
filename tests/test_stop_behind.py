"""A stop while accounting is far behind: they go on after the next start."""

from __future__ import annotations

import trio

from gateway.app import AppSettings
from gateway.domain.events import (
    ChargePointBooted,
    TransactionSettled,
    TransactionStarted,
    TransactionStopped,
)
from gateway.northbound.publisher import NorthboundSettings
from tests.memory_journal import MemoryJournal

from .conftest import open_gateway
from .fakes import EPOCH


class SlowReader(MemoryJournal):
    """Gives an entry a second, as a disk that is busy with everything else."""

    slow = True

    async def read(self, *, after, limit):
        if self.slow:
            await trio.sleep(1)
            limit = 1
        return await super().read(after=after, limit=limit)


async def test_books_that_are_behind_hold_no_stop_and_lose_nothing():
    about = {"charge_point_id": "CP-1", "received_at": EPOCH, "timestamp": EPOCH}
    journal = SlowReader()
    await journal.append(TransactionStarted(**about, connector_id=1, id_tag="T", meter_start="0"))
    for _ in range(200):
        await journal.append(ChargePointBooted(**about))
    await journal.append(TransactionStopped(**about, transaction_id=1, meter_stop="500"))
    began = trio.current_time()
    async with open_gateway(
        journal=journal, settings=AppSettings(northbound=NorthboundSettings(grace_s=8))
    ):
        pass
    assert trio.current_time() - began <= 8
    assert not [e for e in journal._entries if isinstance(e.event, TransactionSettled)]
    journal.slow = False
    async with open_gateway(journal=journal) as gateway:
        await gateway.settled()
        (receipt,) = gateway.events(TransactionSettled)
        assert receipt.progress.energy_wh == 500
