"""RPCs that repeat, come too many, break, or wait for a link, on virtual time."""

from __future__ import annotations

import pytest
import trio

from gateway.domain.events import ConnectorStatusChanged

from ..conftest import open_gateway
from ..fakes import EPOCH
from .builders import (
    LOG,
    FakeCommandRunner,
    assert_announced_first,
    open_publisher_alone,
    responses,
    rpc_payload,
    settled,
    wait_until,
)


async def test_a_repeated_order_is_carried_out_once_and_answered_alike():
    async with open_publisher_alone(runner=FakeCommandRunner(5)) as alone:
        for _ in range(3):
            await alone.thingsboard.deliver(rpc_payload())
            await trio.sleep(1)
        await trio.sleep(10)
        first = (0, {"status": "Accepted", "count": 1})
        assert responses(alone.thingsboard) == [first]  # three times while under way: one answer
        await alone.thingsboard.deliver(rpc_payload())
        await settled()
        assert responses(alone.thingsboard) == [first, first]
        assert len(alone.runner.carried_out) == 1


async def test_later_the_same_order_is_a_new_one():
    async with open_publisher_alone() as alone:
        await alone.thingsboard.deliver(rpc_payload())
        await trio.sleep(29)
        await alone.thingsboard.deliver(rpc_payload())
        await trio.sleep(32)
        await alone.thingsboard.deliver(rpc_payload())
        await settled()
        assert [data["count"] for _, data in responses(alone.thingsboard)] == [1, 1, 2]


async def test_orders_that_differ_in_anything_are_different_orders():
    async with open_publisher_alone() as alone:
        for payload in (
            rpc_payload(0),
            rpc_payload(1),
            rpc_payload(0, "Other"),
            rpc_payload(0, params={"a": 1}),
        ):
            await alone.thingsboard.deliver(payload)
        await settled()
        assert len(alone.runner.carried_out) == 4


async def test_an_order_for_an_unknown_device_gets_no_answer_for_that_would_create_it():
    async with open_publisher_alone() as alone:
        for device in ("CP-9", "CP-9/1", "CP-1/2", "CP-1/0", "", LOG, "CP-1/x"):
            await alone.thingsboard.deliver(rpc_payload(device=device))
        await settled()
        assert responses(alone.thingsboard) == []
        assert alone.runner.carried_out == []


async def test_connector_1_takes_orders_from_the_connection_on_and_only_while_no_other_is_known():
    """A charge point that tells nothing of itself, as the prototype's simulator, has it, too."""
    async with open_publisher_alone() as alone:
        await alone.thingsboard.deliver(rpc_payload(1, device="CP-1/1"))
        await settled()
        assert [command.connector_id for command in alone.runner.carried_out] == [1]
        assert [number for number, _ in responses(alone.thingsboard)] == [1]
        about = {"charge_point_id": "CP-1", "received_at": EPOCH}
        await alone.bus.publish(ConnectorStatusChanged(**about, connector_id=2, status="X"))
        await alone.thingsboard.deliver(rpc_payload(2, device="CP-1/1"))
        await settled()
        assert [number for number, _ in responses(alone.thingsboard)] == [1]


async def test_beyond_two_hundred_orders_at_once_the_next_is_told_so():
    async with open_publisher_alone(runner=FakeCommandRunner(50)) as alone:
        for number in range(205):
            await alone.thingsboard.deliver(rpc_payload(number))
        await settled()
        busy = responses(alone.thingsboard)
        assert [number for number, _ in busy] == [200, 201, 202, 203, 204]
        assert {data["error"]["code"] for _, data in busy} == {"Busy"}
        await trio.sleep(60)
        assert len(responses(alone.thingsboard)) == 205
        await alone.thingsboard.deliver(rpc_payload(205))
        await trio.sleep(60)
        assert responses(alone.thingsboard)[-1][1]["status"] == "Accepted"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[",
        b"{}",
        b"[" * 99_999,
        rpc_payload(device="\0"),
        b'{"device":{},"data":{"id":0}}',
    ],
)
async def test_no_garbage_fells_the_door(payload):
    async with open_publisher_alone() as alone:
        await alone.thingsboard.deliver(payload)
        await alone.thingsboard.deliver(rpc_payload(7))
        await settled()
        assert [number for number, _ in responses(alone.thingsboard)] == [7]
        assert alone.thingsboard.links == 1


async def test_an_order_that_breaks_our_own_code_fells_nobody(quiet_logs):
    runner = FakeCommandRunner(failing="Reset")
    async with open_publisher_alone(runner=runner) as alone:
        await alone.thingsboard.deliver(rpc_payload(1))
        await alone.thingsboard.deliver(rpc_payload(2, "Other"))
        await settled()
        assert [number for number, _ in responses(alone.thingsboard)] == [2]
    assert [log for log in quiet_logs if log["event"] == "RPC dropped"]


async def test_an_order_outlives_the_link_that_brought_it():
    async with open_publisher_alone(runner=FakeCommandRunner(20)) as alone:
        await alone.thingsboard.deliver(rpc_payload(3))
        await trio.sleep(5)
        alone.thingsboard.up = False
        alone.thingsboard.cut()
        await trio.sleep(60)
        assert responses(alone.thingsboard) == []
        alone.thingsboard.up = True
        await wait_until(lambda: responses(alone.thingsboard))
        assert responses(alone.thingsboard) == [(3, {"status": "Accepted", "count": 1})]
        assert_announced_first(alone.thingsboard)


async def test_an_answer_without_a_puback_is_given_again_on_the_next_link():
    async with open_publisher_alone() as alone:
        alone.thingsboard.holding = True
        await alone.thingsboard.deliver(rpc_payload(3))
        await settled()
        alone.thingsboard.cut()
        alone.thingsboard.holding = False
        await wait_until(lambda: alone.thingsboard.links == 2)
        await settled()
        answered = (3, {"status": "Accepted", "count": 1})
        assert responses(alone.thingsboard) == [answered, answered]
        assert_announced_first(alone.thingsboard)


async def test_a_request_that_thingsboard_repeats_on_a_new_link_is_not_carried_out_again():
    async with open_publisher_alone(runner=FakeCommandRunner(5)) as alone:
        await alone.thingsboard.deliver(rpc_payload(0))
        await trio.sleep(1)
        alone.thingsboard.cut()
        await wait_until(lambda: alone.thingsboard.links == 2)
        await alone.thingsboard.deliver(rpc_payload(0))
        await trio.sleep(10)
        assert len(alone.runner.carried_out) == 1
        assert {data["count"] for _, data in responses(alone.thingsboard)} == {1}


async def test_messages_on_other_topics_and_our_own_echoes_are_ignored():
    async with open_publisher_alone() as alone:
        await alone.thingsboard.deliver(b'{"device":"CP-1","id":0,"data":{"status":"Accepted"}}')
        await settled()
        assert (responses(alone.thingsboard), alone.runner.carried_out) == ([], [])


# --- the end -----------------------------------------------------------------------------------


async def test_orders_under_way_do_not_hold_the_stop_up():
    """Nothing can come of them: the charge points have left before."""
    async with open_publisher_alone(runner=FakeCommandRunner(600)) as alone:
        await alone.thingsboard.deliver(rpc_payload())
        await settled()
        began = trio.current_time()
    assert trio.current_time() - began < 1
    assert len(alone.runner.carried_out) == 1


async def test_what_is_answered_when_the_house_closes_is_told_still():
    async with open_gateway() as gateway, gateway.charger("CP-1") as charger:
        await settled()
        await gateway.thingsboard.deliver(rpc_payload(4, "ClearCache"))
        await charger.next_call()
        gateway.stop.set()
        await charger.closed.wait()
    assert [(number, data["error"]["code"]) for number, data in responses(gateway.thingsboard)] == [
        (4, "NotConnected")
    ]


async def test_answers_that_still_wait_for_their_turn_are_told_before_the_house_closes():
    async with open_publisher_alone() as alone:
        alone.thingsboard.holding = True
        for number in range(3):
            await alone.thingsboard.deliver(rpc_payload(number))
        await settled()
        assert [number for number, _ in responses(alone.thingsboard)] == [0]

        async def release():
            await trio.sleep(1)
            alone.thingsboard.release()

        alone.nursery.start_soon(release)
    assert [number for number, _ in responses(alone.thingsboard)] == [0, 1, 2]
