"""One line for one trouble, in words that say what to do, and not one for every attempt."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
import trio

from gateway.admin.server import respond
from gateway.northbound import reason_codes
from gateway.northbound.mqtt import LinkLost

from ..conftest import open_gateway
from ..fakes import FakeThingsBoard


@pytest.mark.parametrize(
    ("code", "to_do"),
    [(0x84, "protocol"), (0x85, "access_token"), (0x86, "access_token"), (0x87, "access_token"),
     (0x88, "tried again"), (0x9F, "tried again")],
)  # fmt: skip
def test_each_refusal_of_a_connection_says_what_to_do(code, to_do):
    text = reason_codes.connack_reason(code, "Name")
    assert text.startswith(f"Name (0x{code:02x}): ")
    assert to_do in text


@pytest.mark.parametrize(
    ("code", "to_do"),
    [(0x8E, "another client with the same access token"), (0x87, "access_token"),
     (0x98, "access token changed"), (0x97, "rate limit"), (0x8B, "shuts down")],
)  # fmt: skip
def test_each_end_of_a_connection_says_what_to_do(code, to_do):
    assert to_do in reason_codes.disconnect_reason(code, "Name")


def test_a_code_that_nobody_foresaw_is_told_as_it_is():
    assert reason_codes.connack_reason(0xF0, "Odd") == "Odd (0xf0)"
    assert reason_codes.disconnect_reason(0xF0, "Odd") == "Odd (0xf0)"
    assert (
        reason_codes.disconnect_reason(0x80, "Unspecified error")
        == "the broker closed the connection"
    )


class Refusing(FakeThingsBoard):
    """Lets nobody in while there is a reason not to."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        self.tried = 0

    @asynccontextmanager
    async def open_link(self):
        self.tried += 1
        if self.reason:
            raise LinkLost(self.reason)
        async with super().open_link() as link:
            yield link


def link_lines(logs) -> list[tuple[str, str]]:
    return [
        (log["event"], log.get("why", ""))
        for log in logs
        if log["event"].startswith("link ") and log["log_level"] in ("info", "warning")
    ]


def mqtt_of(running) -> str:
    return json.loads(respond("GET", "/readyz", running)[2])["mqtt"]


async def test_a_reason_is_told_when_it_changes_and_not_with_every_attempt(quiet_logs):
    thingsboard = Refusing()
    thingsboard.reason = "wrong token"
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await trio.sleep(900)
        assert thingsboard.tried > 10
        assert link_lines(quiet_logs) == [("link lost", "wrong token")]
        assert mqtt_of(gateway.running) == "behind: wrong token"
        thingsboard.reason = "busy"
        await trio.sleep(900)
        assert link_lines(quiet_logs)[1:] == [("link lost", "busy")]
        thingsboard.reason = ""
        await trio.sleep(120)
        assert link_lines(quiet_logs)[2:] == [("link up", "")]
        assert mqtt_of(gateway.running) == "connected"
        thingsboard.reason = "busy"
        thingsboard.cut()
        await trio.sleep(300)
        assert link_lines(quiet_logs)[3:] == [("link lost", "gone"), ("link lost", "busy")]


async def test_a_link_that_comes_and_goes_is_one_trouble_and_is_never_called_up(quiet_logs):
    """HC-123, F7: another client throws us out as soon as we are in."""
    thingsboard = Refusing()
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await trio.sleep(60)
        states = set()
        for _ in range(1_200):
            await trio.sleep(0.5)
            states.add(mqtt_of(gateway.running))
            thingsboard.cut()
        assert link_lines(quiet_logs) == [("link up", ""), ("link lost", "gone")]
        assert states <= {"connected", "behind: gone", "unsteady: gone"}
        assert mqtt_of(gateway.running) != "connected"
        assert 5 < thingsboard.links < 40
        await trio.sleep(120)
        assert link_lines(quiet_logs)[2:] == [("link up", "")]
        thingsboard.cut()
        await trio.sleep(120)
        assert link_lines(quiet_logs)[3:] == [("link lost", "gone"), ("link up", "")]


async def test_the_stop_is_no_trouble(quiet_logs):
    async with open_gateway() as gateway:
        await trio.sleep(60)
        running = gateway.running
    assert link_lines(quiet_logs) == [("link up", "")]
    assert mqtt_of(running) == "behind: the gateway stops"
