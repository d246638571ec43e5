"""The task tree of the gateway: what is opened first is closed last, by nesting alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs
import trio

from . import __version__
from .accountant import READER as ACCOUNTANT
from .accountant import AccountingStatistics, open_accountant
from .billing.ledger import Ledger
from .bus import EventBus
from .config.model import Config
from .domain.events import ChargePointDisconnected
from .domain.fleet import Fleet
from .journal import Journal
from .journal.retention import open_retention
from .northbound.mqtt import Link
from .northbound.outbox import READER as THINGSBOARD
from .northbound.publisher import NorthboundSettings, Shutdown, open_publisher
from .northbound.statistics import DeliveryStatistics
from .observability.frame_tap import FrameTap
from .southbound.commands import CommandRunner
from .southbound.driver_display import open_driver_displays
from .southbound.registry import Registry
from .southbound.server import open_southbound
from .southbound.settings import SouthboundSettings
from .southbound.statistics import ConnectionStatistics
from .tariffs.tariff import TariffBook

Now = Callable[[], datetime]
# Of the grace: after the charge points' part of it, and before ThingsBoard's.
_ACCOUNTING_SHARE = 0.25


@attrs.frozen(kw_only=True)
class AppSettings:
    """The settings of every part of the gateway.

    default_id_tag, remote_start_timeout_s: see `commands.CommandRunner`.
    driver_display: show drivers their costs, where charge points can.
    stale_session: see `accountant.open_accountant`.  keep: see `journal.retention.open_retention`.
    """

    southbound: SouthboundSettings = attrs.field(factory=SouthboundSettings)
    northbound: NorthboundSettings = attrs.field(factory=NorthboundSettings)
    default_id_tag: str | None = None
    remote_start_timeout_s: float = 60.0
    driver_display: bool = False
    stale_session: timedelta = timedelta(hours=72)
    keep: timedelta = timedelta(days=400)
    software: str = ""

    @classmethod
    def of(cls, config: Config, *, max_connections: int = 10_000) -> AppSettings:
        """max_connections: see `SouthboundSettings.of`."""
        return cls(
            southbound=SouthboundSettings.of(config, max_connections=max_connections),
            northbound=NorthboundSettings.of(config),
            default_id_tag=config.commands.default_id_tag,
            remote_start_timeout_s=config.commands.remote_start_timeout_s,
            driver_display=config.pricing.driver_display,
            stale_session=timedelta(hours=config.ocpp.stale_session_h),
            keep=timedelta(days=config.storage.keep_days),
            software=__version__,
        )


@attrs.define
class TariffReloads:
    """How often the tariff file was read again: taken, or refused for its faults."""

    taken: int = 0
    refused: int = 0


@attrs.frozen
class RunningGateway:
    """The parts of a running gateway, for metrics, health and the admin port."""

    bus: EventBus
    registry: Registry
    ledger: Ledger
    delivery: DeliveryStatistics
    connections: ConnectionStatistics
    accounting: AccountingStatistics
    frame_tap: FrameTap
    reloads: TariffReloads = attrs.field(factory=TariffReloads)

    def lag(self) -> tuple[int, float]:
        """What ThingsBoard has not acknowledged: entries, and seconds since the oldest came."""
        entries = self.delivery.tracker.count_remaining(self.bus.journal.statistics().last_seq)
        since = self.bus.lag_clock.oldest_at(self.delivery.delivered_seq + 1)
        if not entries or since is None:
            return entries, 0.0
        return entries, max(0.0, trio.current_time() - since)


async def run(
    journal: Journal,
    listeners: Sequence[trio.abc.Listener[Any]],
    open_link: Callable[[], AbstractAsyncContextManager[Link]],
    tariff_book: TariffBook,
    now: Now,
    settings: AppSettings,
    wait_stop: Callable[[RunningGateway], Awaitable[object]],
    *,
    task_status: trio.TaskStatus[RunningGateway] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the gateway until `wait_stop` returns, then leave in order."""
    bus = EventBus(journal, Fleet.of(await journal.devices()))
    registry = Registry()
    ledger = Ledger(tariff_book, software=settings.software)
    frame_tap = FrameTap(now)
    commands = CommandRunner(
        bus, registry, now, frame_tap, settings.default_id_tag, settings.remote_start_timeout_s
    )
    shutdown = Shutdown()
    async with open_retention(journal, (ACCOUNTANT, THINGSBOARD), settings.keep, now):
        await _publish_disconnections(bus, now)
        async with (
            # subscribes to all events, is closed last
            open_publisher(
                open_link,
                bus,
                commands.carry_out,
                now,
                settings.northbound,
                shutdown,
                frame_tap.for_thingsboard,
            ) as delivery,
            # reads charge points' events, publishes derived events
            open_accountant(
                bus,
                ledger,
                now,
                settings.stale_session,
                _ACCOUNTING_SHARE * settings.northbound.grace_s,
            ) as accounting,
            # reads derived events, calls charge points that have a display
            open_driver_displays(bus, registry, ledger, now)
            if settings.driver_display
            else nullcontext(),
            # publishes charge points' events, is closed first
            open_southbound(
                listeners, bus, registry, now, settings.southbound, frame_tap
            ) as connections,
        ):
            running = RunningGateway(
                bus, registry, ledger, delivery, connections, accounting, frame_tap
            )
            task_status.started(running)
            await wait_stop(running)
            shutdown.begin()


async def _publish_disconnections(bus: EventBus, now: Now) -> None:
    """No charge point is connected at a start, whatever the journal says of the time before a
    crash.
    """
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
        if bus.fleet.state_of(name).get("connected")
    ]
    if absent:
        await bus.publish(*absent)
