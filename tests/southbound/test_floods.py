"""Who floods, never reads or never finishes harms nobody else, and costs no more than a little."""

from __future__ import annotations

import math
import socket
from contextlib import AsyncExitStack, suppress

import pytest
import trio

from gateway.domain.events import ChargePointConnected
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.handshake_limiter import HandshakeLimiter
from gateway.southbound.tcp import address_of, tune
from gateway.southbound.throttle import Throttle

from ..conftest import open_gateway
from .connections import UNASKED, connected, others, reasons, serves, southbound_settings
from .raw_websocket import (
    OCPP,
    PING,
    PONG,
    TEXT,
    NarrowPipe,
    Peer,
    call,
    dial,
    frame,
    opened,
    request,
    until,
)

HEARTBEAT = call("Heartbeat")
RATE, BURST = 200, 1_000  # frames a second; at once


async def heard_within(peer: Peer, seconds: float) -> list[int]:
    """The opcodes of the frames that come in this time."""
    heard = []
    with trio.move_on_after(seconds):
        while True:
            heard.append((await peer.frame())[0])
    return heard


# --- floods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flood", [HEARTBEAT, frame(PING), frame(TEXT, b"garbage"),
                                   frame(PONG), frame(TEXT, b"[", fin=False)],
                         ids=["messages", "pings", "garbage", "pongs", "pieces"])  # fmt: skip
async def test_a_flood_is_slowed_and_counted(gateway, quiet_logs, flood):
    """HC-144: whatever it consists of; others are served as ever, and the operator is told once."""
    last = frame(0, b"]") if flood == frame(TEXT, b"[", fin=False) else b""
    flood = flood if not last else frame(0, b"[", fin=False)
    async with others(gateway) as other, opened(gateway, "CP-1") as peer:
        began = trio.current_time()
        if last:
            await peer.send(frame(TEXT, b"[", fin=False))
        await peer.send(flood * 5_000 + last + call("Heartbeat", "last"))
        for _ in range(10):
            asked = trio.current_time()
            assert await serves(other)
            assert trio.current_time() == asked
            await trio.sleep(0.5)
        while (await peer.frame())[1][:9] != b'[3,"last"':
            pass
        took = trio.current_time() - began
        # It is read 4 KiB at a time, and the last of them is not waited for.
        assert (5_000 - BURST - 700) / RATE < took < 5_000 / RATE * 1.1
        assert 3_900 < gateway.running.connections.throttled_frames <= 5_002
        assert reasons(gateway, "CP-1") == []
    slowed = [log for log in quiet_logs if "slowed" in log["event"]]
    assert [(log["charge_point"], log["frames_per_s"]) for log in slowed] == [("CP-1", 200)]


async def test_a_thousand_messages_a_second_are_answered_at_two_hundred(gateway):
    """HC-144: after the first second's worth, which anybody may have saved up."""
    async with opened(gateway, "CP-1") as peer, trio.open_nursery() as nursery:

        async def send() -> None:
            while True:
                await peer.send(HEARTBEAT * 10)
                await trio.sleep(0.01)

        nursery.start_soon(send)
        assert len(await heard_within(peer, 1)) >= 990
        await heard_within(peer, 2)
        assert len(await heard_within(peer, 10)) == pytest.approx(10 * RATE, rel=0.1)
        nursery.cancel_scope.cancel()


async def test_what_was_queued_in_an_outage_goes_through_at_once(gateway):
    """HC-79: 500 MeterValues of 1,500 bytes."""
    reading = {"timestamp": "2026-01-01T00:00:00Z",
               "sampledValue": [{"value": "1"}] * 80}  # fmt: skip
    queued = [call("MeterValues", str(n), connectorId=1, meterValue=[reading]) for n in range(500)]
    assert 1_400 < len(queued[0]) < 1_600
    async with opened(gateway, "CP-1") as peer:
        began = trio.current_time()
        await peer.send(b"".join(queued))
        answered = [(await peer.message())[1] for _ in queued]
        assert trio.current_time() - began < 0.1
    assert answered == [str(n) for n in range(500)]
    assert gateway.running.connections.throttled_frames == 0


async def test_who_keeps_to_the_pace_is_never_slowed(gateway):
    async with opened(gateway, "CP-1") as peer:
        for _ in range(2_000):
            await peer.send(HEARTBEAT)
            asked = trio.current_time()
            await peer.message()
            assert trio.current_time() == asked
            await trio.sleep(0.01)
    assert gateway.running.connections.throttled_frames == 0


async def test_a_ping_in_a_flood_waits_for_no_more_than_what_the_kernel_holds(gateway):
    """What is not read is not taken from the peer: 32 KiB, and no more can stand before it."""
    pipe, back = NarrowPipe(32_768), NarrowPipe(math.inf)
    pair = (trio.StapledStream(pipe, back), trio.StapledStream(back, pipe))
    peer = Peer(await gateway.listener.connect(lambda: pair))
    assert (await peer.upgrade("/ocpp/CP-1", OCPP)).status == 101
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            while True:
                await peer.send(HEARTBEAT)

        nursery.start_soon(send)
        await heard_within(peer, 10)
        nursery.cancel_scope.cancel()
    # Half a heartbeat may be on the wire, so a ping cannot follow it here; an answer tells as much.
    behind = len(pipe._bytes) / len(HEARTBEAT)
    assert behind > 500
    asked = trio.current_time()
    while len(await heard_within(peer, 0.5)) > 1:
        pass
    assert trio.current_time() - asked < behind / RATE + 2
    await trio.aclose_forcefully(peer.stream)


async def test_a_stop_does_not_wait_for_who_is_slowed(gateway):
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(PING) * 20_000)
        await trio.sleep(3)
        before = trio.current_time()
        gateway.stop.set()
        await peer.end()
        assert trio.current_time() - before < 10.1


def test_a_pace_is_a_rate_and_what_five_seconds_of_it_come_to():
    held: list[int] = []
    pace = Throttle(10, held.append, "CP-1")
    for _ in range(50):
        pace.count()
    assert pace.resume_at(100.0, 0) is None
    pace.count()
    assert pace.resume_at(100.0, 0) == pytest.approx(100.1)
    assert held == [1]
    assert pace.resume_at(100.1, 0) is None  # it has waited
    assert pace.resume_at(200.0, 50 * 8_192) is None  # a long rest, and a long message
    assert pace.resume_at(200.0, 8_192) == pytest.approx(200.1)


# --- who never reads -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flood", "within"),
    [(HEARTBEAT, 13), (frame(PING, b"x" * 125), 43)],
    ids=["calls", "pings"],
)
async def test_who_never_reads_is_not_read_either_and_is_closed(flood, within):
    """HC-143: what is kept for it is bounded, though it may send as fast as it can.

    An answer that does not leave ends the connection after 10 s; a pong that does not leave is
    found out once our own ping, after 30 s, does not leave either.
    """
    settings = southbound_settings(boot_wait_s=math.inf, max_messages_per_s=100_000)
    async with open_gateway(settings=settings) as gateway, others(gateway) as other:
        pipe, back = NarrowPipe(4_096), NarrowPipe(300)
        pair = (trio.StapledStream(pipe, back), trio.StapledStream(back, pipe))
        peer = Peer(await gateway.listener.connect(lambda: pair))
        assert (await peer.upgrade("/ocpp/CP-1", OCPP)).status == 101
        await until(lambda: connected(gateway, "CP-1"))
        began, sent = trio.current_time(), 0
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                nonlocal sent
                with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                    while True:
                        await peer.send(flood)
                        sent += len(flood)

            nursery.start_soon(push)
            await until(lambda: not connected(gateway, "CP-1"))
            assert trio.current_time() - began < within
            await trio.aclose_forcefully(peer.stream)
        assert sent < 20_000  # in all that time
        assert await serves(other)


async def test_orders_to_who_never_reads_are_bounded_and_fail():
    """HC-143: 20 wait at most, and none is kept once the connection is given up."""
    async with (
        open_gateway(settings=UNASKED) as gateway,
        opened(gateway, "CP-1", clogged=True) as peer,
        trio.open_nursery() as nursery,
    ):
        codes = []

        async def order(number: int) -> None:
            answer = await gateway.thingsboard.rpc(
                "CP-1", "GetConfiguration", {"key": [str(number)]}
            )
            codes.append(answer["error"]["code"])

        for number in range(50):
            nursery.start_soon(order, number)
        await until(lambda: len(codes) == 50)
        assert sorted(set(codes)) == ["Busy", "NotConnected"]
        assert codes.count("NotConnected") <= 21
        assert len(await peer.end()) < 50


async def test_two_hundred_frames_that_trickle_in_starve_nobody():
    """HC-145: a byte a second each, inside a frame; the silence ends them all."""
    settings = southbound_settings(
        handlers=HandlerSettings(heartbeat_interval_s=5), boot_wait_s=math.inf
    )
    data = call("BootNotification", chargePointVendor="slow", chargePointModel="x" * 20)
    async with open_gateway(settings=settings) as gateway, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(opened(gateway, f"SLOW-{n}")) for n in range(200)]
        began = trio.current_time()
        async with gateway.charger("OTHER") as other, trio.open_nursery() as nursery:

            async def trickle() -> None:
                for index in range(len(data)):
                    for peer in peers:
                        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                            await peer.send(data[index : index + 1])
                    await trio.sleep(1)

            nursery.start_soon(trickle)
            while any(connected(gateway, f"SLOW-{n}") for n in range(200)):
                asked = trio.current_time()
                assert await serves(other)
                assert trio.current_time() - asked < 0.1
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert 15 <= trio.current_time() - began < 20


# --- handshakes that nobody finishes -------------------------------------------------------------


async def test_of_too_many_unfinished_handshakes_the_oldest_makes_room(quiet_logs):
    """HC-24: an address holds no more of them, and yet whoever asks from there gets in."""
    async with (
        open_gateway(settings=southbound_settings(max_handshakes_per_address=3)) as gateway,
        AsyncExitStack() as stack,
    ):
        before = trio.current_time()
        silent = [await stack.enter_async_context(dial(gateway)) for _ in range(10)]
        for peer in silent[:7]:
            assert await peer.end() == b""
        assert trio.current_time() == before
        async with gateway.charger("CP-1") as charger:  # it takes the place of one more
            assert await serves(charger)
        assert await silent[7].end() == b""
        assert trio.current_time() == before
        for peer in silent[8:]:
            with trio.move_on_after(5) as waited:
                await peer.end()
            assert waited.cancelled_caught
        await trio.sleep(6)
        for peer in silent[8:]:
            assert await peer.end() == b""
        assert gateway.running.connections.unfinished_handshakes == 10
    assert [log for log in quiet_logs if log["log_level"] in ("warning", "error")] == []


async def test_whoever_has_finished_a_handshake_is_counted_no_more():
    async with (
        open_gateway(settings=southbound_settings(max_handshakes_per_address=3)) as gateway,
        AsyncExitStack() as stack,
    ):
        for number in range(10):
            charger = await stack.enter_async_context(gateway.charger(f"CP-{number}"))
            assert await serves(charger)
        assert len(gateway.events(ChargePointConnected)) == 10
        assert gateway.running.connections.unfinished_handshakes == 0


async def test_addresses_do_not_take_each_others_places():
    arrivals = HandshakeLimiter(2, 10.0)
    with arrivals.handshake("a") as first, arrivals.handshake("b") as other:
        with arrivals.handshake("a"), arrivals.handshake("a"):
            assert first.cancel_called
        assert not other.cancel_called
        with arrivals.handshake("b"):
            assert not other.cancel_called
    assert arrivals._by_address == {}


async def test_a_request_that_waits_for_its_answer_also_makes_room_but_not_at_a_stop():
    arrivals = HandshakeLimiter(1, 10.0)
    with arrivals.handshake("a") as first:
        await trio.sleep(9)
        arrivals.request_received(first)
        arrivals.cancel_silent()
        assert not first.cancel_called
        assert first.deadline == trio.current_time() + 10
        with arrivals.handshake("a") as second:
            assert first.cancel_called
            arrivals.cancel_silent()
            assert second.cancel_called


async def test_who_has_asked_makes_room_after_those_who_have_not():
    """Passwords take a while to be checked: those in that queue mean it, and the silent do not."""
    arrivals = HandshakeLimiter(2, 10.0)
    with arrivals.handshake("A") as asked:
        arrivals.request_received(asked)
        with arrivals.handshake("A") as silent, arrivals.handshake("A") as newcomer:
            assert (asked.cancel_called, silent.cancel_called) == (False, True)
            assert not newcomer.cancel_called


async def test_many_from_one_address_who_mean_it_all_get_in():
    """HC-141: a fleet behind one router, all at once."""
    async with open_gateway() as gateway, AsyncExitStack() as stack:
        peers = []
        for number in range(1_000):
            peer = await stack.enter_async_context(dial(gateway))
            await peer.send(request(f"/ocpp/CP-{number}", OCPP))
            peers.append(peer)
        for peer in peers:
            assert (await peer.response()).status == 101
        assert gateway.running.connections.unfinished_handshakes == 0


# --- what the kernel does ------------------------------------------------------------------------


@pytest.mark.real_time
async def test_the_kernel_keeps_little_for_a_charge_point_and_finds_out_one_that_vanished():
    """HC-142, HC-143: Linux doubles what it is asked for, for its own accounts."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        listener,
        await trio.open_tcp_stream(*listener.socket.getsockname()) as ours,
        await listener.accept() as stream,
    ):
        tune(stream)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 32_768
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 131_072
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        host, where = address_of(stream)
        assert (host, where) == ("127.0.0.1", f"127.0.0.1:{ours.socket.getsockname()[1]}")
        await stream.aclose()
        tune(stream)  # one that has left already is no fault
        assert address_of(stream) == ("unknown", "unknown")
