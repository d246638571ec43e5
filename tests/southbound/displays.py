"""A charge point with a display for drivers, and what it shows."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import trio

from ..conftest import Gateway

SHOWS = {"CustomDisplayCostAndPrice": "true"}
PRICES = {
    "tariffs": [
        {
            "id": "STD",
            "currency": "EUR",
            "elements": [
                {
                    "price_components": [
                        {"type": kind, "price": Decimal(price), "vat": Decimal(21), "step_size": 1}
                        for kind, price in (
                            ("FLAT", "0.50"),
                            ("ENERGY", "0.40"),
                            ("PARKING_TIME", "6"),
                        )
                    ]
                }
            ],
        }
    ],
    "assign": [{"default": True, "tariffs": ["STD"]}],
    "policy": {"idle_grace_s": 600},
    "time_zone": "Europe/Amsterdam",
}


@attrs.define(eq=False)
class Screen:
    """A charge point's end: answers what it is asked, and keeps it.

    order: every frame from the gateway, as the charge point reads them.
    gate: while there is one, calls wait for it before they are answered.
    """

    charger: Any
    keys: dict[str, str]
    status: str = "Accepted"
    refusal: str | None = None
    gate: trio.Event | None = None
    asked: list[Any] = attrs.field(factory=list)
    shown: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    order: list[str] = attrs.field(factory=list)

    def names(self) -> list[str]:
        return [name for name, _ in self.shown]

    async def run(self) -> None:
        async for unique_id, action, payload in self.charger.calls:
            if action == "DataTransfer":
                assert payload["vendorId"] == "org.openchargealliance.costmsg"
                self.shown.append((payload["messageId"], json.loads(payload["data"])))
            elif action != "TriggerMessage":  # which is `resync`'s
                self.asked.append((action, payload))
            if self.gate is not None:
                await self.gate.wait()
            if self.refusal is not None:
                await self.charger.send([4, unique_id, self.refusal, "", {}])
            elif action == "DataTransfer":
                await self.charger.reply(unique_id, status=self.status)
            elif action == "TriggerMessage":
                await self.charger.reply(unique_id, status="NotImplemented")
            else:
                known = [
                    {"key": key, "readonly": True, "value": value}
                    for key, value in self.keys.items()
                ]
                await self.charger.reply(unique_id, configurationKey=known, unknownKey=[])

    def overhear(self) -> None:
        """Keep the order of all frames.  To be called before anything is read."""
        socket = self.charger.socket
        get_message = socket.get_message

        async def overheard() -> str:
            text = await get_message()
            frame = json.loads(text)
            name = frame[3].get("messageId", frame[2]) if frame[0] == 2 else "answer"
            self.order.append(name)
            return str(text)

        socket.get_message = overheard

    async def authorize(self, tag: str = "TAG") -> None:
        await self.charger.ask("Authorize", idTag=tag)


@asynccontextmanager
async def screen(gateway: Gateway, name: str = "CP-1", *, boot: bool = True, **how: Any):
    async with gateway.charger(name) as charger, trio.open_nursery() as nursery:
        found = Screen(charger, **{"keys": SHOWS, **how})
        found.overhear()
        nursery.start_soon(found.run)
        if boot:
            await charger.boot()
            await gateway.settled()
        yield found
        nursery.cancel_scope.cancel()
