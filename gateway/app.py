"""The roof.  What stands under it is opened top-down and closed bottom-up, by nesting alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs
import trio

from .accountant import READER as ACCOUNTANT
from .accountant import Books, open_accountant
from .billing.ledger import Ledger
from .bus import EventBus
from .domain.events import ChargePointDisconnected
from .domain.fleet import Fleet
from .journal import Journal
from .journal.retention import open_retention
from .northbound.mqtt import Link
from .northbound.outbox import READER as THINGSBOARD
from .northbound.publisher import Closing, NorthSettings, open_north
from .northbound.statistics import Statistics
from .observability.frame_tap import Tap
from .southbound.commands import Orders
from .southbound.driver_display import open_displays
from .southbound.registry import Registry
from .southbound.server import DoorSettings, open_southbound
from .southbound.statistics import Tally
from .tariffs.tariff import TariffBook

Now = Callable[[], datetime]
_BOOKS = 0.25  # of the grace: what charge points left of it, and before ThingsBoard's part


@attrs.frozen(kw_only=True)
class Settings:
    """What each room is told.

    id_tag, start_timeout: see `commands.Orders`.
    driver_display: show drivers their costs, where charge points can.
    stale_after: see `accountant.open_accountant`.  keep: see `journal.retention.open_retention`.
    """

    door: DoorSettings = attrs.field(factory=DoorSettings)
    north: NorthSettings = attrs.field(factory=NorthSettings)
    default_id_tag: str | None = None
    start_timeout: float = 60.0
    driver_display: bool = False
    stale_after: timedelta = timedelta(hours=72)
    keep: timedelta = timedelta(days=400)
    software: str = ""


@attrs.define
class Reloads:
    """How often the tariff file was read again: taken, or refused for its faults."""

    taken: int = 0
    refused: int = 0


@attrs.frozen
class House:
    """The rooms of a running gateway, for those who look on."""

    bus: EventBus
    registry: Registry
    ledger: Ledger
    north: Statistics
    south: Tally
    books: Books
    tap: Tap
    reloads: Reloads = attrs.field(factory=Reloads)

    def behind(self) -> tuple[int, float]:
        """What ThingsBoard has not acknowledged: entries, and seconds since the oldest came."""
        entries = self.north.told.behind(self.bus.journal.statistics().last_seq)
        since = self.bus.timeline.oldest(self.north.place + 1)
        if not entries or since is None:
            return entries, 0.0
        return entries, max(0.0, trio.current_time() - since)


async def run(
    journal: Journal,
    listeners: Sequence[trio.abc.Listener[Any]],
    open_link: Callable[[], AbstractAsyncContextManager[Link]],
    book: TariffBook,
    now: Now,
    settings: Settings,
    wait_stop: Callable[[House], Awaitable[object]],
    *,
    task_status: trio.TaskStatus[House] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the gateway until `wait_stop` returns, then leave in order."""
    bus = EventBus(journal, Fleet.of(await journal.devices()))
    registry = Registry()
    ledger = Ledger(book, software=settings.software)
    tap = Tap(now)
    orders = Orders(bus, registry, now, tap, settings.default_id_tag, settings.start_timeout)
    closing = Closing()
    async with open_retention(journal, (ACCOUNTANT, THINGSBOARD), settings.keep, now):
        await _tell_absent(bus, now)
        async with (
            # hears everyone, leaves last
            open_north(
                open_link, bus, orders.carry_out, now, settings.north, closing, tap.for_thingsboard
            ) as north,
            # hears the charge points, tells the north
            open_accountant(
                bus, ledger, now, settings.stale_after, _BOOKS * settings.north.grace
            ) as books,
            # hears the accountant, tells the drivers
            open_displays(bus, registry, ledger, now) if settings.driver_display else nullcontext(),
            # tells everyone, leaves first
            open_southbound(listeners, bus, registry, now, settings.door, tap) as south,
        ):
            house = House(bus, registry, ledger, north, south, books, tap)
            task_status.started(house)
            await wait_stop(house)
            closing.begin()


async def _tell_absent(bus: EventBus, now: Now) -> None:
    """Nobody is connected at a start, whatever was last known before a crash."""
    last_seq = bus.journal.statistics().last_seq
    newest = await bus.journal.read(after=last_seq - 1, limit=1)
    gone = partial(
        ChargePointDisconnected,
        received_at=now(),
        reason="the gateway stopped unexpectedly",
        last_heard_at=newest[-1].event.received_at if newest else None,
    )
    absent = [
        gone(charge_point_id=name, connectors=bus.fleet.connectors(name))
        for name in bus.fleet.charge_points()
        if bus.fleet.about(name).get("connected")
    ]
    if absent:
        await bus.publish(*absent)
