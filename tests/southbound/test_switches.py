"""Switches on a dashboard: charging, availability, unlocking."""

from __future__ import annotations

import pytest
import trio

from gateway.app import AppSettings
from gateway.bus import EventBus, Overflow
from gateway.domain.commands import Command
from gateway.domain.events import CommandCarriedOut
from gateway.domain.fleet import Fleet
from gateway.observability.frame_tap import FrameTap
from gateway.southbound.commands import CommandRunner
from gateway.southbound.registry import Registry
from tests.memory_journal import MemoryJournal

from ..conftest import open_gateway
from ..fakes import EPOCH
from .operators import Operator, accept, charging, plugged, switch


async def test_a_switch_starts_and_stops():
    """`setCharging` answers as the two do."""
    async with (
        open_gateway(settings=AppSettings(default_id_tag="HOUSE")) as gateway,
        plugged(gateway) as charger,
        trio.open_nursery() as nursery,
    ):
        operator = Operator(gateway, nursery)
        operator.send("CP-1/1", "setCharging", True)
        assert await accept(charger) == (
            "RemoteStartTransaction",
            {"connectorId": 1, "idTag": "HOUSE"},
        )
        tx = await charger.start(0, tag="HOUSE")
        await operator.responses()
        await gateway.settled()
        operator.send("CP-1/1", "setCharging", False)
        assert await accept(charger) == ("RemoteStopTransaction", {"transactionId": tx})
        await charger.stop(tx, 10)
        first, second = await operator.responses(2)
        assert first == {"status": "Accepted", "transactionId": tx}
        assert second["status"] == "Stopped"


@pytest.mark.parametrize("refusal", ["Rejected", "Timeout", "NotConnected"])
async def test_a_start_that_does_not_come_to_pass_lets_the_switch_fall_back(
    gateway, operator, refusal
):
    """ThingsBoard's switches send one-way and show what they asked for, until told otherwise."""
    async with plugged(gateway) as charger:
        assert switch(gateway) is None
        if refusal != "NotConnected":
            operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
            await accept(charger, "Accepted" if refusal == "Timeout" else refusal)
            await operator.responses()
    if refusal == "NotConnected":
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await operator.responses()
    await gateway.settled()
    assert gateway.events(CommandCarriedOut)[0].result == refusal
    assert switch(gateway) is False


async def test_a_stop_that_does_not_come_to_pass_lets_the_switch_fall_back(gateway, operator):
    async with charging(gateway) as (charger, _):
        before = gateway.thingsboard.values("CP-1/1", "tx_active")
        for _ in range(2):  # every time, though nothing has changed
            operator.send("CP-1/1", "setCharging", False)
            await accept(charger, "Rejected")
            await trio.sleep(40)  # longer than an order is taken for its own repetition
        await gateway.settled()
        assert gateway.thingsboard.values("CP-1/1", "tx_active") == [*before, True, True]


async def test_a_refused_start_does_not_outlast_what_a_slow_clock_says_next(gateway, operator):
    """The charge point is a year behind: told at our time, `false` would stay the latest."""
    async with plugged(gateway) as charger:
        long_ago = "2025-01-01T00:00:00Z"
        await charger.ask(
            "StatusNotification",
            connectorId=1,
            errorCode="NoError",
            status="Preparing",
            timestamp=long_ago,
        )
        await gateway.settled()
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger, "Rejected")
        await operator.responses()
        await gateway.settled()
        assert switch(gateway) is False
        await charger.ask(
            "StartTransaction",
            connectorId=1,
            idTag="TAG",
            meterStart=0,
            timestamp="2025-01-01T00:01:00Z",
        )
        await gateway.settled()
        assert switch(gateway) is True


async def test_an_order_to_a_connector_that_was_never_seen_tells_nothing_of_it():
    """As the prototype's `settest` may give, which means connector 1: telling would create it."""
    bus = EventBus(MemoryJournal(), Fleet())
    orders = CommandRunner(bus, Registry(), lambda: EPOCH, FrameTap(lambda: EPOCH))
    with bus.subscribe(CommandCarriedOut, overflow=Overflow.DROP_OLDEST) as heard:
        command = Command(
            charge_point_id="CP-1", connector_id=1, method="setCharging", params=False
        )
        assert (await orders.carry_out(command)).result == "NotConnected"
        async for entry in heard:
            assert entry.event.tx_active is None
            break


@pytest.mark.parametrize("method", ["setCharging", "setAvailable"])
@pytest.mark.parametrize("params", ["true", 1, None, {}, {"value": True}])
async def test_a_switch_takes_true_or_false(gateway, operator, method, params):
    async with plugged(gateway):
        operator.send("CP-1/1", method, params)
        await operator.responses()
        assert operator.codes == ["InvalidParams"]


@pytest.mark.parametrize(
    ("method", "params", "call", "status"),
    [
        ("unlock", None, ("UnlockConnector", {"connectorId": 1}), "UnlockFailed"),
        ("setAvailable", True,
         ("ChangeAvailability", {"connectorId": 1, "type": "Operative"}), "Accepted"),
        ("setAvailable", False,
         ("ChangeAvailability", {"connectorId": 1, "type": "Inoperative"}), "Scheduled"),
    ],
)  # fmt: skip
async def test_unlock_and_availability_give_the_charge_points_own_answer(
    gateway, operator, method, params, call, status
):
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", method, params)
        assert await accept(charger, status) == call
        assert await operator.responses() == [{"status": status}]
