"""PUBACKs that are refused, lost, late or doubled (F1 to F5, F14), by each kind of ThingsBoard.

Whatever happens to the link: in the end everything that was published is stored once, as it was,
in order per device, and no rule of ThingsBoard was broken.
"""

from __future__ import annotations

import json

import pytest

from gateway.northbound.batching import CONNECT_TOPIC, TELEMETRY_TOPIC
from gateway.northbound.outbox import READER
from gateway.simulation.thingsboard import Act, Fault

from .brokers import wait_until
from .connected_gateway import (
    from_4_2_1,
    link_lines,
    on_each,
    open_connected_gateway,
)

pytestmark = [pytest.mark.real_time, pytest.mark.waits, pytest.mark.usefixtures("fast_retries")]


@on_each
async def test_without_a_fault_all_is_delivered_on_one_link(profile, quiet_logs):
    async with open_connected_gateway(profile) as setup:
        await setup.charge_two()
        await setup.all_stored()
        assert await setup.dead_letters() == ()
    assert link_lines(quiet_logs) == [("link up", "")]


@on_each
@pytest.mark.parametrize("stored", [True, False])
async def test_f1_closed_between_publish_and_puback(profile, stored):
    """M1 to M3: kept until it is acknowledged, and sent again as it was."""
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(
                act=Act.CLOSE, topic=TELEMETRY_TOPIC, contains="soc_percent", times=3, stored=stored
            )
        )
        await setup.charge_two()
        await setup.all_stored()
        assert fault.hits == 3 or stored
        assert await setup.dead_letters() == ()


@on_each
async def test_f1_closed_at_each_connect_of_a_device(profile):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(Fault(act=Act.CLOSE, topic=CONNECT_TOPIC, times=4))
        await setup.charge_two()
        await setup.all_stored()
        assert fault.hits == 4


@on_each
@pytest.mark.parametrize("times", [1, 5])
async def test_f2_acknowledged_and_then_closed(profile, times):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.ACK_AND_CLOSE, topic=TELEMETRY_TOPIC, contains="soc_percent", times=times)
        )
        await setup.charge_two()
        await setup.all_stored()
        assert 1 <= fault.hits <= times
        assert await setup.dead_letters() == ()


@on_each
async def test_f2_hc_125_a_message_that_is_always_acknowledged_and_then_closed_at(profile):
    """It has arrived: it is not sent again, and so does not close the next link too."""
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.ACK_AND_CLOSE, contains='"soc_percent":7.0', times=None)
        )
        await setup.charge_two()
        await setup.all_stored()
        assert 1 <= fault.hits <= 12
        assert await setup.dead_letters() == ()


@on_each
async def test_f3_never_acknowledged(profile, short_puback_timeout):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.NO_ACK, topic=TELEMETRY_TOPIC, contains="soc_percent", times=2)
        )
        await setup.charge_two()
        await setup.all_stored()
        assert fault.hits == 2
        assert await setup.dead_letters() == ()


@on_each
async def test_f3_hc_125_one_message_that_is_never_acknowledged_is_set_aside(
    profile, short_puback_timeout
):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.NO_ACK, contains='"soc_percent":7.0', times=None, stored=False)
        )
        await setup.charge("CP-1")
        await wait_until(lambda: setup.gateway.journal._dead_letters.get(READER))
        setup.thingsboard.faults.clear()
        del setup.sampled["CP-1"][6]
        await setup.all_stored()
        (dead_letter,) = await setup.dead_letters()
        assert "connection ended 3 times" in dead_letter.why
        assert 4 <= fault.hits <= 8


@from_4_2_1
@pytest.mark.parametrize("code", [0x80, 0x83, 0x97, 0x99])
async def test_f4_refused_once_and_taken_then(profile, code):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.REFUSE, code=code, contains="soc_percent")
        )
        await setup.charge_two()
        await setup.all_stored(in_order=False)  # what is behind it does not wait
        assert fault.hits == 1
        assert await setup.dead_letters() == ()


@on_each
@pytest.mark.parametrize("code", [0x83, 0x99])
async def test_f4_hc_125_what_is_refused_each_time_is_set_aside_and_blocks_nobody(profile, code):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.REFUSE, code=code, contains='"soc_percent":7.0', times=None)
        )
        await setup.charge("CP-1")
        await setup.charge("CP-2")
        await wait_until(lambda: len(setup.gateway.journal._dead_letters.get(READER, ())) == 2)
        for sampled in setup.sampled.values():
            del sampled[6]
        await setup.all_stored(in_order=False)  # what is behind it does not wait
        assert {
            f"0x{code:02x}" in dead_letter.why for dead_letter in await setup.dead_letters()
        } == {True}
        assert fault.hits <= 8
        assert setup.mqtt_status() == "connected"


@on_each
@pytest.mark.parametrize("code", [0x83, 0x99])
async def test_f4_hc_125_what_is_refused_and_closed_at_each_time_is_no_poison_pill(profile, code):
    """BAD-R: ThingsBoard's own code fails at it, and it closes the connection."""
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.REFUSE, code=code, closes=True, contains='"soc_percent":7.0', times=None)
        )
        await setup.charge_two()
        await wait_until(lambda: len(setup.gateway.journal._dead_letters.get(READER, ())) == 2)
        for sampled in setup.sampled.values():
            del sampled[6]
        await setup.all_stored()
        assert fault.hits <= 12


@on_each
async def test_f1_hc_125_what_is_closed_at_each_time_without_a_word_is_no_poison_pill(profile):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.CLOSE, contains='"soc_percent":7.0', times=None, stored=False)
        )
        await setup.charge_two()
        await wait_until(lambda: len(setup.gateway.journal._dead_letters.get(READER, ())) == 2)
        for sampled in setup.sampled.values():
            del sampled[6]
        await setup.all_stored()
        for dead_letter in await setup.dead_letters():
            assert "connection ended 3 times" in dead_letter.why
        assert fault.hits <= 14


@on_each
async def test_f1_a_server_that_takes_nothing_makes_nobody_guilty(profile):
    """As where its queue is down: it lets in, and closes at every telemetry for a while."""
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.CLOSE, topic=TELEMETRY_TOPIC, times=15, stored=False)
        )
        await setup.charge_two()
        await setup.all_stored()
        assert fault.hits == 15
        assert await setup.dead_letters() == ()


@from_4_2_1
@pytest.mark.parametrize("code", [0x80, 0x97])
async def test_f4_a_server_that_fails_at_everything_for_a_while_makes_nobody_guilty(profile, code):
    async with open_connected_gateway(profile) as setup:
        fault = setup.thingsboard.faults.add(
            Fault(act=Act.REFUSE, code=code, closes=True, topic=TELEMETRY_TOPIC, times=12)
        )
        await setup.charge_two()
        await setup.all_stored(within=60)
        assert fault.hits == 12
        assert await setup.dead_letters() == ()


@on_each
async def test_f5_pubacks_that_come_again_and_again(profile):
    """ThingsBoard before 4.2.1 acknowledges once for every device of a message."""
    async with open_connected_gateway(profile) as setup:
        setup.thingsboard.faults.add(Fault(act=Act.DUPLICATE_ACK, count=3, times=None))
        await setup.charge_two()
        await setup.all_stored()
        assert setup.mqtt_status() == "connected"


async def test_f5_below_4_2_1_a_message_is_of_one_device():
    async with open_connected_gateway("3.8") as setup:
        await setup.charge_two()
        await setup.all_stored()
        published = [
            json.loads(m.payload) for m in setup.thingsboard.messages if m.topic == TELEMETRY_TOPIC
        ]
        assert {len(body) for body in published} == {1}


@from_4_2_1
async def test_f4_hc_125_what_the_server_fails_at_each_time_is_set_aside_in_the_end(
    profile, short_deferrals
):
    async with open_connected_gateway(profile) as setup:
        setup.thingsboard.faults.add(
            Fault(act=Act.REFUSE, code=0x80, contains='"soc_percent":7.0', times=None)
        )
        await setup.charge_two()
        await wait_until(lambda: len(setup.gateway.journal._dead_letters.get(READER, ())) == 2)
        for sampled in setup.sampled.values():
            del sampled[6]
        await setup.all_stored(in_order=False)
        assert {"0x80" in dead_letter.why for dead_letter in await setup.dead_letters()} == {True}
