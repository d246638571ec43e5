"""Simulated charge points for tests, and values of what they sent."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import datetime

import trio
from central_system import now

from gateway.simulation.charge_point import SimulatedChargePoint

ACCEPTED = {"status": "Accepted"}
REJECTED = {"status": "Rejected"}


def simulated_charge_point(central, **options):
    return SimulatedChargePoint("CP", central.connect, now=now, **options)


@asynccontextmanager
async def open_charge_point(central, **options):
    """A charge point that nobody comes to, online, and stopped at the end."""
    options = {"drivers": ()} | options
    simulated = simulated_charge_point(central, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulated.run)
        await simulated.client.wait_online()
        await central.wait_call("StatusNotification", connectorId=len(simulated.connectors))
        yield simulated
        nursery.cancel_scope.cancel()


async def start_remotely(central, id_tag="TAG", **fields):
    """The transaction's id of a session that was started from afar and charges now."""
    starts = len(central.payloads("StartTransaction"))
    assert await central.call("RemoteStartTransaction", {"idTag": id_tag} | fields) == ACCEPTED
    await central.wait_call("StatusNotification", starts + 1, status="Charging")
    return starts + 1


def value_of(meter_values, measurand):
    sampled = meter_values["meterValue"][0]["sampledValue"]
    return next(v["value"] for v in sampled if v["measurand"] == measurand)


def time_of(payload):
    return datetime.fromisoformat(payload["timestamp"])
