"""The whole gateway between a charge point and the double of ThingsBoard, over TCP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import attrs
import pytest
import trio

from gateway.app import AppSettings
from gateway.northbound import compat_nodered
from gateway.northbound.mqtt import Broker, open_link
from gateway.northbound.publisher import TOPICS, NorthboundSettings
from gateway.simulation.thingsboard import Act, Fault, RpcTimeout, ThingsBoard
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.settings import SouthboundSettings

from ..conftest import open_gateway
from ..fakes import now

pytestmark = pytest.mark.real_time

LOG = "ocpp-gateway sessions"


@asynccontextmanager
async def open_house(settings: AppSettings | None = None, **how):
    """(gateway, board): the real run() with a real link to a double."""
    thingsboard = ThingsBoard(now=now, **how)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(thingsboard.serve_tcp)
        broker = Broker(host="127.0.0.1", port=port, access_token="secret")
        link = SimpleNamespace(open_link=partial(open_link, broker, TOPICS))
        with trio.fail_after(60):
            async with open_gateway(
                thingsboard=link, settings=settings or AppSettings(remote_start_timeout_s=2)
            ) as gateway:
                yield gateway, thingsboard
        nursery.cancel_scope.cancel()


def stamp(minutes: float) -> str:
    return (now() + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


async def whole_charge(charger, connector: int = 1, tag: str = "0042") -> int:
    """An hour's charge, sent in a moment: 10 kWh."""
    ask = charger.ask
    await ask(
        "BootNotification",
        chargePointVendor="0815",
        chargePointModel="One",
        chargePointSerialNumber="0001",
        iccid="8931080019071234567",
    )
    await ask("StatusNotification", connectorId=0, status="Available", errorCode="NoError")
    await ask(
        "StatusNotification",
        connectorId=connector,
        status="Preparing",
        errorCode="NoError",
        vendorErrorCode="0007",
        timestamp=stamp(-61),
    )
    await ask("Authorize", idTag=tag)
    answer = await ask(
        "StartTransaction",
        connectorId=connector,
        idTag=tag,
        meterStart=1_000,
        timestamp=stamp(-60),
    )
    tx = answer["transactionId"]
    for minutes in (-45, -30, -15):
        values = [
            ("Energy.Active.Import.Register", str(11_000 + minutes * 1000 / 6), "Wh", None),
            ("Power.Active.Import", "10.0000004", "kW", None),
            ("Current.Import", "14.5", "A", "L1"),
            ("Current.Import", "14.4", "A", "L2"),
            ("Voltage", "229.9", "V", "L1-N"),
            ("SoC", "55", "Percent", None),
            ("Temperature", "-3.5", "Celsius", None),
            ("Frequency", "49.98", "Hertz", None),
        ]
        samples = [
            {"measurand": m, "value": v, "unit": u} | ({"phase": p} if p else {})
            for m, v, u, p in values
        ]
        await ask(
            "MeterValues",
            connectorId=connector,
            transactionId=tx,
            meterValue=[{"timestamp": stamp(minutes), "sampledValue": samples}],
        )
    await ask(
        "StopTransaction", transactionId=tx, meterStop=11_000, timestamp=stamp(0), reason="Local"
    )
    await ask("FirmwareStatusNotification", status="Idle")
    return tx


@attrs.define
class Obedient:
    """Does what the central system says, as a car at the plug would."""

    charger: object
    answers: dict = attrs.field(factory=dict)
    calls: list = attrs.field(factory=list)
    tx: int | None = None
    _begun: trio.Event = attrs.field(factory=trio.Event)

    async def transaction(self) -> int | None:
        """The id it was given: the operator may hear of it before the charge point does."""
        with trio.fail_after(10):
            await self._begun.wait()
        return self.tx

    async def serve(self) -> None:
        async for unique_id, action, payload in self.charger.calls:
            self.calls.append((action, payload))
            answer = self.answers.get(action, {"status": "Accepted"})
            await self.charger.send([3, unique_id, answer])
            if answer.get("status") != "Accepted":
                continue
            if action == "RemoteStartTransaction":
                self.tx = await self.charger.start(
                    meter_wh=0, connector=payload["connectorId"], tag=payload["idTag"]
                )
                self._begun.set()
            elif action == "RemoteStopTransaction":
                await self.charger.stop(payload["transactionId"], meter_wh=10)


@asynccontextmanager
async def obedient(gateway, name: str = "CP-1"):
    async with gateway.charger(name) as charger, trio.open_nursery() as nursery:
        car = Obedient(charger)
        await charger.boot()
        await charger.status("Preparing")
        nursery.start_soon(car.serve)
        yield car
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("profile", "many_devices"), [("4.3", True), ("4.3", False), ("3.8", False)]
)
async def test_a_whole_charge_breaks_no_rule_of_thingsboard(profile, many_devices):
    settings = AppSettings(northbound=NorthboundSettings(batch_devices=many_devices))
    async with open_house(settings, profile=profile) as (gateway, thingsboard):
        async with gateway.charger("CP-1") as one, gateway.charger("CP-2") as two:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(whole_charge, one)
                nursery.start_soon(whole_charge, two, 2)
            await thingsboard.wait_for(
                lambda thingsboard: (
                    LOG in thingsboard.devices
                    and len(thingsboard.devices[LOG].series("receipt")) == 2
                )
            )
        await thingsboard.wait_for(
            lambda thingsboard: thingsboard.devices["CP-1"].value("connected") is False
        )
    assert thingsboard.violations == []
    kinds = {device.name: device.type for device in thingsboard.devices.values()}
    assert kinds == {
        "CP-1": "EV charger",
        "CP-2": "EV charger",
        "CP-1/1": "EV connector",
        "CP-2/2": "EV connector",
        LOG: "EV session log",
    }
    connector, log = thingsboard.devices["CP-1/1"], thingsboard.devices[LOG]
    assert connector.value("session_energy_kwh") == 10
    assert connector.value("session_cost") == 3
    assert connector.value("tx_active") is False
    assert connector.value("power_w") == 0
    assert {value for _, value in connector.series("current_l1_a")} == {14.5, 0}
    assert connector.value("current_l1_a") == 0
    assert {point for _, point in log.series("session_charge_point")} == {"CP-1", "CP-2"}
    receipts = [value for _, value in log.series("receipt")]
    assert {receipt["total_incl_vat"] for receipt in receipts} == {"3.00"}
    assert {receipt["id_tag"] for receipt in receipts} == {"0042"}
    attributes = thingsboard.devices["CP-1"].attributes
    assert attributes["charger"]["vendor"] == "0815"
    assert attributes["ocpp_version"] == "ocpp1.6"


async def test_people_start_and_stop_a_charge_from_thingsboard():
    async with open_house() as (gateway, thingsboard), obedient(gateway) as car:
        await thingsboard.wait_for(lambda thingsboard: "CP-1/1" in thingsboard.devices)
        started = await thingsboard.rpc("CP-1/1", "remoteStart", {"idTag": "T"})
        assert started == {"status": "Accepted", "transactionId": await car.transaction()}
        car.answers["UnlockConnector"] = {"status": "NotSupported"}
        assert await thingsboard.rpc("CP-1/1", "unlock") == {"status": "NotSupported"}
        await thingsboard.wait_for(
            lambda thingsboard: thingsboard.devices["CP-1/1"].value("tx_active")
        )
        stopped = await thingsboard.rpc("CP-1/1", "remoteStop")
        assert stopped["status"] == "Stopped"
        receipt = thingsboard.devices["CP-1/1"].value("receipt")
        assert receipt is None or receipt["receipt_id"] == stopped["receipt_id"]
        idle = await thingsboard.rpc("CP-1/1", "remoteStop", True)
        assert idle == {"status": "Rejected", "reason": "NoTransaction"}
        await thingsboard.wait_for(
            lambda thingsboard: thingsboard.devices["CP-1/1"].value("tx_active") is False
        )
    assert thingsboard.violations == []


async def test_a_charge_point_is_sent_what_ocpp_has_and_its_answer_comes_back():
    async with open_house() as (gateway, thingsboard), obedient(gateway) as car:
        await thingsboard.wait_for(lambda thingsboard: "CP-1" in thingsboard.devices)
        car.answers["GetConfiguration"] = {"configurationKey": [], "unknownKey": ["x"]}
        car.answers["Reset"] = {"status": "Rejected"}
        assert await thingsboard.rpc("CP-1", "Reset", {"type": "Soft"}) == {"status": "Rejected"}
        configuration = await thingsboard.rpc("CP-1", "GetConfiguration")
        assert configuration == {"configurationKey": [], "unknownKey": ["x"]}
        assert car.calls == [("Reset", {"type": "Soft"}), ("GetConfiguration", {})]
        for method, params, code in (
            ("Reset", {"type": "Sideways"}, "InvalidParams"),
            ("Reset", "Soft", "InvalidParams"),
            ("Reset", True, "InvalidParams"),
            ("Heartbeat", {}, "UnknownMethod"),
            ("remoteStart", {}, "UnknownMethod"),
        ):
            answer = await thingsboard.rpc("CP-1", method, params)
            assert answer["error"]["code"] == code, (method, params)
        await thingsboard.wait_for(
            lambda thingsboard: thingsboard.devices["CP-1"].value("last_command_result")
        )
    assert thingsboard.violations == []


async def test_who_is_away_is_reported_at_once_to_the_caller():
    async with open_house() as (gateway, thingsboard):
        async with gateway.charger("CP-1") as charger:
            await charger.status("Available")
        await thingsboard.wait_for(
            lambda thingsboard: (
                "CP-1/1" in thingsboard.devices
                and not thingsboard.devices["CP-1"].value("connected")
            )
        )
        for device, method in (("CP-1", "ClearCache"), ("CP-1/1", "unlock")):
            answer = await thingsboard.rpc(device, method)
            assert answer["error"]["code"] == "NotConnected"
        with pytest.raises(RpcTimeout):
            thingsboard._min_rpc_timeout = 0.2
            await thingsboard.rpc("CP-99", "Reset", anyway=True, timeout=0.2)
    assert "CP-99" not in thingsboard.devices
    assert thingsboard.violations == []


async def test_a_request_that_thingsboard_sends_again_is_carried_out_once():
    """HC-119: also where MQTT brings it on another connection."""
    async with open_house() as (gateway, thingsboard), obedient(gateway) as car:
        await thingsboard.wait_for(lambda thingsboard: "CP-1/1" in thingsboard.devices)
        thingsboard.faults.add(Fault(act=Act.CLOSE, topic="v1/gateway/rpc", stored=False))
        answer = await thingsboard.rpc("CP-1/1", "remoteStart", {"idTag": "T"}, timeout=30)
        assert answer["transactionId"] == await car.transaction()
        assert [action for action, _ in car.calls] == ["RemoteStartTransaction"]


async def test_a_burst_of_the_same_request_is_one_request():
    """HC-119."""
    async with open_house() as (gateway, thingsboard), obedient(gateway) as car:
        await thingsboard.wait_for(lambda thingsboard: "CP-1" in thingsboard.devices)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thingsboard.rpc, "CP-1", "ClearCache")
            await thingsboard.wait_for(lambda thingsboard: thingsboard.devices["CP-1"].pending)
            for _ in range(5):
                thingsboard.resend_rpcs("CP-1")
        assert len(car.calls) == 1


# --- compat = "node-red" -----------------------------------------------------------------------


def prototype() -> AppSettings:
    return AppSettings(
        southbound=SouthboundSettings(handlers=HandlerSettings(publish_heartbeats=True)),
        northbound=NorthboundSettings(
            extra_rows=compat_nodered.PrototypeKeys().rows, map_rpc=compat_nodered.map_rpc
        ),
        default_id_tag="12345678",
        remote_start_timeout_s=2,
    )


async def test_the_switch_of_the_prototype_starts_and_stops_connector_1():
    async with open_house(prototype()) as (gateway, thingsboard), obedient(gateway) as car:
        await thingsboard.wait_for(lambda thingsboard: "CP-1/1" in thingsboard.devices)
        for params in ("true", None, {}, 1, [True], {"on": True}):
            answer = await thingsboard.rpc("CP-1", "settest", params)
            assert answer["error"]["code"] == "InvalidParams"
        assert car.calls == []
        started = await thingsboard.rpc("CP-1", "settest", True)
        assert started == {"status": "Accepted", "transactionId": await car.transaction()}
        assert car.calls == [("RemoteStartTransaction", {"connectorId": 1, "idTag": "12345678"})]
        await thingsboard.wait_for(
            lambda thingsboard: thingsboard.devices["CP-1/1"].value("tx_active")
        )
        stopped = await thingsboard.rpc("CP-1", "settest", False)
        assert stopped["status"] == "Stopped"
        assert car.calls[1] == ("RemoteStopTransaction", {"transactionId": car.tx})
        await thingsboard.wait_for(
            lambda thingsboard: thingsboard.devices["CP-1"].value("Remote-Start") == "false"
        )
        assert [v for _, v in thingsboard.devices["CP-1"].series("Remote-Start")][-1] == "false"
    assert thingsboard.failures() == []
