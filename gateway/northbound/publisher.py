"""The north door: tells ThingsBoard what the journal holds, and takes its orders.

The link may come and go; what is outside `_with_link` does not notice.
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
from ..domain.commands import Command, Failed, Outcome
from ..observability.frame_tap import Watch
from .checkpoint import Place
from .deferrals import Patience
from .delivery import Teller
from .frame_traces import Traces
from .link_status import Trouble
from .mqtt import Link, LinkLost, Publication
from .outbox import READER, Outbox, Translate
from .poison import ATTEMPTS, Suspects
from .rate_limits import ANSWER, ANSWERS, Pace
from .rpc_messages import RPC_TOPIC, Rpc, RpcError, answer, command_of, read_rpc
from .statistics import Statistics
from .telemetry import Row, rows

TOPICS = (RPC_TOPIC, ANSWERS)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts to connect
_LASTED = 25.0  # seconds after which a link holds: one that is never acknowledged lasts 20
_MOST_ORDERS = 200  # RPCs under way at once
_NEARLY = 0.8  # of the grace; in what remains, the store is closed and the process ends
_REPEATED_WITHIN = 30.0  # seconds in which an equal RPC is a repetition (thingsboard-contract R8)

log = structlog.get_logger(__name__)

OpenLink = Callable[[], AbstractAsyncContextManager[Link]]
CarryOut = Callable[[Command], Awaitable[Outcome]]


@attrs.frozen(kw_only=True)
class NorthSettings:
    """session_log: name of the session log's device.

    many_devices: see `batching`.  also: rows beyond the product's own, as for the prototype's
    dashboards.  method: what an RPC's method is to be taken for, likewise.
    in_order: see `outbox.Outbox`.
    """

    session_log: str = "ocpp-gateway sessions"
    many_devices: bool = False
    grace: float = 10.0
    in_order: int | None = 2_000
    also: Translate = lambda _: ()
    alias: Callable[[Rpc], Rpc] = lambda rpc: rpc


@attrs.define
class Closing:
    """When the house began to close, in Trio's time: the grace is one for all who leave."""

    since: float = math.inf

    def begin(self) -> None:
        self.since = trio.current_time()


@asynccontextmanager
async def open_north(
    open_link: OpenLink,
    bus: EventBus,
    carry_out: CarryOut,
    now: Callable[[], datetime],
    settings: NorthSettings,
    closing: Closing | None = None,
    frames: Watch | None = None,
) -> AsyncIterator[Statistics]:
    """Forward all that is published; on leaving the block, what is left.

    That takes until nearly `grace` seconds after the house began to close (after the end of the
    block, where nobody says).  What they do not suffice for stays in the journal for the next
    start.
    frames: of charge points that are traced.
    """
    bookmark = await bus.journal.bookmark(READER)
    await _note_oldest(bus, bookmark.seq, now)
    place = Place(bookmark.seq, bookmark.ahead)
    statistics = Statistics(place)
    traces = None if frames is None else Traces(frames)

    def translate(entry: Entry) -> Sequence[Row]:
        return *rows(entry.event, settings.session_log), *settings.also(entry)

    async with trio.open_nursery() as nursery:
        with bus.subscribe(overflow=Overflow.REREAD, after=place.seq, capacity=8_000) as entries:
            outbox = Outbox(bus, entries, place, translate, settings.in_order)
            north = _North(bus, outbox, statistics, carry_out, now, settings, nursery, traces)
            nursery.start_soon(north.run, open_link)
            yield statistics
            north.closing = True
        began = min(closing.since if closing else math.inf, trio.current_time())
        nursery.cancel_scope.deadline = began + _NEARLY * settings.grace
        north.wake()


async def _note_oldest(bus: EventBus, place: int, now: Callable[[], datetime]) -> None:
    """Since when a house that just starts is behind (see `bus.timeline`)."""
    for entry in await bus.journal.read(after=place, limit=1):
        age = (now() - entry.event.received_at).total_seconds()
        bus.timeline.note(entry.seq, trio.current_time() - max(0.0, age))


_Answer = tuple[str, Publication]  # a device, and what is told in its name


@attrs.define
class _Order:
    """One RPC under way or done, for as long as it may be repeated."""

    until: float
    outcome: Outcome | None = None


class _North:
    """Owns: the answers that wait for a link, and what was asked lately."""

    def __init__(
        self,
        bus: EventBus,
        outbox: Outbox,
        statistics: Statistics,
        carry_out: CarryOut,
        now: Callable[[], datetime],
        settings: NorthSettings,
        orders: trio.Nursery,
        traces: Traces | None,
    ) -> None:
        self._bus = bus
        self._outbox = outbox
        self._carry_out = carry_out
        self._now = now
        self._settings = settings
        self._orders = orders
        self._traces = traces
        self._asked: dict[tuple[str, int, str, bytes], _Order] = {}
        self._under_way = 0
        self._reply, self._replies = trio.open_memory_channel[_Answer](_MOST_ORDERS)
        self._unsaid: _Answer | None = None  # given, but not acknowledged
        self._said = 0  # on so many links
        self._pausing = trio.CancelScope()
        self.closing = False
        self.statistics = statistics
        self._trouble = Trouble(statistics)
        self._pace = Pace()
        self._patience = Patience()
        self._suspects = Suspects(self._pace, self._patience)

    # --- the link ------------------------------------------------------------------------------

    async def run(self, open_link: OpenLink) -> None:
        """Keep a link, and carry out what comes by it, until the house closes."""
        await self._keep_link(open_link)
        self._orders.cancel_scope.cancel()  # nobody can be told how they end

    async def _keep_link(self, open_link: OpenLink) -> None:
        """Hold a link until the outbox has ended and is empty, or the house closes without one.

        The guard of the MQTT side: whatever one attempt throws out of aiomqtt, paho or
        trio-asyncio ends that attempt and is followed by another.
        """
        pause, done = _FIRST_PAUSE, False
        while True:
            why, up_at = "ended", math.inf
            try:
                async with open_link() as link:
                    up_at = trio.current_time()
                    self._trouble.link_up()
                    await self._with_link(link)
                    done = True
            except* JournalError:
                raise
            except* LinkLost as group:
                why = _first(group)
            except* Exception as group:
                why = f"unexpected: {_first(group)}"
                log.debug("link broke", exc_info=group)
            self._outbox.rest()
            if done:
                self._trouble.link_ended()
                return
            self._trouble.link_down(why)
            if self.closing:
                return
            if trio.current_time() - up_at >= _LASTED:
                pause = _FIRST_PAUSE
            with trio.CancelScope() as self._pausing:
                await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)

    def wake(self) -> None:
        """End a pause between two attempts."""
        self._pausing.cancel()

    async def _with_link(self, link: Link) -> None:
        settings = self._settings
        newest = self._bus.journal.statistics().last_seq
        self._patience.forget(self.statistics.told)
        teller = Teller(
            self._suspects.watch(link, self.statistics.told),
            self._bus.fleet,
            self._now,
            self.statistics,
            self._pace,
            self._patience,
            session_log=settings.session_log,
            many_devices=settings.many_devices,
        )
        async with trio.open_nursery() as nursery:  # the first to lose the link ends them all
            nursery.start_soon(self._take_orders, link)
            nursery.start_soon(self._wait_holding)
            await teller.ask_limits()
            nursery.start_soon(teller.keep_alive)
            if self._traces is not None:
                nursery.start_soon(self._traces.tell, teller)
            async with trio.open_nursery() as telling:
                telling.start_soon(self._send_replies, teller)
                await self._outbox.tell(teller, newest)
                self._reply.close()  # the house closes: what is answered by now is told still
            nursery.cancel_scope.cancel()

    async def _wait_holding(self) -> None:
        await trio.sleep(_LASTED)
        self._trouble.link_holds()

    # --- orders --------------------------------------------------------------------------------

    async def _send_replies(self, teller: Teller) -> None:
        """Answer in turn; what is not acknowledged is said again on the next link."""
        while True:
            if self._unsaid is None:
                try:
                    self._unsaid = await self._replies.receive()
                except trio.EndOfChannel:
                    return
                self._said = 0
            if self._said < ATTEMPTS:
                self._said += 1
                await teller.reply(*self._unsaid)
            else:
                log.warning("RPC answer dropped: each link ended at it", device=self._unsaid[0])
            self._unsaid = None

    async def _take_orders(self, link: Link) -> None:
        async with aclosing(link.messages()) as messages:
            async for message in messages:
                if message.topic == RPC_TOPIC:
                    # An order outlives the link that brought it: the charge point may act on it.
                    self._orders.start_soon(self._serve, message.payload)
                elif message.topic == ANSWER:
                    self._pace.learn(message.payload)
        raise LinkLost("the subscription ended")

    async def _serve(self, payload: bytes) -> None:
        """One order.  The firewall of the north door: no payload can fell the house."""
        try:
            rpc = read_rpc(payload)
            if rpc is not None:
                await self._answer(rpc)
        except RpcError as exc:
            log.warning("RPC not answered", why=str(exc))
        except trio.WouldBlock:
            log.warning("RPC answer dropped: no link, and too many wait for one")
        except trio.ClosedResourceError:
            log.info("RPC answer dropped: the gateway stops")
        except JournalError:
            raise
        except Exception:
            log.exception("RPC dropped")

    async def _answer(self, rpc: Rpc) -> None:
        command = command_of(self._settings.alias(rpc))
        if command is None or not self._bus.fleet.takes_commands(rpc.device):
            # An answer would create the device in ThingsBoard (thingsboard-contract R1).
            log.warning("RPC for an unknown device", device=rpc.device[:80], method=rpc.method[:80])
            return
        now = trio.current_time()
        self._asked = {key: order for key, order in self._asked.items() if order.until > now}
        earlier = self._asked.get(rpc.key)
        if earlier is None:
            outcome = await self._ordered(rpc, command)
        elif earlier.outcome is None:
            return  # it is being carried out, and will be answered then
        else:
            outcome = earlier.outcome
        reply = answer(rpc, outcome)
        if len(reply.payload) > self._pace.most_bytes:
            size = f"an answer of {len(reply.payload)} bytes is more than ThingsBoard takes"
            reply = answer(rpc, Failed("CallError", size))
        self._reply.send_nowait((rpc.device, reply))

    async def _ordered(self, rpc: Rpc, command: Command) -> Outcome:
        if self._under_way >= _MOST_ORDERS:
            return Failed("Busy", f"{_MOST_ORDERS} commands are under way")
        order = self._asked[rpc.key] = _Order(float("inf"))
        self._under_way += 1
        try:
            order.outcome = await self._carry_out(command)
            return order.outcome
        finally:
            self._under_way -= 1
            order.until = trio.current_time() + _REPEATED_WITHIN


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    """The words of the first real exception in a group of groups."""
    inner = group.exceptions[0]
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return str(inner) or repr(inner)
