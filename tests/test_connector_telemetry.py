"""What ThingsBoard shows of a connector: what flows now, and where it is measured."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trio

from tests.memory_journal import MemoryJournal

from .conftest import Gateway, open_gateway
from .fakes import FakeCharger, now

DEVICE = "CP-1/1"
LINES = ("L1", "L2", "L3")


def stamp(seconds: float = 0) -> str:
    """The charge point's clock, so many seconds from now."""
    at = now() + timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def power(watts: str, amperes: str | None = None, **more: str) -> list[dict[str, str]]:
    samples = [{"value": watts, "measurand": "Power.Active.Import", "unit": "W"}]
    if amperes is not None:
        samples.append({"value": amperes, "measurand": "Current.Import", "unit": "A"})
    return [sample | more for sample in samples]


def by_line(watts: str, amperes: str) -> list[dict[str, str]]:
    lines = [
        {"value": amperes, "measurand": "Current.Import", "unit": "A", "phase": phase}
        for phase in LINES
    ]
    return [*power(watts), *lines]


def register(wh: str) -> list[dict[str, str]]:
    return [{"value": wh, "measurand": "Energy.Active.Import.Register", "unit": "Wh"}]


async def meter(
    charger: FakeCharger,
    samples: list[dict[str, str]],
    tx: int | None = None,
    connector: int = 1,
    seconds: float = 0,
) -> None:
    about: dict[str, Any] = {} if tx is None else {"transactionId": tx}
    value = {"timestamp": stamp(seconds), "sampledValue": samples}
    await charger.ask("MeterValues", connectorId=connector, meterValue=[value], **about)


async def flows(gateway: Gateway, device: str = DEVICE) -> dict[str, Any]:
    await gateway.settled()
    return {
        key: value
        for key, value in gateway.thingsboard.latest(device).items()
        if key == "power_w" or key.startswith("current_")
    }


NOTHING = {"power_w": 0, "current_a": 0}
BY_LINE = NOTHING | {f"current_l{number}_a": 0 for number in (1, 2, 3)}


async def test_nothing_flows_after_a_stop_whatever_comes_late(gateway):
    """FRM-64 (Ocular): the final MeterValues come after the stop, with the power before it."""
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Charging")
        tx = await charger.start(1_000)
        await trio.sleep(10)
        await meter(charger, power("7000", "30"), tx)
        assert await flows(gateway) == {"power_w": 7000, "current_a": 30}
        await trio.sleep(10)
        await charger.stop(tx, 3_000)
        assert await flows(gateway) == NOTHING
        await charger.status("Finishing")
        await trio.sleep(3)
        await meter(charger, power("7000", "30", context="Transaction.End"), tx)
        assert await flows(gateway) == NOTHING
        await trio.sleep(2)
        await charger.status("Available")
        assert await flows(gateway) == NOTHING
        assert gateway.thingsboard.values(DEVICE, "power_w").count(7000) == 1


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("context", ["Transaction.End", "Sample.Periodic", None])
async def test_late_values_are_those_of_a_stopped_transaction_or_of_its_end(
    gateway, named, context
):
    more = {} if context is None else {"context": context}
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        await meter(charger, by_line("11000", "16"), tx)
        await trio.sleep(10)
        await charger.stop(tx, 3_000)
        await trio.sleep(3)
        values = [sample | more for sample in [*by_line("11000", "16"), *register("3000")]]
        await meter(charger, values, tx if named else None)
        late = named or context == "Transaction.End"
        expected = (
            BY_LINE
            if late
            else {"power_w": 11_000, "current_a": 48}
            | dict.fromkeys(("current_l1_a", "current_l2_a", "current_l3_a"), 16)
        )
        assert await flows(gateway) == expected
        assert gateway.thingsboard.latest(DEVICE)["meter_wh"] == 3_000  # a register holds


async def test_late_values_say_nothing_of_the_next_transaction_either(gateway):
    async with gateway.charger("CP-1") as charger:
        first = await charger.start(1_000)
        await meter(charger, power("7000", "30"), first)
        await trio.sleep(10)
        await charger.stop(first, 3_000)
        await trio.sleep(10)
        second = await charger.start(3_000)
        await trio.sleep(1)
        await meter(charger, power("7000", "30", context="Transaction.End"), first, seconds=-5)
        assert await flows(gateway) == NOTHING
        await meter(charger, power("3000", "13"), second)
        assert await flows(gateway) == {"power_w": 3000, "current_a": 13}
        await trio.sleep(10)
        await meter(charger, power("3100", "14"), first)  # it has lost the new id
        assert await flows(gateway) == {"power_w": 3100, "current_a": 14}


@pytest.mark.parametrize("status", ["SuspendedEV", "SuspendedEVSE", "Finishing", "Available"])
async def test_currents_fall_with_the_power_where_nothing_flows(gateway, status):
    """EM2GO (evcc): zero power and currents when not charging."""
    async with gateway.charger("CP-1") as charger:
        await charger.status("Charging", 2)
        tx = await charger.start(1_000)
        await meter(charger, by_line("11000", "16"), tx)
        await trio.sleep(10)
        await charger.status(status)
        assert await flows(gateway) == BY_LINE
        await charger.status(status, 2)
        assert await flows(gateway, "CP-1/2") == {"power_w": 0}  # it never sent a current
        await trio.sleep(10)
        await meter(charger, by_line("4000", "6"), tx)
        assert (await flows(gateway))["power_w"] == 4000


@pytest.mark.parametrize("ahead", [0.0, 2.0, 30.0])
async def test_zeros_are_the_latest_values_though_the_newest_reading_is_newer(gateway, ahead):
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        await trio.sleep(60)
        await meter(charger, power("7000", "30"), tx, seconds=ahead)
        await charger.status("SuspendedEV")
        assert await flows(gateway) == NOTHING
        await meter(charger, power("7000", "30"), tx, seconds=ahead + 1)
        assert await flows(gateway) == {"power_w": 7000, "current_a": 30}
        await charger.stop(tx, 3_000)
        assert await flows(gateway) == NOTHING


async def test_a_status_out_of_a_queue_says_nothing_of_what_flows_now(gateway):
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        await trio.sleep(3_600)
        await meter(charger, power("7000", "30"), tx)
        await charger.ask(
            "StatusNotification",
            connectorId=1,
            status="SuspendedEV",
            errorCode="NoError",
            timestamp=stamp(-600),
        )
        assert await flows(gateway) == {"power_w": 7000, "current_a": 30}


@pytest.mark.parametrize("end", ["closed", "replaced", "started anew"])
async def test_an_end_that_nobody_reported_leaves_nothing_flowing(gateway, end):
    hardware = {"chargePointVendor": "V", "chargePointModel": "M"}
    async with gateway.charger("CP-1") as charger:
        await charger.ask("BootNotification", **hardware, chargePointSerialNumber="1")
        tx = await charger.start(1_000)
        await meter(charger, register("1500"), tx)
        await trio.sleep(5)
        await meter(charger, by_line("11000", "16"), tx)  # after what the session ends at
        await gateway.settled()
        if end == "closed":
            assert (await gateway.thingsboard.rpc(DEVICE, "closeSession"))["status"] == "Closed"
        elif end == "replaced":
            await charger.ask("BootNotification", **hardware, chargePointSerialNumber="2")
        else:
            await trio.sleep(5)
            await charger.start(2_000)
            await trio.sleep(5)
            await charger.status("SuspendedEV")
        assert await flows(gateway) == BY_LINE


async def test_what_stopped_is_known_after_a_restart():
    journal = MemoryJournal()
    async with open_gateway(journal=journal) as before, before.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        await meter(charger, by_line("11000", "16"), tx)
        await before.settled()
    async with open_gateway(journal=journal) as after, after.charger("CP-1") as charger:
        await trio.sleep(10)
        await charger.stop(tx, 3_000)
        assert await flows(after) == BY_LINE
    async with open_gateway(journal=journal) as again, again.charger("CP-1") as charger:
        await meter(charger, by_line("11000", "16"), tx)
        assert await flows(again) == {}
        await charger.status("Available")
        assert await flows(again) == BY_LINE


async def test_a_stop_that_is_repeated_says_nothing_of_what_flows_since(gateway):
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        stop = {"transactionId": tx, "meterStop": 3_000, "timestamp": stamp(1)}
        await trio.sleep(2)
        await charger.ask("StopTransaction", **stop)
        await trio.sleep(5)
        await meter(charger, power("55", "0.3"))  # of no transaction: its own consumption
        await charger.ask("StopTransaction", **stop)
        assert await flows(gateway) == {"power_w": 55, "current_a": 0.3}


@pytest.mark.parametrize(("arrived", "lost"), [(True, False), (False, False), (True, True)])
async def test_a_stop_of_the_transaction_before_says_nothing_of_the_one_that_runs(
    gateway, arrived, lost
):
    """It is repeated, or it is sent only now: the start after it has ended its session already.

    lost: the charge point writes 0 for the transaction's id.
    """
    async with gateway.charger("CP-1") as charger:
        before = await charger.start(1_000)
        stop = {
            "transactionId": 0 if lost else before, "meterStop": 3_000, "timestamp": stamp(5),
        }  # fmt: skip
        await trio.sleep(5)
        if arrived:
            await charger.ask("StopTransaction", **stop)
        await trio.sleep(90 if lost else 5)  # 90: more than two clocks may differ by
        tx = await charger.start(3_000)
        await meter(charger, power("7000", "30"), tx)
        await charger.ask("StopTransaction", **stop)
        await gateway.settled()
        assert await flows(gateway) == {"power_w": 7_000, "current_a": 30}
        assert gateway.thingsboard.latest(DEVICE)["tx_active"] is True
        assert gateway.thingsboard.latest(DEVICE)["status"] == "Charging"
        await trio.sleep(5)
        await meter(charger, power("6900", "29"), tx)
        assert await flows(gateway) == {"power_w": 6_900, "current_a": 29}
        await charger.stop(tx, 4_000)
        await gateway.settled()
        assert await flows(gateway) == {"power_w": 0, "current_a": 0}
        assert gateway.thingsboard.latest(DEVICE)["status"] == "Available"


async def test_the_id_of_the_transaction_before_stops_the_one_that_runs(gateway):
    """As the accountant judges it: the same charge point keeps to an id that it once got."""
    async with gateway.charger("CP-1") as charger:
        before = await charger.start(1_000)
        await trio.sleep(5)
        await charger.stop(before, 1_000)
        await trio.sleep(60)
        tx = await charger.start(1_000)
        await trio.sleep(60)
        await meter(charger, [*power("7000", "30"), *register("1100")], tx)
        await trio.sleep(60)
        await charger.stop(before, 1_200)
        await gateway.settled()
        assert await flows(gateway) == {"power_w": 0, "current_a": 0}
        assert gateway.thingsboard.latest(DEVICE)["tx_active"] is False
        await meter(charger, power("7000", "30"), before)
        assert await flows(gateway) == {"power_w": 0, "current_a": 0}


async def test_a_lost_transaction_id_stops_the_only_session_there_is(gateway):
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        await meter(charger, power("7000", "30"), tx)
        await trio.sleep(5)
        await charger.stop(0, 3_000)
        await gateway.settled()
        (row,) = [
            values for _, values in gateway.thingsboard.rows(DEVICE) if values.get("power_w") == 0
        ]
        assert NOTHING.items() <= row.items()


@pytest.mark.parametrize(("watts", "shown"), [("-7000", -7000), ("-0", 0), ("-0.0", 0)])
async def test_power_into_the_grid_and_negative_zeros_are_reported(gateway, watts, shown):
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(1_000)
        await meter(charger, power("1"), tx)
        await trio.sleep(1)
        await meter(charger, power(watts), tx)
        assert await flows(gateway) == {"power_w": shown}
        assert str(gateway.thingsboard.latest(DEVICE)["power_w"]).strip("-") in (
            "7000.0",
            "0.0",
            "0",
        )


async def test_the_neutral_alone_is_the_current(gateway):
    """FRM-72 (Injet Sonic)."""
    neutral = {"value": "15.6", "measurand": "Current.Import", "unit": "A", "phase": "N"}
    async with gateway.charger("CP-1") as charger:
        await meter(charger, [neutral])
        assert await flows(gateway) == {"current_a": 15.6}
        await trio.sleep(5)
        await meter(charger, [neutral | {"phase": "L1", "value": "16"}, neutral])
        assert await flows(gateway) == {"current_a": 16, "current_l1_a": 16}
        await charger.status("Available")
        assert await flows(gateway) == {"current_a": 0, "current_l1_a": 0, "power_w": 0}


async def test_phases_that_come_apart_are_one_instant(gateway):
    async with gateway.charger("CP-1") as charger:
        at = stamp()
        values = [
            {"timestamp": at, "sampledValue": [sample | {"phase": phase}]}
            for phase in LINES
            for sample in power("2300", "10")
        ]
        await charger.ask("MeterValues", connectorId=1, meterValue=values)
        lines = dict.fromkeys(("current_l1_a", "current_l2_a", "current_l3_a"), 10)
        assert await flows(gateway) == {"power_w": 6900, "current_a": 30, **lines}


async def test_connector_0_with_a_transaction_is_that_transactions_connector(gateway):
    async with gateway.charger("CP-1") as charger:
        first, second = await charger.start(0), await charger.start(0, connector=2)
        await trio.sleep(5)
        await meter(charger, [*power("7000", "30"), *register("50")], second, connector=0)
        assert await flows(gateway, "CP-1/2") == {"power_w": 7000, "current_a": 30}
        assert gateway.thingsboard.latest("CP-1/2")["meter_wh"] == 50
        assert await flows(gateway) == {}
        await trio.sleep(5)
        await charger.stop(second, 100)
        await trio.sleep(5)
        await meter(charger, power("7000", "30"), second, connector=0)
        assert await flows(gateway, "CP-1/2") == NOTHING
        await meter(charger, power("9000"), connector=0)  # the main meter
        await meter(charger, power("9000"), 77_777, connector=0)
        assert "power_w" not in await flows(gateway)
        await meter(charger, power("3000"), 0, connector=0)  # it lost the only one's id
        assert await flows(gateway) == {"power_w": 3000}
        assert first


@pytest.mark.parametrize("late", [True, False])
async def test_a_register_does_not_fall_to_0_outside_a_session(gateway, late):
    async with gateway.charger("CP-1") as charger:
        await meter(charger, register("0"))  # new, as far as anybody knows
        await gateway.settled()
        assert gateway.thingsboard.latest(DEVICE)["meter_wh"] == 0
        tx = await charger.start(5_000)
        await trio.sleep(5)
        await meter(charger, register("5500"), tx)
        await trio.sleep(5)
        await charger.stop(tx, 6_000)
        await trio.sleep(5)
        await meter(charger, [*register("0"), *power("0")], tx if late else None)
        await gateway.settled()
        assert gateway.thingsboard.latest(DEVICE)["meter_wh"] == 6_000
        assert gateway.thingsboard.latest(DEVICE)["power_w"] == 0
        await trio.sleep(5)
        await meter(charger, register("6001"))
        await gateway.settled()
        assert gateway.thingsboard.latest(DEVICE)["meter_wh"] == 6_001


async def test_a_register_that_is_sampled_only_does_not_fall_to_0_either():
    """It was never in a session, and the gateway was started anew."""
    journal = MemoryJournal()
    export = {"value": "9", "measurand": "Energy.Active.Export.Register", "unit": "kWh"}
    async with open_gateway(journal=journal) as before, before.charger("CP-1") as charger:
        await meter(charger, [*register("7000"), export])
    async with open_gateway(journal=journal) as after, after.charger("CP-1") as charger:
        await trio.sleep(5)
        await meter(charger, [*register("0"), export | {"value": "-0.0"}, *power("1")])
        await after.settled()
        assert not {"meter_wh", "energy_export_wh"} & after.thingsboard.latest(DEVICE).keys()
        assert after.thingsboard.latest(DEVICE)["power_w"] == 1


async def test_a_register_that_begins_each_session_at_0_shows_it_in_the_session(gateway):
    """Nobody can tell its 0 outside of one from the garbage of a new meter."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(0)
        await trio.sleep(5)
        await meter(charger, register("800"), tx)
        await charger.stop(tx, 1_000)
        await trio.sleep(5)
        await meter(charger, register("0"))
        await gateway.settled()
        assert gateway.thingsboard.latest(DEVICE)["meter_wh"] == 1_000
        await trio.sleep(5)
        again = await charger.start(0)
        await trio.sleep(5)
        await meter(charger, register("0"), again)
        await gateway.settled()
        assert gateway.thingsboard.latest(DEVICE)["meter_wh"] == 0
