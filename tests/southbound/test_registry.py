"""The newest connection of a charge point is served, the stop takes leave of all."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.domain.events import (
    ChargePointConnected,
    ChargePointDisconnected,
    ConnectorStatusChanged,
)
from tests.memory_journal import MemoryJournal

from ..conftest import Gateway, open_gateway
from .connections import HALF_AN_ANSWER, SlowJournal, connected, faults_of_ours, reasons, serves
from .raw_websocket import CLOSE, OCPP, TEXT, Peer, call, dial, frame, opened, request, until

# --- the newest connection -----------------------------------------------------------------------


async def test_the_newest_connection_is_served_at_once_while_the_old_one_hangs(gateway):
    """HC-14: the old one answers nothing, not even our Close, and its end touches nobody."""
    async with opened(gateway, "CP-1") as old:
        before = trio.current_time()
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
            assert trio.current_time() == before
            assert await old.close_code() == 1008
            await old.send(call("StatusNotification", connectorId=9, status="Faulted",
                                errorCode="NoError"))  # fmt: skip
            await trio.sleep(20)
            assert await old.end() == b""
            assert await serves(charger)
            assert gateway.events(ConnectorStatusChanged) == []
            assert reasons(gateway, "CP-1") == []
            assert set(gateway.thingsboard.values("CP-1", "connected")) == {True}
        await gateway.settled()
        assert gateway.thingsboard.latest("CP-1")["connected"] is False


async def test_the_newest_connection_is_served_while_the_old_one_does_not_read(gateway):
    """The old one is stuck in an answer; what it is waited for is its own affair."""
    async with opened(gateway, "CP-1", clogged=True) as old:
        await old.send(call("Heartbeat"))
        async with gateway.charger("CP-1") as charger:
            before = trio.current_time()
            assert await serves(charger)
            assert trio.current_time() == before
            await trio.sleep(15)
            assert await old.end() == HALF_AN_ANSWER
            assert await serves(charger)
            assert reasons(gateway, "CP-1") == []


@pytest.mark.parametrize("clogged", [False, True])
async def test_an_order_under_way_on_a_replaced_connection_fails_at_once(gateway, clogged):
    """HC-109: it was sent to the old one, so it is not sent to the new one as well."""
    async with opened(gateway, "CP-1", clogged=clogged) as old, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def order(method: str, **params: Any) -> None:
            answers.append(await gateway.thingsboard.rpc("CP-1", method, params))

        nursery.start_soon(partial(order, "Reset", type="Soft"))
        await gateway.settled()
        nursery.start_soon(order, "ClearCache")  # it waits for its turn
        await gateway.settled()
        if clogged:  # the call is delivered, then an answer sticks
            assert (await old.message())[2] == "Reset"
            await old.send(call("Heartbeat"))
            await gateway.settled()
        before = trio.current_time()
        async with gateway.charger("CP-1") as charger:
            await gateway.settled()
            assert [answer["error"]["code"] for answer in answers] == ["NotConnected"] * 2
            assert trio.current_time() - before < 1
            assert charger.calls.statistics().current_buffer_used == 0


async def test_two_devices_with_one_identity_do_not_chase_each_other_for_ever(gateway):
    """HC-15: the sixth replacement within 30 s is refused, until it is calm again."""
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(opened(gateway, "CP-1"))
            await trio.sleep(1)
        async with dial(gateway) as peer:
            response = await peer.upgrade("/ocpp/CP-1", OCPP)
            assert response.status == 503
            pause = int(response.headers["retry-after"])
            assert 20 < pause <= 30
            assert await peer.end() == b""
        assert connected(gateway, "CP-1")
        async with gateway.charger("CP-2") as other:  # it is nobody else's trouble
            assert await serves(other)
        await trio.sleep(pause)
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)


async def test_a_seat_that_was_fought_for_is_free_once_it_is_left(gateway):
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(opened(gateway, "CP-1"))
    await gateway.settled()
    assert connected(gateway, "CP-1") is False
    async with gateway.charger("CP-1") as charger:
        assert await serves(charger)


async def test_who_comes_back_to_an_empty_seat_is_never_refused(gateway):
    """A charge point that loses its connection often is not two charge points."""
    for _ in range(20):
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)


class LaggingJournal(MemoryJournal):
    """Its order is that of the calls, as on a disk, but to be durable takes a second."""

    async def append(self, *events: Any, checkpoint: Any = None) -> Any:
        entries = await super().append(*events, checkpoint=checkpoint)
        await trio.sleep(1)
        return entries


async def close_politely(peer: Peer) -> None:
    await peer.send(frame(CLOSE, (1000).to_bytes(2, "big")))
    assert await peer.close_code() == 1000


async def vanish(peer: Peer) -> None:
    await trio.aclose_forcefully(peer.stream)


async def ask_and_vanish(peer: Peer) -> None:
    await peer.send(call("BootNotification", chargePointVendor="x", chargePointModel="y"))
    await wait_all_tasks_blocked()
    await trio.aclose_forcefully(peer.stream)


async def break_websocket(peer: Peer) -> None:
    await peer.send(frame(TEXT, b"\xff"))
    assert await peer.close_code() == 1007


@pytest.mark.parametrize("leave", [close_politely, vanish, ask_and_vanish, break_websocket])
@pytest.mark.parametrize("pause", [0, 0.4, 1.2])
async def test_who_left_and_comes_back_is_no_duel(leave, pause):
    """Also while its connect, its request or its disconnect is not durable yet."""
    async with open_gateway(journal=LaggingJournal()) as gateway:
        for _ in range(20):
            async with dial(gateway) as peer:
                assert (await peer.upgrade("/ocpp/CP-1", OCPP)).status == 101
                await wait_all_tasks_blocked()
                await trio.sleep(pause)
                await leave(peer)
                await wait_all_tasks_blocked()
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)
            assert connected(gateway, "CP-1") is True
            assert isinstance(told_of_presence(gateway)[-1], ChargePointConnected)
        await trio.sleep(3)
        assert connected(gateway, "CP-1") is False


def told_of_presence(gateway: Gateway) -> list[Any]:
    kinds = (ChargePointConnected, ChargePointDisconnected)
    return [entry.event for entry in gateway.journal._entries if isinstance(entry.event, kinds)]


async def test_each_disconnect_is_before_the_next_connect():
    async with open_gateway(journal=LaggingJournal()) as gateway:
        for _ in range(5):
            async with dial(gateway) as peer:
                await peer.upgrade("/ocpp/CP-1", OCPP)
                await trio.sleep(1.5)
                await close_politely(peer)
        await trio.sleep(3)
        assert [type(event) for event in told_of_presence(gateway)] == [
            ChargePointConnected,
            ChargePointDisconnected,
        ] * 5


async def test_a_seat_is_free_when_the_close_is_seen():
    """Not when it is durable: an order meanwhile is not for who is gone."""
    async with open_gateway(journal=LaggingJournal()) as gateway, dial(gateway) as peer:
        await peer.upgrade("/ocpp/CP-1", OCPP)
        await trio.sleep(1.5)
        before = trio.current_time()
        await close_politely(peer)
        await wait_all_tasks_blocked()
        assert gateway.running.registry.connections() == []
        assert trio.current_time() == before


async def test_those_who_left_do_not_hide_a_duel():
    """What is counted is who was pushed out, whoever else came and went."""
    async with open_gateway(journal=LaggingJournal()) as gateway, AsyncExitStack() as stack:
        for _ in range(6):
            async with dial(gateway) as peer:
                assert (await peer.upgrade("/ocpp/CP-1", OCPP)).status == 101
                await close_politely(peer)
        for _ in range(6):
            await stack.enter_async_context(opened(gateway, "CP-1"))
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-1", OCPP)).status == 503


# --- the stop ------------------------------------------------------------------------------------


async def test_a_stop_takes_leave_of_everybody(gateway):
    async with gateway.charger("CP-1") as one, gateway.charger("CP-2") as two:
        before = trio.current_time()
        gateway.stop.set()
        await one.closed.wait()
        await two.closed.wait()
        assert trio.current_time() == before
        assert (one.close_code, two.close_code) == (1001, 1001)
    await gateway.settled()
    assert gateway.thingsboard.latest("CP-1")["connected"] is False
    assert gateway.thingsboard.latest("CP-2")["connected"] is False


async def test_a_stop_waits_for_the_answer_under_way():
    async with open_gateway(journal=SlowJournal()) as gateway, opened(gateway, "CP-1") as peer:
        await gateway.settled()
        gateway.journal.held = trio.Event()
        await peer.send(call("StartTransaction", "1", connectorId=1, idTag="A", meterStart=0,
                             timestamp="2026-01-01T00:00:00Z"))  # fmt: skip
        await peer.send(call("Heartbeat", "2"))
        await gateway.settled()
        gateway.stop.set()
        await trio.sleep(1)
        gateway.journal.held.set()
        kind, unique_id, payload = await peer.message()
        assert (kind, unique_id, payload["transactionId"]) == (3, "1", 1)
        assert await peer.close_code() == 1001


async def test_a_stop_fails_the_orders_that_are_under_way(gateway):
    async with opened(gateway, "CP-1"), trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def order() -> None:
            answers.append(await gateway.thingsboard.rpc("CP-1", "ClearCache"))

        nursery.start_soon(order)
        await gateway.settled()
        gateway.stop.set()
        await trio.sleep(1)
        assert [answer["error"]["code"] for answer in answers] == ["NotConnected"]


@pytest.mark.parametrize("clogged", [False, True])
async def test_who_does_not_answer_our_close_does_not_hold_the_stop(clogged):
    """5 s for the goodbye, and 10 s of grace for all."""
    gateway = Gateway()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run)
        async with opened(gateway, "CP-1", clogged=clogged) as peer:
            await peer.send(call("Heartbeat"))
            await gateway.settled()
            gateway.stop.set()
            await until(lambda: not nursery.child_tasks, within=10.1)
    assert reasons(gateway, "CP-1") == ["the gateway is stopping"]


async def test_who_has_said_nothing_yet_does_not_hold_the_stop(quiet_logs):
    """A load balancer's probe is no reason to wait."""
    gateway = Gateway()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run)
        async with dial(gateway) as peer:
            await gateway.settled()
            before = trio.current_time()
            gateway.stop.set()
            assert await peer.end() == b""
            assert trio.current_time() == before
    assert faults_of_ours(quiet_logs) == []


async def test_who_comes_in_while_the_gateway_stops_is_sent_away_at_once():
    """The upgrade is under way when the stop comes; its answer is read a second later."""
    async with open_gateway() as gateway, dial(gateway, clogged=True) as peer:
        await peer.send(request("/ocpp/CP-1", OCPP))
        await gateway.settled()
        gateway.stop.set()
        await trio.sleep(1)
        assert (await peer.response()).status == 101
        before = trio.current_time()
        assert await peer.close_code() == 1001
        assert trio.current_time() == before
