"""Many connections: those that come and go leave nothing behind, those that stay cost little."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from contextlib import AsyncExitStack, closing

import pytest
import trio

from ..real.processes import DAY, charger, gateway
from ..real.retrying_charger import open_socket
from ..real.test_process_stop import plugged_in
from ..real.test_process_store import heartbeats
from .conftest import share
from .test_frames import rss_mib

pytestmark = [pytest.mark.soak, pytest.mark.real_time]

IDLE = int(os.environ.get("SOAK_IDLE", "2000"))
_AT_ONCE = 10
BOOT = [2, "1", "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}]


def files_open(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_connections_that_come_and_go_leave_nothing_behind(site):
    """HC-146: as many as go into the time; 100 000 need about 15 minutes."""
    async with gateway(site) as program:
        pid = program.process.pid
        done = 0

        async def come_and_go(name, until):
            nonlocal done
            for turn in itertools.cycle(range(100)):
                if trio.current_time() >= until:
                    return
                # not always the same: who comes back before it has been missed is thought two
                async with open_socket(site.ocpp, f"{name}-{turn}") as socket:
                    await socket.send_message(json.dumps(BOOT))
                    assert json.loads(await socket.get_message())[0] == 3
                done += 1

        async def churn(seconds):
            until = trio.current_time() + seconds
            async with trio.open_nursery() as nursery:
                for n in range(_AT_ONCE):
                    nursery.start_soon(come_and_go, f"CP-{n}", until)

        await churn(share(0.03))  # until what is kept for all is there
        warm, before = rss_mib(pid), done
        await churn(share(0.12))
        grown = rss_mib(pid) - warm
        print(
            f"\n{done} connections, memory {warm:.0f} MiB, +{grown:.1f} in the last {done - before}"
        )
        with trio.fail_after(10):
            while files_open(pid) > 40:  # noqa: ASYNC110  another process closes them
                await trio.sleep(0.1)
        assert grown < 10
        assert await program.stop() == 0


async def test_idle_chargers_cost_little_memory(site):
    """HC-147."""
    async with gateway(site) as program, AsyncExitStack() as stack:
        pid = program.process.pid
        before = rss_mib(pid)
        streams = [await plugged_in(stack, site, f"IDLE-{n}") for n in range(IDLE)]
        for stream in streams:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
        async with charger(site.url, "CP-1", site.folder) as one:
            assert await heartbeats(one, 2) < 1
        each = (rss_mib(pid) - before) * 1024 / IDLE
        print(f"\n{IDLE} idle chargers, {each:.0f} KiB each")
        assert each < 200


async def test_a_store_that_is_locked_for_half_a_minute(site):
    """HC-134, in full."""
    async with (
        gateway(site) as program,
        charger(site.url, "CP-1", site.folder) as one,
        charger(site.url, "CP-2", site.folder) as two,
    ):
        for each in (one, two):  # that they have come is in the store by now
            await each.ask("Heartbeat")
        with closing(sqlite3.connect(site.store, isolation_level=None)) as db:
            db.execute("begin immediate")
            await one.say("Authorize", id_tag="TAG")
            await one.wait_event("answer", action="Authorize")
            slowest = await heartbeats(two, 30)
            db.execute("rollback")
        assert slowest < 1
        assert await one.start(0, f"{DAY}T10:00:00Z") == 1
        assert await program.stop() == 0
