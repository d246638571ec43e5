"""Remote starts, which end with the transaction that has come of them."""

from __future__ import annotations

import pytest
import trio

from gateway.app import AppSettings
from gateway.domain.events import CommandCarriedOut

from ..conftest import open_gateway
from .operators import Operator, accept, plugged, switch

WHEN = "2026-01-01T00:00:00Z"


async def test_a_remote_start_is_answered_once_the_transaction_has_begun(gateway, operator):
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        assert await accept(charger) == (
            "RemoteStartTransaction",
            {"connectorId": 1, "idTag": "TAG"},
        )
        await trio.sleep(20)
        assert operator.received == []
        tx = await charger.start(0)
        assert await operator.responses() == [{"status": "Accepted", "transactionId": tx}]
        await gateway.settled()
        assert gateway.events(CommandCarriedOut)[0].method == "remoteStart"


async def test_another_tags_start_elsewhere_is_not_the_one_that_was_ordered(gateway, operator):
    async with plugged(gateway) as charger, plugged(gateway, "CP-2") as another:
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        await charger.start(0, connector=2, tag="OTHER")
        await another.start(0)
        await trio.sleep(1)
        assert operator.received == []
        tx = await charger.start(5)
        assert (await operator.responses())[0]["transactionId"] == tx


@pytest.mark.parametrize("method", ["remoteStart", "setCharging"])
async def test_a_start_on_another_connector_says_on_which(method):
    """The car is there, or connectors are counted otherwise."""
    settings = AppSettings(default_id_tag="TAG")
    async with open_gateway(settings=settings) as gateway, plugged(gateway) as charger:
        async with trio.open_nursery() as nursery:
            operator = Operator(gateway, nursery)
            operator.send("CP-1/1", method, True if method == "setCharging" else {"idTag": "TAG"})
            await accept(charger)
            tx = await charger.start(0, connector=2, tag="tag")  # a tag knows no case
            assert await operator.responses() == [
                {"status": "Accepted", "connectorId": 2, "transactionId": tx}
            ]
        await gateway.settled()
        assert switch(gateway) is False  # nothing has begun where the switch is
        assert gateway.thingsboard.latest("CP-1/2")["tx_active"] is True


async def test_a_refused_start_on_another_connector_says_on_which(operator, gateway):
    async with plugged(gateway) as charger:
        operator.send("CP-1/3", "remoteStart", {"idTag": "TAG"})
        before = gateway.running.bus.fleet.devices
        assert "CP-1/3" not in before
        await trio.sleep(1)
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        yesterday = await charger.ask(
            "StartTransaction",
            connectorId=2,
            idTag="TAG",
            meterStart=0,
            timestamp="2025-12-30T00:00:00Z",
        )
        await trio.sleep(1)
        assert operator.received == []  # it began before it was ordered, elsewhere
        tx = await charger.start(0)
        assert tx != yesterday["transactionId"]
        assert await operator.responses() == [{"status": "Accepted", "transactionId": tx}]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_of_two_remote_starts_with_one_tag_each_gets_its_own(gateway, operator, order):
    async with plugged(gateway) as charger:
        await charger.status("Preparing", 2)
        await gateway.settled()
        for connector in (1, 2):
            operator.send(f"CP-1/{connector}", "remoteStart", {"idTag": "TAG"})
            await accept(charger)
        began = {connector: await charger.start(0, connector=connector) for connector in order}
        assert await operator.responses(2) == [
            {"status": "Accepted", "transactionId": began[connector]} for connector in order
        ]


async def test_of_two_remote_starts_the_tag_says_which_began_elsewhere(gateway, operator):
    async with plugged(gateway) as charger:
        await charger.status("Preparing", 2)
        await gateway.settled()
        for connector, tag in ((1, "A"), (2, "B")):
            operator.send(f"CP-1/{connector}", "remoteStart", {"idTag": tag})
            await accept(charger)
        crossed = await charger.start(0, connector=2, tag="A")
        assert await operator.responses() == [
            {"status": "Accepted", "connectorId": 2, "transactionId": crossed}
        ]
        third = await charger.start(0, connector=3, tag="B")
        assert (await operator.responses(2))[1] == {
            "status": "Accepted",
            "connectorId": 3,
            "transactionId": third,
        }


async def test_of_two_remote_starts_with_one_tag_the_older_gets_what_begins_elsewhere(
    gateway, operator
):
    async with plugged(gateway) as charger:
        await charger.status("Preparing", 2)
        await gateway.settled()
        for connector in (1, 2):
            operator.send(f"CP-1/{connector}", "remoteStart", {"idTag": "TAG"})
            await accept(charger)
        elsewhere = await charger.start(0, connector=3)
        assert (await operator.responses())[0]["transactionId"] == elsewhere
        there = await charger.start(0, connector=1)
        assert await operator.responses(2) == [
            {"status": "Accepted", "connectorId": 3, "transactionId": elsewhere},
            {"status": "Accepted", "connectorId": 1, "transactionId": there},
        ]


async def test_a_start_that_is_only_repeated_is_not_the_one_that_was_ordered(gateway, operator):
    """The answer to it was lost, so it comes again; HC-71."""
    start = {"connectorId": 1, "idTag": "TAG", "meterStart": 0, "timestamp": WHEN}
    async with plugged(gateway) as charger:
        old = await charger.ask("StartTransaction", **start)
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        assert await charger.ask("StartTransaction", **start) == old
        await trio.sleep(1)
        assert operator.received == []
        tx = await charger.start(5)
        assert (await operator.responses())[0]["transactionId"] == tx


async def test_a_remote_start_without_a_tag_takes_the_configured_one():
    async with (
        open_gateway(settings=AppSettings(default_id_tag="HOUSE")) as gateway,
        plugged(gateway) as charger,
        trio.open_nursery() as nursery,
    ):
        operator = Operator(gateway, nursery)
        for params in (None, {}):
            operator.send("CP-1/1", "remoteStart", params)
            _, payload = await accept(charger, "Rejected")
            assert payload["idTag"] == "HOUSE"
        assert await operator.responses(2) == [{"status": "Rejected"}] * 2


@pytest.mark.parametrize("params", [None, {}, {"idTag": 5}, {"idtag": "x"}, "TAG", True, ["TAG"],
                                    {"idTag": ""}, {"idTag": "x" * 21}])  # fmt: skip
async def test_a_remote_start_needs_a_tag_from_somewhere(gateway, operator, params):
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", "remoteStart", params)
        if params == {"idTag": ""}:
            await accept(charger, "Rejected")  # OCPP allows it
            return
        await operator.responses()
        assert operator.codes == ["InvalidParams"]
        assert charger.calls.statistics().current_buffer_used == 0


async def test_a_remote_start_that_is_rejected_is_a_result(gateway, operator):
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger, "Rejected")
        assert await operator.responses() == [{"status": "Rejected"}]


async def test_a_remote_start_that_nothing_follows_times_out(gateway, operator):
    """HC-111: accepted, but nobody plugged in; there is no phantom transaction."""
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        before = trio.current_time()
        await operator.responses()
        assert operator.codes == ["Timeout"]
        assert 60 <= operator.times[0] - before < 61
        assert gateway.running.bus.fleet.open_transaction("CP-1", 1) is None


async def test_a_start_that_the_tag_may_not_make_is_told_with_its_reason(gateway, operator):
    """The charge point began it all the same, so it has an id, and will end it itself."""
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        await accept(charger)
        tx = await charger.start(0, tag="")
        assert await operator.responses() == [
            {"status": "Rejected", "reason": "Invalid", "transactionId": tx}
        ]
