"""HC-121: ThingsBoard is gone for an hour in which a hundred charge points charge."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from .builders import LOG, settled, wait_until

CHARGERS = 100
SAMPLES = 12  # one in five minutes


async def test_hc_121_an_hour_without_thingsboard_loses_nothing_and_tells_each_device_in_order(
    gateway,
):
    thingsboard = gateway.thingsboard
    names = [f"CP-{n}" for n in range(CHARGERS)]
    async with AsyncExitStack() as stack:
        chargers = [await stack.enter_async_context(gateway.charger(name)) for name in names]
        transactions = [await charger.start(meter_wh=0) for charger in chargers]
        await settled()
        published_before = len(thingsboard.published)
        thingsboard.up = False
        thingsboard.cut()
        for n in range(1, SAMPLES + 1):
            await trio.sleep(300)
            for charger, tx in zip(chargers, transactions, strict=True):
                await charger.sample(tx, str(n * 100))
        assert len(thingsboard.published) == published_before
        thingsboard.up = True
        await wait_until(
            lambda: (
                gateway.running.delivery.tracker.count_remaining(len(gateway.journal._entries)) == 0
            )
        )
        for name in names:
            rows = [(ts, v["tx_energy_wh"]) for ts, v in thingsboard.rows(f"{name}/1")
                    if "tx_energy_wh" in v]  # fmt: skip
            energies = [wh for _, wh in rows]
            assert list(dict.fromkeys(energies)) == [n * 100 for n in range(SAMPLES + 1)]
            assert [ts for ts, _ in rows] == sorted(ts for ts, _ in rows)
            assert len(rows) <= len(set(rows)) + 1  # none twice but what was on its way
            assert thingsboard.latest(f"{name}/1")["tx_energy_wh"] == SAMPLES * 100
        for charger, tx in zip(chargers, transactions, strict=True):
            await charger.stop(tx, meter_wh=SAMPLES * 100)
        await wait_until(lambda: len(thingsboard.values(LOG, "receipt")) == CHARGERS)
    assert gateway.running.delivery.dead_letters == 0
