"""Kills, storms and outages together: every stop priced once, and both sides count alike."""

from __future__ import annotations

import random

import pytest
import trio

from gateway.simulation.thingsboard import Act, Fault

from ..real.crash_harness import CrashTest
from .conftest import SEED, share

pytestmark = [pytest.mark.soak, pytest.mark.real_time]


async def test_kills_storms_and_outages_lose_nothing_and_double_nothing(site):
    """HC-131, HC-132, HC-141, HC-150."""
    print(f"\nSEED={SEED}", flush=True)
    chance = random.Random(SEED)

    async def weather(thingsboard, fleet):
        while True:
            await trio.sleep(chance.uniform(2, 10))
            if chance.random() < 0.5:
                for charger in fleet:
                    charger.hang_up()
                continue
            away = thingsboard.faults.add(Fault(act=Act.DROP_CONNECT, times=None))
            thingsboard.disconnect_all()
            await trio.sleep(chance.uniform(1, 20))
            thingsboard.faults.remove(away)

    crash_test = CrashTest(site, SEED, chargers=20, max_run_s=8, besides=weather)
    await crash_test.run(share(0.4))
    print(crash_test.about())
    crash_test.verify()
