"""Charge points that others wrote, with a gateway that is killed under them (HC-149)."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from ..bench.processes import Skipped, node_peer
from ..real.crash_harness import open_crashing_gateway
from ..real.processes import charger, eventually, running
from ..real.retrying_charger import STEP, stamp
from .conftest import SEED, share

pytestmark = [pytest.mark.soak, pytest.mark.real_time]

SCRIPT = Path(__file__).parent / "peers" / "charge_point.js"
LIFE = 10.0  # seconds


class PythonPeer:
    """The independent charge point (`ocpp`, `websockets` from PyPI), sent each command."""

    def __init__(self, one):
        self.one = one
        self.energies: dict[int, int] = {}

    async def deliver(self, action, **payload):
        while True:
            outcome = await self.one.outcome(action, **payload)
            assert outcome["event"] != "refused", outcome
            if outcome["event"] == "answer":
                return outcome["payload"]
            await self.one.wait_event("connected", within=60)

    async def charge(self, at, register_wh):
        """A session; the register after it."""
        answer = await self.deliver(
            "StartTransaction",
            connector_id=1,
            id_tag="PYPI",
            meter_start=register_wh,
            timestamp=stamp(at),
        )
        transaction_id = answer["transaction_id"]
        sample = {"value": str(register_wh + 100), "unit": "Wh"}
        await self.deliver(
            "MeterValues",
            connector_id=1,
            transaction_id=transaction_id,
            meter_value=[{"timestamp": stamp(at + STEP), "sampled_value": [sample]}],
        )
        await self.deliver(
            "StopTransaction",
            transaction_id=transaction_id,
            meter_stop=register_wh + 344,
            timestamp=stamp(at + 2 * STEP),
        )
        self.energies[transaction_id] = 344
        return register_wh + 344

    async def charge_until(self, deadline, at):
        register_wh = 0
        while trio.current_time() < deadline:
            register_wh = await self.charge(at, register_wh)
            at += 3 * STEP


async def test_charge_points_from_pypi_and_npm_agree_with_the_receipts(site):
    """HC-149: `ocpp`'s ChargePoint, ocpp-rpc; kill -9 every few seconds."""
    site.configure(ocpp="stale_session_h = 8760")
    seconds = share(0.2)
    try:
        home = await trio.to_thread.run_sync(node_peer)
    except Skipped as why:
        pytest.skip(str(why))
    shutil.copy(SCRIPT, home)
    node = ["node", str(home / SCRIPT.name), site.url, "NPM-1", str(seconds)]
    print(f"\nSEED={SEED}", flush=True)
    chance = random.Random(SEED)
    async with (
        open_crashing_gateway(site) as crashing,
        charger(site.url, "PYPI-1", site.folder, connected=False) as one,
        running(node, site.folder / "node.log") as npm,
    ):
        await crashing.start()
        await one.wait_event("connected")
        python = PythonPeer(one)
        deadline = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                python.charge_until, deadline, datetime.now(UTC) - timedelta(days=300)
            )
            while trio.current_time() < deadline:
                await trio.sleep(chance.uniform(0, LIFE))
                await crashing.kill()
                await crashing.start()
        assert await npm.end(within=60) == 0, npm.complaint()
        energies = dict(python.energies)
        for line in npm.lines:
            report = json.loads(line)
            energies[report["transactionId"]] = report["energy"]
        assert len(energies) == len(python.energies) + len(npm.lines)
        await crashing.ready()
        await eventually(lambda: site.rows("select 1 from tx where settled = 0") == [])
        crashing.send(signal.SIGTERM)
        assert await crashing.ended() == 0
        print(f"{crashing.count} starts, sessions {len(python.energies)} + {len(npm.lines)}")
    receipts = [json.loads(body) for (body,) in site.rows("select body from receipt")]
    assert Counter(r["transaction_id"] for r in receipts) == Counter(energies.keys())
    assert {r["transaction_id"]: int(r["energy_wh"]) for r in receipts} == energies
