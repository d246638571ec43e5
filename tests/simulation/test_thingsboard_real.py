"""The double and a client that it was not written with: aiomqtt, over TCP."""

import json

import aiomqtt
import pytest
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from gateway.simulation.thingsboard import ThingsBoard


@pytest.mark.real_time
async def test_aiomqtt_connects_publishes_and_answers_a_request():
    thingsboard, answers = ThingsBoard(access_tokens=["secret"]), []

    async def call():
        answers.append(await thingsboard.rpc("CP-1", "Reset", {"type": "Soft"}))

    async with trio.open_nursery() as nursery, trio_asyncio.open_loop():
        port = await nursery.start(thingsboard.serve_tcp)
        assert port == thingsboard.port
        client = aiomqtt.Client(
            "127.0.0.1",
            port,
            username="secret",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
        )
        with trio.fail_after(10):
            async with aio_as_trio(client):
                await aio_as_trio(client.subscribe)("v1/gateway/rpc", qos=1)
                connect = json.dumps({"device": "CP-1", "type": "EV charger"})
                await aio_as_trio(client.publish)("v1/gateway/connect", connect, qos=1)
                telemetry = json.dumps({"CP-1": [{"ts": 1_700_000_000_000, "values": {"a": 1.5}}]})
                await aio_as_trio(client.publish)("v1/gateway/telemetry", telemetry, qos=1)
                assert thingsboard.devices["CP-1"].value("a") == 1.5
                nursery.start_soon(call)
                message = await aio_as_trio(client.messages.__anext__)()
                request = json.loads(message.payload)
                answer = {"device": "CP-1", "id": request["data"]["id"], "data": {"ok": True}}
                await aio_as_trio(client.publish)("v1/gateway/rpc", json.dumps(answer), qos=1)
        nursery.cancel_scope.cancel()
    assert answers == [{"ok": True}]
    assert thingsboard.violations == []


@pytest.mark.real_time
async def test_aiomqtt_is_told_why_it_may_not_come_in():
    thingsboard = ThingsBoard(access_tokens=[])
    async with trio.open_nursery() as nursery, trio_asyncio.open_loop():
        port = await nursery.start(thingsboard.serve_tcp)
        client = aiomqtt.Client(
            "127.0.0.1", port, username="x", protocol=aiomqtt.ProtocolVersion.V5, clean_start=True
        )
        with trio.fail_after(10), pytest.raises(aiomqtt.MqttError, match=r"134|user name"):
            await aio_as_trio(client.__aenter__)()
        nursery.cancel_scope.cancel()
