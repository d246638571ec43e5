"""The message trace: raw frames both ways as telemetry, for as long as an operator asked."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise

import pytest
import trio

from gateway.domain.events import Event
from gateway.northbound.mqtt import Delivery
from gateway.observability.frame_tap import MAX_TRACED, REFUSED, FrameTap

from ..conftest import open_gateway
from ..fakes import TELEMETRY, now
from ..southbound.connections import southbound_settings
from ..southbound.raw_websocket import dial


def traced(gateway, name="CP-1"):
    return gateway.thingsboard.values(name, "trace")


def frames(gateway, way, name="CP-1"):
    return [record["frame"] for record in traced(gateway, name) if record.get("way") == way]


def happened(gateway, name="CP-1"):
    return [record["event"] for record in traced(gateway, name) if "event" in record]


async def a_while(gateway):
    """Until what was seen is published: a second's worth is gathered."""
    await trio.sleep(3)
    await gateway.settled()


async def seen_once(gateway, name="CP-1"):
    async with gateway.charger(name) as charger:
        await charger.boot()
    await gateway.settled()


async def test_a_traced_charge_point_has_its_frames_told_both_ways(gateway):
    async with gateway.charger("CP-1") as charger, gateway.charger("CP-2") as other:
        await other.boot()
        await charger.boot()
        answer = await gateway.thingsboard.rpc("CP-1", "trace", {"minutes": 10})
        assert answer["status"] == "Accepted"
        asked_at = now()
        assert answer["until"] == (asked_at + timedelta(minutes=10)).isoformat()[:19] + "Z"
        await charger.ask("Heartbeat")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.thingsboard.rpc, "CP-1", "Reset", {"type": "Soft"})
            unique_id, _, _ = await charger.next_call()
            await charger.reply(unique_id, status="Accepted")
        await other.ask("Heartbeat")
        await a_while(gateway)
    assert [json.loads(frame)[2] for frame in frames(gateway, "in")[:1]] == ["Heartbeat"]
    assert json.loads(frames(gateway, "in")[1]) == [3, unique_id, {"status": "Accepted"}]
    assert [json.loads(frame)[0] for frame in frames(gateway, "out")] == [3, 2]
    assert traced(gateway, "CP-2") == []


async def test_what_is_not_taken_is_told_with_the_reason(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace")
        await charger.send("no JSON")
        await charger.send([2, "1", "Explode", {}])
        await charger.send([3, "unasked", {}])
        await charger.send([2, "2", "Heartbeat", {"beyond": 1}])
        await charger.answer_to("2")
        await a_while(gateway)
    traces = [(item["frame"], item.get("reason", "")) for item in traced(gateway)
            if item.get("way") == "in"]  # fmt: skip
    assert [frame for frame, _ in traces] == [
        "no JSON",
        '[2, "1", "Explode", {}]',
        '[3, "unasked", {}]',
        '[2, "2", "Heartbeat", {"beyond": 1}]',
    ]
    reasons = [reason for _, reason in traces]
    assert reasons[0].startswith("FormationViolation: not JSON")
    assert reasons[1].startswith("NotImplemented")
    assert reasons[2].startswith("UnaskedAnswer")
    assert "beyond" in reasons[3]
    assert [json.loads(frame)[0] for frame in frames(gateway, "out")] == [4, 3]


async def test_each_frame_has_an_instant_of_its_own_and_they_ascend(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace")
        for _ in range(50):  # virtual time stands still meanwhile
            await charger.ask("Heartbeat")
        await a_while(gateway)
        instants = [ts for ts, values in gateway.thingsboard.rows("CP-1") if "trace" in values]
    assert len(instants) == 100
    assert all(earlier < later for earlier, later in pairwise(instants))


@pytest.mark.parametrize("params", [{"minutes": 0}, False])
async def test_a_trace_ends_when_asked_to(gateway, params):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace", {"minutes": 60})
        assert await gateway.thingsboard.rpc("CP-1", "trace", params) == {"status": "Stopped"}
        assert not gateway.running.frame_tap.is_watched
        await charger.ask("Heartbeat")
        await a_while(gateway)
    assert traced(gateway) == []


async def test_a_trace_ends_by_itself_and_then_costs_nothing(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace", {"minutes": 2})
        await charger.ask("Heartbeat")
        await trio.sleep(119)
        await charger.ask("Heartbeat")
        await trio.sleep(2)
        before = len(traced(gateway))
        await charger.ask("Heartbeat")
        assert not gateway.running.frame_tap.is_watched
        await a_while(gateway)
    assert len(traced(gateway)) == before == 4


@pytest.mark.parametrize(
    ("params", "minutes"), [(None, 10), ({}, 10), (True, 10), ({"minutes": 1440}, 1440),
                            ({"minutes": 0.5}, 0.5)],
)  # fmt: skip
async def test_how_long_may_be_said(gateway, params, minutes):
    await seen_once(gateway)
    asked_at = now()
    answer = await gateway.thingsboard.rpc("CP-1", "trace", params)
    assert answer["until"] == (asked_at + timedelta(minutes=minutes)).isoformat()[:19] + "Z"


@pytest.mark.parametrize(
    "params", [{"minutes": 1441}, {"minutes": -1}, {"minutes": "10"}, {"minutes": True}, [10],
               {"hours": 1}, "x"],
)  # fmt: skip
async def test_what_is_no_time_is_refused(gateway, params):
    await seen_once(gateway)
    answer = await gateway.thingsboard.rpc("CP-1", "trace", params)
    assert answer["error"]["code"] == "InvalidParams"
    assert not gateway.running.frame_tap.is_watched


async def test_a_connector_has_no_trace(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await gateway.settled()
        answer = await gateway.thingsboard.rpc("CP-1/1", "trace")
    assert answer["error"]["code"] == "UnknownMethod"


async def test_a_trace_outlives_connections_and_begins_with_the_next(gateway):
    await seen_once(gateway)
    assert (await gateway.thingsboard.rpc("CP-1", "trace"))["status"] == "Accepted"
    for _ in range(2):
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
        await a_while(gateway)
    assert happened(gateway) == ["connected", "disconnected"] * 2
    assert [json.loads(frame)[2] for frame in frames(gateway, "in")] == ["BootNotification"] * 2


async def test_a_refused_handshake_is_told_with_the_reason():
    async with open_gateway(settings=southbound_settings(require_subprotocol=True)) as gateway:
        await seen_once(gateway)
        await gateway.thingsboard.rpc("CP-1", "trace")
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-1?token=0123456789")).status == 400
        await a_while(gateway)
        (record,) = traced(gateway)
    assert record["event"] == "refused"
    assert record["reason"].startswith("400 this is a central system for ocpp1.6")
    assert record["reason"].endswith(", from memory, path /ocpp/CP-1?token=***")


async def test_secrets_are_not_told(gateway):
    """HC-114"""
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace")
        async with trio.open_nursery() as nursery:
            change = {"key": "AuthorizationKey", "value": "0123456789abcdef"}
            nursery.start_soon(gateway.thingsboard.rpc, "CP-1", "ChangeConfiguration", change)
            unique_id, _, payload = await charger.next_call()
            assert payload == change
            await charger.reply(unique_id, status="Accepted")
        await charger.send(
            [3, "x", {"configurationKey": [{**change, "readonly": False},
                                           {"key": "Other", "value": "shown"}]}]
        )  # fmt: skip
        await a_while(gateway)
    text = json.dumps(traced(gateway))
    assert "0123456789abcdef" not in text
    assert "AuthorizationKey" in text
    assert "shown" in text


async def test_a_long_frame_is_cut_and_control_characters_are_escaped(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace")
        await charger.send("\x00\x1b[2J\n" + "x" * 100_000)
        await charger.ask("Heartbeat")
        await a_while(gateway)
    record = next(item for item in traced(gateway) if item.get("way") == "in")
    assert record["frame"].startswith(r"\x00\x1b[2J\nxxx")
    assert (len(record["frame"]), record["cut_from"]) == (4_096, 100_006)


async def test_a_flood_fills_neither_store_nor_memory_and_what_is_missed_is_counted():
    async with (
        open_gateway(settings=southbound_settings(max_messages_per_s=100_000)) as gateway,
        gateway.charger("CP-1") as charger,
    ):
        await charger.boot()
        await charger.status("Available")  # else one would be inferred later
        await gateway.settled()
        await gateway.thingsboard.rpc("CP-1", "trace")
        await gateway.settled()
        before = len(gateway.events(Event))
        for _ in range(3_000):
            await charger.ask("Heartbeat")
        assert len(gateway.running.frame_tap.for_thingsboard._waiting) <= 500
        await trio.sleep(60)
        await charger.ask("Heartbeat")
        await a_while(gateway)
        assert len(gateway.events(Event)) == before
        traces = traced(gateway)
    assert len(traces) <= 500 + 2 * 100 + 2
    assert len(traces) + sum(item.get("missed", 0) for item in traces) == 6_002


async def test_large_frames_are_kept_up_to_a_bound(gateway):
    await seen_once(gateway)
    gateway.thingsboard.up = False
    gateway.thingsboard.cut()
    gateway.running.frame_tap.start_trace("CP-1", 600)
    async with gateway.charger("CP-1") as charger:
        for _ in range(200):
            await charger.send("x" * 50_000)
        await charger.ask("Heartbeat")
        waiting = gateway.running.frame_tap.for_thingsboard._waiting
        assert sum(len(item.frame) for item in waiting) <= 1_000_000
        assert len(waiting) > 50
        gateway.thingsboard.up = True


async def test_what_a_lost_link_left_untold_is_told_on_the_next_with_the_same_instants(gateway):
    def on_link(number):
        return {
            (row["ts"], json.dumps(row["values"]["trace"]))
            for topic, body in gateway.thingsboard.by_link[number]
            if topic == TELEMETRY
            for row in body.get("CP-1", [])
            if "trace" in row["values"]
        }

    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace")
        await gateway.settled()
        gateway.thingsboard.holding = True
        await charger.ask("Heartbeat")
        await trio.sleep(2)
        unconfirmed = on_link(0)
        gateway.thingsboard.cut()
        gateway.thingsboard.holding = False
        await charger.ask("Heartbeat")
        await trio.sleep(30)
        await gateway.settled()
        assert len(unconfirmed) == 2
        assert unconfirmed < on_link(1)
        assert len({ts for ts, _ in on_link(1)}) == len(on_link(1)) == 4


async def test_a_frame_at_which_every_link_ends_is_given_up(gateway, monkeypatch):
    send = gateway.thingsboard.send

    async def send_or_end(publication):
        if b"poison" not in publication.payload:
            return await send(publication)
        gateway.thingsboard.cut()
        return Delivery()

    monkeypatch.setattr(gateway.thingsboard, "send", send_or_end)
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.thingsboard.rpc("CP-1", "trace")
        await charger.send("poison")
        await trio.sleep(50)
        assert gateway.thingsboard.links == 3
        await charger.ask("Heartbeat")
        await trio.sleep(50)
        assert gateway.thingsboard.links == 3
        assert "Heartbeat" in frames(gateway, "in")[-1]


async def test_no_more_charge_points_are_traced_than_may(gateway):
    for number in range(MAX_TRACED + 1):
        await seen_once(gateway, f"CP-{number}")
    for number in range(MAX_TRACED):
        assert (await gateway.thingsboard.rpc(f"CP-{number}", "trace"))["status"] == "Accepted"
    refused = await gateway.thingsboard.rpc(f"CP-{MAX_TRACED}", "trace")
    assert refused["error"]["code"] == "Busy"
    assert (await gateway.thingsboard.rpc("CP-0", "trace", {"minutes": 20}))["status"] == "Accepted"
    await trio.sleep(11 * 60)
    assert (await gateway.thingsboard.rpc(f"CP-{MAX_TRACED}", "trace"))["status"] == "Accepted"


async def test_nothing_is_noted_while_nobody_looks_on(gateway, monkeypatch):
    def note(*_, **__):
        raise AssertionError("it costs more than an if")

    monkeypatch.setattr(gateway.running.frame_tap, "record", note)
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.send("no JSON")
        await charger.ask("Heartbeat")


@pytest.mark.parametrize("readonly", [False, "not valid"])
async def test_a_password_that_a_charge_point_tells_is_not_told_on(gateway, readonly):
    """HC-114: nor where the answer breaks its schema."""
    keys = [
        {"key": "AuthorizationKey", "readonly": readonly, "value": "0123456789abcdef"},
        {"key": "HeartbeatInterval", "readonly": False, "value": "300"},
    ]
    answers = []
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.settled()
        async with trio.open_nursery() as nursery:

            async def ask():
                answers.append(await gateway.thingsboard.rpc("CP-1", "GetConfiguration"))

            nursery.start_soon(ask)
            unique_id, _, _ = await charger.next_call()
            await charger.reply(unique_id, configurationKey=keys)
    (answer,) = answers
    details = answer if readonly is False else answer["error"]["details"]
    assert details["configurationKey"] == [keys[0] | {"value": "***"}, keys[1]]
    assert "0123456789abcdef" not in json.dumps(gateway.thingsboard.published)


async def test_names_that_strangers_make_up_fill_no_memory():
    """A slow viewer of all charge points is shown how much it missed, by 500 names."""
    tap = FrameTap(now)
    with tap.subscribe(lambda _: True) as watch:
        for n in range(5_000):
            tap.record(f"CP-{n}", REFUSED, reason="password")
        assert len(watch._missed) <= 501
        assert watch._missed.total() == 4_500
