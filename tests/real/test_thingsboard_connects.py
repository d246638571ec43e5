"""A link that ThingsBoard refuses or takes away (F6, F7), and what the operator reads of it."""

from __future__ import annotations

import pytest
import trio

from gateway.admin.server import respond
from gateway.northbound.mqtt import Broker, LinkLost, open_link
from gateway.northbound.publisher import TOPICS
from gateway.simulation.thingsboard import Act, Fault

from .brokers import wait_until
from .connected_gateway import (
    LOG,
    TOKEN,
    link_lines,
    on_each,
    open_connected_gateway,
)

pytestmark = [pytest.mark.real_time, pytest.mark.waits, pytest.mark.usefixtures("fast_retries")]


WORDS = {
    0x84: "protocol",
    0x85: "access_token",
    0x86: "does not know this access token",
    0x87: "does not know this access token",
    0x88: "unavailable",
    0x9F: "too many connections",
}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("code", list(WORDS))
async def test_f6_hc_123_who_is_not_let_in_says_why_and_what_to_do_once(code, protocol, quiet_logs):
    async with open_connected_gateway(protocol=protocol) as setup:
        fault = setup.thingsboard.faults.add(Fault(act=Act.REFUSE_CONNECT, code=code, times=None))
        await setup.charge("CP-1")
        await wait_until(lambda: fault.hits >= 5)
        lost = [line for line in link_lines(quiet_logs) if line[0] == "link lost"]
        assert [event for event, _ in lost[-1:]] == ["link lost"]
        assert sum(1 for line in lost if line == lost[-1]) == 1
        if (protocol, code) != ("3.1.1", 0x86):
            assert (
                WORDS[0x88 if (protocol, code) == ("3.1.1", 0x9F) else code] in lost[-1][1].lower()
            )
        assert TOKEN not in str(quiet_logs)
        assert setup.mqtt_status().startswith("behind: ")
        assert respond("GET", "/readyz", setup.gateway.running)[0] == 200
        setup.thingsboard.faults.clear()
        await setup.all_stored()


async def test_f6_a_wrong_token_is_one_line_and_not_one_for_each_attempt(quiet_logs):
    async with open_connected_gateway(access_tokens=["another"]) as setup:
        await setup.charge("CP-1")
        await wait_until(lambda: len([log for log in quiet_logs if "again" in log["event"]]) > 5)
        ((event, why),) = link_lines(quiet_logs)
        assert event == "link lost"
        assert "Manage credentials" in why
        assert setup.mqtt_status() == f"behind: {why}"
        setup.thingsboard.access_tokens = [TOKEN]  # the operator mends it
        await setup.all_stored()


@on_each
async def test_a_device_that_is_no_gateway_is_one_line_and_all_is_told_once_it_is(
    profile, short_puback_timeout, quiet_logs, monkeypatch
):
    monkeypatch.setattr("gateway.northbound.publisher._STABLE_AFTER", 1.5)
    async with open_connected_gateway(profile, gateway_flag=False) as setup:
        await setup.charge("CP-1")
        await wait_until(lambda: any("again" in log["event"] for log in quiet_logs))
        (up, (event, why)) = link_lines(quiet_logs)
        assert (up, event) == (("link up", ""), "link lost")
        assert '"Is gateway"' in why
        assert setup.mqtt_status() in (f"behind: {why}", f"unsteady: {why}")
        setup.thingsboard.violations.clear()  # P3, which is what this is about
        setup.thingsboard.gateway_flag = True
        await wait_until(lambda: LOG in setup.thingsboard.devices)
        setup.thingsboard.violations[:] = [
            v for v in setup.thingsboard.violations if v.assertion != "P3"
        ]
        await setup.all_stored()
        await wait_until(lambda: setup.mqtt_status() == "connected")


@on_each
async def test_f7_hc_123_another_client_with_our_token_takes_the_session(profile, quiet_logs):
    async with open_connected_gateway(profile) as setup:
        await setup.charge("CP-1")
        broker = Broker(host="127.0.0.1", port=setup.thingsboard.port, access_token=TOKEN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setup.charge, "CP-2")
            for _ in range(3):
                try:
                    async with open_link(broker, TOPICS) as other:
                        async for _message in other.messages():
                            pass
                except* LinkLost:  # we took it back
                    pass
        await setup.all_stored()
    lost = [why for event, why in link_lines(quiet_logs) if event == "link lost"]
    assert len(lost) == 1
    assert "taken over by another client with the same access token" in lost[0]
