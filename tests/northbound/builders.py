"""What tests of the publisher are built of: events, RPCs, and a publisher without a gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.app import AppSettings
from gateway.bus import EventBus
from gateway.domain.commands import Done
from gateway.domain.events import ChargePointConnected, FirmwareStatusChanged
from gateway.domain.fleet import Fleet
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import NorthboundSettings, open_publisher
from gateway.northbound.rate_limits import LIMITS_REQUEST
from gateway.northbound.rpc_messages import RPC_TOPIC
from gateway.northbound.statistics import DeliveryStatistics
from tests.memory_journal import MemoryJournal

from ..conftest import Gateway, open_gateway
from ..fakes import CONNECT, EPOCH, FakeThingsBoard, now

FEW = 50  # entries; a longer backlog is overtaken
LOG = "ocpp-gateway sessions"
A_MOMENT = 2.0  # seconds in which all that has been gathered is published


async def settled() -> None:
    await trio.sleep(A_MOMENT)
    await wait_all_tasks_blocked()


async def wait_until(is_true: Callable[[], object], within: float = 300) -> None:
    with trio.fail_after(within):
        while not is_true():  # noqa: ASYNC110  virtual time: it costs nothing
            await trio.sleep(0.5)


# --- events --------------------------------------------------------------------------------------


def firmware(status: str, name: str = "CP-1", after: float = 0) -> FirmwareStatusChanged:
    at = EPOCH + timedelta(seconds=after)
    return FirmwareStatusChanged(charge_point_id=name, received_at=at, status=status)


def numbered(n: int, name: str = "CP-1") -> FirmwareStatusChanged:
    """An event with a number, which happened n seconds after the beginning."""
    return firmware(f"S-{n}", name, after=n)


def connected(name: str = "CP-1", address: str = "x") -> ChargePointConnected:
    return ChargePointConnected(charge_point_id=name, received_at=now(), remote_address=address)


# --- the publisher alone -------------------------------------------------------------------------


@attrs.define
class FakeCommandRunner:
    """In place of the charge points: carries out nothing, and counts.

    seconds: that each command takes.  failing: a method that raises an error of ours.
    """

    seconds: float = 0.0
    failing: str = ""
    carried_out: list = attrs.field(factory=list)

    async def carry_out(self, command):
        if command.method == self.failing:
            raise ZeroDivisionError
        self.carried_out.append(command)
        await trio.sleep(self.seconds)
        return Done({"status": "Accepted", "count": len(self.carried_out)})


@attrs.define
class PublisherAlone:
    """A publisher, the bus before it and the ThingsBoard behind it; no charge points."""

    thingsboard: FakeThingsBoard
    bus: EventBus
    journal: MemoryJournal
    statistics: DeliveryStatistics
    runner: FakeCommandRunner
    nursery: trio.Nursery

    @property
    def all_delivered(self) -> bool:
        return self.statistics.delivered_seq == self.journal.statistics().last_seq

    async def dead_letters(self) -> set[int]:
        return {letter.seq for letter in await self.journal.dead_letters(READER)}


@asynccontextmanager
async def open_publisher_alone(
    thingsboard: FakeThingsBoard | None = None,
    *names: str,
    runner: FakeCommandRunner | None = None,
    **settings: Any,
) -> AsyncIterator[PublisherAlone]:
    """names: charge points that are known."""
    thingsboard, runner = thingsboard or FakeThingsBoard(), runner or FakeCommandRunner()
    journal = MemoryJournal()
    bus = EventBus(journal, Fleet())
    for name in names or ("CP-1",):
        await bus.publish(connected(name))
    async with (
        trio.open_nursery() as nursery,
        open_publisher(
            thingsboard.open_link, bus, runner.carry_out, now, NorthboundSettings(**settings)
        ) as statistics,
    ):
        await settled()
        yield PublisherAlone(thingsboard, bus, journal, statistics, runner, nursery)


# --- a whole gateway -----------------------------------------------------------------------------


@asynccontextmanager
async def open_gateway_without_link(
    thingsboard: FakeThingsBoard | None = None, journal=None, **northbound
) -> AsyncIterator[Gateway]:
    """A gateway that has no link yet, and takes more than FEW entries for a long backlog."""
    thingsboard = thingsboard or FakeThingsBoard()
    thingsboard.up = False
    parts = {"thingsboard": thingsboard, "journal": journal or MemoryJournal()}
    configured = AppSettings(northbound=NorthboundSettings(max_in_order=FEW, **northbound))
    async with open_gateway(settings=configured, **parts) as gateway:
        yield gateway


# --- RPC, and what arrived -----------------------------------------------------------------------


def rpc_payload(
    number: int = 0, method: str = "Reset", params: Any = None, device: str = "CP-1"
) -> bytes:
    data = {"id": number, "method": method, "params": params}
    return json.dumps({"device": device, "data": data}).encode()


def responses(thingsboard: FakeThingsBoard) -> list[tuple[int, Any]]:
    return [(body["id"], body["data"]) for body in thingsboard.about(RPC_TOPIC)]


def devices_of(topic: str, body: Any) -> list[str]:
    if topic in (CONNECT, RPC_TOPIC):
        return [body["device"]]
    return [] if topic == LIMITS_REQUEST.topic else list(body)


def assert_announced_first(thingsboard: FakeThingsBoard) -> None:
    """On each link, `connect` before anything else about a device (thingsboard-contract R1)."""
    for received in thingsboard.by_link:
        announced = set()
        for topic, body in received:
            if topic == CONNECT:
                announced.add(body["device"])
            else:
                assert set(devices_of(topic, body)) <= announced, (topic, body)
