"""A store that is full, locked, slow, damaged or not to be written: no loss, all is reported.

Each charge point that was answered has its record in the store; one that could not be is not
answered, so it asks again.
"""

from __future__ import annotations

import ctypes
import json
import sqlite3
from contextlib import closing

import pytest
import trio

from .crash_harness import open_crashing_gateway
from .processes import DAY, Site, charger, eventually, gateway, get
from .test_process import START, STOP
from .test_process_faults import failed

pytestmark = pytest.mark.real_time

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


async def heartbeats(one, seconds):
    """The longest that a Heartbeat's answer took in so many seconds."""
    longest, until = 0.0, trio.current_time() + seconds
    while (sent_at := trio.current_time()) < until:
        await one.ask("Heartbeat")
        longest = max(longest, trio.current_time() - sent_at)
    return longest


async def readiness(site):
    status, body = await get(site.admin, "/readyz")
    return status, json.loads(body)["store"]


async def test_a_locked_store_holds_up_only_what_must_be_stored(site):
    """HC-134; 7 s of the 60 that it waits.  The requests are stored in the order they came."""
    async with (
        gateway(site) as program,
        charger(site.url, "CP-1", site.folder) as one,
        charger(site.url, "CP-2", site.folder) as two,
        charger(site.url, "CP-3", site.folder) as three,
    ):
        await two.boot()
        assert await readiness(site) == (200, "ok")
        with closing(sqlite3.connect(site.store, isolation_level=None)) as db:
            db.execute("begin immediate")
            for n, each in enumerate((three, one)):
                await each.say("StartTransaction", connector_id=1, id_tag="TAG", meter_start=n,
                               timestamp=START)  # fmt: skip
                await heartbeats(two, 0.2)
            assert await heartbeats(two, 6) < 1
            status, why = await readiness(site)
            assert status == 503
            assert why.startswith("a commit has been under way for ")
            db.execute("rollback")
        answers = [
            await each.wait_event("answer", action="StartTransaction") for each in (three, one)
        ]
        assert [answer["payload"]["transaction_id"] for answer in answers] == [1, 2]
        assert site.rows("select charge_point from tx order by id") == [("CP-3",), ("CP-1",)]
        assert await readiness(site) == (200, "ok")
        assert await program.stop() == 0


async def test_a_store_that_stays_locked_fells_it_and_the_request_comes_again(site):
    """HC-134: beyond the minute that it waits, which is a second here."""
    async with (
        open_crashing_gateway(site) as crashing,
        charger(site.url, "CP-1", site.folder, connected=False) as one,
    ):
        await crashing.start(busy_timeout=1)
        await one.wait_event("connected")
        await one.boot()
        with closing(sqlite3.connect(site.store, isolation_level=None)) as db:
            db.execute("begin immediate")
            outcome = await one.outcome(
                "StartTransaction", connector_id=1, id_tag="TAG", meter_start=0, timestamp=START
            )
            assert outcome["event"] == "closed"
            assert await crashing.ended() == 1
        assert crashing.program.last_words() == (
            f"ocpp-gateway: {site.store}: database is locked;"
            " another program has held it for a minute; let only the gateway write it"
        )
        assert "Traceback" not in crashing.program.complaint()
        await crashing.start()
        await one.wait_event("connected")
        assert await one.start(0, START) == 1


async def test_a_slow_disk_holds_up_only_what_must_be_stored(site):
    """HC-134: each commit takes 2 s."""
    async with (
        open_crashing_gateway(site) as crashing,
        charger(site.url, "CP-1", site.folder, connected=False) as one,
        charger(site.url, "CP-2", site.folder, connected=False) as two,
    ):
        await crashing.start(slow_fsync=2)
        await one.wait_event("connected")
        await two.wait_event("connected")
        await two.boot()
        began = trio.current_time()
        await one.say("StartTransaction", connector_id=1, id_tag="TAG", meter_start=0,
                      timestamp=START)  # fmt: skip
        assert await heartbeats(two, 3) < 1
        await one.wait_event("answer", action="StartTransaction")
        assert trio.current_time() - began > 2


async def damaged(site):
    """A store in which one page in the middle is noise, as a dying SD card leaves it."""
    async with gateway(site) as program, charger(site.url, "CP-1", site.folder) as one:
        for n in range(20):
            transaction_id = await one.start(n, f"{DAY}T10:{n:02}:00Z")
            await one.stop(transaction_id, n, STOP)
        await eventually(lambda: site.rows("select count(*) from receipt") == [(20,)])
        assert await program.stop() == 0
    data = bytearray(site.store.read_bytes())
    middle = len(data) // 4096 // 2 * 4096
    data[middle : middle + 4096] = bytes(range(256)) * 16
    site.store.write_bytes(data)
    return data


async def test_a_damaged_store_is_told_at_the_start_and_nothing_overwritten(site):
    """HC-136."""
    data = await damaged(site)
    message = await failed(site)
    assert message.startswith(f"ocpp-gateway: {site.store}: damaged: ")
    assert message.endswith("restore a backup, or move the file away to begin anew")
    assert site.store.read_bytes() == data


async def test_a_store_that_was_cut_off_is_told_at_the_start(site):
    """HC-136: half of a copy."""
    data = await damaged(site)
    half = data[: len(data) // 8192 * 4096]
    site.store.write_bytes(half)
    message = await failed(site)
    assert message.endswith("restore a backup, or move the file away to begin anew")
    assert site.store.read_bytes() == half


def not_almighty():
    """Even root must heed what a folder permits."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_store_that_must_not_be_written_is_told(site, what):
    async with gateway(site) as program:
        assert await program.stop() == 0
    store, folder = site.store, site.folder / "store"
    folder.mkdir()
    store.rename(folder / store.name)
    text = site.config.read_text().replace(str(store), str(folder / store.name))
    site.config.write_text(text)
    target = folder if what == "folder" else folder / store.name
    target.chmod(0o555 if what == "folder" else 0o444)
    message = await failed(site, preexec_fn=not_almighty)
    complaint = {
        "folder": "cannot be opened for writing: Permission denied",
        "file": "attempt to write a readonly database;"
        " let the gateway write this file and its folder",
    }
    assert message == f"ocpp-gateway: {folder / store.name}: {complaint[what]}"


async def test_a_wall_clock_that_jumps_disconnects_nobody(site):
    """HC-135, in a real process: back an hour, then on by a day."""
    off = site.folder / "clock"
    off.write_text("0")
    async with (
        open_crashing_gateway(site) as crashing,
        charger(site.url, "CP-1", site.folder, connected=False) as one,
        charger(site.url, "CP-2", site.folder, connected=False) as two,
    ):
        await crashing.start(clock=str(off))
        for each in (one, two):
            await each.wait_event("connected")
            await each.boot()
        begun = [await one.start(0, START)]
        for jump in ("-3600", "86400"):
            off.write_text(jump)
            assert await heartbeats(two, 1.5) < 1  # its watch looks at everybody once a second
            begun.append(await one.start(len(begun), STOP))
        assert await one.ask("Heartbeat")
        assert begun == [1, 2, 3]
        assert site.rows("select count(*) from entry where kind = 'ChargePointDisconnected'") == [
            (0,)
        ]
