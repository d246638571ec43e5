"""The keys of the Node-RED prototype: the same names, from the right charger and transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
import trio

from gateway.app import AppSettings
from gateway.domain.event_values import Progress, Reading, Sample
from gateway.domain.events import MeterSampled, TransactionSettled, TransactionStarted
from gateway.journal import Entry
from gateway.northbound import compat_nodered
from gateway.northbound.publisher import NorthboundSettings
from gateway.northbound.rpc_messages import RpcRequest
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.settings import SouthboundSettings

from ..conftest import open_gateway
from ..fakes import stamp

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def prototype() -> AppSettings:
    return AppSettings(
        southbound=SouthboundSettings(handlers=HandlerSettings(publish_heartbeats=True)),
        northbound=NorthboundSettings(
            extra_rows=compat_nodered.PrototypeKeys().rows, map_rpc=compat_nodered.map_rpc
        ),
        default_id_tag="12345678",
    )


async def settled() -> None:
    await trio.sleep(1)


async def sample(charger, tx: int | None, register: int, soc: int | None = None) -> None:
    samples = [{"value": str(register), "measurand": "Energy.Active.Import.Register", "unit": "Wh"}]
    if soc is not None:  # first, for the prototype took meter values by their position
        samples.insert(0, {"value": str(soc), "measurand": "SoC", "unit": "Percent"})
    await charger.ask(
        "MeterValues",
        connectorId=1,
        meterValue=[{"timestamp": stamp(), "sampledValue": samples}],
        **({} if tx is None else {"transactionId": tx}),
    )


def summaries(gateway, device: str) -> list[dict]:
    return [values for _, values in gateway.thingsboard.rows(device) if "Transaction Id" in values]


async def test_each_message_is_told_under_the_names_of_the_prototype():
    async with open_gateway(settings=prototype()) as gateway:
        async with gateway.charger("OC") as charger:
            latest = gateway.thingsboard.latest
            await charger.ask("BootNotification", chargePointVendor="V", chargePointModel="M")
            await settled()
            assert latest("OC")["Connection"] == "ONLINE"
            assert (latest("OC")["Charge Point Vendor"], latest("OC")["Charge Point Model"]) == (
                "V",
                "M",
            )
            assert latest("OC")["Status"] == "Available"
            assert latest("OC")["Command"] == "BootNotification"
            assert latest("OC")["Charge Box Id"] == "OC"
            await charger.ask("Heartbeat")
            await settled()
            assert (latest("OC")["Command"], latest("OC")["Connectivity"]) == (
                "Heartbeat",
                "Healthy",
            )
            await charger.ask("Authorize", idTag="12345678")
            await settled()
            assert latest("OC")["Id Tag Authorization"] == "12345678"
            await charger.status("Preparing")
            await settled()
            assert (latest("OC")["Command"], latest("OC")["Status"]) == (
                "StatusNotification",
                "Preparing",
            )
            tx = await charger.start(meter_wh=0, tag="12345678")
            await settled()
            assert (latest("OC")["Status"], latest("OC")["Remote-Start"]) == ("Charging", "true")
            await trio.sleep(60)
            await sample(charger, tx, 150, soc=41)
            await settled()
            shown = latest("OC")
            assert (shown["Energy Active Import Register"], shown["SoC"]) == (150, 41)
            await charger.stop(tx, meter_wh=160)
            await settled()
            assert latest("OC")["Command"] == "StopTransaction"
            assert (latest("OC")["Status"], latest("OC")["Remote-Start"]) == ("Available", "false")
            assert latest("OC")["Energy Active Import Register"] == 0
        await settled()
        assert (latest("OC")["Connection"], latest("OC")["Status"]) == ("OFFLINE", "Not Available")


async def test_two_chargers_at_once_have_each_its_own_summary():
    """In the prototype OC's summary carried ABB's connector, id tag, start and registers."""
    async with open_gateway(settings=prototype()) as gateway:
        async with gateway.charger("OC") as one, gateway.charger("ABB") as two:
            first = await one.start(meter_wh=1_000, tag="11111111")
            await trio.sleep(10)
            second = await two.start(meter_wh=77_000, tag="AABB")
            await trio.sleep(600)
            await sample(one, first, 1_100, soc=20)
            await sample(two, second, 77_500, soc=80)
            await trio.sleep(600)
            await two.stop(second, meter_wh=77_777)
            await one.stop(first, meter_wh=1_200)
            await settled()
        (oc,), (abb,) = summaries(gateway, "OC"), summaries(gateway, "ABB")
    expected = {
        "OC": (first, "11111111", 1_000, 1_200, 20),
        "ABB": (second, "AABB", 77_000, 77_777, 80),
    }
    for name, shown in (("OC", oc), ("ABB", abb)):
        tx, tag, begin, end, soc = expected[name]
        assert shown["Charge Box Id"] == name
        assert (shown["Transaction Id"], shown["Id Tag"], shown["Connector Id"]) == (tx, tag, 1)
        assert (shown["Meter Start"], shown["Meter Stop"]) == (begin, end)
        assert shown["Energy Active Import Register Final"] == end
        assert shown["SoC Final"] == soc
        assert shown["Start Time"] < shown["Stop Time"]


async def test_a_summary_never_has_the_state_of_charge_of_another_car():
    async with open_gateway(settings=prototype()) as gateway:
        async with gateway.charger("OC") as charger:
            first = await charger.start(meter_wh=0)
            await trio.sleep(60)
            await sample(charger, first, 10, soc=55)
            await charger.stop(first, meter_wh=20)
            await sample(charger, None, 20, soc=56)  # a clock-aligned one, between two cars
            await trio.sleep(60)
            second = await charger.start(meter_wh=20)
            await trio.sleep(60)
            await charger.stop(second, meter_wh=30)
            await settled()
        shown = summaries(gateway, "OC")
    assert [summary.get("SoC Final") for summary in shown] == [55, None]


async def test_a_summary_that_is_sent_again_is_the_same():
    """The row replaces itself: the last state of charge is not forgotten by telling it."""
    async with open_gateway(settings=prototype()) as gateway:
        async with gateway.charger("OC") as charger:
            tx = await charger.start(meter_wh=0)
            await trio.sleep(60)
            await sample(charger, tx, 10, soc=55)
            await settled()
            gateway.thingsboard.holding = True
            await charger.stop(tx, meter_wh=20)
            await settled()
            gateway.thingsboard.cut()
            gateway.thingsboard.holding = False
            await trio.sleep(5)
        first, again = summaries(gateway, "OC")
    assert again | first == again  # it may share its row with what came at the same instant
    assert first["SoC Final"] == again["SoC Final"] == 55


async def test_eighty_chargers_that_stop_together_have_eighty_summaries():
    """The prototype lost 40 of 80 when four chargers stopped at once."""
    async with open_gateway(settings=prototype()) as gateway:

        async def charge(name: str, done: trio.Event) -> None:
            async with gateway.charger(name) as charger:
                tx = await charger.start(meter_wh=0, tag=name)
                await trio.sleep(60)
                await charger.stop(tx, meter_wh=100)
                await done.wait()

        names, done = [f"CP-{n}" for n in range(80)], trio.Event()
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(charge, name, done)
            await trio.sleep(70)
            done.set()
        await settled()
        for name in names:
            (shown,) = summaries(gateway, name)
            assert (shown["Charge Box Id"], shown["Id Tag"]) == (name, name)


def test_registers_are_numbers_also_where_a_meter_counts_in_fractions():
    rows = compat_nodered.PrototypeKeys().rows(
        settlement(meter_start_wh="0.5", meter_stop_wh="1000.5")
    )
    values = rows[0].values
    assert (values["Meter Start"], values["Meter Stop"]) == (0.5, 1000.5)
    assert values["Energy Active Import Register Final"] == 1000.5


def settlement(tx: int = 1, **receipt) -> Entry:
    progress = Progress(as_of=AT, energy_wh=Decimal(1), duration_s=1, charging_s=1, idle_s=0)
    settled = TransactionSettled(
        charge_point_id="OC",
        received_at=AT,
        transaction_id=tx,
        connector_id=1,
        started_at=AT,
        progress=progress,
        receipt=receipt,
    )
    return Entry(1, settled)


def sampled(soc: str, connector: int, tx: int | None) -> Entry:
    samples = (Sample(soc, measurand="SoC", unit="Percent"),)
    event = MeterSampled(
        charge_point_id="OC",
        received_at=AT,
        connector_id=connector,
        transaction_id=tx,
        readings=(Reading(AT, samples),),
    )
    return Entry(1, event)


def test_the_state_of_charge_is_that_of_the_connector_and_the_transaction():
    prototype = compat_nodered.PrototypeKeys()
    prototype.rows(sampled("10", 1, tx=1))
    prototype.rows(sampled("20", 2, tx=2))
    prototype.rows(sampled("30", 1, tx=9))
    started = TransactionStarted(
        charge_point_id="OC",
        received_at=AT,
        connector_id=2,
        id_tag="T",
        meter_start="0",
        transaction_id=3,
    )
    prototype.rows(Entry(3, started))
    assert prototype.rows(settlement(1))[0].values["SoC Final"] == 10
    assert "SoC Final" not in prototype.rows(settlement(7))[0].values


@pytest.mark.parametrize(
    ("rpc", "meant"),
    [
        (RpcRequest("OC", 1, "settest", True), RpcRequest("OC/1", 1, "setCharging", True)),
        (RpcRequest("OC/2", 1, "settest", True), RpcRequest("OC/2", 1, "settest", True)),
        (RpcRequest("OC", 1, "Reset", None), RpcRequest("OC", 1, "Reset", None)),
    ],
)
def test_the_one_method_of_the_prototype_is_the_switch_of_connector_1(rpc, meant):
    assert compat_nodered.map_rpc(rpc) == meant
