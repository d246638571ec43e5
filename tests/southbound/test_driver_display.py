"""Drivers' displays, through the whole gateway on virtual time."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import gateway.southbound.driver_display as display_module
from gateway.app import AppSettings
from gateway.billing.driver_messages import DisplayMessages
from gateway.domain.events import TransactionSettled
from gateway.southbound.driver_display import decimals_of
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.settings import SouthboundSettings

from ..conftest import Gateway, open_gateway, tariff_book_of
from ..fakes import now, stamp

HOUR = 3600
SHOWS = {"CustomDisplayCostAndPrice": "true"}
PRICES = {
    "tariffs": [
        {
            "id": "STD",
            "currency": "EUR",
            "elements": [
                {
                    "price_components": [
                        {"type": kind, "price": Decimal(price), "vat": Decimal(21), "step_size": 1}
                        for kind, price in (
                            ("FLAT", "0.50"),
                            ("ENERGY", "0.40"),
                            ("PARKING_TIME", "6"),
                        )
                    ]
                }
            ],
        }
    ],
    "assign": [{"default": True, "tariffs": ["STD"]}],
    "policy": {"idle_grace_s": 600},
    "time_zone": "Europe/Amsterdam",
}


@attrs.define(eq=False)
class Screen:
    """A charge point's end: answers what it is asked, and keeps it.

    order: every frame from the gateway, as the charge point reads them.
    gate: while there is one, calls wait for it before they are answered.
    """

    charger: Any
    keys: dict[str, str]
    status: str = "Accepted"
    refusal: str | None = None
    gate: trio.Event | None = None
    asked: list[Any] = attrs.field(factory=list)
    shown: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    order: list[str] = attrs.field(factory=list)

    def names(self) -> list[str]:
        return [name for name, _ in self.shown]

    async def run(self) -> None:
        async for unique_id, action, payload in self.charger.calls:
            if action == "DataTransfer":
                assert payload["vendorId"] == "org.openchargealliance.costmsg"
                self.shown.append((payload["messageId"], json.loads(payload["data"])))
            elif action != "TriggerMessage":  # which is `resync`'s
                self.asked.append((action, payload))
            if self.gate is not None:
                await self.gate.wait()
            if self.refusal is not None:
                await self.charger.send([4, unique_id, self.refusal, "", {}])
            elif action == "DataTransfer":
                await self.charger.reply(unique_id, status=self.status)
            elif action == "TriggerMessage":
                await self.charger.reply(unique_id, status="NotImplemented")
            else:
                known = [
                    {"key": key, "readonly": True, "value": value}
                    for key, value in self.keys.items()
                ]
                await self.charger.reply(unique_id, configurationKey=known, unknownKey=[])

    def overhear(self) -> None:
        """Keep the order of all frames.  To be called before anything is read."""
        socket = self.charger.socket
        get_message = socket.get_message

        async def overheard() -> str:
            text = await get_message()
            frame = json.loads(text)
            name = frame[3].get("messageId", frame[2]) if frame[0] == 2 else "answer"
            self.order.append(name)
            return str(text)

        socket.get_message = overheard

    async def authorize(self, tag: str = "TAG") -> None:
        await self.charger.ask("Authorize", idTag=tag)


@asynccontextmanager
async def screen(gateway: Gateway, name: str = "CP-1", *, boot: bool = True, **how: Any):
    async with gateway.charger(name) as charger, trio.open_nursery() as nursery:
        found = Screen(charger, **{"keys": SHOWS, **how})
        found.overhear()
        nursery.start_soon(found.run)
        if boot:
            await charger.boot()
            await gateway.settled()
        yield found
        nursery.cancel_scope.cancel()


@pytest.fixture
async def running():
    async with open_gateway(
        settings=AppSettings(driver_display=True), tariff_book=tariff_book_of(PRICES)
    ) as gateway:
        yield gateway


async def test_a_charge_is_shown_from_its_price_to_its_final_cost(running):
    """5 kWh at 0.484, 0.605 for the session, then 20 min idle at 0.121, 10 of them free: 4.235."""
    async with screen(running) as display:
        charger = display.charger
        await charger.status("Preparing")
        await display.authorize()
        await running.settled()
        await charger.status("Charging")
        started_at = stamp()
        tx = await charger.start(meter_wh=1_000)
        await running.settled()
        await trio.sleep(HOUR)
        sampled_at = stamp()
        await charger.sample(tx, "6000")
        await running.settled()
        idle_at = stamp()
        await charger.status("SuspendedEV")
        await running.settled()
        assert display.names() == ["SetUserPrice", *["RunningCost"] * 3]
        await trio.sleep(1_200 - 0.5)
        await charger.stop(tx, meter_wh=6_000)
        await running.settled()

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


@pytest.mark.parametrize(
    "how",
    [
        {"keys": {"CustomDisplayCostAndPrice": "false"}},
        {"keys": {}},
        {"refusal": "NotImplemented"},
        {"gate": trio.Event()},
    ],
    ids=["says no", "does not know", "refuses", "never answers"],
)
async def test_a_charge_point_without_a_display_is_asked_once_and_left_alone(running, how):
    async with screen(running, **how) as display:
        await trio.sleep(60)
        await display.charger.boot()
        await display.authorize()
        tx = await display.charger.start(meter_wh=0)
        await trio.sleep(60)
        await display.charger.stop(tx, meter_wh=100)
        await running.settled()
    assert (len(display.asked), display.shown) == (1, [])


async def test_a_message_never_overtakes_the_answer_to_what_it_is_about(running):
    async with screen(running) as display:
        await display.authorize()
        await running.settled()
        tx = await display.charger.start(meter_wh=0)
        await running.settled()
        await display.charger.sample(tx, "10")
        await running.settled()
        await display.charger.stop(tx, meter_wh=100)
        await running.settled()
    assert display.order == [
        *("answer", "GetConfiguration"),
        *("answer", "SetUserPrice"),
        *("answer", "RunningCost"),
        *("answer", "RunningCost"),
        *("answer", "FinalCost"),
    ]


async def test_only_the_newest_cost_follows_one_that_is_not_answered_yet(running):
    async with screen(running) as display:
        tx = await display.charger.start(meter_wh=0)
        await running.settled()
        display.gate = trio.Event()
        for register in ("1000", "2000", "3000"):
            await trio.sleep(1)
            await display.charger.sample(tx, register)
            await running.settled()
        assert [data["meterValue"] for _, data in display.shown] == [0, 1_000]
        display.gate.set()
        await running.settled()
    assert [data["meterValue"] for _, data in display.shown] == [0, 1_000, 3_000]


async def test_a_final_cost_takes_the_place_of_running_costs_that_wait(running):
    async with screen(running) as display:
        tx = await display.charger.start(meter_wh=0)
        await running.settled()
        display.gate = trio.Event()
        for register in ("1000", "2000"):
            await trio.sleep(1)
            await display.charger.sample(tx, register)
            await running.settled()
        await display.charger.stop(tx, meter_wh=3_000)
        await running.settled()
        other = await display.charger.start(meter_wh=0, connector=2)
        await running.settled()
        display.gate.set()
        await running.settled()
    assert [(name, data["transactionId"]) for name, data in display.shown] == [
        ("RunningCost", tx),
        ("RunningCost", tx),
        ("FinalCost", tx),
        ("RunningCost", other),
    ]


async def test_a_price_that_comes_too_late_is_not_shown(running):
    async with screen(running, boot=False, gate=trio.Event()) as display:
        await display.charger.boot()
        await display.authorize("tag")
        await display.charger.start(meter_wh=0, tag="TAG")
        await running.settled()
        assert display.shown == []
        display.gate.set()
        await running.settled()
    assert display.names() == ["RunningCost"]


async def test_who_may_not_charge_is_shown_no_price():
    rules = HandlerSettings(tags=attrs.evolve(HandlerSettings().tags, accept_unknown=False))
    settings = AppSettings(driver_display=True, southbound=SouthboundSettings(handlers=rules))
    async with open_gateway(settings=settings) as gateway, screen(gateway) as display:
        await display.authorize()
        await gateway.settled()
        assert display.shown == []


async def test_no_price_is_shown_where_every_connector_is_taken(running):
    """Who shows a tag then wants to stop."""
    async with screen(running) as display:
        await display.charger.start(meter_wh=0)
        await running.settled()
        await display.authorize()
        await running.settled()
    assert display.names() == ["RunningCost"]


@pytest.mark.parametrize("how", [{"status": "UnknownVendorId"}, {"refusal": "NotSupported"}])
async def test_a_display_that_does_not_know_us_is_dark_until_the_next_connection(running, how):
    async with screen(running) as display:
        for name, value in how.items():
            setattr(display, name, value)
        tx = await display.charger.start(meter_wh=0)
        await running.settled()
        await display.charger.sample(tx, "1000")
        await running.settled()
        assert display.names() == ["RunningCost"]
    async with screen(running) as display:
        await display.charger.sample(tx, "2000")
        await running.settled()
        assert display.names() == ["RunningCost"]


async def test_a_display_that_rejects_one_message_gets_the_next(running):
    async with screen(running, status="Rejected") as display:
        tx = await display.charger.start(meter_wh=0)
        await running.settled()
        await display.charger.sample(tx, "1000")
        await running.settled()
    assert display.names() == ["RunningCost"] * 2


async def test_a_display_that_never_answers_slows_no_answer_and_no_command_after_it(running):
    async with screen(running) as display:
        display.gate = trio.Event()
        began = trio.current_time()
        tx = await display.charger.start(meter_wh=0)
        for register in range(100):
            await display.charger.sample(tx, str(register))
        assert trio.current_time() - began < 1
        await trio.sleep(60)  # it is given up, and not asked again
        assert len(display.shown) == 1
        await display.charger.sample(tx, "1000")
        await running.settled()
        assert len(display.shown) == 1


async def test_what_was_charged_offline_is_not_shown(running):
    """Start, reading and stop of an hour, delivered three hours later."""
    begun = now()
    await trio.sleep(4 * HOUR)

    def at(hours: float) -> str:
        return (begun + timedelta(hours=hours)).isoformat()

    async with screen(running) as display:
        ask = display.charger.ask
        reply = await ask(
            "StartTransaction", connectorId=1, idTag="TAG", meterStart=0, timestamp=at(0)
        )
        tx = reply["transactionId"]
        value = [{"timestamp": at(0.5), "sampledValue": [{"value": "500"}]}]
        await running.settled()
        await ask("MeterValues", connectorId=1, transactionId=tx, meterValue=value)
        await running.settled()
        await ask("StopTransaction", transactionId=tx, meterStop=1_000, timestamp=at(1))
        await running.settled()
        assert len(running.events(TransactionSettled)) == 1
        assert display.shown == []
        await display.charger.start(meter_wh=1_000)
        await running.settled()
        assert display.names() == ["RunningCost"]


async def test_a_transaction_that_only_began_offline_gets_its_final_cost(running):
    begun = now()
    await trio.sleep(600)
    async with screen(running) as display:
        reply = await display.charger.ask(
            "StartTransaction",
            connectorId=1,
            idTag="TAG",
            meterStart=0,
            timestamp=begun.isoformat(),
        )
        await trio.sleep(HOUR)
        await display.charger.sample(reply["transactionId"], "900")
        await running.settled()
        await display.charger.stop(reply["transactionId"], meter_wh=1_000)
        await running.settled()
    assert display.names() == ["RunningCost", "FinalCost"]


async def test_an_end_that_was_only_concluded_is_not_shown(running):
    """The next start shows that the one before has ended; its driver has left."""
    async with screen(running) as display:
        await display.charger.start(meter_wh=0)
        await running.settled()
        await display.charger.start(meter_wh=1_000, tag="NEXT")
        await running.settled()
        assert len(running.events(TransactionSettled)) == 1
    assert display.names() == ["RunningCost", "RunningCost"]


async def test_a_charge_point_that_reconnects_without_booting_is_asked_all_the_same(running):
    async with screen(running, boot=False) as display:
        await display.charger.ask("Heartbeat")
        await trio.sleep(5)
        assert display.asked == []
        await trio.sleep(6)
        assert len(display.asked) == 1
        await display.charger.boot()
        await trio.sleep(20)
        assert len(display.asked) == 1


async def test_a_charge_point_that_waits_for_approval_is_not_asked():
    settings = AppSettings(
        driver_display=True,
        southbound=SouthboundSettings(handlers=HandlerSettings(pending_unknown=True)),
    )
    async with open_gateway(settings=settings) as gateway, screen(gateway) as display:
        await trio.sleep(120)
        assert display.asked == []


async def test_nothing_is_kept_for_a_charge_point_that_left(running):
    async with screen(running) as display:
        tx = await display.charger.start(meter_wh=0)
        await running.settled()
        display.gate = trio.Event()
        await display.charger.sample(tx, "1000")
        await running.settled()
        await display.charger.sample(tx, "2000")
        await running.settled()
        assert len(display.shown) == 2
    await running.settled()
    async with screen(running) as display:
        await trio.sleep(60)
        assert display.shown == []
        await display.charger.sample(tx, "3000")
        await running.settled()
    assert [data["meterValue"] for _, data in display.shown] == [3_000]


async def test_a_replaced_connection_shows_nothing_more(running):
    async with screen(running) as old:
        tx = await old.charger.start(meter_wh=0)
        await running.settled()
        async with screen(running) as new:
            await new.charger.sample(tx, "1000")
            await running.settled()
            assert (old.names(), new.names()) == (["RunningCost"], ["RunningCost"])


@pytest.mark.parametrize(
    ("where", "what", "told"),
    [
        (DisplayMessages, "message", "display not used"),
        (display_module, "happened_offline", "display not served"),
    ],
)
async def test_a_fault_of_ours_with_one_display_concerns_no_other(
    running, monkeypatch, quiet_logs, where, what, told
):
    sound_one = getattr(where, what)

    def faulty(*args):
        if any(getattr(arg, "charge_point_id", None) == "CP-2" for arg in args):
            raise ZeroDivisionError
        return sound_one(*args)

    monkeypatch.setattr(where, what, faulty)
    async with screen(running, "CP-1") as sound, screen(running, "CP-2") as broken:
        for display in (broken, sound):
            tx = await display.charger.start(meter_wh=0)
            await running.settled()
            await display.charger.sample(tx, "1000")
            await running.settled()
        assert (sound.names(), broken.names()) == (["RunningCost"] * 2, [])
    assert {line["event"] for line in quiet_logs if line["log_level"] == "error"} == {told}


async def test_the_oldest_of_very_many_messages_make_room(running):
    async with screen(running, gate=trio.Event()) as display:
        for connector in range(1, 41):
            await display.charger.start(meter_wh=0, connector=connector)
        await running.settled()
        display.gate.set()
        await running.settled()
    assert [data["transactionId"] for _, data in display.shown] == list(range(9, 41))


async def test_a_message_gives_way_where_too_many_commands_wait(running):
    async with screen(running) as display:
        display.gate = trio.Event()
        session = running.running.registry.connection("CP-1")
        async with trio.open_nursery() as commands:
            for _ in range(20):
                commands.start_soon(session.call, "ClearCache", {})
            tx = await display.charger.start(meter_wh=0)
            await running.settled()
            commands.cancel_scope.cancel()
        display.gate.set()
        await running.settled()
        assert display.shown == []
        await display.charger.sample(tx, "1000")
        await running.settled()
    assert display.names() == ["RunningCost"]


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


async def test_a_house_that_closes_does_not_wait_for_a_display(running):
    async with screen(running) as display:
        display.gate = trio.Event()
        await display.charger.start(meter_wh=0)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        running.stop.set()
        await display.charger.closed.wait()
        assert trio.current_time() - began < 1


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
