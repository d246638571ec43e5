"""A charge point that gives no sign of life is taken for gone, and no other."""

from __future__ import annotations

import math

import pytest
import trio

from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.watchdog import Need, check

from ..conftest import Gateway, open_gateway
from .connections import UNASKED, SlowJournal, connected, others, serves, southbound_settings
from .raw_websocket import CLOSE, OCPP, PING, PONG, TEXT, call, dial, frame, opened, request, until


async def silent_for(gateway: Gateway, charge_point_id: str) -> float:
    """Seconds until it is told that the charge point is gone."""
    return await until(lambda: not connected(gateway, charge_point_id))


@pytest.mark.parametrize(
    ("last_frame_at", "pinged_at", "sending_since", "need"),
    [
        (1_000, -math.inf, None, None),
        (971, -math.inf, None, None),
        (970, -math.inf, None, Need.PING),
        (900, 971, None, None),  # a ping waits for its answer
        (900, 940, None, None),
        (900, 939, None, Need.GONE),
        (950, 939, None, Need.PING),  # any frame since was the answer
        (700, -math.inf, None, Need.PING),
        (699, -math.inf, None, Need.GONE),
        (699, 990, None, Need.GONE),
        (1_000, -math.inf, 990, None),
        (1_000, -math.inf, 989, Need.ABORT),
        (699, 900, 989, Need.ABORT),
    ],
)
def test_the_first_row_that_holds_decides_what_a_connection_needs(
    last_frame_at, pinged_at, sending_since, need
):
    """At 1,000 s; pings every 30 s, and 300 s of silence are too many."""
    found = check(
        1_000,
        last_frame_at=last_frame_at,
        pinged_at=pinged_at,
        sending_since=sending_since,
        silence_s=300,
        ping_interval_s=30,
    )
    assert found is need


async def test_a_ping_that_nobody_answers_ends_the_connection():
    """HC-60: 30 s until the ping, 60 s for an answer; ThingsBoard hears of it."""
    async with (
        open_gateway(settings=UNASKED) as gateway,
        others(gateway),
        opened(gateway, "CP-1") as peer,
    ):
        quiet = await silent_for(gateway, "CP-1")
        assert 90 <= quiet < 94
        assert await peer.frame() == (PING, b"")
        assert (await peer.frame())[0] == CLOSE
        await gateway.settled()
        assert gateway.thingsboard.values("CP-1", "connected") == [True, False]
        assert gateway.thingsboard.latest("CP-1")["disconnect_reason"] == "no sign of life"


async def test_silence_counts_from_the_last_frame_whatever_came_before_the_first():
    """A charge point that reconnects may say nothing until its next Heartbeat (OCPP-J 5.4).

    The upgrade takes time: what follows it is younger than the request.
    """
    async with (
        open_gateway(settings=UNASKED) as gateway,
        dial(gateway, clogged=True) as peer,
    ):
        await peer.send(request("/ocpp/CP-1", OCPP))
        await trio.sleep(1)
        assert (await peer.response()).status == 101
        before = trio.current_time()
        assert await peer.frame() == (PING, b"")
        assert 29 <= trio.current_time() - before < 32


async def test_three_heartbeats_of_silence_end_the_connection():
    """Here they are shorter than the wait for a pong: 3 x 10 s."""
    settings = southbound_settings(handlers=HandlerSettings(heartbeat_interval_s=10))
    async with open_gateway(settings=settings) as gateway, opened(gateway, "CP-1"):
        assert 30 <= await silent_for(gateway, "CP-1") < 34


@pytest.mark.parametrize(
    "sign",
    [
        frame(PONG),
        frame(PONG, b"another"),
        frame(PING),
        frame(TEXT, b"garbage"),
        frame(TEXT, b"a piece", fin=False),
    ],
    ids=["pong", "unasked pong", "ping", "text", "a first fragment"],
)
async def test_any_whole_frame_is_life(gateway, sign):
    async with opened(gateway, "CP-1") as peer:
        await trio.sleep(80)
        await peer.send(sign)
        await trio.sleep(80)
        assert connected(gateway, "CP-1")


async def test_a_charge_point_that_answers_pings_may_say_nothing_else(gateway):
    """Until 3 heartbeat intervals are over, pongs keep it: a pong is a frame as any other."""
    async with gateway.charger("CP-1") as charger:
        await trio.sleep(3_000)
        assert connected(gateway, "CP-1")
        assert await serves(charger)


async def test_a_frame_that_trickles_in_is_no_life(gateway):
    """One byte every 5 s, and no pong."""
    data = call("BootNotification", chargePointVendor="slow", chargePointModel="x" * 20)
    async with opened(gateway, "CP-1") as peer, trio.open_nursery() as nursery:

        async def trickle() -> None:
            for index in range(len(data)):
                await trio.sleep(5)
                await peer.send(data[index : index + 1])

        nursery.start_soon(trickle)
        assert await silent_for(gateway, "CP-1") < 94
        nursery.cancel_scope.cancel()


async def test_a_ping_is_answered_at_once_while_an_answer_waits_for_the_disk():
    """HC-60."""
    async with open_gateway(journal=SlowJournal()) as gateway, opened(gateway, "CP-1") as peer:
        await gateway.settled()
        gateway.journal.held = trio.Event()
        before = trio.current_time()
        await peer.send(call("StatusNotification", connectorId=1, status="Available",
                             errorCode="NoError"))  # fmt: skip
        await peer.send(frame(PING, b"there?"))
        assert await peer.frame() == (PONG, b"there?")
        assert trio.current_time() == before
        gateway.journal.held.set()
        assert (await peer.message())[:2] == [3, "m"]


async def test_pings_are_answered_also_between_the_pieces_of_a_message(gateway):
    """HC-51."""
    text = b'[2,"m","Heartbeat",{}]'
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(TEXT, text[:5], fin=False))
        await peer.send(frame(PING, b"there?"))
        assert await peer.frame() == (PONG, b"there?")
        await peer.send(frame(0, text[5:9], fin=False) + frame(0, text[9:]))
        assert (await peer.message())[:2] == [3, "m"]
