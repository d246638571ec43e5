"""The real gateway between charge points and the double, and what must be stored in the end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import attrs
import msgspec
import pytest
import trio

from gateway.admin.server import respond
from gateway.app import AppSettings
from gateway.domain.clock import milliseconds
from gateway.domain.events import TransactionSettled
from gateway.northbound.batching import TELEMETRY_TOPIC
from gateway.northbound.mqtt import Broker, open_link
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import TOPICS, NorthboundSettings
from gateway.northbound.telemetry import telemetry_rows
from gateway.simulation.thingsboard import ThingsBoard

from ..conftest import Gateway, open_gateway
from ..fakes import now

LOG = "ocpp-gateway sessions"
OF_LIFE = {"connected", "status"}  # what signs of life say
TOKEN = "secret"

PROFILES = ("3.8", "4.2.1", "4.3")
on_each = pytest.mark.parametrize("profile", PROFILES)
from_4_2_1 = pytest.mark.parametrize("profile", PROFILES[1:])

Point = tuple[str, str, int]
_encoder = msgspec.json.Encoder(decimal_format="number")


def stamp(seconds: float) -> str:
    """An instant so many seconds from now."""
    return (now() + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def instant(text: str) -> int:
    return milliseconds(datetime.fromisoformat(text))


def link_lines(logs: list[Any]) -> list[tuple[str, str]]:
    """(event, why) of what is logged of the link at info and above."""
    return [
        (log["event"], log.get("why", ""))
        for log in logs
        if log["event"].startswith("link ") and log["log_level"] in ("info", "warning")
    ]


@attrs.define
class ConnectedGateway:
    """A gateway, the double above it, and what charge points have sent by their own account."""

    gateway: Gateway
    thingsboard: ThingsBoard
    sampled: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict)
    charges: list[str] = attrs.field(factory=list)

    def readiness(self) -> dict[str, Any]:
        """What /readyz says."""
        sent: dict[str, Any] = json.loads(respond("GET", "/readyz", self.gateway.running)[2])
        return sent

    def behind(self) -> int:
        return int(self.readiness()["behind_entries"])

    def mqtt_status(self) -> str:
        return str(self.readiness()["mqtt"])

    async def dead_letters(self) -> Any:
        return await self.gateway.journal.dead_letters(READER)

    async def charge_two(self) -> None:
        """CP-1 and CP-2, at the same time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.charge, "CP-1")
            nursery.start_soon(self.charge, "CP-2")

    async def charge(self, name: str, samples: int = 12) -> None:
        """An hour's charge, sent in a moment: 10 kWh, and a SoC that only ever climbs."""
        async with self.gateway.charger(name) as charger:
            await charger.boot()
            await charger.status("Preparing")
            started = await charger.ask(
                "StartTransaction",
                connectorId=1,
                idTag="TAG",
                meterStart=1_000,
                timestamp=stamp(-3600),
            )
            tx = started["transactionId"]
            await self.samples(charger, tx, samples)
            await charger.ask(
                "StopTransaction", transactionId=tx, meterStop=11_000, timestamp=stamp(0)
            )
            self.charges.append(name)

    async def samples(self, charger: Any, tx: int, count: int) -> None:
        for n in range(count):
            at = stamp(-3600 + (n + 1) * 3600 / (count + 1))
            values = [
                ("Energy.Active.Import.Register", 1_000 + (n + 1) * 10_000 // (count + 1), "Wh"),
                ("SoC", n + 1, "Percent"),
            ]
            sampled = [{"measurand": m, "value": str(v), "unit": u} for m, v, u in values]
            await charger.ask(
                "MeterValues",
                connectorId=1,
                transactionId=tx,
                meterValue=[{"timestamp": at, "sampledValue": sampled}],
            )
            self.sampled.setdefault(charger.id, []).append((instant(at), n + 1))

    # --- what must be so in the end --------------------------------------------------------------

    def published(self, *, with_dead_letters: bool = False) -> dict[Point, Any]:
        """All that the journal holds for ThingsBoard, but for the dead letters."""
        known = self.gateway.journal._dead_letters.get(READER, ())
        dead = set() if with_dead_letters else {letter.seq for letter in known}
        return {
            (row.device, key, row.ts): json.loads(_encoder.encode(value))
            for entry in self.gateway.journal._entries
            if entry.seq not in dead
            for row in telemetry_rows(entry.event, LOG)
            if row.ts is not None
            for key, value in row.values.items()
        }

    def stored(self) -> dict[Point, Any]:
        return {
            (device.name, key, ts): value
            for device in self.thingsboard.devices.values()
            for ts, values in device.rows()
            for key, value in values.items()
        }

    def missing(self) -> list[Point]:
        stored = self.stored()
        return [point for point, value in self.published().items() if stored.get(point) != value]

    async def all_stored(self, within: float = 30, *, in_order: bool = True) -> None:
        """Everything is stored once, as it was published and in order, and no rule is broken."""
        try:
            with trio.fail_after(within):
                while self.behind() or self.missing():  # noqa: ASYNC110  both ends have their say
                    await trio.sleep(0.02)
        except trio.TooSlowError:
            raise AssertionError(f"not stored: {self.missing()[:5]}, {self.readiness()}") from None
        more = self.stored().keys() - self.published(with_dead_letters=True).keys()
        assert {key for _, key, _ in more} <= OF_LIFE
        for name, sampled in self.sampled.items():
            assert self.thingsboard.devices[f"{name}/1"].series("soc_percent") == sampled
            arrivals = [sample for sample in self.first_arrivals(f"{name}/1") if sample in sampled]
            assert arrivals == sampled or not in_order
        for name in self.charges:
            (receipt,) = [
                value for _, value in self.thingsboard.devices[f"{name}/1"].series("receipt")
            ]
            assert (receipt["energy_wh"], receipt["total_incl_vat"]) == ("10000", "3.00")
        settled = self.gateway.events(TransactionSettled)
        assert len(self.thingsboard.devices[LOG].series("receipt")) == len(settled)
        assert self.contradictions() == []
        assert self.thingsboard.publishes.max_in_flight <= 50
        assert self.thingsboard.violations == []

    def contradictions(self) -> list[Point]:
        """M2: points that were sent again with another value.  (Signs of life may share an ms.)"""
        sent: dict[Point, Any] = {}
        return [
            (device, key, row["ts"])
            for message in self.thingsboard.messages
            if message.topic == TELEMETRY_TOPIC
            for device, rows in json.loads(message.payload).items()
            for row in rows
            for key, value in row["values"].items()
            if key not in OF_LIFE and sent.setdefault((device, key, row["ts"]), value) != value
        ]

    def first_arrivals(self, device: str) -> list[tuple[int, int]]:
        """The samples of a device in the order in which each was first taken."""
        seen: dict[tuple[int, int], None] = {}
        for message in self.thingsboard.messages:
            if message.topic == TELEMETRY_TOPIC and all(
                code < 0x80 for code in message.outcome.codes
            ):
                for row in json.loads(message.payload).get(device, ()):
                    if "soc_percent" in row["values"]:
                        seen[row["ts"], row["values"]["soc_percent"]] = None
        return list(seen)


@asynccontextmanager
async def open_connected_gateway(
    profile: str = "4.3",
    *,
    settings: AppSettings | None = None,
    protocol: str = "5",
    journal: Any = None,
    thingsboard: ThingsBoard | None = None,
    **how: Any,
) -> AsyncIterator[ConnectedGateway]:
    """The real `run()` with a real link to a double of that version."""
    thingsboard = thingsboard or ThingsBoard(now=now, profile=profile, kept_messages=100_000, **how)
    many = not thingsboard.profile.ack_per_device
    settings = settings or AppSettings(
        remote_start_timeout_s=2, northbound=NorthboundSettings(batch_devices=many)
    )
    async with trio.open_nursery() as nursery:
        port = await nursery.start(thingsboard.serve_tcp)
        broker = Broker(host="127.0.0.1", port=port, access_token=TOKEN, protocol=protocol)
        link = SimpleNamespace(open_link=partial(open_link, broker, TOPICS))
        parts = {} if journal is None else {"journal": journal}
        async with open_gateway(thingsboard=link, settings=settings, **parts) as gateway:
            yield ConnectedGateway(gateway, thingsboard)
        nursery.cancel_scope.cancel()
