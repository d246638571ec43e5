"""SIGTERM, whatever the others do: everybody hears of it, nobody holds it up, nothing is lost."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack

import pytest
import trio

from .processes import Site, charger, gateway
from .test_process import START, STOP, open_thingsboard, receipts, until, value

pytestmark = pytest.mark.real_time

UPGRADE = (
    "GET /ocpp/{name} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GOING_AWAY = (1001).to_bytes(2)


@pytest.fixture
def site(tmp_path):
    """With the grace that is the default."""
    site = Site(tmp_path)
    config = site.configure()
    config.write_text(config.read_text().replace("grace_s = 5\n", ""))
    return site


async def plugged_in(stack, site, name):
    """A connection whose other end will answer nothing, not even a Close."""
    stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", site.ocpp))
    await stream.send_all(UPGRADE.format(name=name).encode())
    return stream


async def all_of(stream):
    """What comes until the end of the connection."""
    data = b""
    try:
        async for more in stream:
            data += more
    except trio.BrokenResourceError:
        pass
    return data


async def test_200_mute_chargers_and_a_frozen_thingsboard_do_not_hold_the_stop(site):
    """HC-130: exit 0 within 10 s, and each connection is closed with 1001."""
    async with (
        open_thingsboard(site) as thingsboard,
        gateway(site) as program,
        AsyncExitStack() as stack,
    ):
        mute = [await plugged_in(stack, site, f"MUTE-{n}") for n in range(200)]
        one = await stack.enter_async_context(charger(site.url, "CP-1", site.folder))
        await one.boot()
        await until(
            thingsboard,
            lambda thingsboard: (
                sum(d.value("connected") is True for d in thingsboard.devices.values()) == 201
            ),
        )
        thingsboard.freeze()
        transaction_id = await one.start(0, START)
        began = trio.current_time()
        assert await program.stop() == 0
        assert trio.current_time() - began < 10
        assert (await one.wait_event("closed"))["code"] == 1001
        for stream in mute:
            close = (await all_of(stream)).partition(b"\r\n\r\n")[2]
            assert (close[0], close[2:4]) == (0x88, GOING_AWAY)
        thingsboard.thaw()
        # What the grace did not suffice for is published by the next one.
        async with gateway(site):
            await one.wait_event("connected")
            await one.stop(transaction_id, 4_000, STOP)
            await until(thingsboard, lambda _: receipts(thingsboard))
            await until(thingsboard, lambda _: value(thingsboard, "MUTE-0", "connected") is False)
        assert receipts(thingsboard)[0][1]["energy_wh"] == "4000"
        assert thingsboard.violations == []


async def test_a_second_signal_loses_nothing(site):
    """HC-130: what was answered is in the store, and published by the next one."""
    async with (
        open_thingsboard(site) as thingsboard,
        charger(site.url, "CP-1", site.folder, connected=False) as one,
        AsyncExitStack() as stack,
    ):
        async with gateway(site) as program:
            await one.wait_event("connected")
            await plugged_in(stack, site, "MUTE")
            await until(thingsboard, lambda _: value(thingsboard, "MUTE", "connected") is True)
            thingsboard.freeze()
            transaction_id = await one.start(0, START)
            await one.stop(transaction_id, 4_000, STOP)
            program.process.send_signal(signal.SIGTERM)
            assert (await one.wait_event("closed"))["code"] == 1001
            began = trio.current_time()
            assert await program.stop() == -signal.SIGTERM
            assert trio.current_time() - began < 1
        thingsboard.thaw()
        async with gateway(site):
            await until(thingsboard, lambda _: receipts(thingsboard))
            await until(thingsboard, lambda _: value(thingsboard, "MUTE", "connected") is False)
        assert [receipt["energy_wh"] for _, receipt in receipts(thingsboard)] == ["4000"]
        assert thingsboard.violations == []
