"""Drivers' displays, through the whole gateway on virtual time."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import attrs
import pytest
import trio

from gateway.app import AppSettings
from gateway.domain.events import TransactionSettled
from gateway.southbound.driver_display import decimals_of
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.settings import SouthboundSettings

from ..conftest import open_gateway, tariff_book_of
from ..fakes import now, stamp
from .displays import PRICES, screen

HOUR = 3600


async def test_a_charge_is_shown_from_its_price_to_its_final_cost(gateway_with_displays):
    """5 kWh at 0.484, 0.605 for the session, then 20 min idle at 0.121, 10 of them free: 4.235."""
    async with screen(gateway_with_displays) as display:
        charger = display.charger
        await charger.status("Preparing")
        await display.authorize()
        await gateway_with_displays.settled()
        await charger.status("Charging")
        started_at = stamp()
        tx = await charger.start(meter_wh=1_000)
        await gateway_with_displays.settled()
        await trio.sleep(HOUR)
        sampled_at = stamp()
        await charger.sample(tx, "6000")
        await gateway_with_displays.settled()
        idle_at = stamp()
        await charger.status("SuspendedEV")
        await gateway_with_displays.settled()
        assert display.names() == ["SetUserPrice", *["RunningCost"] * 3]
        await trio.sleep(1_200 - 0.5)
        await charger.stop(tx, meter_wh=6_000)
        await gateway_with_displays.settled()

    assert display.asked == [
        (
            "GetConfiguration",
            {"key": ["CustomDisplayCostAndPrice", "NumberOfDecimalsForCostValues"]},
        )
    ]
    price, first, second, third, *ticks, last = display.shown
    assert price == (
        "SetUserPrice",
        {
            "idToken": "TAG",
            "priceText": "0.484 EUR per kWh, 0.121 EUR per min idle after 10 min,"
            " 0.605 EUR per session (incl. VAT)",
        },
    )
    always = {
        "transactionId": tx,
        "chargingPrice": {"kWhPrice": 0.484, "hourPrice": 0, "flatFee": 0.61},
        "idlePrice": {"graceMinutes": 10, "hourPrice": 7.26},
    }
    assert first == (
        "RunningCost",
        always | {"timestamp": started_at, "meterValue": 1_000, "cost": 0.61, "state": "Charging"},
    )
    assert second == (
        "RunningCost",
        always | {"timestamp": sampled_at, "meterValue": 6_000, "cost": 3.03, "state": "Charging"},
    )
    assert third == (
        "RunningCost",
        always | {"timestamp": idle_at, "meterValue": 6_000, "cost": 3.03, "state": "Idle"},
    )
    assert {(name, data["state"]) for name, data in ticks} == {("RunningCost", "Idle")}
    costs = [data["cost"] for _, data in ticks]
    assert costs == sorted(costs)
    assert last == (
        "FinalCost",
        {
            "transactionId": tx,
            "cost": 4.24,
            "priceText": "2.42 EUR for 5 kWh at 0.484 EUR/kWh,"
            " 1.21 EUR for 10 min idle at 0.121 EUR/min, 0.61 EUR per session,"
            " TOTAL 5 kWh, 1 h 20 min, 4.24 EUR incl. VAT",
        },
    )


async def test_drivers_are_shown_nothing_unless_it_is_switched_on(gateway):
    async with screen(gateway) as display:
        await display.authorize()
        tx = await display.charger.start(meter_wh=0)
        await trio.sleep(60)
        await display.charger.stop(tx, meter_wh=100)
        await gateway.settled()
    assert (display.asked, display.shown) == ([], [])


async def test_only_the_newest_cost_follows_one_that_is_not_answered_yet(gateway_with_displays):
    async with screen(gateway_with_displays) as display:
        tx = await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        display.gate = trio.Event()
        for register in ("1000", "2000", "3000"):
            await trio.sleep(1)
            await display.charger.sample(tx, register)
            await gateway_with_displays.settled()
        assert [data["meterValue"] for _, data in display.shown] == [0, 1_000]
        display.gate.set()
        await gateway_with_displays.settled()
    assert [data["meterValue"] for _, data in display.shown] == [0, 1_000, 3_000]


async def test_a_final_cost_takes_the_place_of_running_costs_that_wait(gateway_with_displays):
    async with screen(gateway_with_displays) as display:
        tx = await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        display.gate = trio.Event()
        for register in ("1000", "2000"):
            await trio.sleep(1)
            await display.charger.sample(tx, register)
            await gateway_with_displays.settled()
        await display.charger.stop(tx, meter_wh=3_000)
        await gateway_with_displays.settled()
        other = await display.charger.start(meter_wh=0, connector=2)
        await gateway_with_displays.settled()
        display.gate.set()
        await gateway_with_displays.settled()
    assert [(name, data["transactionId"]) for name, data in display.shown] == [
        ("RunningCost", tx),
        ("RunningCost", tx),
        ("FinalCost", tx),
        ("RunningCost", other),
    ]


async def test_a_price_that_comes_too_late_is_not_shown(gateway_with_displays):
    async with screen(gateway_with_displays, boot=False, gate=trio.Event()) as display:
        await display.charger.boot()
        await display.authorize("tag")
        await display.charger.start(meter_wh=0, tag="TAG")
        await gateway_with_displays.settled()
        assert display.shown == []
        display.gate.set()
        await gateway_with_displays.settled()
    assert display.names() == ["RunningCost"]


async def test_who_may_not_charge_is_shown_no_price():
    rules = HandlerSettings(tags=attrs.evolve(HandlerSettings().tags, accept_unknown=False))
    settings = AppSettings(driver_display=True, southbound=SouthboundSettings(handlers=rules))
    async with open_gateway(settings=settings) as gateway, screen(gateway) as display:
        await display.authorize()
        await gateway.settled()
        assert display.shown == []


async def test_no_price_is_shown_where_every_connector_is_taken(gateway_with_displays):
    """Who shows a tag then wants to stop."""
    async with screen(gateway_with_displays) as display:
        await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        await display.authorize()
        await gateway_with_displays.settled()
    assert display.names() == ["RunningCost"]


async def test_what_was_charged_offline_is_not_shown(gateway_with_displays):
    """Start, reading and stop of an hour, delivered three hours later."""
    begun = now()
    await trio.sleep(4 * HOUR)

    def at(hours: float) -> str:
        return (begun + timedelta(hours=hours)).isoformat()

    async with screen(gateway_with_displays) as display:
        ask = display.charger.ask
        reply = await ask(
            "StartTransaction", connectorId=1, idTag="TAG", meterStart=0, timestamp=at(0)
        )
        tx = reply["transactionId"]
        value = [{"timestamp": at(0.5), "sampledValue": [{"value": "500"}]}]
        await gateway_with_displays.settled()
        await ask("MeterValues", connectorId=1, transactionId=tx, meterValue=value)
        await gateway_with_displays.settled()
        await ask("StopTransaction", transactionId=tx, meterStop=1_000, timestamp=at(1))
        await gateway_with_displays.settled()
        assert len(gateway_with_displays.events(TransactionSettled)) == 1
        assert display.shown == []
        await display.charger.start(meter_wh=1_000)
        await gateway_with_displays.settled()
        assert display.names() == ["RunningCost"]


async def test_a_transaction_that_only_began_offline_gets_its_final_cost(gateway_with_displays):
    begun = now()
    await trio.sleep(600)
    async with screen(gateway_with_displays) as display:
        reply = await display.charger.ask(
            "StartTransaction",
            connectorId=1,
            idTag="TAG",
            meterStart=0,
            timestamp=begun.isoformat(),
        )
        await trio.sleep(HOUR)
        await display.charger.sample(reply["transactionId"], "900")
        await gateway_with_displays.settled()
        await display.charger.stop(reply["transactionId"], meter_wh=1_000)
        await gateway_with_displays.settled()
    assert display.names() == ["RunningCost", "FinalCost"]


async def test_an_end_that_was_only_concluded_is_not_shown(gateway_with_displays):
    """The next start shows that the one before has ended; its driver has left."""
    async with screen(gateway_with_displays) as display:
        await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        await display.charger.start(meter_wh=1_000, tag="NEXT")
        await gateway_with_displays.settled()
        assert len(gateway_with_displays.events(TransactionSettled)) == 1
    assert display.names() == ["RunningCost", "RunningCost"]


async def test_connectors_that_are_priced_differently_are_told_apart():
    prices = {
        "tariffs": [
            {**PRICES["tariffs"][0], "id": name, "elements": [{"price_components": [part]}]}
            for name, part in (
                ("SLOW", {"type": "ENERGY", "price": Decimal("0.3")}),
                ("FAST", {"type": "ENERGY", "price": Decimal("0.5555")}),
            )
        ],
        "assign": [
            {"charge_point": "*", "connector": 1, "tariffs": ["SLOW"]},
            {"charge_point": "*", "connector": 2, "tariffs": ["FAST"]},
        ],
        "time_zone": "Europe/Amsterdam",
    }
    settings = AppSettings(driver_display=True)
    async with (
        open_gateway(settings=settings, tariff_book=tariff_book_of(prices)) as gateway,
        screen(gateway) as display,
    ):
        await display.charger.status("Available", connector=1)
        await display.charger.status("Available", connector=2)
        await display.authorize()
        await gateway.settled()
        await display.charger.status("Preparing", connector=2)
        await display.authorize()
        await gateway.settled()
    assert [data["priceText"] for _, data in display.shown] == [
        "connector 1: 0.30 EUR per kWh; connector 2: 0.5555 EUR per kWh",
        "0.5555 EUR per kWh",
    ]


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ({"CustomDisplayCostAndPrice": "true"}, 3),
        ({"customdisplaycostandprice": " True ", "numberofdecimalsforcostvalues": "2"}, 2),
        ({"CustomDisplayCostAndPrice": "true", "NumberOfDecimalsForCostValues": "9"}, 4),
        ({"CustomDisplayCostAndPrice": "true", "NumberOfDecimalsForCostValues": "-1"}, 3),
        ({"CustomDisplayCostAndPrice": "false", "NumberOfDecimalsForCostValues": "2"}, None),
        ({"NumberOfDecimalsForCostValues": "2"}, None),
    ],
)
def test_the_decimals_of_a_display_are_read_from_its_configuration(values, decimals):
    keys = [{"key": key, "readonly": True, "value": value} for key, value in values.items()]
    assert decimals_of({"configurationKey": keys}) == decimals


@pytest.mark.parametrize("answer", [{}, {"configurationKey": [{"key": "X", "readonly": True}]}])
def test_a_configuration_that_says_nothing_means_no_display(answer):
    assert decimals_of(answer) is None
