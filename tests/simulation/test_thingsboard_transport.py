"""CONNECT, packets, subscriptions, limits: thingsboard-contract 0 to 3 and 8."""

import contextlib

import mqtt5
import pytest
import structlog
import trio
import trio.testing
from thingsboard_client import CONNECT, RPC, TELEMETRY, RawClient, open_client, row

from gateway.simulation.thingsboard import Act, Fault, TenantLimits, ThingsBoard


def found(thingsboard) -> set[str]:
    return {violation.assertion for violation in thingsboard.violations}


def connect_3(name: bytes = b"MQTT", level: int = 4, token: bytes = b"token") -> bytes:
    body = len(name).to_bytes(2, "big") + name + bytes((level, 0x82, 0, 60))
    body += b"\0\1c" + len(token).to_bytes(2, "big") + token
    return bytes((0x10, len(body))) + body


def publish_3(topic: str, payload: bytes, packet_id: int = 7) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + packet_id.to_bytes(2, "big") + payload
    return bytes((0x32, len(body))) + body


async def test_a_known_token_is_let_in_and_an_unknown_one_is_told_why():
    thingsboard = ThingsBoard(access_tokens=["good"])
    async with open_client(thingsboard, None) as client:
        assert (await client.connect("good")).reason_code == 0
    async with open_client(thingsboard, None) as client:
        assert (await client.connect("bad")).reason_code == 0x86
        assert await client.receive() is None
    async with open_client(thingsboard, None) as client:
        await client.send(mqtt5.ConnectPacket("client"))
        assert (await client.receive()).reason_code == 0x85
    async with open_client(thingsboard, None) as client:
        await client.send(mqtt5.ConnectPacket(""))
        assert (await client.receive()).reason_code == 0x87


async def test_session_present_is_claimed_and_nothing_is_kept():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, None) as client:
        await client.send(mqtt5.ConnectPacket("client", username="token", clean_start=False))
        assert (await client.receive()).session_present
    assert thingsboard.connections == {}


async def test_a_second_connect_with_the_same_token_closes_the_first():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as first, open_client(thingsboard) as second:
        end = await first.receive()
        assert end.reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
        assert await first.receive() is None
        await second.announce("CP-1")
        assert thingsboard.devices["CP-1"].connected


async def test_other_tokens_are_other_gateways():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, "a") as first, open_client(thingsboard, "b") as second:
        await first.announce("CP-1")
        await second.announce("CP-2")
        assert set(thingsboard.connections) == set(thingsboard.gateways) == {"a", "b"}


async def test_ping_is_answered_and_disconnect_ends_the_session():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        await client.send(mqtt5.PingReqPacket())
        assert isinstance(await client.receive(), mqtt5.PingRespPacket)
        await client.send(mqtt5.DisconnectPacket())
        assert await client.receive() is None
        assert not thingsboard.devices["CP-1"].connected


async def test_a_client_that_just_goes_loses_its_sessions():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        await client.stream.aclose()
        await thingsboard.wait_for(lambda thingsboard: not thingsboard.devices["CP-1"].connected)


async def test_a_client_that_is_torn_away_harms_nobody():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        with structlog.testing.capture_logs() as logs:
            await client.announce("CP-1")
            await client.stream.send_stream.send_all(client.packet(TELEMETRY, {}).write()[:9])
            client.stream.receive_stream.close()
            thingsboard.publish_unasked("t", b"{}")
            await thingsboard.wait_for(lambda thingsboard: not thingsboard.connections)
    assert {entry["log_level"] for entry in logs} == {"debug"}


async def test_keep_alive_is_not_enforced_but_ten_minutes_of_silence_are_the_end(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, None) as client:
        await client.connect(keep_alive=10)
        await trio.sleep(599)
        await client.send(mqtt5.PingReqPacket())
        await client.receive()
        await trio.sleep(599)
        assert thingsboard.connections
        await trio.sleep(2)
        assert not thingsboard.connections


@pytest.mark.parametrize(
    "garbage", [b"\x00\x00", b"GET / HTTP/1.1\r\nHost: " + b"x" * 99, b"\x30\xff\xff\xff\xff\x01"]
)
async def test_garbage_ends_only_its_own_connection(garbage):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as neighbour, open_client(thingsboard, "other") as client:
        await client.stream.send_all(garbage)
        assert (await client.receive()).reason_code == 0x81
        assert await client.receive() is None
        await neighbour.announce("CP-1")
    assert "MQTT" in found(thingsboard)


async def test_a_connection_must_begin_with_connect():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, None) as client:
        await client.send(mqtt5.PingReqPacket())
        assert await client.receive() is None


async def test_a_second_connect_packet_is_a_protocol_error():
    async with open_client(ThingsBoard()) as client:
        await client.send(mqtt5.ConnectPacket("client", username="token"))
        assert (await client.receive()).reason_code == 0x82


async def test_a_fault_of_the_double_ends_one_connection_only():
    def fails(topic, payload):
        raise ZeroDivisionError

    thingsboard = ThingsBoard()
    with structlog.testing.capture_logs() as logs:
        await _meet_the_fault(thingsboard, fails)
    assert logs[-1]["log_level"] == "error"


async def _meet_the_fault(thingsboard, fails):
    async with open_client(thingsboard) as neighbour, open_client(thingsboard, "other") as client:
        fault = thingsboard.faults.add(Fault(act=Act.NO_ACK, when=fails))
        await client.send(client.packet(TELEMETRY, {}))
        assert await client.receive() is None
        thingsboard.faults.remove(fault)
        await neighbour.announce("CP-1")


async def test_packets_are_found_wherever_the_stream_is_cut():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, None) as client:
        packets = [
            mqtt5.ConnectPacket("client", username="token"),
            client.packet(CONNECT, {"device": "CP-1", "type": "EV charger"}),
            client.packet(TELEMETRY, {"CP-1": [row(a=1)]}),
        ]
        for byte in b"".join(packet.write() for packet in packets):
            await client.stream.send_all(bytes((byte,)))
        assert isinstance(await client.receive(), mqtt5.ConnAckPacket)
        assert [(await client.receive()).packet_id for _ in range(2)] == [1, 2]
    assert thingsboard.devices["CP-1"].value("a") == 1


async def test_a_packet_above_the_limit_closes_without_puback():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        frame = client.packet(TELEMETRY, b" " * 65_536)
        await client.send(frame)
        assert (await client.receive()).reason_code == 0x81
        assert await client.receive() is None
    assert found(thingsboard) == {"P1"}
    assert thingsboard.publishes.messages == 0


async def test_a_packet_of_exactly_the_limit_is_taken():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        frame = {"CP-1": [row(a="")]}
        spare = 65_536 - (len(client.packet(TELEMETRY, frame).write()) - 2)
        assert await client.publish(TELEMETRY, {"CP-1": [row(a="x" * (spare - 2))]}) == 0


async def test_qos_0_is_processed_without_puback_and_reported():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        await client.send(client.packet(TELEMETRY, {"CP-1": [row(a=1)]}, qos=0))
        await client.send(mqtt5.PingReqPacket())
        assert isinstance(await client.receive(), mqtt5.PingRespPacket)
    assert thingsboard.devices["CP-1"].value("a") == 1
    assert found(thingsboard) == {"P2"}


async def test_qos_2_is_answered_with_the_wrong_packet_as_thingsboard_does():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.send(client.packet(CONNECT, {"device": "CP-1"}, qos=2))
        assert isinstance(await client.receive(), mqtt5.PubAckPacket)
    assert found(thingsboard) == {"P2"}


async def test_only_the_exact_topics_can_be_subscribed():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        assert await client.subscribe(RPC, "v1/gateway/attributes", qos=2) == [1, 1]
        assert await client.subscribe("v1/gateway/attributes/response", qos=0) == [0]
        assert await client.subscribe("v1/devices/me/rpc/request/+") == [1]
        assert await client.subscribe("v1/gateway/#", "v1/gateway/+") == [0x8F, 0x8F]
        assert await client.subscribe("v1/gateway/disconnect") == [0x8F]
        await client.send(mqtt5.UnsubscribePacket(3, [RPC, "x"]))
        assert [int(code) for code in (await client.receive()).reason_codes] == [0, 0x11]
    assert found(thingsboard) == {"3"}


async def test_a_downlink_is_of_qos_1_unless_a_subscription_asked_for_0():
    thingsboard = ThingsBoard(first_downlink_id=65_535)
    async with open_client(thingsboard) as client:
        thingsboard.publish_unasked("v1/gateway/disconnect", '{"device":"CP-1"}')
        first = await client.receive()
        thingsboard.publish_unasked("any/other", b"{}")
        second = await client.receive()
        # a counter that is never told to skip 0: thingsboard-contract B6
        assert [first.packet_id, second.packet_id] == [65_535, 0]
        await client.subscribe(RPC, "v1/devices/me/rpc/request/+", qos=0)
        thingsboard.publish_unasked(RPC, b"{}")
        thingsboard.publish_unasked("v1/devices/me/rpc/request/4", b"{}")
        assert [(await client.receive()).packet_id for _ in range(2)] == [None, None]


async def test_nothing_is_echoed():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.subscribe(RPC, "v1/gateway/attributes")
        await client.announce("CP-1")
        assert await client.publish(RPC, {"device": "CP-1", "id": 0, "data": 1}) == 0
        assert await client.publish("v1/gateway/attributes", {"CP-1": {"a": 1}}) == 0
        await client.send(mqtt5.PingReqPacket())
        assert isinstance(await client.receive(), mqtt5.PingRespPacket)


async def test_a_token_that_is_no_gateway_hears_nothing_at_all(autojump_clock):
    thingsboard = ThingsBoard(gateway_flag=False)
    async with open_client(thingsboard) as client:
        await client.send(client.packet(CONNECT, {"device": "CP-1"}))
        assert await client.silence(30)
        assert await client.publish("v1/devices/me/telemetry", {"a": 1}) == 0
    assert found(thingsboard) == {"P3"}
    assert thingsboard.devices == {}


async def test_an_unknown_topic_is_acknowledged_and_nothing_is_stored():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        assert await client.publish("v1/gateway/telemetri", {"CP-1": [row(a=1)]}) == 0x90
        assert await client.publish("v1/gateway/telemetry/", {"CP-1": [row(a=1)]}) == 0x90
        assert await client.publish("own/topic", {}) == 0x90
    assert found(thingsboard) == {"P4"}
    assert thingsboard.devices == {}


async def test_messages_in_flight_are_counted_and_more_than_100_are_a_violation():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.send(*[client.packet(CONNECT, {"device": "CP-1"}) for _ in range(40)])
        for _ in range(40):
            await client.receive()
        assert thingsboard.publishes.max_in_flight == 40
        assert thingsboard.violations == []
        await client.send(*[client.packet(CONNECT, {"device": "CP-1"}) for _ in range(101)])
        await thingsboard.wait_for(lambda thingsboard: thingsboard.publishes.messages == 141)
    assert found(thingsboard) == {"C4"}


async def test_session_limits_are_told_from_3_8_on(autojump_clock):
    limits = TenantLimits(messages="100:1", telemetry_data_points="5000:60")
    question = {"method": "getSessionLimits", "params": {}}
    thingsboard = ThingsBoard(gateway_rate_limits=limits)
    async with open_client(thingsboard) as client:
        await client.send(client.packet("v1/devices/me/rpc/request/1", question))
        topic, answer = await client.message()
        assert topic == "v1/devices/me/rpc/response/1"
        assert answer["maxPayloadSize"] == 65_536
        assert answer["maxInflightMessages"] == 100
        assert answer["rateLimits"]["messages"] == ""
        assert answer["gatewayRateLimits"]["telemetryDataPoints"] == "5000:60"
        assert isinstance(await client.receive(), mqtt5.PubAckPacket)
    async with open_client(ThingsBoard(profile="3.5")) as client:
        assert await client.publish("v1/devices/me/rpc/request/1", question) == 0
        assert await client.silence(60)


async def test_the_rate_limit_is_told_and_then_the_connection_closes(autojump_clock):
    thingsboard = ThingsBoard(gateway_rate_limits=TenantLimits(telemetry_data_points="3:1,100:60"))
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        assert await client.publish(TELEMETRY, {"CP-1": [row(a=1, b=2), row(ts=5, a=2)]}) == 0
        await trio.sleep(1)
        assert await client.publish(TELEMETRY, {"CP-1": [row(a=1, b=2, c=3)]}) == 0
        assert await client.publish(TELEMETRY, {"CP-1": [row(d=1)]}) == 0x97
        assert await client.receive() is None
    assert "d" not in thingsboard.devices["CP-1"].latest
    assert "8" in found(thingsboard)


async def test_each_device_of_a_batch_counts_and_connect_is_a_message_of_its_own_class():
    limits = TenantLimits(messages="2:60", telemetry_messages="1:60")
    thingsboard = ThingsBoard(gateway_rate_limits=limits)
    async with open_client(thingsboard) as client:
        await client.announce("CP-1", "CP-2")
        assert await client.publish(TELEMETRY, {"CP-1": [row(a=1)], "CP-2": [row(a=1)]}) == 0x97
        assert await client.receive() is None
    async with open_client(thingsboard) as client:  # the budget belongs to the token
        assert await client.publish(CONNECT, {"device": "CP-1"}) == 0x97


async def test_an_old_server_closes_at_the_rate_limit_without_a_word():
    thingsboard = ThingsBoard(profile="3.8", gateway_rate_limits=TenantLimits(messages="1:60"))
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        await client.send(client.packet(CONNECT, {"device": "CP-2"}))
        assert await client.receive() is None


# --- MQTT 3 --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_client_3(thingsboard, **connect):
    async with open_client(thingsboard, None) as client:
        await client.stream.send_all(connect_3(**connect))
        yield client.stream


@pytest.mark.parametrize(("name", "level"), [(b"MQTT", 4), (b"MQIsdp", 3)])
async def test_mqtt_3_works_and_its_puback_always_looks_like_success(name, level):
    thingsboard = ThingsBoard()
    async with open_client_3(thingsboard, name=name, level=level) as stream:
        assert await stream.receive_some() == b"\x20\2\0\0"
        await stream.send_all(publish_3(CONNECT, b'{"device":"CP-1"}'))
        assert await stream.receive_some() == b"\x40\2\0\7"
        await stream.send_all(publish_3(TELEMETRY, b'{"CP-1":[{"a":1}]}', 8))
        assert await stream.receive_some() == b"\x40\2\0\x08"
        await stream.send_all(b"\x82\x08\0\1\0\3a/b\1")
        assert await stream.receive_some() == b"\x90\3\0\1\x80"
        await stream.send_all(b"\xa2\x07\0\1\0\3a/b")
        assert await stream.receive_some() == b"\xb0\2\0\1"
        await stream.send_all(b"\xc0\0")
        assert await stream.receive_some() == b"\xd0\0"
        thingsboard.publish_unasked("t", b"{}")
        assert await stream.receive_some() == b"\x32\7\0\1t\0\1{}"
        await stream.send_all(b"\x40\2\0\1")
        await stream.send_all(publish_3(TELEMETRY, b"[]", 9))
        assert await stream.receive_some() == b"\x40\2\0\x09"  # false: it was refused
        assert await stream.receive_some() == b""
    assert thingsboard.devices["CP-1"].value("a") == 1
    assert thingsboard.publishes.downlinks_acked == 1


@pytest.mark.parametrize(
    "payload", [b"{", b'{"CP-1":[1]}', b'{"CP-1":[{"ts":null,"values":{"a":1}}]}']
)
async def test_mqtt_3_is_told_of_a_payload_it_may_not_send_by_a_close(payload):
    async with open_client_3(ThingsBoard()) as stream:
        await stream.receive_some()
        await stream.send_all(publish_3(TELEMETRY, payload))
        assert await stream.receive_some() == b""


async def test_mqtt_3_is_refused_with_its_own_codes():
    async with open_client_3(ThingsBoard(access_tokens=[])) as stream:
        assert await stream.receive_some() == b"\x20\2\0\5"
    thingsboard = ThingsBoard()
    thingsboard.faults.add(Fault(act=Act.REFUSE_CONNECT, code=0x88))
    async with open_client_3(thingsboard) as stream:
        assert await stream.receive_some() == b"\x20\2\0\3"


async def test_mqtt_3_takeover_is_just_a_close():
    thingsboard = ThingsBoard()
    async with open_client_3(thingsboard) as stream:
        await stream.receive_some()
        thingsboard.take_over()
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("bad", [b"\x32\3\0\x09a", b"\x50\2\0\1", b"\x82\2\0", b"\xe0\0"])
async def test_what_is_not_mqtt_3_or_says_goodbye_ends_the_connection(bad):
    async with open_client_3(ThingsBoard()) as stream:
        await stream.receive_some()
        await stream.send_all(bad + b"\0")
        assert await stream.receive_some() == b""


async def test_mqtt_3_may_bring_a_will_and_a_password_or_no_name_at_all():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard, None) as client:
        fields = b"".join(
            len(text).to_bytes(2, "big") + text for text in (b"c", b"t", b"w", b"n", b"p")
        )
        body = b"\0\4MQTT\4\xc4\0\x3c" + fields
        await client.stream.send_all(bytes((0x10, len(body))) + body)
        assert await client.stream.receive_some() == b"\x20\2\1\0"
        assert set(thingsboard.connections) == {"n"}
    async with open_client(thingsboard, None) as client:
        await client.stream.send_all(b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0")
        assert await client.stream.receive_some() == b"\x20\2\0\5"


async def test_an_unknown_protocol_level_is_refused_clearly():
    async with open_client_3(ThingsBoard(), level=6) as stream:
        assert (await stream.receive_some())[3] == 0x84


async def test_a_client_of_memory_listeners_is_served_like_any_other():
    class MemoryListener(trio.abc.Listener):
        def __init__(self):
            self.send, self.receive = trio.open_memory_channel(1)

        async def accept(self):
            return await self.receive.receive()

        async def aclose(self):
            self.receive.close()

    thingsboard, listener = ThingsBoard(), MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(thingsboard.serve, [listener])
        ours, theirs = trio.testing.memory_stream_pair()
        await listener.send.send(theirs)
        assert (await RawClient(ours).connect()).reason_code == 0
        nursery.cancel_scope.cancel()
