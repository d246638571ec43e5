"""Sub-device sessions, RPC and shared attributes: thingsboard-contract 7."""

import pytest
import trio
from thingsboard_client import RPC, TELEMETRY, open_client, row

from gateway.simulation.thingsboard import RpcNoSession, RpcTimeout, ThingsBoard


class Caller:
    """One RPC in the background, and how it ended."""

    def __init__(self, nursery, thingsboard, *args, **more):
        self.result = None
        nursery.start_soon(self._call, thingsboard, args, more)

    async def _call(self, thingsboard, args, more):
        try:
            self.result = await thingsboard.rpc(*args, **more)
        except (RpcTimeout, RpcNoSession) as exc:
            self.result = type(exc)


async def test_a_request_reaches_the_device_and_its_answer_the_caller():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client, trio.open_nursery() as nursery:
        await client.announce("CP-1", "CP-2")
        calls = [
            Caller(nursery, thingsboard, device, method, params)
            for device, method, params in [
                ("CP-1", "Reset", {"type": "Soft"}),
                ("CP-1", "setCharging", True),
                ("CP-2", "unlock", None),
            ]
        ]
        for topic, request in [await client.message() for _ in calls]:
            assert topic == RPC
            answer = {"device": request["device"], "id": request["data"]["id"], "data": request}
            assert await client.publish(RPC, answer) == 0
    heard = [(call.result["device"], call.result["data"]["method"]) for call in calls]
    assert heard == [("CP-1", "Reset"), ("CP-1", "setCharging"), ("CP-2", "unlock")]
    assert [call.result["data"]["params"] for call in calls] == [{"type": "Soft"}, True, None]


async def test_ids_begin_at_0_for_each_device():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1", "CP-2")
        for device, params in [("CP-1", None), ("CP-1", "x"), ("CP-2", {})]:
            await thingsboard.rpc(device, "m", params, one_way=True)
        requests = [(await client.message())[1] for _ in range(3)]
    assert [(r["device"], r["data"]["id"], r["data"]["params"]) for r in requests] == [
        ("CP-1", 0, None),
        ("CP-1", 1, "x"),
        ("CP-2", 0, {}),
    ]


async def test_no_answer_is_a_timeout_and_the_late_answer_is_stale(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        began = trio.current_time()
        with pytest.raises(RpcTimeout):
            await thingsboard.rpc("CP-1", "Reset", timeout=1)
        assert trio.current_time() - began == 5  # the least that ThingsBoard grants
        await client.message()
        assert await client.publish(RPC, {"device": "CP-1", "id": 0, "data": 1}) == 0
    assert thingsboard.publishes.stale_rpc_answers == thingsboard.publishes.rpc_answers == 1


async def test_without_a_session_the_caller_waits_in_vain_one_way_or_not(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        await client.publish("v1/gateway/disconnect", {"device": "CP-1"})
        for one_way in (False, True):
            with pytest.raises(RpcNoSession):
                await thingsboard.rpc("CP-1", "Reset", one_way=one_way)


async def test_an_unknown_device_is_an_error_at_once_unless_it_is_meant_so(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        with pytest.raises(KeyError):
            await thingsboard.rpc("Ghost", "Reset")
        with pytest.raises(RpcTimeout):
            await thingsboard.rpc("Ghost", "Reset", anyway=True)
        assert (await client.message())[1]["device"] == "Ghost"
    with pytest.raises(RpcNoSession):
        await thingsboard.rpc("Ghost", "Reset", anyway=True)


async def test_a_request_waits_for_a_session_and_is_sent_again_to_each_new_one():
    thingsboard = ThingsBoard()
    async with trio.open_nursery() as nursery:
        async with open_client(thingsboard) as client:
            await client.announce("CP-1")
        call = Caller(nursery, thingsboard, "CP-1", "Reset", {"type": "Hard"})
        seen = []
        for _ in range(2):
            async with open_client(thingsboard) as client:
                await client.send(client.packet("v1/gateway/connect", {"device": "CP-1"}))
                seen.append(await client.message())
                await client.receive()
        async with open_client(thingsboard) as client:
            await client.send(client.packet("v1/gateway/connect", {"device": "CP-1"}))
            await client.message()
            await client.receive()
            thingsboard.resend_rpcs("CP-1")
            seen.append(await client.message())
            await client.publish(RPC, {"device": "CP-1", "id": 0, "data": None})
            await client.publish(RPC, {"device": "CP-1", "id": 0, "data": "again"})
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1]["data"]["id"] == 0
    assert call.result is None
    assert thingsboard.publishes.stale_rpc_answers == 1


async def test_a_device_silent_for_ten_minutes_has_no_session_though_its_gateway_has(
    autojump_clock,
):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1", "CP-2")
        await trio.sleep(301)
        await client.publish(TELEMETRY, {"CP-2": [row(a=1)]})
        await trio.sleep(301)
        with pytest.raises(RpcNoSession):
            await thingsboard.rpc("CP-1", "Reset")
        await thingsboard.rpc("CP-2", "Reset", one_way=True)
        assert (await client.message())[1]["device"] == "CP-2"
        await client.publish(TELEMETRY, {"CP-1": [row(a=1)]})
        await thingsboard.rpc("CP-1", "Reset", one_way=True)
    assert thingsboard.violations == []


async def test_the_last_gateway_to_publish_for_a_device_gets_its_requests():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, "a") as first, open_client(thingsboard, "b") as second:
        await first.announce("CP-1")
        await second.announce("CP-1")
        await thingsboard.rpc("CP-1", "one", one_way=True)
        assert (await second.message())[1]["data"]["method"] == "one"
        await first.publish(TELEMETRY, {"CP-1": [row(a=1)]})
        await thingsboard.rpc("CP-1", "two", one_way=True)
        assert (await first.message())[1]["data"]["method"] == "two"
        await second.stream.aclose()
        await thingsboard.wait_for(lambda thingsboard: "b" not in thingsboard.connections)
        assert thingsboard.devices["CP-1"].connected


async def test_the_gateways_own_device_is_called_by_the_device_api():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client, trio.open_nursery() as nursery:
        await client.subscribe("v1/devices/me/rpc/request/+")
        thingsboard.gateways["token"].shared["x"] = 1
        call = Caller(nursery, thingsboard, "token", "restart", 5)
        assert await client.message() == (
            "v1/devices/me/rpc/request/0",
            {"method": "restart", "params": 5},
        )
        await client.publish("v1/devices/me/rpc/response/0", {"done": 1.5})
    assert call.result == {"done": 1.5}


async def test_shared_attributes_are_told_and_can_be_asked_for():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        thingsboard.set_shared("CP-1", {"a": 1, "b": 2})
        thingsboard.delete_shared("CP-1", ["b", "c"])
        topic = "v1/gateway/attributes"
        assert await client.message() == (topic, {"device": "CP-1", "data": {"a": 1, "b": 2}})
        assert await client.message() == (
            topic,
            {"device": "CP-1", "data": {"deleted": ["b", "c"]}},
        )
        await client.publish("v1/gateway/attributes", {"CP-1": {"mine": "x"}})
        asked = [
            ({"client": False, "keys": ["a", "b"]}, {"values": {"a": 1}}),
            ({"client": False, "keys": ["a"]}, {"value": 1}),
            ({"client": False, "key": "b"}, {}),
            ({"client": True, "key": "mine"}, {"value": "x"}),
        ]
        for number, (question, answer) in enumerate(asked):
            about = {"id": number, "device": "CP-1"}
            await client.send(client.packet("v1/gateway/attributes/request", about | question))
            assert await client.message() == ("v1/gateway/attributes/response", about | answer)
            await client.receive()


async def test_own_attributes_can_be_asked_for():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.publish("v1/devices/me/attributes", {"a": "x"})
        thingsboard.gateways["token"].shared["s"] = 1
        question = {"clientKeys": "a,b", "sharedKeys": "s"}
        await client.send(client.packet("v1/devices/me/attributes/request/7", question))
        assert await client.message() == (
            "v1/devices/me/attributes/response/7",
            {"client": {"a": "x"}, "shared": {"s": 1}},
        )


async def test_an_answer_for_a_device_that_was_never_connected_creates_it():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        assert await client.publish(RPC, {"device": "Ghost", "id": 0, "data": {}}) == 0
        assert await client.publish("v1/gateway/claim", {"Spirit": {}}) == 0
    assert [v.assertion for v in thingsboard.failures()] == ["R1", "R1"]
    assert set(thingsboard.devices) == {"Ghost", "Spirit"}
