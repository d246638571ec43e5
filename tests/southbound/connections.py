"""What the tests of connections share."""

from __future__ import annotations

import base64
import math
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.app import AppSettings
from gateway.domain.events import ChargePointDisconnected
from gateway.journal import JournalError
from gateway.southbound.authentication import hash_password
from gateway.southbound.settings import SouthboundSettings
from tests.memory_journal import MemoryJournal

from ..conftest import Gateway
from ..fakes import FakeCharger

HALF_AN_ANSWER = b'\x81\x32[3,"m"'  # what a clogged stream has room for


def southbound_settings(**settings: Any) -> AppSettings:
    return AppSettings(southbound=SouthboundSettings(**settings))


UNASKED = southbound_settings(boot_wait_s=math.inf)
"""Nobody is asked how it is: what comes from the gateway is what a test is about."""


def connected(gateway: Gateway, charge_point_id: str) -> Any:
    return gateway.running.bus.fleet.state_of(charge_point_id).get("connected")


def reasons(gateway: Gateway, charge_point_id: str) -> list[str]:
    """Why it was told to have left, each time."""
    return [
        event.reason
        for event in gateway.events(ChargePointDisconnected)
        if event.charge_point_id == charge_point_id
    ]


def faults_of_ours(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in logs if entry["log_level"] in ("warning", "error", "critical")]


async def serves(charger: FakeCharger) -> bool:
    return "currentTime" in await charger.ask("Heartbeat")


@asynccontextmanager
async def others(gateway: Gateway):
    """A charge point that has nothing to do with what happens in the block, and serves on."""
    async with gateway.charger("OTHER") as other:
        await other.boot()
        yield other
        assert await serves(other)
        assert reasons(gateway, "OTHER") == []


PASSWORD = "correct horse"
HASH = hash_password(PASSWORD)


def authorization(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class SlowJournal(MemoryJournal):
    """Its appends wait while `held`; `fails` makes them raise."""

    def __init__(self) -> None:
        super().__init__()
        self.held = trio.Event()
        self.held.set()
        self.fails = False

    async def append(self, *events: Any, checkpoint: Any = None) -> Any:
        await self.held.wait()
        if self.fails:
            raise JournalError("the disk is full")
        return await super().append(*events, checkpoint=checkpoint)
