"""Telling ThingsBoard over one link: rows packed, paced, sent, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import attrs
import structlog
import trio

from ..domain.fleet import Fleet
from ..journal import Aside, Span
from .limits import REQUEST, Pace
from .link import (
    QUOTA,
    REFUSED,
    Delivery,
    Publication,
    acknowledged,
    confirmed,
    no_puback,
    publish,
)
from .parcels import Parcel, connect, parcels, topic_of
from .place import Place
from .rows import Row, attributes, sign_of_life
from .suspects import ATTEMPTS, Watched, refusal

_SIGN_EVERY = 240.0  # seconds; ThingsBoard forgets a silent device's session after 600
_SIGNS_AT_ONCE = 50
_MOST_UNANSWERED = 20  # `connect`s on one link: each holds a place among those under way

log = structlog.get_logger(__name__)


@attrs.define
class Statistics:
    """connected: whether there is a link; why: what ended the last one, or kept it from coming.

    published, refused: PUBLISH packets.  aside: entries given up.
    """

    told: Place = attrs.field(factory=lambda: Place(0))
    connected: bool = False
    why: str = "not tried yet"
    published: int = 0
    refused: int = 0
    aside: int = 0

    @property
    def place(self) -> int:
        """Of the newest entry up to which everything is told."""
        return self.told.seq


@attrs.frozen
class Batch:
    """Entries on their way.

    span: the first and the last.  told: their rows.  sent: the same as they were packed.
    timeless: devices whose client attributes are to be told as they are now.
    """

    span: Span
    told: list[tuple[int, Row]]
    sent: list[tuple[Parcel, Delivery | None]]
    timeless: frozenset[str] = frozenset()


class Teller:
    """Tells rows over one link.  Owns: which devices it has announced, and when each spoke."""

    def __init__(
        self,
        link: Watched,
        fleet: Fleet,
        now: Callable[[], datetime],
        statistics: Statistics,
        pace: Pace,
        *,
        session_log: str,
        many_devices: bool,
    ) -> None:
        self.pace = pace
        self._link = link
        self._fleet = fleet
        self._now = now
        self._statistics = statistics
        self._session_log = session_log
        self._many_devices = many_devices
        self._announced: set[str] = set()
        self._unanswered: set[str] = set()  # devices that this server has not let in
        self._spoke: dict[str, float] = {}

    async def send(self, span: Span, told: list[tuple[int, Row]], *, old: bool = False) -> Batch:
        """Send all, in order, as far as the server takes it.

        old: it belongs to a backlog, and gives way to what is new.  Attributes have no time, so
            that old ones would replace new ones: of those, what is true now is told instead.
        """
        timeless: frozenset[str] = frozenset()
        if old:
            timeless = frozenset(row.device for _, row in told if row.ts is None)
            told = [(seq, row) for seq, row in told if row.ts is not None]
        await self._announce(dict.fromkeys(row.device for _, row in told))
        self._note_spoke(row.device for _, row in told)
        packed = self._packed(self._link.untold(told), many_devices=self._many_devices)
        sent = [(parcel, await self._send(parcel, urgent=not old)) for parcel in packed]
        return Batch(span, told, sent, timeless)

    async def tell(self, loose: Sequence[Row]) -> None:
        """Tell what is no entry of the journal, when nothing else waits; returns when it is told.

        What is refused is not told again.
        """
        await self._announce(dict.fromkeys(row.device for row in loose))
        packed = self._packed([(0, row) for row in loose], many_devices=self._many_devices)
        sent = [await self._send(parcel, urgent=False) for parcel in packed]
        await confirmed([delivery for delivery in sent if delivery is not None])

    def _packed(self, told: Iterable[tuple[int, Row]], *, many_devices: bool) -> list[Parcel]:
        return [
            parcel
            for apart in self._link.apart(told)
            for parcel in parcels(
                apart,
                many_devices=many_devices and not self._unanswered,
                most_bytes=self.pace.most_bytes,
                most_values=self.pace.most_values,
            )
        ]

    async def _send(self, parcel: Parcel, *, urgent: bool = True) -> Delivery | None:
        """None for what is too large to be sent."""
        if len(parcel.publication.payload) > self.pace.most_bytes:
            return None
        if any(device in self._unanswered for device, *_ in parcel.told):
            return refusal("ThingsBoard does not let the device in: is a limit of devices reached?")
        await self.pace.telemetry(parcel.cost, urgent=urgent)
        return await self._link.send_parcel(parcel)

    async def settle(self, batch: Batch) -> tuple[Aside, ...]:
        """Returns once all is delivered, with what was refused and is given up."""
        refused = await self._refused(batch.sent)
        concerned = {
            (parcel.publication.topic, seq) for parcel, _ in refused for seq in parcel.seqs
        }
        # What was taken is not told again: of attributes, which have no time, the last one stands.
        told = [(seq, row) for seq, row in batch.told if (topic_of(row), seq) in concerned]
        aside = await self._one_by_one(told)
        await self._tell_attributes(batch.timeless)
        return aside

    async def _tell_attributes(self, devices: Iterable[str]) -> None:
        """Client attributes as they are now, and again where that changes while they are told."""
        told: dict[str, Row] = {}
        while changed := [
            row
            for row in (attributes(device, self._fleet.about(device)) for device in devices)
            if row.values and row != told.get(row.device)
        ]:
            told |= {row.device: row for row in changed}
            await self._announce([row.device for row in changed])
            packed = self._packed([(0, row) for row in changed], many_devices=self._many_devices)
            sent = [await self._send(parcel) for parcel in packed]
            await confirmed([delivery for delivery in sent if delivery is not None])

    async def _refused(
        self, sent: Sequence[tuple[Parcel, Delivery | None]]
    ) -> list[tuple[Parcel, str]]:
        """The messages that were refused, and why."""
        refused = []
        await confirmed([delivery for _, delivery in sent if delivery is not None])
        for parcel, delivery in sent:
            if delivery is None:
                size = len(parcel.publication.payload)
                refused.append((parcel, f"{size} bytes are more than ThingsBoard takes"))
                continue
            if delivery.why:
                refused.append((parcel, delivery.why))
                continue
            self._statistics.published += 1
            if delivery.code == QUOTA:
                self.pace.hit()
            if delivery.code is not None and delivery.code >= REFUSED:
                self._statistics.refused += 1
                refused.append((parcel, f"refused with code 0x{delivery.code:02x}"))
        return refused

    async def _one_by_one(self, told: list[tuple[int, Row]]) -> tuple[Aside, ...]:
        """Entries of refused messages, each for itself, so that only the guilty are set aside."""
        aside = []
        for seq in dict.fromkeys(seq for seq, _ in told):
            packed = self._packed([item for item in told if item[0] == seq], many_devices=False)
            refused: list[tuple[Parcel, str]] = []
            for _ in range(ATTEMPTS):
                refused = await self._refused(
                    [(parcel, await self._send(parcel)) for parcel in packed]
                )
                packed = [parcel for parcel, _ in refused]
            if refused:
                why = refused[0][1]
                log.warning("message set aside", seq=seq, why=why)
                self._statistics.aside += 1
                aside.append(Aside(seq, why))
        return tuple(aside)

    async def reply(self, device: str, reply: Publication) -> None:
        await self._announce([device])
        await self.pace.call()
        await publish(self._link, [reply])

    async def _announce(self, devices: Iterable[str]) -> None:
        """`connect` before anything else about a device (thingsboard-contract R1).

        A server before 4.3 says nothing, ever, to one that it does not let in (section 9).
        """
        known = self._announced | self._unanswered
        new = [device for device in devices if device not in known]
        if not new:
            return
        sent: list[tuple[str, Delivery]] = []
        for device in new:
            await self.pace.call()
            sent.append((device, await self._link.send(connect(device, self._session_log))))
        if not await acknowledged([delivery for _, delivery in sent]):
            # Does it hang, or is it that device?  Answers come in order.
            await publish(self._link, [connect(self._session_log, self._session_log)])
        self._announced.update(device for device, delivery in sent if delivery.code is not None)
        unanswered = {device for device, delivery in sent if delivery.code is None}
        if unanswered:
            log.warning("ThingsBoard does not let devices in", devices=sorted(unanswered))
            self._unanswered |= unanswered
            if len(self._unanswered) > _MOST_UNANSWERED:
                raise no_puback()

    async def ask_limits(self) -> None:
        """Ask the server what it allows; returns when its answer has come to `pace`, or cannot."""
        await publish(self._link, [REQUEST])
        await self.pace.wait_known()

    async def keep_alive(self) -> None:
        """Announce every device, and let each be heard of every few minutes."""
        while True:
            now = trio.current_time()
            due = [
                device
                for device in (self._session_log, *self._fleet.devices)
                if now - self._spoke.get(device, -_SIGN_EVERY) >= _SIGN_EVERY
            ]
            for first in range(0, len(due), _SIGNS_AT_ONCE):
                if await self._show(due[first : first + _SIGNS_AT_ONCE]):
                    self._link.alive.set()
            await trio.sleep(_SIGN_EVERY / 8)

    async def _show(self, devices: Sequence[str]) -> bool:
        """Whether the server took any of it."""
        await self._announce(devices)
        devices = [device for device in devices if device not in self._unanswered]
        at = self._now()
        signs = []
        for device in devices:
            sign = sign_of_life(device, self._fleet.about(device), at)
            if sign.values:
                signs.append((0, sign))
            else:  # nothing is known of it that could be said: announcing it again is life too
                self._announced.discard(device)
        packed = self._packed(signs, many_devices=self._many_devices)
        sent = [await self._send(parcel) for parcel in packed]
        codes = await confirmed([delivery for delivery in sent if delivery is not None])
        await self._announce(devices)
        self._note_spoke(devices)
        return any(code < REFUSED for code in codes) or not codes

    def show_again(self) -> None:
        """Have every device heard of soon, as it is now."""
        self._spoke.clear()

    def _note_spoke(self, devices: Iterable[str]) -> None:
        now = trio.current_time()
        for device in devices:
            self._spoke[device] = now
