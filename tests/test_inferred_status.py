"""The status of a connector whose charge point reports none: inferred from its transactions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trio

from gateway.domain.clock import milliseconds
from tests.memory_journal import MemoryJournal

from .conftest import Gateway, open_gateway
from .fakes import FakeCharger, now

DEVICE = "CP-1/1"
LINES = ("L1", "L2", "L3")


def stamp(seconds: float = 0) -> str:
    """The charge point's clock, so many seconds from now."""
    at = now() + timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown(gateway: Gateway, device: str = DEVICE) -> dict[str, Any]:
    known = gateway.thingsboard.latest(device)
    return {key: known.get(key) for key in ("connected", "status", "status_source")}


def inferred(status: str, connected: bool = True) -> dict[str, Any]:
    return {"connected": connected, "status": status, "status_source": "inferred"}


async def refuse(charger: FakeCharger) -> None:
    async for unique_id, _, _ in charger.calls:
        await charger.send([4, unique_id, "NotImplemented", "", {}])


@pytest.mark.parametrize("boots", [False, True])
async def test_connector_1_of_one_that_reports_no_status_follows_its_transactions(gateway, boots):
    """As the prototype's simulator, which sends neither a boot nor a status."""
    async with gateway.charger("CP-1") as charger, trio.open_nursery() as nursery:
        since = milliseconds(now())
        nursery.start_soon(refuse, charger)
        if boots:
            await charger.boot()
        await trio.sleep(5)
        assert gateway.thingsboard.rows(DEVICE) == []
        await trio.sleep(20)
        assert shown(gateway) == inferred("Available")
        assert gateway.thingsboard.rows(DEVICE)[0][0] == since
        tx = await charger.start(0)
        await gateway.settled()
        assert shown(gateway) == inferred("Charging")
        await trio.sleep(60)
        await charger.stop(tx, 500)
        await gateway.settled()
        assert shown(gateway) == inferred("Available")
        await charger.stop(tx, 500)
        nursery.cancel_scope.cancel()
    await gateway.settled()
    assert shown(gateway) == inferred("Available", connected=False)
    assert gateway.thingsboard.values(DEVICE, "status").count("Charging") == 1


async def test_a_transaction_before_that_is_charging_at_once_and_closed_it_is_free(gateway):
    async with gateway.charger("CP-1") as charger:
        start = {"connectorId": 2, "idTag": "T", "meterStart": 0, "timestamp": stamp()}
        tx = (await charger.ask("StartTransaction", **start))["transactionId"]
        await charger.ask("StartTransaction", **start)
        await gateway.settled()
        assert shown(gateway, "CP-1/2") == inferred("Charging")
        await trio.sleep(60)
        assert gateway.thingsboard.rows(DEVICE) == []  # it has connectors, and tells of them
        await gateway.thingsboard.rpc("CP-1/2", "closeSession")
        await gateway.settled()
        assert shown(gateway, "CP-1/2") == inferred("Available")
        await charger.ask("StartTransaction", **start)  # a retry begins nothing
        await charger.stop(tx, 500)
        await gateway.settled()
        assert shown(gateway, "CP-1/2") == inferred("Available")


async def test_what_is_reported_is_never_inferred(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Preparing", 2)
        tx = await charger.start(0, connector=2)
        await trio.sleep(60)
        await charger.stop(tx, 9)
        await gateway.settled()
        assert shown(gateway, "CP-1/2") == inferred("Preparing") | {"status_source": "reported"}
        assert gateway.thingsboard.values("CP-1/2", "status_source") == ["reported"]
        assert gateway.thingsboard.rows(DEVICE) == []


async def test_a_report_takes_the_place_of_what_was_inferred_though_its_clock_is_slow(gateway):
    async with gateway.charger("CP-1") as charger:
        await trio.sleep(30)
        await gateway.settled()
        assert shown(gateway) == inferred("Available")
        slow = {"connectorId": 1, "errorCode": "NoError", "timestamp": stamp(-600)}
        await charger.ask("StatusNotification", status="Preparing", **slow)
        await gateway.settled()
        assert shown(gateway) == inferred("Preparing") | {"status_source": "reported"}
        await charger.start(0)
        await gateway.settled()
        assert shown(gateway)["status"] == "Preparing"


async def test_a_status_that_is_inferred_outlives_a_restart():
    journal = MemoryJournal()
    async with open_gateway(journal=journal) as before, before.charger("CP-1") as charger:
        tx = await charger.start(0)
        await before.settled()
    async with open_gateway(journal=journal) as after, after.charger("CP-1") as charger:
        await trio.sleep(60)
        await charger.stop(tx, 9)
        await after.settled()
        assert shown(after) == inferred("Available")


async def test_a_command_reaches_connector_1_before_anything_is_known_of_it(gateway):
    async with gateway.charger("CP-1") as charger, trio.open_nursery() as nursery:

        async def serve() -> None:
            unique_id, _, payload = await charger.next_call()
            assert payload == {"connectorId": 1, "idTag": "T"}
            await charger.reply(unique_id, status="Accepted")
            await charger.start(0, tag="T")

        nursery.start_soon(serve)
        answer = await gateway.thingsboard.rpc(DEVICE, "remoteStart", {"idTag": "T"})
        assert answer == {"status": "Accepted", "transactionId": 1}
        await gateway.settled()
        assert shown(gateway) == inferred("Charging")
