"""The publisher: sends the journal's events to ThingsBoard over MQTT, and serves its RPCs.

The link may come and go; what is outside `_serve_link` does not notice.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import datetime

import attrs
import structlog
import trio

from ..bus import Entry, EventBus, JournalError, Overflow
from ..config.model import Config
from ..domain.commands import Command, CommandOutcome, Failed
from ..domain.exceptions import first_reason
from ..observability.frame_tap import FrameSubscription
from . import compat_nodered
from .checkpoint import CheckpointTracker
from .deferrals import DeferralCounts
from .delivery import TelemetrySender
from .frame_traces import FrameTraces
from .link_status import LinkStatus
from .mqtt import Link, LinkLost, Publication
from .outbox import READER, Outbox, Translate
from .poison import ATTEMPTS, PoisonDetector
from .rate_limits import LIMITS_RESPONSE, LIMITS_RESPONSE_TOPIC, RateLimiter
from .rpc_messages import RPC_TOPIC, RpcError, RpcRequest, command_of, read_rpc, response_message
from .statistics import DeliveryStatistics
from .telemetry import TelemetryRow, telemetry_rows

TOPICS = (RPC_TOPIC, LIMITS_RESPONSE_TOPIC)
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 1.0, 60.0  # seconds between attempts to connect
_STABLE_AFTER = 25.0  # seconds after which a link holds: one that is never acknowledged lasts 20
_MAX_COMMANDS = 200  # RPCs under way at once
_SHARE_OF_GRACE = 0.8  # of the grace; in what remains, the store is closed and the process ends
_REMEMBERED_S = 30.0  # seconds in which an equal RPC is a repetition (thingsboard-contract R8)

log = structlog.get_logger(__name__)

OpenLink = Callable[[], AbstractAsyncContextManager[Link]]
CarryOut = Callable[[Command], Awaitable[CommandOutcome]]


@attrs.frozen(kw_only=True)
class NorthboundSettings:
    """session_log: name of the session log's device.

    batch_devices: see `batching`.  extra_rows: rows beyond the product's own, as for the
    prototype's dashboards.  method: what an RPC's method is to be taken for, likewise.
    max_in_order: see `outbox.TransactionQueue`.
    """

    session_log: str = "ocpp-gateway sessions"
    batch_devices: bool = False
    grace_s: float = 10.0
    max_in_order: int | None = 2_000
    extra_rows: Translate = lambda _: ()
    map_rpc: Callable[[RpcRequest], RpcRequest] = lambda rpc: rpc

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

    That takes until nearly `grace` seconds after the gateway began to stop (after the end of the
    block, without `shutdown`).  What is not published by then stays in the journal for the next
    start.
    frames: of charge points that are traced.
    """
    checkpoint = await bus.journal.checkpoint(READER)
    await _note_oldest(bus, checkpoint.seq, now)
    tracker = CheckpointTracker(checkpoint.seq, checkpoint.ahead)
    statistics = DeliveryStatistics(tracker)
    frame_traces = None if frames is None else FrameTraces(frames)

    def translate(entry: Entry) -> Sequence[TelemetryRow]:
        return *telemetry_rows(entry.event, settings.session_log), *settings.extra_rows(entry)

    async with trio.open_nursery() as nursery:
        with bus.subscribe(overflow=Overflow.REREAD, after=tracker.seq, capacity=8_000) as entries:
            outbox = Outbox(bus, entries, tracker, translate, settings.max_in_order)
            publisher = _Publisher(
                bus, outbox, statistics, carry_out, now, settings, nursery, frame_traces
            )
            nursery.start_soon(publisher.run, open_link)
            yield statistics
            publisher.stopping = True
        began = min(shutdown.since if shutdown else math.inf, trio.current_time())
        nursery.cancel_scope.deadline = began + _SHARE_OF_GRACE * settings.grace_s
        publisher.retry_now()


async def _note_oldest(bus: EventBus, checkpoint: int, now: Callable[[], datetime]) -> None:
    """Since when a gateway that just starts is behind (see `bus.lag_clock`)."""
    for entry in await bus.journal.read(after=checkpoint, limit=1):
        age = (now() - entry.event.received_at).total_seconds()
        bus.lag_clock.mark(entry.seq, trio.current_time() - max(0.0, age))


_Response = tuple[str, Publication]  # a device, and the response in its name


@attrs.define
class _RecentRpc:
    """One RPC under way or done, remembered for as long as it may be repeated."""

    until: float
    outcome: CommandOutcome | None = None


class _Publisher:
    """Owns: the responses that wait for a connection, and recent RPCs."""

    def __init__(
        self,
        bus: EventBus,
        outbox: Outbox,
        statistics: DeliveryStatistics,
        carry_out: CarryOut,
        now: Callable[[], datetime],
        settings: NorthboundSettings,
        commands: trio.Nursery,
        frame_traces: FrameTraces | None,
    ) -> None:
        self._bus = bus
        self._outbox = outbox
        self._carry_out = carry_out
        self._now = now
        self._settings = settings
        self._commands = commands
        self._frame_traces = frame_traces
        self._recent: dict[tuple[str, int, str, bytes], _RecentRpc] = {}
        self._under_way = 0
        self._send_response, self._responses = trio.open_memory_channel[_Response](_MAX_COMMANDS)
        self._unacknowledged: _Response | None = None  # given, but not acknowledged
        self._attempts = 0  # on so many links
        self._pause = trio.CancelScope()
        self.stopping = False
        self.statistics = statistics
        self._link_status = LinkStatus(statistics)
        self._rate_limiter = RateLimiter()
        self._deferral_counts = DeferralCounts()
        self._poison = PoisonDetector(self._rate_limiter, self._deferral_counts)

    # --- the link ------------------------------------------------------------------------------

    async def run(self, open_link: OpenLink) -> None:
        """Keep a link, and carry out what comes by it, until the gateway stops."""
        await self._keep_connected(open_link)
        self._commands.cancel_scope.cancel()  # their responses could not be sent any more

    async def _keep_connected(self, open_link: OpenLink) -> None:
        """Hold a link until the outbox has ended and is empty, or the gateway stops without a link.

        The guard of the MQTT side: whatever one attempt throws out of aiomqtt, paho or
        trio-asyncio ends that attempt and is followed by another.
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
                return
            self._link_status.link_down(why)
            if self.stopping:
                return
            if trio.current_time() - up_at >= _STABLE_AFTER:
                pause = _FIRST_RETRY_DELAY
            with trio.CancelScope() as self._pause:
                await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(pause * 2, _MAX_RETRY_DELAY)

    def retry_now(self) -> None:
        """End a pause between two attempts."""
        self._pause.cancel()

    async def _serve_link(self, link: Link) -> None:
        settings = self._settings
        newest = self._bus.journal.statistics().last_seq
        self._deferral_counts.forget_done(self.statistics.tracker)
        sender = TelemetrySender(
            self._poison.watch_link(link, self.statistics.tracker),
            self._bus.fleet,
            self._now,
            self.statistics,
            self._rate_limiter,
            self._deferral_counts,
            session_log=settings.session_log,
            batch_devices=settings.batch_devices,
        )
        async with trio.open_nursery() as nursery:  # the first to lose the link ends them all
            nursery.start_soon(self._receive_rpcs, link)
            nursery.start_soon(self._wait_holding)
            await sender.request_limits()
            nursery.start_soon(sender.keep_alive)
            if self._frame_traces is not None:
                nursery.start_soon(self._frame_traces.publish, sender)
            async with trio.open_nursery() as publishing:
                publishing.start_soon(self._send_responses, sender)
                await self._outbox.publish_all(sender, newest)
                self._send_response.close()  # the gateway stops: send what is ready
            nursery.cancel_scope.cancel()

    async def _wait_holding(self) -> None:
        await trio.sleep(_STABLE_AFTER)
        self._link_status.link_holds()

    # --- RPC -----------------------------------------------------------------------------------

    async def _send_responses(self, sender: TelemetrySender) -> None:
        """Send responses in turn; what is not acknowledged is sent again on the next connection."""
        while True:
            if self._unacknowledged is None:
                try:
                    self._unacknowledged = await self._responses.receive()
                except trio.EndOfChannel:
                    return
                self._attempts = 0
            if self._attempts < ATTEMPTS:
                self._attempts += 1
                await sender.send_response(*self._unacknowledged)
            else:
                log.warning(
                    "RPC response dropped: each connection ended at it",
                    device=self._unacknowledged[0],
                )
            self._unacknowledged = None

    async def _receive_rpcs(self, link: Link) -> None:
        async with aclosing(link.messages()) as messages:
            async for message in messages:
                if message.topic == RPC_TOPIC:
                    # A command outlives the connection that brought it: the charge point may act on
                    # it.
                    self._commands.start_soon(self._serve_rpc, message.payload)
                elif message.topic == LIMITS_RESPONSE:
                    self._rate_limiter.apply_limits(message.payload)
        raise LinkLost("the subscription ended")

    async def _serve_rpc(self, payload: bytes) -> None:
        """Serve one RPC.  The guard of the MQTT side: no payload can stop the gateway."""
        try:
            rpc = read_rpc(payload)
            if rpc is not None:
                await self._answer_rpc(rpc)
        except RpcError as exc:
            log.warning("RPC not answered", why=str(exc))
        except trio.WouldBlock:
            log.warning("RPC response dropped: no connection, and too many wait for one")
        except trio.ClosedResourceError:
            log.info("RPC response dropped: the gateway stops")
        except JournalError:
            raise
        except Exception:
            log.exception("RPC dropped")

    async def _answer_rpc(self, rpc: RpcRequest) -> None:
        command = command_of(self._settings.map_rpc(rpc))
        if command is None or not self._bus.fleet.takes_commands(rpc.device):
            # An answer would create the device in ThingsBoard (thingsboard-contract R1).
            log.warning("RPC for an unknown device", device=rpc.device[:80], method=rpc.method[:80])
            return
        now = trio.current_time()
        self._recent = {key: recent for key, recent in self._recent.items() if recent.until > now}
        earlier = self._recent.get(rpc.key)
        if earlier is None:
            outcome = await self._carry_out_once(rpc, command)
        elif earlier.outcome is None:
            return  # it is being carried out, and will be answered then
        else:
            outcome = earlier.outcome
        response = response_message(rpc, outcome)
        if len(response.payload) > self._rate_limiter.max_bytes:
            size = f"an answer of {len(response.payload)} bytes is more than ThingsBoard takes"
            response = response_message(rpc, Failed("CallError", size))
        self._send_response.send_nowait((rpc.device, response))

    async def _carry_out_once(self, rpc: RpcRequest, command: Command) -> CommandOutcome:
        if self._under_way >= _MAX_COMMANDS:
            return Failed("Busy", f"{_MAX_COMMANDS} commands are under way")
        recent = self._recent[rpc.key] = _RecentRpc(float("inf"))
        self._under_way += 1
        try:
            recent.outcome = await self._carry_out(command)
            return recent.outcome
        finally:
            self._under_way -= 1
            recent.until = trio.current_time() + _REMEMBERED_S
