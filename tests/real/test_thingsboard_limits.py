"""What is too large, too fast or too many for ThingsBoard (F12 to F14), of each kind."""

from __future__ import annotations

import pytest
import trio

from gateway.northbound.batching import CONNECT_TOPIC, TELEMETRY_TOPIC
from gateway.northbound.outbox import READER
from gateway.simulation.thingsboard import Act, Fault, TenantLimits

from .brokers import wait_until
from .connected_gateway import (
    LOG,
    ConnectedGateway,
    link_lines,
    on_each,
    open_connected_gateway,
)

pytestmark = [pytest.mark.real_time, pytest.mark.waits, pytest.mark.usefixtures("fast_retries")]


async def signed_charge(setup: ConnectedGateway, *sizes: int) -> None:
    """A charge whose meter values are signed, with signatures of these sizes."""
    async with setup.gateway.charger("CP-1") as charger:
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
    async with open_connected_gateway(profile) as setup:
        await signed_charge(setup, 20_000, 20_001, 14_000)
        await setup.all_stored()
        for device in ("CP-1/1", LOG):
            ((ts, receipt),) = setup.thingsboard.devices[device].series("receipt")
            ((signed_ts, signed),) = setup.thingsboard.devices[device].series("receipt_signed")
            assert signed_ts == ts
            assert [len(each["value"]) for each in signed] == [20_000, 20_001, 14_000]
            assert receipt["energy_wh"] == "1000"
            assert "signed" not in receipt
        largest = max(len(message.payload) for message in setup.thingsboard.messages)
        assert 50_000 < largest <= 60_000
        assert await setup.dead_letters() == ()


@on_each
async def test_f12_signed_values_that_no_packet_can_hold_are_set_aside_and_the_rest_arrives(
    profile,
):
    async with open_connected_gateway(profile) as setup:
        await signed_charge(setup, 30_000, 30_001, 30_002)
        await wait_until(lambda: setup.gateway.journal._dead_letters.get(READER))
        await setup.thingsboard.wait_for(
            lambda thingsboard: (
                LOG in thingsboard.devices and thingsboard.devices[LOG].series("receipt")
            )
        )
        for device in ("CP-1/1", LOG):
            (receipt,) = [value for _, value in setup.thingsboard.devices[device].series("receipt")]
            assert receipt["energy_wh"] == "1000"
            assert setup.thingsboard.devices[device].value("session_energy_kwh") == 1
            assert setup.thingsboard.devices[device].series("receipt_signed") == []
        (dead_letter,) = await setup.dead_letters()
        assert "bytes are more than ThingsBoard takes" in dead_letter.why
        await setup.all_stored()


async def test_f12_an_answer_too_large_for_a_packet_is_an_error_to_who_asked():
    async with open_connected_gateway() as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        await setup.all_stored()
        keys = [{"key": f"Key{n}", "readonly": True, "value": "x" * 400} for n in range(200)]

        async def answer() -> None:
            number, _, _ = await charger.next_call()
            await charger.reply(number, configurationKey=keys)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            response = await setup.thingsboard.rpc("CP-1", "GetConfiguration", {})
        assert response["error"]["code"] == "CallError"
        assert "bytes" in response["error"]["message"]
        await setup.all_stored()


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
    async with open_connected_gateway(profile, gateway_rate_limits=limits) as setup:
        refusing = setup.thingsboard.faults.add(
            Fault(act=Act.REFUSE_CONNECT, code=0x88, times=None)
        )
        await setup.charge("CP-1", samples=2)
        setup.thingsboard.faults.remove(refusing)
        await setup.all_stored(within=60)
    assert [why for event, why in link_lines(quiet_logs) if "0x88" not in why and why] == []


@on_each
async def test_f13_limits_that_nobody_told_of_slow_down_and_lose_nothing(profile):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.RATE_LIMIT, topic=TELEMETRY_TOPIC, contains="soc_percent", times=6)
        )
        await setup.charge_two()
        await setup.all_stored(within=60)
        assert fault.hits == 6
        assert await setup.dead_letters() == ()


@on_each
async def test_f14_a_device_that_is_long_in_coming_holds_nobody_up_for_good(profile):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.DELAY, seconds=1.5, topic=CONNECT_TOPIC, device="CP-1")
        )
        await setup.charge_two()
        await setup.all_stored()
        assert fault.hits == 1


@on_each
async def test_f14_a_device_that_thingsboard_never_lets_in_blocks_no_other(
    profile, short_puback_timeout, short_deferrals
):
    """Before 4.3 it never acknowledges to a tenant that has no device left."""
    async with open_connected_gateway(profile, device_limit=5) as setup:
        await setup.charge_two()
        await setup.all_stored()  # CP-1, CP-1/1, CP-2, CP-2/1, the log
        async with setup.gateway.charger("CP-3") as third:
            await third.boot()
            await wait_until(lambda: setup.gateway.journal._dead_letters.get(READER))
        await setup.charge("CP-1", samples=3)
        setup.sampled.clear()
        setup.charges.clear()
        await wait_until(
            lambda: len(setup.thingsboard.devices["CP-1/1"].series("receipt")) == 2, within=30
        )
        assert "CP-3" not in setup.thingsboard.devices
        assert setup.mqtt_status() != "behind"
        assert {violation.assertion for violation in setup.thingsboard.violations} == {"5"}
