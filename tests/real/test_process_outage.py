"""A long outage of ThingsBoard under load: its cost, and what is delivered first."""

from __future__ import annotations

import json
import os
import sys

import pytest
import trio

from .processes import ROOT, Site, charger, gateway, get, running
from .test_process import open_thingsboard, until, value

pytestmark = pytest.mark.real_time

CHARGERS, RATE, SECONDS = 200, 700, 12


async def loaded(site: Site, gateway_pid: int) -> dict:
    """MeterValues of many chargers; what the load generator saw."""
    command = [sys.executable, "-m", "tests.bench.load", "--url", site.url, "--mode", "meter"]
    command += ["--chargers", str(CHARGERS), "--rate", str(RATE), "--seconds", str(SECONDS)]
    command += ["--warm-up", "3", "--server-pid", str(gateway_pid)]
    async with running(command, site.folder / "load.log", env={**os.environ}) as load:
        line = await load.line(lambda text: text.startswith("{"), within=90)
        assert await load.end() == 0, load.complaint()
    return json.loads(line)


async def behind(site: Site) -> int:
    return json.loads((await get(site.admin, "/readyz"))[1])["behind_entries"]


async def test_a_long_outage_costs_disk_and_no_memory_and_new_values_are_told_first(tmp_path):
    """8,400 MeterValues are 42 minutes of 200 chargers that sample each minute."""
    site = Site(tmp_path)
    site.configure()
    assert (ROOT / "tests" / "bench").is_dir()
    async with gateway(site) as program:
        result = await loaded(site, program.process.pid)
        assert result["errors"] == 0
        assert result["requests"] == RATE * SECONDS
        assert result["grown_mib"] < 15
        late = await behind(site)
        assert late > 2 * RATE * SECONDS
        async with (
            open_thingsboard(site, profile="4.3") as thingsboard,
            charger(site.url, "CP-NEW", site.folder) as one,
        ):
            await until(thingsboard, lambda _: "BENCH-00000" in thingsboard.devices, within=70)
            await one.boot()
            await one.status("Charging")
            await until(
                thingsboard, lambda _: value(thingsboard, "CP-NEW/1", "status") == "Charging"
            )
            assert await behind(site) > 0
            with trio.fail_after(120):
                while await behind(site):  # noqa: ASYNC110  it is another process's figure
                    await trio.sleep(0.2)
            assert thingsboard.violations == []
            for n in range(CHARGERS):
                series = thingsboard.devices[f"BENCH-{n:05d}/1"].series("meter_wh")
                assert len(series) >= RATE * (SECONDS + 3) // CHARGERS
                assert value(thingsboard, f"BENCH-{n:05d}/1", "tx_active") is False
        assert await program.stop() == 0
