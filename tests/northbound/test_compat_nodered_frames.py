"""The prototype's own frames, as its log and its simulator have them, and each of its keys."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import trio

from gateway.app import AppSettings
from gateway.northbound import compat_nodered
from gateway.northbound.publisher import NorthboundSettings
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.server import SouthboundSettings

from ..conftest import open_gateway as open_any_gateway

START = "2023-11-25T02:38:07.925Z"
STOP = "2023-11-25T03:08:07.925Z"


def now() -> datetime:
    """The day of the frames: years later nobody would believe their times."""
    return datetime(2023, 11, 25, 4, tzinfo=UTC) + timedelta(seconds=trio.current_time())


open_gateway = partial(open_any_gateway, now=now)

FIVE = {  # charge box ids that were wired into the prototype -> as they stand in a URL
    "OC": "OC",
    "ABB": "ABB",
    "Schneider Electric": "Schneider%20Electric",
    "Ovomaltin": "Ovomaltin",
    "SIEMENS": "SIEMENS",
}


def prototype() -> AppSettings:
    return AppSettings(
        southbound=SouthboundSettings(handlers=HandlerSettings(publish_heartbeats=True)),
        northbound=NorthboundSettings(
            extra_rows=compat_nodered.PrototypeKeys().rows, map_rpc=compat_nodered.map_rpc
        ),
        default_id_tag="12345678",
        remote_start_timeout_s=5,
    )


async def exchange(charger, unique_id: str, action: str, payload: object) -> dict:
    """Send the frame as it stands; the CALLRESULT's payload."""
    await charger.send([2, unique_id, action, payload])
    kind, _, answer = await charger.answer_to(unique_id)
    assert kind == 3
    return answer


async def charge(charger, connector: object = 1) -> int:
    """A whole charge in the prototype's frames.  connector: its simulator may write it as text."""
    say = iter(range(1, 100))

    async def send(action: str, payload: object) -> dict:
        await trio.sleep(1)  # what has no time of its own would else share a row
        return await exchange(charger, f"{charger.id}-{next(say)}", action, payload)

    booted = {"chargePointVendor": "V", "chargePointModel": "M"}
    assert (await send("BootNotification", booted))["status"] == "Accepted"
    assert (await send("Heartbeat", None)).keys() == {"currentTime"}
    assert (await send("Authorize", {"idTag": "12345678"}))["idTagInfo"]["status"] == "Accepted"
    status = {"connectorId": connector, "errorCode": "NoError", "status": "Preparing"}
    assert await send("StatusNotification", status) == {}
    started = await send(
        "StartTransaction",
        {"connectorId": connector, "idTag": "12345678", "timestamp": START, "meterStart": 0},
    )
    tx = started["transactionId"]
    sampled = [
        {"value": "1500", "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
        {"value": "41", "measurand": "SoC", "unit": "Percent"},
    ]
    values = [{"timestamp": "2023-11-25T02:48:07.925Z", "sampledValue": sampled}]
    metered = {"connectorId": connector, "transactionId": tx, "meterValue": values}
    assert await send("MeterValues", metered) == {}
    stopped = {"transactionId": tx, "timestamp": STOP, "meterStop": 4500, "idTag": "12345678"}
    await send("StopTransaction", stopped)
    return tx


def values_of(thingsboard, device: str) -> dict[str, list]:
    """Every value of the prototype's keys, in the order in which they arrived."""
    series: dict[str, list] = {}
    for _, values in thingsboard.rows(device):
        for key, value in values.items():
            if key in KEYS:
                series.setdefault(key, []).append(value)
    return series


KEYS = {  # key -> its values in the course of one charge; `tx` is the transaction's id
    "Charge Box Id": {"OC"},
    "Command": {
        "BootNotification", "Heartbeat", "Authorize", "StatusNotification", "StartTransaction",
        "MeterValues", "StopTransaction",
    },
    "Charge Point Vendor": {"V"},
    "Charge Point Model": {"M"},
    "Connection": {"ONLINE", "OFFLINE"},
    "Connectivity": {"Healthy"},
    "Status": {"Available", "Preparing", "Charging", "Not Available"},
    "Remote-Start": {"true", "false"},
    "Id Tag Authorization": {"12345678"},
    "Energy Active Import Register": {1500, 0},
    "SoC": {41},
    "Connector Id": {1},
    "Id Tag": {"12345678"},
    "Start Time": {"2023-11-25T02:38:07.925000Z"},
    "Meter Start": {0},
    "Transaction Id": {"tx"},
    "Stop Time": {"2023-11-25T03:08:07.925000Z"},
    "Meter Stop": {4500},
    "Energy Active Import Register Final": {4500},
    "SoC Final": {41},
}  # fmt: skip


@pytest.mark.parametrize("connector", [1, "1"])
@pytest.mark.parametrize("key", KEYS)
async def test_each_key_has_in_one_charge_the_values_that_the_prototype_meant(key, connector):
    async with open_gateway(settings=prototype()) as gateway:
        async with gateway.charger("OC") as charger:
            tx = await charge(charger, connector)
            await trio.sleep(1)
        await trio.sleep(1)
    values = values_of(gateway.thingsboard, "OC")[key]
    expected = {tx if value == "tx" else value for value in KEYS[key]}
    assert set(values) == expected
    numbers = [isinstance(value, int | float) for value in values]
    assert set(numbers) == {isinstance(value, int) for value in expected}


async def test_no_other_key_looks_like_one_of_the_prototypes():
    """Its keys have capitals and ours never: none of a table here is left out by mistake."""
    async with open_gateway(settings=prototype()) as gateway:
        async with gateway.charger("OC") as charger:
            await charge(charger)
            await trio.sleep(1)
        await trio.sleep(1)
    capital = {
        key for _, values in gateway.thingsboard.rows("OC") for key in values if key[0].isupper()
    }
    assert capital == set(KEYS)


async def test_the_five_charge_points_are_five_devices_and_so_is_any_sixth():
    async with open_gateway(settings=prototype()) as gateway:
        async with trio.open_nursery() as nursery:
            for path in (*FIVE.values(), "Sixth"):

                async def visit(path: str = path) -> None:
                    async with gateway.charger(path) as charger:
                        await charge(charger)

                nursery.start_soon(visit)
        await trio.sleep(1)
    for name in (*FIVE, "Sixth"):
        values = values_of(gateway.thingsboard, name)
        assert set(values["Charge Box Id"]) == {name}
        assert values["Meter Stop"] == [4500]


@asynccontextmanager
async def ordered(gateway, device: str, method: str, params: bool):
    """An order by RPC while the block runs, which answers it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.thingsboard.rpc, device, method, params)
        yield
    await trio.sleep(1)


@pytest.mark.parametrize("refusal", ["Rejected", "silence"])
async def test_a_switch_whose_order_was_refused_falls_back(refusal):
    """In the prototype it said `Charging` even where the charge point had rejected."""
    async with open_gateway(settings=prototype()) as gateway, gateway.charger("OC") as charger:
        await charger.status("Available")
        await trio.sleep(1)
        async with ordered(gateway, "OC", "settest", True):
            unique_id, action, payload = await charger.next_call()
            assert (action, payload["idTag"]) == ("RemoteStartTransaction", "12345678")
            if refusal == "Rejected":
                await charger.reply(unique_id, status="Rejected")
        assert values_of(gateway.thingsboard, "OC")["Remote-Start"] == ["false"]
        assert values_of(gateway.thingsboard, "OC")["Status"] == ["Available"]


async def test_a_switch_whose_stop_was_refused_stays_on():
    async with open_gateway(settings=prototype()) as gateway, gateway.charger("OC") as charger:
        tx = await charger.start(meter_wh=0)
        await trio.sleep(1)
        async with ordered(gateway, "OC", "settest", False):
            unique_id, action, payload = await charger.next_call()
            assert (action, payload) == ("RemoteStopTransaction", {"transactionId": tx})
            await charger.reply(unique_id, status="Rejected")
        assert values_of(gateway.thingsboard, "OC")["Remote-Start"] == ["true", "true"]


async def test_a_switch_that_was_obeyed_is_told_by_its_transaction_alone():
    """At the charge point's own time: a second word at ours could outlive the next start."""
    async with open_gateway(settings=prototype()) as gateway, gateway.charger("OC") as charger:
        await charger.status("Available")
        await trio.sleep(1)
        async with ordered(gateway, "OC", "settest", True):
            unique_id, _, _ = await charger.next_call()
            await charger.reply(unique_id, status="Accepted")
            await charger.start(meter_wh=0, tag="12345678")
        assert values_of(gateway.thingsboard, "OC")["Remote-Start"] == ["true"]


async def test_an_order_to_another_connector_moves_no_switch():
    async with open_gateway(settings=prototype()) as gateway, gateway.charger("OC") as charger:
        await charger.status("Available", connector=2)
        await trio.sleep(1)
        async with ordered(gateway, "OC/2", "setCharging", True):
            unique_id, _, _ = await charger.next_call()
            await charger.reply(unique_id, status="Rejected")
        assert "Remote-Start" not in values_of(gateway.thingsboard, "OC")
