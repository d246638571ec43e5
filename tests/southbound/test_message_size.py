"""A StopTransaction may be large; anything else that is ends its own connection, and is told."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import trio

from gateway.domain.events import TransactionSettled, TransactionStopped
from gateway.southbound.message_size import MAX_LARGE, Incoming, action_of

from ..conftest import open_gateway
from .connections import UNASKED, connected, others, reasons, serves, southbound_settings
from .raw_websocket import PING, PONG, TEXT, call, frame, opened, until

MIB = 2**20


def readings(count: int, *, padding: int = 0) -> list[dict[str, Any]]:
    """Two samples every ten seconds, as a charge point keeps them for its StopTransaction."""
    return [
        {
            "timestamp": f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z",
            "sampledValue": [
                {
                    "value": str(1_000 + second),
                    "context": "Sample.Periodic",
                    "format": "Raw",
                    "measurand": "Energy.Active.Import.Register",
                    "location": "Outlet",
                    "unit": "Wh",
                },
                {
                    "value": "360" + " " * padding,
                    "context": "Sample.Periodic",
                    "format": "Raw",
                    "measurand": "Power.Active.Import",
                    "location": "Outlet",
                    "unit": "W",
                },
            ],
        }
        for second in range(0, 10 * count, 10)
    ]


def stop_frame(size: int, unique_id: str = "s", head: str | None = None) -> bytes:
    """A StopTransaction of exactly so many bytes."""
    head = head or f'[2,"{unique_id}","StopTransaction",'
    text = head + '{"transactionId":1,"meterStop":1,"timestamp":"2026-01-01T01:00:00Z","x":"'
    return frame(TEXT, (text + "x" * (size - len(text) - 3) + '"}]').encode())


def warnings(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in logs if entry["log_level"] == "warning"]


# --- a StopTransaction ---------------------------------------------------------------------------


async def test_a_stop_with_a_thousand_readings_is_answered_and_billed_by_default(gateway):
    """Field frame FRM-69: 343 kB, more than `max_message_bytes`."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        data = readings(1_000)
        assert len(json.dumps(data)) > 262_144
        await trio.sleep(10_000)
        assert await charger.stop(tx, 10_990, transactionData=data) == {}
        assert await serves(charger)
        await gateway.settled()
    (stopped,) = gateway.events(TransactionStopped)
    assert len(stopped.readings) == 1_000
    (settled,) = gateway.events(TransactionSettled)
    assert settled.receipt["energy_wh"] == "9990"


async def test_four_thousand_readings_are_served(gateway):
    """HC-49: 540 kB and more."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        assert await charger.stop(tx, 40_990, transactionData=readings(4_000)) == {}


@pytest.mark.parametrize(
    "head",
    [
        '[2,"s","StopTransaction",',
        ' [ 2 ,\n\t"s" , "StopTransaction" , ',
        '[2,"a \\"b\\" [2,","StopTransaction",',
        '[2,17,"StopTransaction",',
        f'[2,"{"s" * 36}","StopTransaction",',
        f'[2,"{chr(92)}u0073{chr(92)}u0073","StopTransaction",',
    ],
)
async def test_a_stop_is_known_by_its_beginning_in_whatever_pieces_it_comes(gateway, head):
    payload = '{"transactionId":1,"meterStop":1,"timestamp":"2026-01-01T01:00:00Z","x":"'
    text = (head + payload + "x" * 300_000 + '"}]').encode()
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(TEXT, text[:3], fin=False))
        await peer.send(frame(0, text[3:20], fin=False))
        await peer.send(frame(PING, b"between"))
        await peer.send(frame(0, text[20:200_000], fin=False))
        await peer.send(frame(0, text[200_000:]))
        assert await peer.frame() == (PONG, b"between")
        answer = await peer.message()
        assert (answer[0], answer[1]) == (3, json.loads(text)[1])


@pytest.mark.parametrize("most", [4_096, 262_144, 8 * MIB])
async def test_a_stop_is_taken_up_to_four_mebibytes_or_what_all_may_have(most):
    async with open_gateway(
        settings=southbound_settings(max_message_bytes=most, boot_wait_s=math.inf)
    ) as gateway:
        limit = max(most, 4 * MIB)
        async with opened(gateway, "CP-1") as peer:
            await peer.send(stop_frame(limit))
            assert (await peer.message())[:2] == [3, "s"]
        async with others(gateway), opened(gateway, "CP-1") as peer:
            await peer.send(stop_frame(limit + 1))
            assert await peer.close_code() == 1009


@pytest.mark.parametrize(
    ("head", "action"),
    [
        ('[2,"x","MeterValues",', "MeterValues"),
        ('[2,"x","StopTransactions",', "StopTransactions"),
        ('[2,"StopTransaction","DataTransfer",', "DataTransfer"),
        ('[3,"x",{"a":"StopTransaction"', None),
        ('[2,"x",["StopTransaction",', None),
        ('{"2":"StopTransaction"', None),
        ('["StopTransaction",', None),
        ("[2," + '"' + "x" * 600 + '","StopTransaction",', None),
        ("", None),
    ],
)
def test_what_is_no_stop_is_not_taken_for_one(head, action):
    assert action_of(head[:512]) == action


async def test_a_stop_of_four_mebibytes_in_which_all_is_missing_is_answered(gateway):
    """What is wrong is noted once, not a million times in the journal."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        await charger.stop(tx, 1_000, transactionData=[{}] * 200_000 + [None, 1, "x"])
    (stopped,) = gateway.events(TransactionStopped)
    assert set(stopped.defects) == {"timestamp", "sampledValue", "transactionData"}
    assert len(stopped.defects) == 3


# --- anything else -------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 5])
async def test_a_message_above_the_limit_ends_its_connection_only(gateway, pieces):
    """HC-49, HC-51: also in fragments, and before the last of them has come."""
    piece = b"x" * (262_145 // pieces + 1)
    async with others(gateway), opened(gateway, "CP-1") as peer:
        await peer.send(frame(TEXT, piece, fin=False))
        for _ in range(pieces - 1):
            await peer.send(frame(0, piece, fin=False))
        assert await peer.close_code() == 1009
        assert await peer.end() == b""
        await gateway.settled()
        assert "Exceeded" in gateway.thingsboard.latest("CP-1")["disconnect_reason"]


async def test_a_limit_is_of_bytes_not_of_characters():
    settings = southbound_settings(max_message_bytes=4_096)
    async with open_gateway(settings=settings) as gateway, opened(gateway, "CP-1") as peer:
        await peer.send(call("DataTransfer", vendorId="x" * 4_000))
        assert (await peer.message())[0] in (3, 4)
        text = '[2,"m","DataTransfer",{"vendorId":"' + "\N{EURO SIGN}" * 1_500 + '"}]'
        await peer.send(frame(TEXT, text.encode()))
        assert await peer.close_code() == 1009


async def test_a_message_too_large_is_counted_and_warned_of_once_an_hour(gateway, quiet_logs):
    """It says of whom, of what, and which key to raise."""

    async def send_too_much(name: str) -> None:
        async with opened(gateway, name) as peer:
            await peer.send(frame(TEXT, b"no JSON"))
            await trio.sleep(1)
            await peer.send(call("MeterValues", connectorId=1, meterValue=["x" * 300_000]))
            assert await peer.close_code() == 1009
            await peer.stream.aclose()
            await gateway.settled()

    await send_too_much("CP-1")
    assert gateway.thingsboard.values("CP-1", "rejected_frames") == [1, 2]
    (told,) = warnings(quiet_logs)
    assert told["charge_point"] == "CP-1"
    assert "[ocpp] max_message_bytes" in told["event"]
    assert "MeterValues" in told["why"]
    assert told["max_message_bytes"] == 262_144

    await send_too_much("CP-1")
    await send_too_much("CP-2")
    assert [entry["charge_point"] for entry in warnings(quiet_logs)] == ["CP-1", "CP-2"]
    await trio.sleep(3_600)
    await send_too_much("CP-1")
    assert [entry["charge_point"] for entry in warnings(quiet_logs)] == ["CP-1", "CP-2", "CP-1"]


async def test_a_close_for_a_message_too_large_reaches_who_still_sends(gateway):
    """What it goes on sending is read and thrown away, for five seconds at most; its seat is free
    at once."""
    async with opened(gateway, "CP-1") as peer:
        await peer.send(call("DataTransfer", vendorId="x" * 300_000))
        await until(lambda: connected(gateway, "CP-1") is False, within=1)
        before = trio.current_time()
        for _ in range(20):
            await peer.send(b"x" * 100_000)
        assert trio.current_time() == before
        assert await peer.close_code() == 1009
        assert await peer.end() == b""
        assert trio.current_time() - before <= 5


# --- memory --------------------------------------------------------------------------------------


async def test_only_a_few_large_messages_are_held_at_a_time():
    """Who waits is read no further than the limit; who has its answer, or leaves, makes room."""
    half = stop_frame(2 * MIB)[: 2 * MIB - 1]
    async with open_gateway(settings=UNASKED) as gateway, trio.open_nursery() as nursery:
        leave = trio.Event()
        received = []

        async def hold(name: str) -> None:
            async with opened(gateway, name) as peer:
                with trio.move_on_after(30):
                    await peer.send(half)
                    received.append(name)
                await leave.wait()

        for number in range(MAX_LARGE):
            nursery.start_soon(hold, f"SLOW-{number}")
        await trio.sleep(1)
        assert len(received) == MAX_LARGE

        async with opened(gateway, "CP-1") as peer:
            await peer.send(stop_frame(300_000))
            with trio.move_on_after(10) as waited:
                await peer.message()
            assert waited.cancelled_caught
            leave.set()
            assert (await peer.message())[0] == 3


async def test_large_messages_one_after_the_other_need_one_place_each():
    """A place is given back with the answer, so nobody runs out of them."""
    async with (
        open_gateway(settings=UNASKED) as gateway,
        opened(gateway, "CP-1") as peer,
    ):
        for number in range(2 * MAX_LARGE + 1):
            await peer.send(stop_frame(270_000, str(number)))
        for number in range(2 * MAX_LARGE + 1):
            assert (await peer.message())[1] == str(number)
        assert reasons(gateway, "CP-1") == []


async def test_places_are_given_back_exactly():
    places = trio.Semaphore(1)
    incoming = Incoming(4_096, places)
    head = '[2,"x","StopTransaction",'
    assert incoming.add(head + "x" * 5_000, finished=False) is None
    await incoming.wait_for_room()
    await incoming.wait_for_room()  # it has one
    assert places.value == 0
    assert incoming.add("x", finished=True) is None
    incoming.take()
    assert incoming.add("[]", finished=True) is None
    incoming.handled()
    assert places.value == 1
    incoming.take()
    incoming.handled()
    incoming.close()
    assert places.value == 1
    assert incoming.add(head + "x" * 5_000, finished=False) is None
    await incoming.wait_for_room()
    incoming.close()
    incoming.handled()
    assert places.value == 1
