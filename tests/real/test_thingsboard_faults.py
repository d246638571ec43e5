"""The product under the misfortunes F1 to F16, on each kind of ThingsBoard that it meets.

Whatever happens to the link: in the end everything that was published is stored once, as it was,
in order per device, and no rule of ThingsBoard was broken.
"""

from __future__ import annotations

import json

import pytest
import trio

from gateway.admin.server import respond
from gateway.app import AppSettings
from gateway.northbound import mqtt as link_module
from gateway.northbound.batching import CONNECT_TOPIC, TELEMETRY_TOPIC
from gateway.northbound.mqtt import Broker, LinkLost, open_link
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import TOPICS, NorthboundSettings
from gateway.simulation.thingsboard import Act, Fault, RpcNoSession, RpcTimeout, TenantLimits

from .test_mqtt_link import wait_until
from .thingsboards import LOG, TOKEN, Scene, open_scene

pytestmark = [pytest.mark.real_time, pytest.mark.waits]

PROFILES = ("3.8", "4.2.1", "4.3")
on_each = pytest.mark.parametrize("profile", PROFILES)
from_4_2_1 = pytest.mark.parametrize("profile", PROFILES[1:])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Attempts follow each other without long pauses."""
    monkeypatch.setattr("gateway.northbound.publisher._FIRST_RETRY_DELAY", 0.02)
    monkeypatch.setattr("gateway.northbound.publisher._MAX_RETRY_DELAY", 0.1)
    monkeypatch.setattr("gateway.northbound.rate_limits._SLOWEST", 0.1)


@pytest.fixture
def impatient(monkeypatch):
    """A PUBACK that does not come is not waited for as long."""
    monkeypatch.setattr(link_module, "PUBACK_TIMEOUT", 0.5)


def link_lines(logs) -> list[tuple[str, str]]:
    return [
        (log["event"], log.get("why", ""))
        for log in logs
        if log["event"].startswith("link ") and log["log_level"] in ("info", "warning")
    ]


def mqtt_of(scene: Scene) -> str:
    return scene.readiness()["mqtt"]


async def asides(scene: Scene):
    return await scene.gateway.journal.dead_letters(READER)


async def two_charges(scene: Scene) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.charge, "CP-1")
        nursery.start_soon(scene.charge, "CP-2")


# --- PUBACKs that come wrongly, or not -----------------------------------------------------------


@on_each
async def test_without_misfortune_all_is_told_on_one_link(profile, quiet_logs):
    async with open_scene(profile) as scene:
        await two_charges(scene)
        await scene.all_told()
        assert await asides(scene) == ()
    assert link_lines(quiet_logs) == [("link up", "")]


@on_each
@pytest.mark.parametrize("stored", [True, False])
async def test_f1_closed_between_publish_and_puback(profile, stored):
    """M1 to M3: kept until it is acknowledged, and sent again as it was."""
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(
                act=Act.CLOSE, topic=TELEMETRY_TOPIC, contains="soc_percent", times=3, stored=stored
            )
        )
        await two_charges(scene)
        await scene.all_told()
        assert fault.hits == 3 or stored
        assert await asides(scene) == ()


@on_each
async def test_f1_closed_at_each_connect_of_a_device(profile):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(Fault(act=Act.CLOSE, topic=CONNECT_TOPIC, times=4))
        await two_charges(scene)
        await scene.all_told()
        assert fault.hits == 4


@on_each
@pytest.mark.parametrize("times", [1, 5])
async def test_f2_acknowledged_and_then_closed(profile, times):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.ACK_AND_CLOSE, topic=TELEMETRY_TOPIC, contains="soc_percent", times=times)
        )
        await two_charges(scene)
        await scene.all_told()
        assert 1 <= fault.hits <= times
        assert await asides(scene) == ()


@on_each
async def test_f2_hc_125_a_message_that_is_always_acknowledged_and_then_closed_at(profile):
    """It has arrived: it is not told again, and so does not close the next link too."""
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.ACK_AND_CLOSE, contains='"soc_percent":7.0', times=None)
        )
        await two_charges(scene)
        await scene.all_told()
        assert 1 <= fault.hits <= 12
        assert await asides(scene) == ()


@on_each
async def test_f3_never_acknowledged(profile, impatient):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.NO_ACK, topic=TELEMETRY_TOPIC, contains="soc_percent", times=2)
        )
        await two_charges(scene)
        await scene.all_told()
        assert fault.hits == 2
        assert await asides(scene) == ()


@on_each
async def test_f3_hc_125_one_message_that_is_never_acknowledged_is_set_aside(profile, impatient):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.NO_ACK, contains='"soc_percent":7.0', times=None, stored=False)
        )
        await scene.charge("CP-1")
        await wait_until(lambda: scene.gateway.journal._dead_letters.get(READER))
        scene.board.faults.clear()
        del scene.said["CP-1"][6]
        await scene.all_told()
        (aside,) = await asides(scene)
        assert "connection ended 3 times" in aside.why
        assert 4 <= fault.hits <= 8


@from_4_2_1
@pytest.mark.parametrize("code", [0x80, 0x83, 0x97, 0x99])
async def test_f4_refused_once_and_taken_then(profile, code):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(Fault(act=Act.REFUSE, code=code, contains="soc_percent"))
        await two_charges(scene)
        await scene.all_told(in_order=False)  # what is behind it does not wait
        assert fault.hits == 1
        assert await asides(scene) == ()


@on_each
@pytest.mark.parametrize("code", [0x83, 0x99])
async def test_f4_hc_125_what_is_refused_each_time_is_set_aside_and_blocks_nobody(profile, code):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.REFUSE, code=code, contains='"soc_percent":7.0', times=None)
        )
        await scene.charge("CP-1")
        await scene.charge("CP-2")
        await wait_until(lambda: len(scene.gateway.journal._dead_letters.get(READER, ())) == 2)
        for said in scene.said.values():
            del said[6]
        await scene.all_told(in_order=False)  # what is behind it does not wait
        assert {f"0x{code:02x}" in aside.why for aside in await asides(scene)} == {True}
        assert fault.hits <= 8
        assert mqtt_of(scene) == "connected"


@on_each
@pytest.mark.parametrize("code", [0x83, 0x99])
async def test_f4_hc_125_what_is_refused_and_closed_at_each_time_is_no_poison_pill(profile, code):
    """BAD-R: ThingsBoard's own code fails at it, and it closes the connection."""
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.REFUSE, code=code, closes=True, contains='"soc_percent":7.0', times=None)
        )
        await two_charges(scene)
        await wait_until(lambda: len(scene.gateway.journal._dead_letters.get(READER, ())) == 2)
        for said in scene.said.values():
            del said[6]
        await scene.all_told()
        assert fault.hits <= 12


@on_each
async def test_f1_hc_125_what_is_closed_at_each_time_without_a_word_is_no_poison_pill(profile):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.CLOSE, contains='"soc_percent":7.0', times=None, stored=False)
        )
        await two_charges(scene)
        await wait_until(lambda: len(scene.gateway.journal._dead_letters.get(READER, ())) == 2)
        for said in scene.said.values():
            del said[6]
        await scene.all_told()
        for aside in await asides(scene):
            assert "connection ended 3 times" in aside.why
        assert fault.hits <= 14


@on_each
async def test_f1_a_server_that_takes_nothing_makes_nobody_guilty(profile):
    """As where its queue is down: it lets in, and closes at every telemetry for a while."""
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.CLOSE, topic=TELEMETRY_TOPIC, times=15, stored=False)
        )
        await two_charges(scene)
        await scene.all_told()
        assert fault.hits == 15
        assert await asides(scene) == ()


@from_4_2_1
@pytest.mark.parametrize("code", [0x80, 0x97])
async def test_f4_a_server_that_fails_at_everything_for_a_while_makes_nobody_guilty(profile, code):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.REFUSE, code=code, closes=True, topic=TELEMETRY_TOPIC, times=12)
        )
        await two_charges(scene)
        await scene.all_told(within=60)
        assert fault.hits == 12
        assert await asides(scene) == ()


@on_each
async def test_f5_pubacks_that_come_again_and_again(profile):
    """ThingsBoard before 4.2.1 acknowledges once for every device of a message."""
    async with open_scene(profile) as scene:
        scene.board.faults.add(Fault(act=Act.DUPLICATE_ACK, count=3, times=None))
        await two_charges(scene)
        await scene.all_told()
        assert mqtt_of(scene) == "connected"


async def test_f5_below_4_2_1_a_message_is_of_one_device():
    async with open_scene("3.8") as scene:
        await two_charges(scene)
        await scene.all_told()
        told = [json.loads(m.payload) for m in scene.board.messages if m.topic == TELEMETRY_TOPIC]
        assert {len(body) for body in told} == {1}


# --- who is let in -------------------------------------------------------------------------------


WORDS = {
    0x84: "protocol",
    0x85: "access_token",
    0x86: "does not know this access token",
    0x87: "does not know this access token",
    0x88: "unavailable",
    0x9F: "too many connections",
}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("code", list(WORDS))
async def test_f6_hc_123_who_is_not_let_in_says_why_and_what_to_do_once(code, protocol, quiet_logs):
    async with open_scene(protocol=protocol) as scene:
        fault = scene.board.faults.add(Fault(act=Act.REFUSE_CONNECT, code=code, times=None))
        await scene.charge("CP-1")
        await wait_until(lambda: fault.hits >= 5)
        lost = [line for line in link_lines(quiet_logs) if line[0] == "link lost"]
        assert [event for event, _ in lost[-1:]] == ["link lost"]
        assert sum(1 for line in lost if line == lost[-1]) == 1
        if (protocol, code) != ("3.1.1", 0x86):
            assert (
                WORDS[0x88 if (protocol, code) == ("3.1.1", 0x9F) else code] in lost[-1][1].lower()
            )
        assert TOKEN not in str(quiet_logs)
        assert mqtt_of(scene).startswith("behind: ")
        assert respond("GET", "/readyz", scene.gateway.running)[0] == 200
        scene.board.faults.clear()
        await scene.all_told()


async def test_f6_a_wrong_token_is_one_line_and_not_one_for_each_attempt(quiet_logs):
    async with open_scene(access_tokens=["another"]) as scene:
        await scene.charge("CP-1")
        await wait_until(lambda: len([log for log in quiet_logs if "again" in log["event"]]) > 5)
        ((event, why),) = link_lines(quiet_logs)
        assert event == "link lost"
        assert "Manage credentials" in why
        assert mqtt_of(scene) == f"behind: {why}"
        scene.board.access_tokens = [TOKEN]  # the operator mends it
        await scene.all_told()


@on_each
async def test_a_device_that_is_no_gateway_is_one_line_and_all_is_told_once_it_is(
    profile, impatient, quiet_logs, monkeypatch
):
    monkeypatch.setattr("gateway.northbound.publisher._STABLE_AFTER", 1.5)
    async with open_scene(profile, gateway_flag=False) as scene:
        await scene.charge("CP-1")
        await wait_until(lambda: any("again" in log["event"] for log in quiet_logs))
        (up, (event, why)) = link_lines(quiet_logs)
        assert (up, event) == (("link up", ""), "link lost")
        assert '"Is gateway"' in why
        assert mqtt_of(scene) in (f"behind: {why}", f"unsteady: {why}")
        scene.board.violations.clear()  # P3, which is what this is about
        scene.board.gateway_flag = True
        await wait_until(lambda: LOG in scene.board.devices)
        scene.board.violations[:] = [v for v in scene.board.violations if v.assertion != "P3"]
        await scene.all_told()
        await wait_until(lambda: mqtt_of(scene) == "connected")


@on_each
async def test_f7_hc_123_another_client_with_our_token_takes_the_session(profile, quiet_logs):
    async with open_scene(profile) as scene:
        await scene.charge("CP-1")
        broker = Broker(host="127.0.0.1", port=scene.board.port, access_token=TOKEN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.charge, "CP-2")
            for _ in range(3):
                try:
                    async with open_link(broker, TOPICS) as other:
                        async for _message in other.messages():
                            pass
                except* LinkLost:  # we took it back
                    pass
        await scene.all_told()
    lost = [why for event, why in link_lines(quiet_logs) if event == "link lost"]
    assert len(lost) == 1
    assert "taken over by another client with the same access token" in lost[0]


# --- sessions of devices, and RPC ----------------------------------------------------------------


@on_each
async def test_f8_a_session_that_was_lost_unseen_is_there_again_with_the_next_value(profile):
    async with open_scene(profile) as scene, scene.gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await scene.all_told()
        scene.board.lose_session("CP-1/1")
        scene.board._min_rpc_timeout = 0.2
        with pytest.raises(RpcNoSession):
            await scene.board.rpc("CP-1/1", "remoteStop", timeout=0.2)
        await charger.status("Preparing")
        await wait_until(lambda: scene.board.devices["CP-1/1"].connected)
        answer = await scene.board.rpc("CP-1/1", "remoteStop", timeout=5)
        assert answer == {"status": "Rejected", "reason": "NoTransaction"}
        await scene.all_told()


@on_each
async def test_f8_a_session_that_was_lost_unseen_is_there_again_with_a_sign_of_life(
    profile, monkeypatch
):
    monkeypatch.setattr("gateway.northbound.device_sessions._KEEP_ALIVE_EVERY", 0.8)
    monkeypatch.setattr("gateway.northbound.device_sessions._CHECK_EVERY", 0.1)
    async with open_scene(profile) as scene, scene.gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await scene.all_told()
        for device in ("CP-1", "CP-1/1", LOG):
            scene.board.lose_session(device)
        await wait_until(
            lambda: all(scene.board.devices[d].connected for d in ("CP-1", "CP-1/1", LOG))
        )
        await scene.all_told()


@on_each
async def test_f9_hc_127_an_rpc_that_is_sent_again_after_a_reconnect_is_carried_out_once(profile):
    async with open_scene(profile) as scene, scene.gateway.charger("CP-1") as charger:
        await charger.boot()
        await scene.all_told()
        answers = []

        async def call() -> None:
            answers.append(await scene.board.rpc("CP-1", "ClearCache", {}, timeout=20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            number, action, _ = await charger.hear()
            scene.board.disconnect_all()
            await wait_until(lambda: scene.board.devices["CP-1"].connected)
            scene.board.resend_rpcs("CP-1")
            await charger.reply(number, status="Rejected")
        assert (action, answers) == ("ClearCache", [{"status": "Rejected"}])
        assert charger.calls.statistics().current_buffer_used == 0
        await scene.all_told()


@on_each
@pytest.mark.parametrize("params", [None, True, "x", {}], ids=json.dumps)
async def test_f10_hc_126_id_0_and_params_of_any_kind(profile, params):
    async with open_scene(profile) as scene, scene.gateway.charger("CP-1") as charger:
        await charger.boot()
        await scene.all_told()
        assert scene.board.devices["CP-1"].next_rpc_id == 0
        if params in (None, {}):
            async with trio.open_nursery() as nursery:

                async def accept() -> None:
                    number, _, payload = await charger.hear()
                    assert payload == {}
                    await charger.reply(number, status="Accepted")

                nursery.start_soon(accept)
                answer = await scene.board.rpc("CP-1", "ClearCache", params)
            assert answer == {"status": "Accepted"}
        else:
            answer = await scene.board.rpc("CP-1", "ClearCache", params)
            assert answer["error"]["code"] == "InvalidParams"
        await scene.all_told()


@on_each
async def test_f11_hc_126_an_unknown_device_gets_no_answer_and_an_unknown_method_an_error(profile):
    async with open_scene(profile) as scene, scene.gateway.charger("CP-1") as charger:
        await charger.boot()
        await scene.all_told()
        scene.board._min_rpc_timeout = 0.2
        with pytest.raises(RpcTimeout):
            await scene.board.rpc("CP-99", "Reset", anyway=True, timeout=0.2)
        answer = await scene.board.rpc("CP-1", "Explode", timeout=5)
        assert answer["error"]["code"] == "UnknownMethod"
        assert "CP-99" not in scene.board.devices
        await scene.all_told()


# --- what is too much ----------------------------------------------------------------------------


async def signed_charge(scene: Scene, *sizes: int) -> None:
    """A charge whose meter values are signed, with signatures of these sizes."""
    async with scene.gateway.charger("CP-1") as charger:
        tx = await charger.start(meter_wh=1_000)
        for size in sizes:
            value = {"value": f"{len(sizes)}" * size, "format": "SignedData"}
            await charger.ask(
                "MeterValues",
                connectorId=1,
                transactionId=tx,
                meterValue=[{"timestamp": "2026-01-01T00:00:00Z", "sampledValue": [value]}],
            )
        await charger.stop(tx, meter_wh=2_000)


@on_each
async def test_f12_a_receipt_too_large_for_a_packet_has_its_signed_values_apart(profile):
    async with open_scene(profile) as scene:
        await signed_charge(scene, 20_000, 20_001, 14_000)
        await scene.all_told()
        for device in ("CP-1/1", LOG):
            ((ts, receipt),) = scene.board.devices[device].series("receipt")
            ((signed_ts, signed),) = scene.board.devices[device].series("receipt_signed")
            assert signed_ts == ts
            assert [len(each["value"]) for each in signed] == [20_000, 20_001, 14_000]
            assert receipt["energy_wh"] == "1000"
            assert "signed" not in receipt
        largest = max(len(message.payload) for message in scene.board.messages)
        assert 50_000 < largest <= 60_000
        assert await asides(scene) == ()


@on_each
async def test_f12_signed_values_that_no_packet_can_hold_are_set_aside_and_the_rest_arrives(
    profile,
):
    async with open_scene(profile) as scene:
        await signed_charge(scene, 30_000, 30_001, 30_002)
        await wait_until(lambda: scene.gateway.journal._dead_letters.get(READER))
        await scene.board.wait_for(
            lambda board: LOG in board.devices and board.devices[LOG].series("receipt")
        )
        for device in ("CP-1/1", LOG):
            (receipt,) = [value for _, value in scene.board.devices[device].series("receipt")]
            assert receipt["energy_wh"] == "1000"
            assert scene.board.devices[device].value("session_energy_kwh") == 1
            assert scene.board.devices[device].series("receipt_signed") == []
        (aside,) = await asides(scene)
        assert "bytes are more than ThingsBoard takes" in aside.why
        await scene.all_told()


async def test_f12_an_answer_too_large_for_a_packet_is_an_error_to_who_asked():
    async with open_scene() as scene, scene.gateway.charger("CP-1") as charger:
        await charger.boot()
        await scene.all_told()
        keys = [{"key": f"Key{n}", "readonly": True, "value": "x" * 400} for n in range(200)]

        async def answer() -> None:
            number, _, _ = await charger.hear()
            await charger.reply(number, configurationKey=keys)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            told = await scene.board.rpc("CP-1", "GetConfiguration", {})
        assert told["error"]["code"] == "CallError"
        assert "bytes" in told["error"]["message"]
        await scene.all_told()


@on_each
@pytest.mark.parametrize(
    "limits",
    [
        TenantLimits(messages="40:1", telemetry_messages="40:1"),
        TenantLimits(telemetry_data_points="100:1"),
        TenantLimits(telemetry_data_points="20:1"),
    ],
    ids=["messages", "points", "fewer points than a row has"],
)
async def test_f13_limits_that_are_told_are_kept_to_also_at_the_start(profile, limits, quiet_logs):
    """A backlog is there when the link comes up, before anything is known of limits."""
    async with open_scene(profile, gateway_rate_limits=limits) as scene:
        refusing = scene.board.faults.add(Fault(act=Act.REFUSE_CONNECT, code=0x88, times=None))
        await scene.charge("CP-1", samples=2)
        scene.board.faults.remove(refusing)
        await scene.all_told(within=60)
    assert [why for event, why in link_lines(quiet_logs) if "0x88" not in why and why] == []


@on_each
async def test_f13_limits_that_nobody_told_of_slow_down_and_lose_nothing(profile):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.RATE_LIMIT, topic=TELEMETRY_TOPIC, contains="soc_percent", times=6)
        )
        await two_charges(scene)
        await scene.all_told(within=60)
        assert fault.hits == 6
        assert await asides(scene) == ()


@on_each
async def test_f14_a_device_that_is_long_in_coming_holds_nobody_up_for_good(profile):
    async with open_scene(profile) as scene:
        fault = scene.board.faults.add(
            Fault(act=Act.DELAY, seconds=1.5, topic=CONNECT_TOPIC, device="CP-1")
        )
        await two_charges(scene)
        await scene.all_told()
        assert fault.hits == 1


@pytest.fixture
def no_minute(monkeypatch):
    """What is put off is told again in seconds."""
    monkeypatch.setattr("gateway.northbound.deferrals.DEFERRAL_S", 0.5)
    monkeypatch.setattr("gateway.northbound.device_sessions._CHECK_EVERY", 0.2)


@from_4_2_1
async def test_f4_hc_125_what_the_server_fails_at_each_time_is_set_aside_in_the_end(
    profile, no_minute
):
    async with open_scene(profile) as scene:
        scene.board.faults.add(
            Fault(act=Act.REFUSE, code=0x80, contains='"soc_percent":7.0', times=None)
        )
        await two_charges(scene)
        await wait_until(lambda: len(scene.gateway.journal._dead_letters.get(READER, ())) == 2)
        for said in scene.said.values():
            del said[6]
        await scene.all_told(in_order=False)
        assert {"0x80" in aside.why for aside in await asides(scene)} == {True}


@on_each
async def test_f14_a_device_that_thingsboard_never_lets_in_blocks_no_other(
    profile, impatient, no_minute
):
    """Before 4.3 it never acknowledges to a tenant that has no device left."""
    async with open_scene(profile, device_limit=5) as scene:
        await two_charges(scene)
        await scene.all_told()  # CP-1, CP-1/1, CP-2, CP-2/1, the log
        async with scene.gateway.charger("CP-3") as third:
            await third.boot()
            await wait_until(lambda: scene.gateway.journal._dead_letters.get(READER))
        await scene.charge("CP-1", samples=3)
        scene.said.clear()
        scene.charges.clear()
        await wait_until(
            lambda: len(scene.board.devices["CP-1/1"].series("receipt")) == 2, within=30
        )
        assert "CP-3" not in scene.board.devices
        assert mqtt_of(scene) != "behind"
        assert {violation.assertion for violation in scene.board.violations} == {"5"}


@on_each
async def test_f15_a_publish_on_a_topic_that_nobody_subscribed_to(profile):
    async with open_scene(profile, first_downlink_id=65_530) as scene:
        await scene.charge("CP-1")
        await scene.all_told()  # there is a link to send them on
        for topic in ("v1/gateway/disconnect", "v1/gateway/attributes", "what/ever"):
            for payload in (b'{"device":"CP-1"}', b"\xff\x00", b""):
                scene.board.publish_unasked(topic, payload)
        await wait_until(lambda: scene.board.publishes.downlinks_acked >= 9)
        await scene.charge("CP-2")
        await scene.all_told()
        assert mqtt_of(scene) == "connected"


@on_each
async def test_f16_after_a_restart_all_goes_on_and_ids_from_0_are_new_orders(profile):
    async with open_scene(profile) as scene, scene.gateway.charger("CP-9") as charger:
        await charger.boot()
        await scene.all_told()

        async def obey(status: str) -> str:
            number, action, _ = await charger.hear()
            await charger.reply(number, status=status)
            return action

        for method, status in (("ClearCache", "Rejected"), ("Reset", "Accepted")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey, status)
                params = {"type": "Soft"} if method == "Reset" else {}
                answer = await scene.board.rpc("CP-9", method, params, timeout=10)
            assert answer == {"status": status}
            await two_charges(scene) if not scene.charges else None
            scene.board.restart()
            await wait_until(lambda: scene.board.devices["CP-9"].connected)
            assert scene.board.devices["CP-9"].next_rpc_id == 0
        await scene.all_told()


@on_each
async def test_whatever_comes_at_random_all_is_told(profile):
    """F1, F2, F4, F5, F14 and F16 in turn, while two charge."""
    async with open_scene(profile) as scene:
        for n, act in enumerate((Act.CLOSE, Act.ACK_AND_CLOSE, Act.REFUSE, Act.DUPLICATE_ACK) * 3):
            scene.board.faults.add(Fault(act=act, contains=f'"soc_percent":{n + 1}.0', code=0x80))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two_charges, scene)
            for _ in range(5):
                await wait_until(lambda: scene.gateway.running.delivery.connected)
                await trio.sleep(0.05)
                scene.board.restart()
        await scene.all_told(in_order=False)
        assert await asides(scene) == ()


async def test_with_mqtt_3_1_1_all_is_told_as_long_as_nothing_is_refused():
    async with open_scene(
        protocol="3.1.1", settings=AppSettings(northbound=NorthboundSettings())
    ) as scene:
        await two_charges(scene)
        await scene.all_told()
