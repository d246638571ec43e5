"""Messages nobody asked for, restarts, and faults in any order (F15, F16), by each ThingsBoard."""

from __future__ import annotations

import pytest
import trio

from gateway.app import AppSettings
from gateway.northbound.publisher import NorthboundSettings
from gateway.simulation.thingsboard import Act, Fault

from .brokers import wait_until
from .connected_gateway import (
    on_each,
    open_connected_gateway,
)

pytestmark = [pytest.mark.real_time, pytest.mark.waits, pytest.mark.usefixtures("fast_retries")]


@on_each
async def test_f15_a_publish_on_a_topic_that_nobody_subscribed_to(profile):
    async with open_connected_gateway(profile, first_downlink_id=65_530) as setup:
        await setup.charge("CP-1")
        await setup.all_stored()  # there is a link to send them on
        for topic in ("v1/gateway/disconnect", "v1/gateway/attributes", "what/ever"):
            for payload in (b'{"device":"CP-1"}', b"\xff\x00", b""):
                setup.thingsboard.publish_unasked(topic, payload)
        await wait_until(lambda: setup.thingsboard.publishes.downlinks_acked >= 9)
        await setup.charge("CP-2")
        await setup.all_stored()
        assert setup.mqtt_status() == "connected"


@on_each
async def test_f16_after_a_restart_all_goes_on_and_ids_from_0_are_new_orders(profile):
    async with open_connected_gateway(profile) as setup, setup.gateway.charger("CP-9") as charger:
        await charger.boot()
        await setup.all_stored()

        async def obey(status: str) -> str:
            number, action, _ = await charger.next_call()
            await charger.reply(number, status=status)
            return action

        for method, status in (("ClearCache", "Rejected"), ("Reset", "Accepted")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey, status)
                params = {"type": "Soft"} if method == "Reset" else {}
                answer = await setup.thingsboard.rpc("CP-9", method, params, timeout=10)
            assert answer == {"status": status}
            await setup.charge_two() if not setup.charges else None
            setup.thingsboard.restart()
            await wait_until(lambda: setup.thingsboard.devices["CP-9"].connected)
            assert setup.thingsboard.devices["CP-9"].next_rpc_id == 0
        await setup.all_stored()


@on_each
async def test_whatever_comes_at_random_all_is_delivered(profile):
    """F1, F2, F4, F5, F14 and F16 in turn, while two charge."""
    async with open_connected_gateway(profile) as setup:
        for n, act in enumerate((Act.CLOSE, Act.ACK_AND_CLOSE, Act.REFUSE, Act.DUPLICATE_ACK) * 3):
            setup.thingsboard.faults.add(
                Fault(act=act, contains=f'"soc_percent":{n + 1}.0', code=0x80)
            )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setup.charge_two)
            for _ in range(5):
                await wait_until(lambda: setup.gateway.running.delivery.connected)
                await trio.sleep(0.05)
                setup.thingsboard.restart()
        await setup.all_stored(in_order=False)
        assert await setup.dead_letters() == ()


async def test_with_mqtt_3_1_1_all_is_delivered_as_long_as_nothing_is_refused():
    async with open_connected_gateway(
        protocol="3.1.1", settings=AppSettings(northbound=NorthboundSettings())
    ) as setup:
        await setup.charge_two()
        await setup.all_stored()
