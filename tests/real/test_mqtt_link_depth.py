"""How many functions of the gateway a reader passes from the publisher to the MQTT client."""

from __future__ import annotations

import sys
from pathlib import Path

import paho.mqtt.client
import pytest

import gateway
from gateway.northbound.batching import TELEMETRY_TOPIC
from gateway.simulation.thingsboard import Act, Fault

from .test_mqtt_link import firmware, open_publisher_alone, open_thingsboard, wait_until

pytestmark = [pytest.mark.real_time, pytest.mark.waits]

OURS = Path(gateway.__file__).parent
LIMIT = 6


def own_functions() -> list[str]:
    """The gateway's functions on the stack, outermost first."""
    frames = []
    frame = sys._getframe(2)
    while frame is not None:
        if Path(frame.f_code.co_filename).is_relative_to(OURS):
            frames.append(frame.f_code.co_name)
        frame = frame.f_back
    return frames[::-1]


@pytest.mark.parametrize("ends", [0, 2])
async def test_from_the_publisher_to_the_mqtt_client_there_are_at_most_six_functions(
    monkeypatch, ends
):
    """Also where a message is sent alone, because two links ended when it was on its way."""
    stacks: list[list[str]] = []
    publish = paho.mqtt.client.Client.publish

    def watched(client, topic, payload, **how):
        if topic == TELEMETRY_TOPIC and b"firmware_status" in payload:
            stacks.append(own_functions())
        return publish(client, topic, payload, **how)

    monkeypatch.setattr(paho.mqtt.client.Client, "publish", watched)
    monkeypatch.setattr("gateway.northbound.publisher._FIRST_RETRY_DELAY", 0.05)
    async with (
        open_thingsboard() as thingsboard,
        open_publisher_alone(thingsboard.port) as publisher,
    ):
        if ends:
            thingsboard.faults.add(Fault(act=Act.CLOSE, contains="firmware_status", times=ends))
        await publisher.bus.publish(*(firmware(n) for n in range(3)))
        await wait_until(lambda: publisher.statistics.delivered_seq == 3)
    assert len(stacks) > ends
    for stack in stacks:
        assert stack[0] == "run"
        assert len(stack) <= LIMIT, " > ".join(stack)
