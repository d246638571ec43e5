"""The publisher: sends the journal's events to ThingsBoard over MQTT, one link after another.

The link may come and go; what is outside `_serve_link` does not notice.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime

import attrs
import structlog
import trio

from ..bus import Entry, EventBus, JournalError, Overflow
from ..config.model import Config
from ..domain.exceptions import first_reason
from ..observability.frame_tap import FrameSubscription
from . import compat_nodered
from .checkpoint import CheckpointTracker
from .deferrals import DeferralCounts
from .delivery import TelemetrySender
from .device_sessions import DeviceSessions
from .frame_traces import FrameTraces
from .link_status import LinkStatus
from .mqtt import Link, LinkLost, publish
from .outbox import READER, Outbox, Translate
from .poison import PoisonDetector
from .rate_limits import LIMITS_REQUEST, LIMITS_RESPONSE_TOPIC, RateLimiter
from .rpc_messages import RPC_TOPIC
from .rpc_server import CarryOut, MapRpc, RpcServer
from .statistics import DeliveryStatistics
from .telemetry import TelemetryRow, telemetry_rows

TOPICS = (RPC_TOPIC, LIMITS_RESPONSE_TOPIC)
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 1.0, 60.0  # seconds between attempts to connect
_STABLE_AFTER = 25.0  # seconds after which a link holds: one that is never acknowledged lasts 20
_SHARE_OF_GRACE = 0.8  # of the grace; in what remains, the store is closed and the process ends

log = structlog.get_logger(__name__)

OpenLink = Callable[[], AbstractAsyncContextManager[Link]]


@attrs.frozen(kw_only=True)
class NorthboundSettings:
    """session_log: name of the session log's device.

    batch_devices: see `batching`.
    grace_s: seconds in which the whole gateway stops.
    max_in_order: see `outbox.Outbox`.
    extra_rows: rows beyond the product's own, as for the prototype's dashboards.
    map_rpc: what an RPC is to be taken for, likewise.
    """

    session_log: str = "ocpp-gateway sessions"
    batch_devices: bool = False
    grace_s: float = 10.0
    max_in_order: int | None = 2_000
    extra_rows: Translate = lambda _: ()
    map_rpc: MapRpc = lambda rpc: rpc

    @classmethod
    def of(cls, config: Config) -> NorthboundSettings:
        board = config.thingsboard
        settings = cls(
            session_log=board.session_log,
            batch_devices=board.batch_devices,
            grace_s=config.ocpp.grace_s,
        )
        if board.compat != "node-red":
            return settings
        return attrs.evolve(
            settings,
            extra_rows=compat_nodered.PrototypeKeys().rows,
            map_rpc=compat_nodered.map_rpc,
            # The prototype's summary at a stop needs all values before it: publish in order only.
            max_in_order=None,
        )


@attrs.define
class Shutdown:
    """When the gateway began to stop, in Trio's time: all parts share one grace period."""

    since: float = math.inf

    def begin(self) -> None:
        self.since = trio.current_time()


@asynccontextmanager
async def open_publisher(
    open_link: OpenLink,
    bus: EventBus,
    carry_out: CarryOut,
    now: Callable[[], datetime],
    settings: NorthboundSettings,
    shutdown: Shutdown | None = None,
    frames: FrameSubscription | None = None,
) -> AsyncIterator[DeliveryStatistics]:
    """Publish every event to ThingsBoard; on leaving the block, what is left.

    That takes until nearly `grace_s` seconds after the gateway began to stop (after the end of the
    block, without `shutdown`).  What is not published by then stays in the journal for the next
    start.
    frames: of charge points that are traced.
    """
    checkpoint = await bus.journal.checkpoint(READER)
    await _note_oldest(bus, checkpoint.seq, now)
    tracker = CheckpointTracker(checkpoint.seq, checkpoint.ahead)
    statistics = DeliveryStatistics(tracker)
    frame_traces = None if frames is None else FrameTraces(frames)
    rate_limiter = RateLimiter()

    def translate(entry: Entry) -> Sequence[TelemetryRow]:
        return *telemetry_rows(entry.event, settings.session_log), *settings.extra_rows(entry)

    async with trio.open_nursery() as nursery:
        with bus.subscribe(overflow=Overflow.REREAD, after=tracker.seq, capacity=8_000) as entries:
            outbox = Outbox(bus, entries, tracker, translate, settings.max_in_order)
            rpc_server = RpcServer(bus.fleet, carry_out, settings.map_rpc, rate_limiter, nursery)
            publisher = _Publisher(
                bus, outbox, rpc_server, rate_limiter, statistics, now, settings, frame_traces
            )
            nursery.start_soon(publisher.run, open_link, nursery.cancel_scope)
            yield statistics
            publisher.stopping = True
        began = min(shutdown.since if shutdown else math.inf, trio.current_time())
        nursery.cancel_scope.deadline = began + _SHARE_OF_GRACE * settings.grace_s
        publisher.retry_pause.cancel()


async def _note_oldest(bus: EventBus, checkpoint: int, now: Callable[[], datetime]) -> None:
    """Since when a gateway that just starts is behind (see `bus.lag_clock`)."""
    for entry in await bus.journal.read(after=checkpoint, limit=1):
        age = (now() - entry.event.received_at).total_seconds()
        bus.lag_clock.mark(entry.seq, trio.current_time() - max(0.0, age))


class _Publisher:
    """Owns: the link that there is, the pause between two, and what is remembered over all."""

    def __init__(
        self,
        bus: EventBus,
        outbox: Outbox,
        rpc_server: RpcServer,
        rate_limiter: RateLimiter,
        statistics: DeliveryStatistics,
        now: Callable[[], datetime],
        settings: NorthboundSettings,
        frame_traces: FrameTraces | None,
    ) -> None:
        self._bus = bus
        self._outbox = outbox
        self._rpc_server = rpc_server
        self._rate_limiter = rate_limiter
        self._statistics = statistics
        self._now = now
        self._settings = settings
        self._frame_traces = frame_traces
        self._link_status = LinkStatus(statistics)
        self._deferral_counts = DeferralCounts()
        self._poison = PoisonDetector(rate_limiter, self._deferral_counts)
        self.retry_pause = trio.CancelScope()  # cancelled, it ends a pause between two attempts
        self.stopping = False

    async def run(self, open_link: OpenLink, commands: trio.CancelScope) -> None:
        """Hold a link until the outbox has ended and is empty, or the gateway stops without a link.

        The guard of the MQTT side: whatever one attempt throws out of aiomqtt, paho or
        trio-asyncio ends that attempt and is followed by another.
        commands: what is cancelled in the end, as no response could be sent any more.
        """
        pause, done = _FIRST_RETRY_DELAY, False
        while True:
            why, up_at = "ended", math.inf
            try:
                async with open_link() as link:
                    up_at = trio.current_time()
                    self._link_status.link_up()
                    await self._serve_link(link)
                    done = True
            except* JournalError:
                raise
            except* LinkLost as group:
                why = first_reason(group)
            except* Exception as group:
                why = f"unexpected: {first_reason(group)}"
                log.debug("link broke", exc_info=group)
            self._outbox.disconnected()
            if done:
                self._link_status.link_ended()
                break
            self._link_status.link_down(why)
            if self.stopping:
                break
            if trio.current_time() - up_at >= _STABLE_AFTER:
                pause = _FIRST_RETRY_DELAY
            with trio.CancelScope() as self.retry_pause:
                await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(pause * 2, _MAX_RETRY_DELAY)
        commands.cancel()

    async def _serve_link(self, link: Link) -> None:
        """Publish and serve RPCs over one link, until the gateway stops.  Raises LinkLost."""
        newest_seq = self._bus.journal.statistics().last_seq
        self._deferral_counts.forget_done(self._statistics.tracker)
        watched = self._poison.watch_link(link, self._statistics)
        device_sessions = DeviceSessions(
            watched,
            self._bus.fleet,
            self._now,
            self._rate_limiter,
            self._deferral_counts,
            session_log=self._settings.session_log,
            batch_devices=self._settings.batch_devices,
        )
        sender = TelemetrySender(
            watched,
            device_sessions,
            self._bus.fleet,
            self._statistics,
            self._rate_limiter,
            self._deferral_counts,
            batch_devices=self._settings.batch_devices,
        )
        async with trio.open_nursery() as nursery:  # the first to lose the link ends them all
            nursery.start_soon(self._rpc_server.receive, link)
            nursery.start_soon(self._wait_holding)
            await publish(watched, [LIMITS_REQUEST])
            await self._rate_limiter.wait_limits_known()
            nursery.start_soon(device_sessions.keep_alive)
            if self._frame_traces is not None:
                nursery.start_soon(self._frame_traces.publish, sender)
            async with trio.open_nursery() as publishing:
                publishing.start_soon(self._rpc_server.send_responses, watched, device_sessions)
                await self._outbox.publish_all(sender, device_sessions, newest_seq)
                self._rpc_server.close()
            nursery.cancel_scope.cancel()

    async def _wait_holding(self) -> None:
        await trio.sleep(_STABLE_AFTER)
        self._link_status.link_holds()
