"""Displays that are slow, absent or refuse, through the whole gateway on virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import gateway.southbound.driver_display as display_module
from gateway.app import AppSettings
from gateway.billing.driver_messages import DisplayMessages
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.server import SouthboundSettings

from ..conftest import open_gateway
from .displays import screen


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
async def test_a_charge_point_without_a_display_is_asked_once_and_left_alone(
    gateway_with_displays, how
):
    async with screen(gateway_with_displays, **how) as display:
        await trio.sleep(60)
        await display.charger.boot()
        await display.authorize()
        tx = await display.charger.start(meter_wh=0)
        await trio.sleep(60)
        await display.charger.stop(tx, meter_wh=100)
        await gateway_with_displays.settled()
    assert (len(display.asked), display.shown) == (1, [])


async def test_a_message_never_overtakes_the_answer_to_what_it_is_about(gateway_with_displays):
    async with screen(gateway_with_displays) as display:
        await display.authorize()
        await gateway_with_displays.settled()
        tx = await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        await display.charger.sample(tx, "10")
        await gateway_with_displays.settled()
        await display.charger.stop(tx, meter_wh=100)
        await gateway_with_displays.settled()
    assert display.order == [
        *("answer", "GetConfiguration"),
        *("answer", "SetUserPrice"),
        *("answer", "RunningCost"),
        *("answer", "RunningCost"),
        *("answer", "FinalCost"),
    ]


@pytest.mark.parametrize("how", [{"status": "UnknownVendorId"}, {"refusal": "NotSupported"}])
async def test_a_display_that_does_not_know_us_is_dark_until_the_next_connection(
    gateway_with_displays, how
):
    async with screen(gateway_with_displays) as display:
        for name, value in how.items():
            setattr(display, name, value)
        tx = await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        await display.charger.sample(tx, "1000")
        await gateway_with_displays.settled()
        assert display.names() == ["RunningCost"]
    async with screen(gateway_with_displays) as display:
        await display.charger.sample(tx, "2000")
        await gateway_with_displays.settled()
        assert display.names() == ["RunningCost"]


async def test_a_display_that_rejects_one_message_gets_the_next(gateway_with_displays):
    async with screen(gateway_with_displays, status="Rejected") as display:
        tx = await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        await display.charger.sample(tx, "1000")
        await gateway_with_displays.settled()
    assert display.names() == ["RunningCost"] * 2


async def test_a_display_that_never_answers_slows_no_answer_and_no_command_after_it(
    gateway_with_displays,
):
    async with screen(gateway_with_displays) as display:
        display.gate = trio.Event()
        began = trio.current_time()
        tx = await display.charger.start(meter_wh=0)
        for register in range(100):
            await display.charger.sample(tx, str(register))
        assert trio.current_time() - began < 1
        await trio.sleep(60)  # it is given up, and not asked again
        assert len(display.shown) == 1
        await display.charger.sample(tx, "1000")
        await gateway_with_displays.settled()
        assert len(display.shown) == 1


async def test_a_charge_point_that_reconnects_without_booting_is_asked_all_the_same(
    gateway_with_displays,
):
    async with screen(gateway_with_displays, boot=False) as display:
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


async def test_nothing_is_kept_for_a_charge_point_that_left(gateway_with_displays):
    async with screen(gateway_with_displays) as display:
        tx = await display.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        display.gate = trio.Event()
        await display.charger.sample(tx, "1000")
        await gateway_with_displays.settled()
        await display.charger.sample(tx, "2000")
        await gateway_with_displays.settled()
        assert len(display.shown) == 2
    await gateway_with_displays.settled()
    async with screen(gateway_with_displays) as display:
        await trio.sleep(60)
        assert display.shown == []
        await display.charger.sample(tx, "3000")
        await gateway_with_displays.settled()
    assert [data["meterValue"] for _, data in display.shown] == [3_000]


async def test_a_replaced_connection_shows_nothing_more(gateway_with_displays):
    async with screen(gateway_with_displays) as old:
        tx = await old.charger.start(meter_wh=0)
        await gateway_with_displays.settled()
        async with screen(gateway_with_displays) as new:
            await new.charger.sample(tx, "1000")
            await gateway_with_displays.settled()
            assert (old.names(), new.names()) == (["RunningCost"], ["RunningCost"])


@pytest.mark.parametrize(
    ("where", "what", "told"),
    [
        (DisplayMessages, "message", "display not used"),
        (display_module, "happened_offline", "display not served"),
    ],
)
async def test_a_fault_of_ours_with_one_display_concerns_no_other(
    gateway_with_displays, monkeypatch, quiet_logs, where, what, told
):
    sound_one = getattr(where, what)

    def faulty(*args):
        if any(getattr(arg, "charge_point_id", None) == "CP-2" for arg in args):
            raise ZeroDivisionError
        return sound_one(*args)

    monkeypatch.setattr(where, what, faulty)
    async with (
        screen(gateway_with_displays, "CP-1") as sound,
        screen(gateway_with_displays, "CP-2") as broken,
    ):
        for display in (broken, sound):
            tx = await display.charger.start(meter_wh=0)
            await gateway_with_displays.settled()
            await display.charger.sample(tx, "1000")
            await gateway_with_displays.settled()
        assert (sound.names(), broken.names()) == (["RunningCost"] * 2, [])
    assert {line["event"] for line in quiet_logs if line["log_level"] == "error"} == {told}


async def test_the_oldest_of_very_many_messages_make_room(gateway_with_displays):
    async with screen(gateway_with_displays, gate=trio.Event()) as display:
        for connector in range(1, 41):
            await display.charger.start(meter_wh=0, connector=connector)
        await gateway_with_displays.settled()
        display.gate.set()
        await gateway_with_displays.settled()
    assert [data["transactionId"] for _, data in display.shown] == list(range(9, 41))


async def test_a_message_gives_way_where_too_many_commands_wait(gateway_with_displays):
    async with screen(gateway_with_displays) as display:
        display.gate = trio.Event()
        session = gateway_with_displays.running.registry.connection("CP-1")
        async with trio.open_nursery() as commands:
            for _ in range(20):
                commands.start_soon(session.call, "ClearCache", {})
            tx = await display.charger.start(meter_wh=0)
            await gateway_with_displays.settled()
            commands.cancel_scope.cancel()
        display.gate.set()
        await gateway_with_displays.settled()
        assert display.shown == []
        await display.charger.sample(tx, "1000")
        await gateway_with_displays.settled()
    assert display.names() == ["RunningCost"]


async def test_a_house_that_closes_does_not_wait_for_a_display(gateway_with_displays):
    async with screen(gateway_with_displays) as display:
        display.gate = trio.Event()
        await display.charger.start(meter_wh=0)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        gateway_with_displays.stop.set()
        await display.charger.closed.wait()
        assert trio.current_time() - began < 1
