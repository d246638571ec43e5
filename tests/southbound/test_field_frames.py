"""Frames that charge points in the field sent, and what is right (`data/field-frames.json`)."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.metrics import render
from gateway.app import AppSettings
from gateway.cli.replay import replay
from gateway.domain.events import (
    ChargePointBooted,
    ConnectorStatusChanged,
    FramesRejected,
    IdTagPresented,
    MeterSampled,
    SchemaDeviated,
    TransactionStarted,
    TransactionStopped,
)
from gateway.domain.redaction import LONGEST_TEXT
from gateway.northbound.telemetry import telemetry_rows
from gateway.southbound.settings import SouthboundSettings

from ..conftest import open_gateway
from ..fakes import EPOCH, Refused
from .connections import southbound_settings
from .raw_websocket import OCPP, dial

FIELD = json.loads((Path(__file__).parents[1] / "data" / "field-frames.json").read_text())
FRAMES: dict[str, list[Any]] = {item["id"]: item["frames"] for item in FIELD}
DEVIATIONS = "ocpp_gateway_bent_requests_total"


def read_by_thingsboard(gateway) -> Any:
    """Messages of CP-1 that broke a schema, as its device was last told."""
    return gateway.thingsboard.latest("CP-1").get("schema_deviations")


def counted(gateway, name: str = DEVIATIONS) -> float:
    for family in text_string_to_metric_families(render(gateway.running).decode()):
        for sample in family.samples:
            if sample.name == name:
                return sample.value
    raise LookupError(name)


async def answered(charger, frame: list[Any]) -> Any:
    """The payload of the CALLRESULT."""
    await charger.send(frame)
    kind, _, *rest = await charger.answer_to(frame[1])
    assert kind == 3, rest
    return rest[0]


# --- FRM-60: BootNotification --------------------------------------------------------------------


@pytest.mark.parametrize("frame", FRAMES["FRM-60"], ids=lambda frame: frame[1])
async def test_a_boot_that_breaks_the_schema_is_accepted_and_counted(gateway, frame):
    """FRM-60: one whose boot is refused boots again and again, and is never in service."""
    payload = frame[3]
    async with gateway.charger("CP-1") as charger:
        assert (await answered(charger, frame))["status"] == "Accepted"
        await gateway.settled()
        assert read_by_thingsboard(gateway) == 1
    (boot,) = gateway.events(ChargePointBooted)
    assert boot.model == payload["chargePointModel"]
    assert boot.vendor == payload.get("chargePointVendor", "")
    assert boot.firmware == payload.get("firmwareVersion", "")
    assert boot.serial_number == str(payload.get("chargePointSerialNumber", ""))
    assert boot.iccid == boot.imsi == ""
    assert counted(gateway) == 1
    charger = gateway.thingsboard.attributes("CP-1")["charger"]
    assert charger["model"] == payload["chargePointModel"][:LONGEST_TEXT]
    assert "iccid" not in charger


@pytest.mark.parametrize(
    "more",
    [
        {"chargePointModel": "m" * 150},
        {"chargePointModel": "m" * 60_000},
        {"chargePointSerialNumber": 1.5, "meterType": None, "extra": [1]},
        {"chargePointVendor": None},
        {"chargePointVendor": ""},
        {"chargeBoxSerialNumber": "s" * 34, "iccid": 8_931_000_000_000_000_000},
    ],
    ids=lambda more: str(more)[:40],
)
async def test_other_boots_of_that_kind_are_accepted_too(gateway, more):
    payload = {"chargePointVendor": "V", "chargePointModel": "M"} | more
    async with gateway.charger("CP-1") as charger:
        assert (await charger.ask("BootNotification", **payload))["status"] == "Accepted"
        await gateway.settled()
        attributes = gateway.thingsboard.attributes("CP-1")["charger"]
    (boot,) = gateway.events(ChargePointBooted)
    assert boot.model == payload["chargePointModel"]
    assert boot.vendor == (payload["chargePointVendor"] or "")
    assert len(attributes["model"]) == min(len(boot.model), LONGEST_TEXT)


async def test_a_boot_that_cannot_be_read_is_refused_and_not_counted_as_read(gateway):
    async with gateway.charger("CP-1") as charger:
        for payload, code in (
            ({"chargePointVendor": "V"}, "OccurenceConstraintViolation"),
            ({"chargePointVendor": "V", "chargePointModel": ["M"]}, "TypeConstraintViolation"),
        ):
            with pytest.raises(Refused) as caught:
                await charger.ask("BootNotification", **payload)
            assert caught.value.code == code
    assert counted(gateway) == 0
    assert gateway.events(SchemaDeviated) == gateway.events(ChargePointBooted) == []


# --- FRM-61: StatusNotification ------------------------------------------------------------------


@pytest.mark.parametrize("frame", FRAMES["FRM-61"], ids=lambda frame: frame[1])
async def test_a_status_that_breaks_the_schema_is_told_and_counted(gateway, frame):
    """FRM-61."""
    payload = frame[3]
    async with gateway.charger("CP-1") as charger:
        assert await answered(charger, frame) == {}
        await gateway.settled()
        assert read_by_thingsboard(gateway) == 1
    told = gateway.thingsboard.latest("CP-1/1")
    assert told["status"] == payload["status"]
    assert told["error_code"] == payload.get("errorCode", "NoError")
    (event,) = gateway.events(ConnectorStatusChanged)
    assert event.info == (payload.get("info") or "")
    assert event.vendor_error_code == str(payload.get("vendorErrorCode", ""))
    assert counted(gateway) == 1


async def test_a_status_of_the_charge_point_itself_is_cut_for_thingsboard(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.status("Faulted", 0, info="i" * 100_000, vendorErrorCode=12)
        await gateway.settled()
    told = gateway.thingsboard.latest("CP-1")
    assert told["info"] == "i" * (LONGEST_TEXT - 1) + "…"
    assert told["vendor_error_code"] == "'12"  # text that could be taken for a number
    assert gateway.events(ConnectorStatusChanged)[0].info == "i" * 100_000


async def test_idle_time_begins_with_a_status_in_another_case(gateway):
    """It drives the bill, so `suspendedev` must not be any unknown word."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(0)
        await trio.sleep(60)
        await charger.ask("StatusNotification", connectorId="1", status="suspendedev")
        await trio.sleep(600)
        await charger.stop(tx, 1_000)
        await gateway.settled()
    assert gateway.thingsboard.latest("CP-1/1")["session_idle_s"] == 600


# --- FRM-62: an object where an array of it belongs ----------------------------------------------


def dated(value: Any, tx: int) -> Any:
    """T0+10min and <tx> of the recorded frames in the clock of the test."""
    match value:
        case dict():
            return {key: dated(item, tx) for key, item in value.items()}
        case list():
            return [dated(item, tx) for item in value]
        case "<tx>":
            return tx
        case str() if value.startswith("T0"):
            minutes = int(value[3:].removesuffix("min") or 0)
            return (EPOCH + timedelta(minutes=minutes)).isoformat()
    return value


async def test_a_meter_value_without_its_array_is_read_without_a_flag(gateway):
    """FRM-62: for its sampledValue likewise."""
    start, *meters = FRAMES["FRM-62"]
    async with gateway.charger("CP-1") as charger:
        tx = (await answered(charger, dated(start, 0)))["transactionId"]
        for frame, energy_wh, minutes in zip(meters, (1_200, 1_400), (10, 2), strict=True):
            await trio.sleep(60 * minutes)  # to the time that it says
            assert await answered(charger, dated(frame, tx)) == {}
            await gateway.settled()
            told = gateway.thingsboard.latest("CP-1/1")
            assert (told["meter_wh"], told["tx_energy_wh"]) == (energy_wh, energy_wh)
        data = {"timestamp": EPOCH.isoformat(), "sampledValue": {"value": 0}}
        await trio.sleep(600)
        await charger.stop(tx, 1_500, transactionData=data)
        await gateway.settled()
        assert read_by_thingsboard(gateway) == 3
    receipt = gateway.thingsboard.latest("CP-1/1")["receipt"]
    assert (receipt["energy_wh"], receipt["needs_review"], receipt["flags"]) == ("1500", False, [])
    assert [event.defects for event in gateway.events(MeterSampled)] == [(), ()]
    assert [event.defects for event in gateway.events(TransactionStopped)] == [()]
    assert counted(gateway) == 3


def test_a_replay_reads_the_same():
    frames = [dated(frame, 1) for frame in FRAMES["FRM-62"]]
    stop = [2, "4", "StopTransaction",
            {"transactionId": "1", "meterStop": "1500.0", "timestamp": "2026-01-01T01:00:00Z",
             "reason": None}]  # fmt: skip
    refused = [2, "5", "StatusNotification", {"status": "SuspendedEV"}]
    events = [
        {"at": (EPOCH + timedelta(minutes=15 * number)).isoformat(), "frame": frame}
        for number, frame in enumerate([frames[0], frames[1], refused, frames[2], stop])
    ]
    (session,) = replay({"events": events})["sessions"]
    assert session["energy_wh"] == "1500"
    assert session["flags"] == []
    assert session["idle_s"] == "0"
    assert session["stop_reason"] == "Local"


async def test_tags_that_are_too_long_or_no_text_are_answered(gateway):
    async with gateway.charger("CP-1") as charger:
        long = await charger.ask("Authorize", idTag="x" * 21)
        number = await charger.ask("Authorize", idTag=4711)
        start = {"connectorId": 1, "meterStart": 0, "timestamp": EPOCH.isoformat()}
        begun = await charger.ask("StartTransaction", idTag="x" * 300, **start)
        other = await charger.ask("StartTransaction", idTag=4711, **start | {"connectorId": 2.0})
        await gateway.settled()
    assert long == {"idTagInfo": {"status": "Invalid"}}
    assert number == {"idTagInfo": {"status": "Accepted"}}
    assert begun["idTagInfo"]["status"] == "Invalid"
    assert other["idTagInfo"]["status"] == "Accepted"
    assert [event.id_tag for event in gateway.events(IdTagPresented)] == ["x" * 21, "4711"]
    started = gateway.events(TransactionStarted)
    assert [(event.id_tag, event.connector_id) for event in started] == [
        ("x" * 300, 1),
        ("4711", 2),
    ]
    assert len(gateway.thingsboard.latest("CP-1/1")["tx_info"]["id_tag"]) == LONGEST_TEXT


# --- FRM-66: answers -----------------------------------------------------------------------------


@asynccontextmanager
async def asking(gateway, method: str, params: Any, device: str = "CP-1"):
    """(the answering charge point, its message id, a list that holds what ThingsBoard hears)."""
    heard: list[Any] = []

    async def ask() -> None:
        heard.append(await gateway.thingsboard.rpc(device, method, params))

    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Available")
        await gateway.settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            unique_id, _, _ = await charger.next_call()
            yield charger, unique_id, heard
        await gateway.settled()


MEANT = [
    {"configurationKey": [
        {"key": "A", "readonly": False, "value": "x" * 600},
        {"key": "B", "readonly": True, "value": "1"}]},
    {"configurationKey": [{"key": "HeartbeatInterval", "readonly": False, "value": "300"}]},
    {"configurationKey": [{"key": "HeartbeatInterval"}]},
]  # fmt: skip


@pytest.mark.parametrize(("frame", "meant"), [*zip(FRAMES["FRM-66"], MEANT, strict=True)])
async def test_a_configuration_with_an_odd_key_is_the_answer_all_the_same(gateway, frame, meant):
    """FRM-66: one odd key hid sixty good ones."""
    async with asking(gateway, "GetConfiguration", {}) as (charger, unique_id, heard):
        await charger.send([3, unique_id, frame[2]])
    (answer,) = heard
    told = frame[2]["configurationKey"][0]["value"]
    if told is not None and len(str(told)) > 500:
        meant["configurationKey"][0]["value"] = told
    assert answer == meant
    assert read_by_thingsboard(gateway) == counted(gateway) == 1


async def test_a_password_in_an_odd_configuration_is_hidden_all_the_same(gateway):
    odd = {"configurationKey": {"Key": "AuthorizationKey", "readonly": 0, "value": 123456789}}
    async with asking(gateway, "GetConfiguration", {}) as (charger, unique_id, heard):
        await charger.send([3, unique_id, odd])
    assert "123456789" not in json.dumps(heard + gateway.thingsboard.published)
    assert heard == [
        {"configurationKey": [{"key": "AuthorizationKey", "readonly": False, "value": "***"}]}
    ]


@pytest.mark.parametrize(
    ("said", "heard_as"),
    [({"status": "Accepted"}, "Accepted"), ({"status": "UNLOCKED"}, "Unlocked"),
     ({"status": "unlockFailed", "more": 1}, "UnlockFailed")],
)  # fmt: skip
async def test_an_unlocking_in_other_words_is_the_answer(gateway, said, heard_as):
    async with asking(gateway, "unlock", None, "CP-1/1") as (charger, unique_id, heard):
        await charger.send([3, unique_id, said])
    (answer,) = heard
    assert answer["status"] == heard_as
    assert gateway.thingsboard.latest("CP-1")["last_command_result"] == heard_as
    assert read_by_thingsboard(gateway) == 1


async def test_a_remote_start_that_is_accepted_in_another_case_goes_on(gateway):
    async with asking(gateway, "remoteStart", {"idTag": "T"}, "CP-1/1") as (charger, number, heard):
        await charger.send([3, number, {"status": "ACCEPTED"}])
        tx = await charger.start(0, tag="T")
    assert heard == [{"status": "Accepted", "transactionId": tx}]


async def test_an_answer_that_cannot_be_read_keeps_its_payload(gateway):
    said = {"configurationKey": [{"key": "A", "readonly": "now and then"}], "more": None}
    async with asking(gateway, "GetConfiguration", {}) as (charger, unique_id, heard):
        await charger.send([3, unique_id, said])
    (answer,) = heard
    assert answer["error"]["code"] == "CallError"
    assert answer["error"]["details"] == said
    assert counted(gateway) == 0


@pytest.mark.parametrize(
    "text",
    [
        '[3,"%s",{"configurationKey":[{"key":"A","readonly":false,"value":NaN}]}]',
        '[3,"%s",{"configurationKey":[{"key":"A","readonly":false}',
        '[4,"%s","InternalError","a "word" in quotes",{}]',
    ],
)
async def test_whoever_asked_hears_at_once_that_an_answer_is_not_json(gateway, text):
    before = trio.current_time()
    async with asking(gateway, "GetConfiguration", {}) as (charger, unique_id, heard):
        await charger.send(text % unique_id)
    assert heard[0]["error"]["code"] == "CallError"
    assert heard[0]["error"]["details"] == text % unique_id
    assert trio.current_time() - before < 5  # and not after `call_timeout_s`


async def test_a_password_in_an_answer_that_is_not_json_is_hidden(gateway):
    said = '[3,"%s",{"configurationKey":[{"key":"AuthorizationKey","readonly":NaN,"value":"s3"}]}]'
    async with asking(gateway, "GetConfiguration", {}) as (charger, unique_id, heard):
        await charger.send(said % unique_id)
    details = heard[0]["error"]["details"]
    assert "AuthorizationKey" in details
    assert "s3" not in details


async def test_a_strict_gateway_reads_no_answer_leniently():
    settings = AppSettings(southbound=SouthboundSettings(lenient=False))
    async with (
        open_gateway(settings=settings) as gateway,
        asking(gateway, "Reset", {"type": "Soft"}) as (charger, unique_id, heard),
    ):
        await charger.send([3, unique_id, {"status": "accepted"}])
    assert heard[0]["error"]["details"] == {"status": "accepted"}


# --- they are counted, and shown to those who look -----------------------------------------------


async def test_a_trace_says_what_of_a_frame_breaks_the_schema(gateway):
    async with asking(gateway, "Reset", {"type": "Soft"}) as (charger, unique_id, _):
        gateway.running.frame_tap.start_trace("CP-1", 60)
        await charger.ask("Heartbeat", beyond=1)
        await charger.send([3, unique_id, {"status": "accepted"}])
        await trio.sleep(1)
    traced = gateway.thingsboard.values("CP-1", "trace")
    reasons = [item["reason"] for item in traced if item.get("way") == "in"]
    assert reasons == ["beyond: an unknown field", "status: spelled otherwise than Accepted"]


async def test_the_first_deviations_are_told_one_by_one_and_then_once_an_hour(gateway, quiet_logs):
    """Some break the schema with every message: the journal is not to fill with that."""
    async with gateway.charger("CP-1") as charger:
        for _ in range(50):
            await charger.ask("Heartbeat", beyond=1)
        await gateway.settled()
        assert [event.total for event in gateway.events(SchemaDeviated)] == [*range(1, 11)]
        assert read_by_thingsboard(gateway) == 10
        for _ in range(70):
            await trio.sleep(60)
            await charger.ask("Heartbeat", beyond=1)
        await gateway.settled()
        assert [event.total for event in gateway.events(SchemaDeviated)][10:] == [110]
    assert counted(gateway) == 120
    assert len([entry for entry in quiet_logs if "breaks the schema" in entry["event"]]) == 1


async def test_each_connection_counts_from_one(gateway):
    for _ in range(2):
        async with gateway.charger("CP-1") as charger:
            await charger.ask("Heartbeat", beyond=1)
            await charger.ask("Heartbeat")
        await gateway.settled()
    assert [event.total for event in gateway.events(SchemaDeviated)] == [1, 1]
    (event, _) = gateway.events(SchemaDeviated)
    assert (event.action, event.what) == ("Heartbeat", "beyond: an unknown field")
    (row,) = telemetry_rows(event, "log")
    assert (row.device, row.values) == ("CP-1", {"schema_deviations": 1})


# --- not JSON, but a CALL all the same -----------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[2,"m","StartTransaction",{"connectorId":1,"idTag":"A","meterStart":NaN}]',
        '[2,"m","StopTransaction",{"transactionId":,"meterStop":5}]',
        '[2,"m","MeterValues",{"connectorId":1,"meterValue":[Infinity]}]',
        """[2,'m','Heartbeat',{}]""",
        '[2,"m","Heartbeat",{},]',
    ],
)
async def test_a_call_that_is_not_json_is_answered_and_the_connection_serves_on(gateway, text):
    async with gateway.charger("CP-1") as charger:
        await charger.send(text)
        kind, _, code, why, details = await charger.answer_to("m")
        assert (kind, code, details) == (4, "FormationViolation", {})
        assert why.startswith("not JSON")
        await charger.ask("Heartbeat")
        await gateway.settled()
    (event,) = gateway.events(FramesRejected)
    assert gateway.thingsboard.latest("CP-1")["rejected_frames"] == 1
    assert gateway.events(TransactionStarted) == []
    assert event.code == "FormationViolation"


# --- people are told in words, not in Python's ---------------------------------------------------


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("Sec-WebSocket-Protocol: ocpp2.0.1", "not for ocpp2.0.1"),
        ("Sec-WebSocket-Protocol: ocpp2.1, ocpp2.0.1", "not for ocpp2.1, ocpp2.0.1"),
        ("X: y", "a central system for ocpp1.6"),
    ],
)
async def test_a_refused_subprotocol_is_named_as_it_was_asked_for(quiet_logs, header, told):
    settings = southbound_settings(require_subprotocol=True)
    async with open_gateway(settings=settings) as gateway, dial(gateway) as peer:
        response = await peer.upgrade("/ocpp/CP-1", header)
    assert response.status == 400
    words = response.body.decode()
    assert told in words
    (entry,) = [entry for entry in quiet_logs if entry["event"] == "handshake refused"]
    assert words in entry["why"]
    assert not set("()'[]") & set(words + entry["why"])


@pytest.mark.parametrize("kind", ["[2]", '{"a":[true,null]}', "true", "2.0", '"x"'])
async def test_a_wrong_message_type_is_shown_as_it_was_sent(gateway, kind):
    async with gateway.charger("CP-1") as charger:
        await charger.send(f'[{kind},"m","Heartbeat",{{}}]')
        await charger.ask("Heartbeat")
    (event,) = gateway.events(FramesRejected)
    assert event.why == f"no message type {kind}"


def test_the_subprotocol_that_is_asked_for_is_served_still():
    assert OCPP.endswith("ocpp1.6")
