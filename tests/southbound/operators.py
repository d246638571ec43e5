"""Operators who send commands through ThingsBoard, and the charge points they send them to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import trio

from ..conftest import Gateway
from ..fakes import FakeCharger
from .raw_websocket import until


class Operator:
    """Sends commands and keeps the responses, in the order in which they come."""

    def __init__(self, gateway: Gateway, nursery: trio.Nursery) -> None:
        self._gateway = gateway
        self._nursery = nursery
        self.received: list[Any] = []
        self.times: list[float] = []

    def send(self, device: str, method: str, params: Any = None) -> None:
        async def ask() -> None:
            answer = await self._gateway.thingsboard.rpc(device, method, params, within=600)
            self.received.append(answer)
            self.times.append(trio.current_time())

        self._nursery.start_soon(ask)

    async def responses(self, number: int = 1) -> list[Any]:
        await until(lambda: len(self.received) >= number, within=600)
        return self.received

    @property
    def codes(self) -> list[str]:
        return [answer["error"]["code"] for answer in self.received]


@asynccontextmanager
async def plugged(gateway: Gateway, name: str = "CP-1"):
    """A charge point that is online and whose connector 1 ThingsBoard knows."""
    async with gateway.charger(name) as charger:
        await charger.boot()
        await charger.status("Preparing")
        await gateway.settled()
        yield charger


@asynccontextmanager
async def charging(gateway: Gateway):
    """A charge point with a transaction on its connector 1, and the id of that."""
    async with plugged(gateway) as charger:
        tx = await charger.start(1_000)
        await gateway.settled()
        yield charger, tx


async def accept(charger: FakeCharger, status: str = "Accepted") -> tuple[str, Any]:
    """Answer the next call; gives what it was."""
    unique_id, action, payload = await charger.next_call()
    await charger.reply(unique_id, status=status)
    return action, payload


def switch(gateway: Gateway) -> Any:
    """What a switch on a dashboard shows: the newest value that was published for it."""
    return gateway.thingsboard.latest("CP-1/1").get("tx_active")
