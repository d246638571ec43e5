"""From the plug to the price, over WebSocket and MQTT."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import jsonschema_rs
import pytest
import trio

from gateway.app import AppSettings
from gateway.domain.events import (
    MeterSampled,
    TransactionOpened,
    TransactionSettled,
    TransactionStopped,
)
from gateway.domain.tags import IdTag, TagList
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.messages import CHARGE_POINT_ACTIONS
from gateway.southbound.settings import SouthboundSettings

from .conftest import open_gateway
from .fakes import CONNECT, stamp
from .southbound.raw_websocket import call, opened

HOUR = 3600


async def test_a_charge_is_priced_from_its_registers(gateway):
    """10 kWh in an hour at 0.30 EUR/kWh cost 3.00 EUR, and ThingsBoard hears of it."""
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Charging")
        tx = await charger.start(meter_wh=1_000)
        await trio.sleep(HOUR / 2)
        await charger.sample(tx, "6.0", unit="kWh")
        await gateway.settled()
        live = gateway.thingsboard.latest("CP-1/1")
        await trio.sleep(HOUR / 2)
        await charger.stop(tx, meter_wh=11_000)
        await gateway.settled()

    assert (live["tx_active"], live["tx_energy_wh"], live["cost_total"]) == (True, 5000, 1.50)
    (settled,) = gateway.events(TransactionSettled)
    assert settled.receipt["energy_wh"] == "10000"
    assert settled.receipt["total_incl_vat"] == "3.00"
    final = gateway.thingsboard.latest("CP-1/1")
    assert (final["tx_active"], final["session_cost"], final["session_energy_kwh"]) == (
        False,
        3.00,
        10,
    )
    log = gateway.thingsboard.latest("ocpp-gateway sessions")
    assert (log["session_charge_point"], log["session_connector"]) == ("CP-1", 1)
    assert log["receipt"]["receipt_id"] == settled.receipt["receipt_id"]
    assert {"device": "CP-1", "type": "EV charger"} in gateway.thingsboard.about(CONNECT)
    assert {"device": "CP-1/1", "type": "EV connector"} in gateway.thingsboard.about(CONNECT)


# --- every request is answered in OCPP's own form -----------------------------------------------

SCHEMAS = files("ocpp.v16") / "schemas"
WHEN = "2026-01-01T00:00:00Z"
REQUESTS: dict[str, dict[str, Any]] = {
    "Authorize": {"idTag": "TAG"},
    "BootNotification": {"chargePointVendor": "V", "chargePointModel": "M"},
    "DataTransfer": {"vendorId": "V"},
    "DiagnosticsStatusNotification": {"status": "Uploading"},
    "FirmwareStatusNotification": {"status": "Installed"},
    "Heartbeat": {},
    "LogStatusNotification": {"status": "Uploaded", "requestId": 1},
    "MeterValues": {
        "connectorId": 1,
        "meterValue": [{"timestamp": WHEN, "sampledValue": [{"value": "1"}]}],
    },
    "SecurityEventNotification": {"type": "FirmwareUpdated", "timestamp": WHEN},
    "SignCertificate": {"csr": "-----BEGIN CERTIFICATE REQUEST-----"},
    "SignedFirmwareStatusNotification": {"status": "InvalidSignature", "requestId": 1},
    "StartTransaction": {"connectorId": 1, "idTag": "TAG", "meterStart": 0, "timestamp": WHEN},
    "StatusNotification": {"connectorId": 0, "status": "Available", "errorCode": "NoError"},
    "StopTransaction": {"transactionId": 1, "meterStop": 0, "timestamp": WHEN, "idTag": "TAG"},
}


def valid(action: str, reply: Any) -> bool:
    schema = json.loads((SCHEMAS / f"{action}Response.json").read_text("utf-8-sig"))
    return jsonschema_rs.Draft4Validator(schema).is_valid(reply)


@pytest.mark.parametrize("action", REQUESTS)
async def test_every_request_gets_an_answer_that_its_schema_allows(gateway, action):
    """The Core profile, and what the security extension adds (OCTT TC_077, 079 to 081)."""
    async with gateway.charger("CP-1") as charger:
        assert valid(action, await charger.ask(action, **REQUESTS[action]))


def test_no_request_was_forgotten():
    assert set(REQUESTS) == CHARGE_POINT_ACTIONS


async def test_a_boot_is_accepted_and_answered_with_the_time_and_the_heartbeats():
    settings = AppSettings(
        southbound=SouthboundSettings(handlers=HandlerSettings(heartbeat_interval_s=77))
    )
    async with open_gateway(settings=settings) as gateway, gateway.charger("CP-1") as charger:
        await trio.sleep(12.345)
        assert await charger.boot() == {
            "currentTime": "2026-01-01T00:00:12.345Z",
            "interval": 77,
            "status": "Accepted",
        }
        assert await charger.ask("Heartbeat") == {"currentTime": "2026-01-01T00:00:12.345Z"}


async def test_a_certificate_cannot_be_signed_here(gateway):
    """HC-118: whatever the request holds."""
    async with gateway.charger("CP-1") as charger:
        assert await charger.ask("SignCertificate", csr="x") == {"status": "Rejected"}


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"vendorId": "who"}, "UnknownVendorId"),
        ({"vendorId": "org.openchargealliance.costmsg"}, "UnknownMessageId"),
        (
            {"vendorId": "org.openchargealliance.costmsg", "messageId": "ConnectorUnplugged"},
            "Accepted",
        ),
    ],
)
async def test_a_data_transfer_reports_what_is_known_of_it(gateway, payload, status):
    """OCTT TC_064."""
    async with gateway.charger("CP-1") as charger:
        assert await charger.ask("DataTransfer", **payload) == {"status": status}


# --- id tags ----------------------------------------------------------------------------------

TAGS = TagList(
    {
        "blocked": IdTag(status="Blocked"),
        "old": IdTag(expires=datetime(2020, 1, 1, tzinfo=UTC)),
        "child": IdTag(parent="FAMILY", expires=datetime(2030, 1, 1, tzinfo=UTC)),
        "twin": IdTag(parent="FAMILY"),
    },
    accept_unknown=False,
)
JUDGED = [
    ("blocked", {"status": "Blocked"}),
    ("BLOCKED", {"status": "Blocked"}),
    ("old", {"status": "Expired", "expiryDate": "2020-01-01T00:00:00Z"}),
    (
        "child",
        {"status": "Accepted", "expiryDate": "2030-01-01T00:00:00Z", "parentIdTag": "FAMILY"},
    ),
    ("TWIN", {"status": "Accepted", "parentIdTag": "FAMILY"}),
    ("stranger", {"status": "Invalid"}),
]


def with_tags() -> Any:
    return open_gateway(
        settings=AppSettings(southbound=SouthboundSettings(handlers=HandlerSettings(tags=TAGS)))
    )


@pytest.mark.parametrize(("tag", "info"), JUDGED)
async def test_a_tag_is_judged_alike_by_authorize_start_and_stop(tag, info):
    """HC-80, OCTT TC_023, 037_3, 053: a refused start is a transaction all the same."""
    async with with_tags() as gateway, gateway.charger("CP-1") as charger:
        assert (await charger.ask("Authorize", idTag=tag))["idTagInfo"] == info
        started = await charger.ask(
            "StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp=stamp()
        )
        assert valid("StartTransaction", started)
        assert started["idTagInfo"] == info
        assert started["transactionId"] > 0
        stopped = await charger.stop(started["transactionId"], 10, idTag=tag)
        assert stopped["idTagInfo"] == info
        await gateway.settled()
        (settled,) = gateway.events(TransactionSettled)
        assert settled.transaction_id == started["transactionId"]


async def test_drivers_refused_again_and_again_are_reported_once_and_so_is_the_next_who_is_not():
    """Authorize and StartTransaction count alike: some charge points only send the latter."""
    async with with_tags() as gateway, gateway.charger("CP-1") as charger:
        for _ in range(2):
            await charger.ask("Authorize", idTag="stranger")
        await gateway.settled()
        assert gateway.thingsboard.values("CP-1", "security_event") == []
        await charger.start(0, tag="blocked")
        await gateway.settled()
        assert len(gateway.thingsboard.values("CP-1", "security_event")) == 1
        await charger.ask("Authorize", idTag="old")
        await trio.sleep(1)  # ThingsBoard keeps one value of a key for an instant
        await charger.ask("Authorize", idTag="twin")
        await charger.ask("Authorize", idTag="twin")
        await gateway.settled()
    published = [event["type"] for event in gateway.thingsboard.values("CP-1", "security_event")]
    assert published == ["IdTagsRefused", "IdTagAccepted"]


async def test_unknown_tags_are_accepted_unless_they_are_refused(gateway):
    async with gateway.charger("CP-1") as charger:
        assert await charger.ask("Authorize", idTag="anybody") == {
            "idTagInfo": {"status": "Accepted"}
        }
        assert (await charger.ask("Authorize", idTag=""))["idTagInfo"]["status"] == "Invalid"


@pytest.mark.parametrize("tag", [None, "", "x" * 21, ["a"], {"a": 1}, "absent"])
async def test_a_start_without_a_usable_tag_is_real_and_invalid(gateway, tag):
    """HC-38."""
    payload = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": stamp()}
    if tag == "absent":
        del payload["idTag"]
    async with gateway.charger("CP-1") as charger:
        reply = await charger.ask("StartTransaction", **payload)
    assert valid("StartTransaction", reply)
    assert reply["idTagInfo"]["status"] == "Invalid"
    assert reply["transactionId"] > 0


# --- transactions -----------------------------------------------------------------------------


async def test_a_retried_start_is_the_same_transaction(gateway):
    """HC-71, HC-72: the same content under the same id, under another, on another connection."""
    start = {"connectorId": 1, "idTag": "TAG", "meterStart": 5, "timestamp": WHEN}
    async with gateway.charger("CP-1") as charger:
        first = (await charger.ask("StartTransaction", **start))["transactionId"]
        for _ in range(2):
            await charger.send([2, "same", "StartTransaction", start])
            assert (await charger.answer_to("same"))[2]["transactionId"] == first
        other = {**start, "connectorId": 2}
        assert (await charger.ask("StartTransaction", **other))["transactionId"] != first
        later = {**start, "timestamp": "2026-01-01T00:00:01Z"}
        assert (await charger.ask("StartTransaction", **later))["transactionId"] != first
    async with gateway.charger("CP-1") as charger:
        assert (await charger.ask("StartTransaction", **start))["transactionId"] == first
    async with gateway.charger("CP-2") as charger:  # HC-71: ids mean nothing across charge points
        assert (await charger.ask("StartTransaction", **start))["transactionId"] != first
    await gateway.settled()
    assert len(gateway.events(TransactionOpened)) == 4


async def test_a_stop_that_comes_twice_is_answered_twice_and_counted_once(gateway):
    """HC-74: SAP's charge points send two of them within a millisecond."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(0)
        for _ in range(2):
            assert await charger.stop(tx, 1_000) == {}
    await gateway.settled()
    assert len({event.receipt["receipt_id"] for event in gateway.events(TransactionSettled)}) == 1


@pytest.mark.parametrize(
    "tx",
    [-1, 0, 99, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, "17", "abc", None, 1.5, [], True],
)
async def test_a_stop_of_any_transaction_is_answered(gateway, tx):
    """HC-56, HC-75, HC-76."""
    async with gateway.charger("CP-1") as charger:
        reply = await charger.ask(
            "StopTransaction", transactionId=tx, meterStop=5, timestamp=stamp(), idTag="TAG"
        )
        assert reply == {"idTagInfo": {"status": "Accepted"}}
        await charger.ask("Heartbeat")
    await gateway.settled()
    assert len(gateway.events(TransactionStopped)) == 1


GARBAGE: list[Any] = [
    {},
    {"connectorId": -1},
    {"connectorId": 2**40, "meterValue": None},
    {"connectorId": "one", "transactionId": "two", "meterValue": "three"},
    {"connectorId": 1, "meterValue": []},
    {"connectorId": 1, "meterValue": [None, 5, "x", [], {}]},
    {"connectorId": 1, "meterValue": [{"timestamp": "yesterday", "sampledValue": {"value": 1}}]},
    {"connectorId": 1, "meterValue": [{"timestamp": 5, "sampledValue": [None, {}, {"value": []}]}]},
    *(
        {"connectorId": 1, "meterValue": [{"timestamp": WHEN, "sampledValue": [sample]}]}
        for sample in (
            {"value": "0.15005000000000002", "unit": "kWh"},
            {"value": "1,5"},
            {"value": "1.5e3"},
            {"value": ""},
            {"value": "NaN"},
            {"value": "-Infinity"},
            {"value": " 12 "},
            {"value": "abc"},
            {"value": "9" * 400},
            {"value": 12.5},
            {"value": 10**30},
            {"value": "1", "unit": "Celcius", "measurand": "Vendor.Thing", "phase": "L9"},
            {"value": "OCMF|{}|{}", "format": "SignedData"},
            {"value": "1", "extra": {"a": [1]}},
        )
    ),
]


@pytest.mark.parametrize("payload", GARBAGE, ids=lambda payload: json.dumps(payload)[-60:])
async def test_meter_values_are_answered_whatever_is_in_them(gateway, payload):
    """HC-40, HC-85, HC-89."""
    async with gateway.charger("CP-1") as charger:
        assert await charger.ask("MeterValues", **payload) == {}
        await charger.ask("Heartbeat")
    assert len(gateway.events(MeterSampled)) == 1


@pytest.mark.parametrize("meter_start", [None, "12", 1.5, -5, 2**31, 2**63, 10**30, "x", [], True])
@pytest.mark.parametrize("timestamp", [WHEN, None, "2026-01-01 00:00", "1970-01-01T00:00:00Z", 5])
async def test_a_start_is_answered_whatever_its_register_and_time(gateway, meter_start, timestamp):
    """HC-56, HC-94, HC-95."""
    start = {
        "connectorId": 1, "idTag": "TAG", "meterStart": meter_start, "timestamp": timestamp,
    }  # fmt: skip
    async with gateway.charger("CP-1") as charger:
        reply = await charger.ask("StartTransaction", **start)
    assert valid("StartTransaction", reply)


async def test_fifty_calls_without_waiting_are_answered_in_order(gateway):
    """HC-65, HC-69: also where some of them wait for the disk and others do not."""
    calls = [
        ("StatusNotification", {"connectorId": 1, "status": "Preparing", "errorCode": "NoError"}),
        ("Heartbeat", {}),
        ("MeterValues", {"connectorId": 1, "meterValue": []}),
        ("NoSuchAction", {}),
        ("Authorize", {"idTag": "TAG"}),
    ] * 10
    async with opened(gateway, "CP-1") as peer:
        for number, (action, payload) in enumerate(calls):
            await peer.send(call(action, str(number), **payload))
        answers = [await peer.message() for _ in calls]
    assert [answer[1] for answer in answers] == [str(number) for number in range(50)]
    assert [answer[0] for answer in answers] == [3, 3, 3, 4, 3] * 10


async def test_what_was_said_in_an_outage_is_received_in_its_order(gateway):
    """HC-78, HC-79: a whole charge of three days ago, in one breath, without a boot."""
    start = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": "2025-12-29T10:00:00Z"}
    async with gateway.charger("CP-1") as charger:
        await charger.status("Finishing")
        tx = (await charger.ask("StartTransaction", **start))["transactionId"]
        await charger.ask("StopTransaction", transactionId=tx, meterStop=5_000,
                          timestamp="2025-12-29T11:00:00Z")  # fmt: skip
        await gateway.settled()
    (settled,) = gateway.events(TransactionSettled)
    assert settled.receipt["energy_wh"] == "5000"
    assert settled.started_at == datetime(2025, 12, 29, 10, tzinfo=UTC)
    assert gateway.thingsboard.latest("CP-1/1")["status"] == "Finishing"
