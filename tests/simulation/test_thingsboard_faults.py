"""The scripted misfortunes F1 to F16 of thingsboard-contract 10."""

import mqtt5
import pytest
import trio
from thingsboard_client import CONNECT, TELEMETRY, open_client, row

from gateway.simulation.thingsboard import Act, Fault, RpcNoSession, ThingsBoard

ROW = {"CP-1": [row(a=1)]}


async def test_f1_close_after_the_publish_and_before_its_puback():
    thingsboard = ThingsBoard()
    for stored in (True, False):
        async with open_client(thingsboard) as client:
            await client.announce("CP-1")
            thingsboard.faults.add(Fault(act=Act.CLOSE, topic=TELEMETRY, stored=stored))
            await client.send(client.packet(TELEMETRY, {"CP-1": [{str(stored): 1}]}))
            assert await client.receive() is None
    assert set(thingsboard.devices["CP-1"].latest) == {"True"}
    assert len(thingsboard.faults) == 0


async def test_f2_puback_and_then_close():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        thingsboard.faults.add(Fault(act=Act.ACK_AND_CLOSE))
        assert await client.publish(TELEMETRY, ROW) == 0
        assert await client.receive() is None


async def test_f3_no_puback_as_long_as_the_fault_stands(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        fault = thingsboard.faults.add(Fault(act=Act.NO_ACK, times=None))
        for _ in range(3):
            await client.send(client.packet(TELEMETRY, ROW))
        assert await client.silence(60)
        assert (fault.hits, thingsboard.publishes.max_in_flight) == (3, 3)
        thingsboard.faults.clear()
        assert await client.publish(TELEMETRY, ROW) == 0


@pytest.mark.parametrize("code", [0x80, 0x83, 0x97, 0x99])
async def test_f4_puback_with_a_reason_for_what_matches(code):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1", "CP-2")
        thingsboard.faults.add(
            Fault(act=Act.REFUSE, code=code, device="CP-2", contains="a", times=2)
        )
        thingsboard.faults.add(
            Fault(act=Act.REFUSE, when=lambda topic, payload: b"other" in payload)
        )
        assert await client.publish(TELEMETRY, ROW) == 0
        assert await client.publish(TELEMETRY, {"CP-2": [row(b=1)]}) == code
        assert await client.publish(TELEMETRY, {"CP-2": [row(b=1)]}) == code
        assert await client.publish(TELEMETRY, {"CP-2": [row(c=1)]}) == 0
        assert await client.publish(TELEMETRY, {"CP-2": [row(other=1)]}) == 0x80
    assert set(thingsboard.devices["CP-2"].latest) == {"c"}
    assert thingsboard.violations == []


async def test_f4_puback_with_a_reason_and_then_close():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        thingsboard.faults.add(Fault(act=Act.REFUSE, code=0x83, closes=True))
        assert await client.publish(TELEMETRY, ROW) == 0x83
        assert await client.receive() is None
    assert thingsboard.devices["CP-1"].latest == {}


async def test_f5_the_same_puback_again():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        thingsboard.faults.add(Fault(act=Act.DUPLICATE_ACK, count=3))
        await client.send(client.packet(CONNECT, {"device": "CP-1"}))
        assert [(await client.receive()).packet_id for _ in range(3)] == [1, 1, 1]


async def test_f6_connack_with_a_reason_and_then_it_is_over():
    thingsboard = ThingsBoard()
    thingsboard.faults.add(Fault(act=Act.REFUSE_CONNECT, code=0x9F))
    async with open_client(thingsboard, None) as client:
        assert (await client.connect()).reason_code == 0x9F
        assert await client.receive() is None
    async with open_client(thingsboard):
        pass


async def test_a_connection_may_be_closed_or_left_without_any_answer(autojump_clock):
    thingsboard = ThingsBoard()
    thingsboard.faults.add(Fault(act=Act.DROP_CONNECT))
    thingsboard.faults.add(Fault(act=Act.SILENT_CONNECT))
    async with open_client(thingsboard, None) as client:
        assert await client.connect() is None
    async with open_client(thingsboard, None) as client:
        await client.send(mqtt5.ConnectPacket("client", username="token"))
        await client.send(mqtt5.PingReqPacket())
        assert await client.silence(120)
        await client.send(*[client.packet(CONNECT, {"device": "A"}) for _ in range(102)])
        assert (await client.receive()).reason_code == 0x97
    assert thingsboard.devices == {}


async def test_f7_takeover_by_hand():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, "a") as first, open_client(thingsboard, "b") as second:
        thingsboard.take_over("a")
        assert (await first.receive()).reason_code == 0x8E
        await second.announce("CP-1")


async def test_f8_a_lost_device_session_is_noticed_by_nobody_and_healed_by_a_publish(
    autojump_clock,
):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        thingsboard.lose_session("CP-1")
        thingsboard.lose_session("CP-1")
        with pytest.raises(RpcNoSession):
            await thingsboard.rpc("CP-1", "Reset")
        await client.publish(TELEMETRY, ROW)
        await thingsboard.rpc("CP-1", "Reset", one_way=True)
    assert thingsboard.violations == []


async def test_f13_the_rate_limit_by_script():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        thingsboard.faults.add(Fault(act=Act.RATE_LIMIT))
        assert await client.publish(TELEMETRY, ROW) == 0x97
        assert await client.receive() is None
    assert thingsboard.devices["CP-1"].latest == {}


async def test_f14_a_late_puback(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        thingsboard.faults.add(Fault(act=Act.DELAY, seconds=7, topic=CONNECT))
        began = trio.current_time()
        await client.announce("CP-1")
        assert trio.current_time() - began == 7


async def test_f16_after_a_restart_data_is_kept_and_sessions_and_rpc_ids_are_not():
    thingsboard = ThingsBoard()
    errors = []

    async def call():
        try:
            await thingsboard.rpc("CP-1", "Reset")
        except RpcNoSession as exc:
            errors.append(str(exc))

    async with trio.open_nursery() as nursery:
        async with open_client(thingsboard) as client:
            await client.announce("CP-1")
            await client.publish(TELEMETRY, ROW)
            nursery.start_soon(call)
            await client.message()
            thingsboard.restart()
            assert await client.receive() is None
            assert thingsboard.connections == {}
            assert not thingsboard.devices["CP-1"].connected
        async with open_client(thingsboard) as client:
            await client.announce("CP-1")
            await thingsboard.rpc("CP-1", "Reset", one_way=True)
            assert (await client.message())[1]["data"]["id"] == 0
    assert thingsboard.devices["CP-1"].value("a") == 1
    assert errors == ["CP-1: ThingsBoard restarted"]


async def test_a_frozen_server_answers_only_when_it_thaws(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        with thingsboard.frozen():
            thingsboard.freeze()
            await client.send(client.packet(CONNECT, {"device": "CP-1"}))
            assert await client.silence(300)
        assert isinstance(await client.receive(), mqtt5.PubAckPacket)
        thingsboard.thaw()


async def test_all_can_be_disconnected_with_a_reason():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        thingsboard.disconnect_all(0x8B)
        thingsboard.disconnect_all(0x8B)
        assert (await client.receive()).reason_code == 0x8B
        assert await client.receive() is None
