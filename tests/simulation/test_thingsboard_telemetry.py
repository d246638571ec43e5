"""What is stored, what is refused and how: thingsboard-contract 4 to 6 and 9."""

from datetime import UTC, datetime

import mqtt5
import pytest
import trio
import trio.testing
from thingsboard_client import CONNECT, RPC, TELEMETRY, TS, open_client, row

from gateway.simulation.thingsboard import StoredRow, TenantLimits, ThingsBoard

ATTRIBUTES = "v1/gateway/attributes"


def found(thingsboard) -> set[str]:
    return {violation.assertion for violation in thingsboard.violations}


def failed(thingsboard) -> set[str]:
    return {violation.assertion for violation in thingsboard.failures()}


async def test_rows_are_stored_before_they_are_acknowledged():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        rows = [row(TS, power_w=230, soc_percent=1.5), row(TS + 1, power_w=231)]
        assert await client.publish(TELEMETRY, {"CP-1": rows}) == 0
        device = thingsboard.devices["CP-1"]
        assert device.type == "EV charger"
        assert device.connected
        assert device.latest == {"power_w": (TS + 1, 231), "soc_percent": (TS, 1.5)}
        assert device.series("power_w") == [(TS, 230), (TS + 1, 231)]
        assert device.rows() == [
            (TS, {"power_w": 230, "soc_percent": 1.5}),
            (TS + 1, {"power_w": 231}),
        ]
        assert device.value("nothing") is None
    assert thingsboard.publishes.data_points == 3
    assert thingsboard.publishes.by_topic == {CONNECT: 1, TELEMETRY: 1}
    assert thingsboard.messages[-1].topic == TELEMETRY
    assert thingsboard.violations == []


async def test_the_latest_value_moves_only_forward_in_time():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        for ts, value in [(TS, 1), (TS - 5, 2), (TS, 3)]:
            await client.publish(TELEMETRY, {"CP-1": [row(ts, a=value)]})
    assert thingsboard.devices["CP-1"].latest["a"] == (TS, 3)
    assert thingsboard.devices["CP-1"].series("a") == [(TS - 5, 2), (TS, 3)]


async def test_a_resent_row_replaces_itself_and_a_corrected_one_is_told_apart():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        for value in (1, 1, 2):
            await client.publish(TELEMETRY, {"CP-1": [row(a=value)]})
    assert thingsboard.devices["CP-1"].series("a") == [(TS, 2)]
    assert (thingsboard.publishes.repeated_points, thingsboard.publishes.replaced_points) == (1, 1)


@pytest.mark.parametrize(
    ("history", "kept"), [(2, [TS + 1, TS + 2]), (0, []), (None, [TS, TS + 1, TS + 2])]
)
async def test_history_can_be_bounded_or_left_out(history, kept):
    thingsboard = ThingsBoard(history=history)
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        rows = [row(TS + i, a=i) for i in range(3)]
        await client.publish(TELEMETRY, {"CP-1": rows})
    assert [ts for ts, _ in thingsboard.devices["CP-1"].series("a")] == kept
    assert thingsboard.devices["CP-1"].value("a") == 2


async def test_a_row_without_ts_gets_the_servers_time():
    thingsboard = ThingsBoard(now=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        await client.publish(TELEMETRY, {"CP-1": [{"a": 1}]})
    assert thingsboard.devices["CP-1"].latest["a"] == (1_767_312_000_000, 1)
    assert thingsboard.violations == []


@pytest.mark.parametrize("ts", [0, 1_700_000_000, 4_102_444_800_000])
async def test_a_ts_that_cannot_be_right_is_stored_and_warned_of(ts):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        assert await client.publish(TELEMETRY, {"CP-1": [row(ts, a=1)]}) == 0
    assert thingsboard.devices["CP-1"].latest["a"] == (ts, 1)
    assert found(thingsboard) == {"J3"}
    assert failed(thingsboard) == set()


@pytest.mark.parametrize(
    ("items", "assertion"),
    [
        ([{"ts": TS, "a": 1}], "J4"),
        ([{"values": {"a": 1}}], "J4"),
        ([row(metadata=1)], "J7"),
        ([row(a=None)], "J10"),
        ([{}], "J10"),
        ([{"ts": TS, "values": {"": 1, "good": 2}}], "J8"),
    ],
)
async def test_what_is_acknowledged_and_lost_is_a_failure(items, assertion):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        assert await client.publish(TELEMETRY, {"CP-1": items}) == 0
    assert assertion in failed(thingsboard)
    assert "good" not in thingsboard.devices["CP-1"].latest


async def test_a_key_that_changes_its_json_type_is_warned_of():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        await client.publish(TELEMETRY, {"CP-1": [row(a=1, b=True), row(a=1.5, b=1)]})
    assert [(v.assertion, "'b' was boolean" in v.what) for v in thingsboard.violations] == [
        ("J6c", True)
    ]


async def test_metadata_of_an_entry_is_taken_off():
    thingsboard = ThingsBoard()
    good = {"connector": "ocpp", "receivedTs": TS, "publishedTs": TS}
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        entry = row(a=1) | {"metadata": good}
        assert await client.publish(TELEMETRY, {"CP-1": [entry]}) == 0
        for bad in (1, {"connector": "x"}, good | {"connector": 5}, good | {"receivedTs": "x"}):
            entry = row(a=2) | {"metadata": bad}
            assert await client.publish(TELEMETRY, {"CP-1": [entry]}) == 0x99
    assert thingsboard.devices["CP-1"].rows() == [(TS, {"a": 1})]


# --- refusals, topic by topic --------------------------------------------------------------------


@pytest.mark.parametrize("topic", [CONNECT, TELEMETRY, ATTRIBUTES, RPC, "v1/devices/me/telemetry"])
async def test_what_is_not_json_is_refused_and_the_session_stays(topic):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        assert await client.publish(topic, b'{"a":') == 0x99
        await client.announce("CP-1")
    assert failed(thingsboard) == {"BAD-A"}


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (TELEMETRY, b""),
        (TELEMETRY, b"[]"),
        (TELEMETRY, b"{}"),
        (TELEMETRY, b'{"CP-1":{"a":1}}'),
        (ATTRIBUTES, b"1"),
        (ATTRIBUTES, b'{"CP-1":[]}'),
        (CONNECT, b"{}"),
        (CONNECT, b'{"device":null}'),
        (CONNECT, b'{"device":""}'),
        (CONNECT, b'{"device":"CP-1","type":{}}'),
        ("v1/gateway/disconnect", b"{}"),
        (RPC, b'{"device":"CP-1","id":1}'),
        (RPC, b'{"device":"CP-1","data":1}'),
        (RPC, b'{"device":"CP-1","id":"x","data":1}'),
        (RPC, b'{"id":1,"data":1}'),
        ("v1/gateway/attributes/request", b'{"id":1,"device":"A","client":["a"],"shared":["b"]}'),
        ("v1/gateway/attributes/request", b'{"id":1,"device":"A","client":true}'),
        ("v1/gateway/claim", b"{}"),
    ],
)
async def test_a_payload_of_the_wrong_form_is_answered_and_then_closed(topic, payload):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        assert await client.publish(topic, payload) == 0x83
        assert await client.receive() is None
    assert failed(thingsboard) == {"BAD-R"}


@pytest.mark.parametrize("bad", [1, {"ts": None, "values": {"a": 1}}, {"ts": TS, "values": [1]}])
async def test_one_bad_device_is_refused_and_the_others_of_the_batch_are_stored(bad):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1", "CP-2")
        batch = {"CP-1": [row(a=1)], "CP-2": [row(a=2), bad]}
        assert await client.publish(TELEMETRY, batch) == 0x99
        await client.announce("CP-1")  # once, and the session stays
    assert thingsboard.devices["CP-1"].value("a") == 1
    assert thingsboard.devices["CP-2"].value("a") is None
    assert failed(thingsboard) == {"BAD-D"}


async def test_members_that_are_no_arrays_are_dropped_without_a_word():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1", "CP-2")
        assert await client.publish(TELEMETRY, {"CP-1": [row(a=1)], "CP-2": row(a=1)}) == 0
    assert thingsboard.devices["CP-2"].latest == {}
    assert failed(thingsboard) == {"5"}


async def test_an_empty_array_is_never_acknowledged(autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1", "CP-2")
        await client.send(client.packet(TELEMETRY, {"CP-1": [row(a=1)], "CP-2": []}))
        assert await client.silence(60)
    assert thingsboard.devices["CP-1"].value("a") == 1
    assert failed(thingsboard) == {"5"}


async def test_json_that_only_gson_takes_is_stored_with_a_warning():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        assert await client.publish(TELEMETRY, b"{'CP-1':[{a:NaN}]}") == 0
    assert thingsboard.devices["CP-1"].value("a") == "NaN"
    assert found(thingsboard) == {"J1", "J6d"}


async def test_attributes_are_stored_and_an_empty_object_is_fine():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        info = {"charger": {"vendor": "ABB"}, "ocpp_version": "ocpp1.6"}
        assert await client.publish(ATTRIBUTES, {"CP-1": info}) == 0
        assert await client.publish(ATTRIBUTES, {"CP-1": {}}) == 0
    assert thingsboard.devices["CP-1"].attributes == info
    assert thingsboard.violations == []


async def test_attributes_count_against_the_budget_as_telemetry_does():
    thingsboard = ThingsBoard(gateway_rate_limits=TenantLimits(telemetry_data_points="1:60"))
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        assert await client.publish(ATTRIBUTES, {"CP-1": {"a": 1, "b": 2}}) == 0x97
        assert await client.receive() is None
    assert thingsboard.devices["CP-1"].attributes == {}


# --- devices -------------------------------------------------------------------------------------


async def test_a_device_that_was_not_connected_first_gets_the_default_type():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.publish(TELEMETRY, {"CP-1": [row(a=1)]})
        assert thingsboard.devices["CP-1"].type == "default"
        assert failed(thingsboard) == {"R1"}
        await client.announce("CP-1", kind="EV charger")
        assert thingsboard.devices["CP-1"].type == "default"
    async with open_client(thingsboard) as client:
        thingsboard.violations.clear()
        await client.publish(TELEMETRY, {"CP-1": [row(a=1)]})
        assert [(v.assertion, v.severity) for v in thingsboard.violations] == [("R1", "WARN")]


async def test_disconnect_ends_the_session_and_no_more():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        for name in ("CP-1", "never seen"):
            assert await client.publish("v1/gateway/disconnect", {"device": name}) == 0
        assert not thingsboard.devices["CP-1"].connected
    assert set(thingsboard.devices) == {"CP-1"}


@pytest.mark.parametrize("name", [" ", "x" * 256, "<b>x", "a\0"])
async def test_a_bad_device_name_is_told_after_ten_seconds(name, autojump_clock):
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        began = trio.current_time()
        assert await client.publish(CONNECT, {"device": name}) == 0x80
        assert trio.current_time() - began == 10
        assert await client.publish(TELEMETRY, {name: [row(a=1)]}) == 0x80
        assert await client.publish(ATTRIBUTES, {name: {"a": 1}}) == 0x80
    assert thingsboard.devices == {}
    assert failed(thingsboard) == {"5"}


async def test_an_answer_that_takes_long_does_not_hold_up_the_others(autojump_clock):
    async with open_client(ThingsBoard()) as client:
        await client.send(client.packet(CONNECT, {"device": " "}))
        await client.announce("CP-1")
        assert (await client.receive()).reason_code == 0x80


async def test_beyond_the_device_limit_the_quota_is_told():
    thingsboard = ThingsBoard(device_limit=1)
    async with open_client(thingsboard) as client:
        await client.announce("CP-1")
        assert await client.publish(CONNECT, {"device": "CP-2"}) == 0x97
        await client.announce("CP-1")
    assert set(thingsboard.devices) == {"CP-1"}


@pytest.mark.parametrize("profile", ["3.8", "4.2.1"])
async def test_older_servers_say_nothing_of_a_device_they_cannot_create(profile, autojump_clock):
    thingsboard = ThingsBoard(profile=profile, device_limit=0)
    async with open_client(thingsboard) as client:
        await client.send(client.packet(CONNECT, {"device": "CP-1"}))
        await client.send(client.packet(CONNECT, {"device": " "}))
        assert await client.silence(60)


async def test_old_servers_acknowledge_each_device_of_a_batch_by_itself():
    thingsboard = ThingsBoard(profile="3.8")
    async with open_client(thingsboard) as client:
        await client.announce("A", "B", "C")
        await client.send(client.packet(TELEMETRY, {"A": [row(a=1)], "B": [1], "C": [row(a=1)]}))
        acks = [await client.receive() for _ in range(3)]
        assert len({ack.packet_id for ack in acks}) == 1
        assert [int(ack.reason_code) for ack in acks] == [0, 0x99, 0]


async def test_before_3_5_no_reason_is_told():
    async with open_client(ThingsBoard(profile="3.4")) as client:
        assert await client.publish("v1/gateway/x", {}) == 0
        assert await client.publish(TELEMETRY, []) == 0
        assert await client.receive() is None
    async with open_client(ThingsBoard(profile="3.4")) as client:
        await client.send(client.packet(TELEMETRY, b"{"))
        assert await client.receive() is None


async def test_the_gateways_own_device_speaks_the_device_api():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        assert await client.publish("v1/devices/me/telemetry", [row(a=1), {"b": "x"}]) == 0
        assert await client.publish("v1/devices/me/attributes", {"version": "a1"}) == 0
        for topic, value in [
            ("v1/devices/me/telemetry", 5),
            ("v1/devices/me/telemetry", [5]),
            ("v1/devices/me/telemetry", {"ts": TS, "values": 1}),
            ("v1/devices/me/attributes", []),
            ("v1/devices/me/attributes/request/1", []),
            ("v1/devices/me/rpc/request/1", {}),
            ("v1/devices/me/rpc/response/x", {}),
        ]:
            assert await client.publish(topic, value) == 0x99
        own = thingsboard.gateways["token"]
        assert own.value("a") == 1
        assert own.attributes == {"version": "a1"}
        assert thingsboard.devices == {}
        await client.send(client.packet("v1/devices/me/telemetry", {"ts": None, "values": {}}))
        assert await client.receive() is None


# --- watching ------------------------------------------------------------------------------------


async def test_a_waiter_wakes_when_its_condition_holds():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client, trio.open_nursery() as nursery:
        nursery.start_soon(thingsboard.wait_for, lambda thingsboard: "CP-2" in thingsboard.devices)
        await client.announce("CP-1", "CP-2")
    await thingsboard.wait_for(lambda thingsboard: True)


async def test_rows_are_shown_and_a_slow_reader_misses_some_without_harm():
    thingsboard = ThingsBoard(now=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    async with open_client(thingsboard) as client:
        quick, slow, gone = thingsboard.rows(), thingsboard.rows(buffer=1), thingsboard.rows()
        gone.close()
        await client.announce("CP-1")
        await client.publish(TELEMETRY, {"CP-1": [row(a=1), row(TS + 1, a=2)]})
        await client.publish(ATTRIBUTES, {"CP-1": {"b": True}})
        assert [quick.receive_nowait() for _ in range(3)] == [
            StoredRow("CP-1", TS, {"a": 1}),
            StoredRow("CP-1", TS + 1, {"a": 2}),
            StoredRow("CP-1", 1_767_312_000_000, {"b": True}, is_attributes=True),
        ]
        assert slow.receive_nowait().values == {"a": 1}
        with pytest.raises(trio.WouldBlock):
            slow.receive_nowait()


async def test_the_dup_flag_is_counted():
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as client:
        payload = b'{"device":"CP-1"}'
        again = mqtt5.PublishPacket(
            CONNECT, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1, duplicate=True
        )
        await client.send(again)
        await client.receive()
    assert thingsboard.publishes.duplicates == 1


async def test_a_peer_that_does_not_read_is_not_read_from_and_harms_nobody(autojump_clock):
    """64 kB of answers wait in the stream; what the client sends then piles up on its own side."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    thingsboard = ThingsBoard()
    async with open_client(thingsboard) as neighbour, trio.open_nursery() as nursery:
        nursery.start_soon(thingsboard.serve_stream, theirs)
        connect = mqtt5.ConnectPacket("client", username="slow").write()
        ping = mqtt5.PingReqPacket().write() * 30_000
        with trio.move_on_after(5) as flood:
            await ours.send_all(connect)
            while True:
                await ours.send_all(ping)
        assert flood.cancelled_caught
        await neighbour.announce("CP-1")
        thingsboard.disconnect_all()
        await trio.sleep(6)
        assert thingsboard.connections == {}
        nursery.cancel_scope.cancel()
