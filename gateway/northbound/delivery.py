"""Telling ThingsBoard over one link: rows packed, paced, sent, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import attrs
import structlog
import trio

from ..domain.fleet import Fleet
from ..journal import Aside, Span
from .batching import Parcel, parcels, topic_of
from .deferrals import Patience, PutOff
from .device_sessions import Admission
from .mqtt import QUOTA, REFUSED, Delivery, Publication, confirmed, publish, tells_of_server
from .poison import ATTEMPTS, Watched
from .rate_limits import REQUEST, Pace
from .statistics import Statistics
from .telemetry import Row, attributes, sign_of_life

_SIGN_EVERY = 240.0  # seconds; ThingsBoard forgets a silent device's session after 600
_SIGNS_AT_ONCE = 50
_LOOK_EVERY = _SIGN_EVERY / 8
_KEPT_OUT = "ThingsBoard does not let the device in: is a limit of devices reached?"

log = structlog.get_logger(__name__)


_Told = list[tuple[int, Row]]  # rows, and the entry that each is of
_Sent = list[tuple[Parcel, Delivery | None]]  # None for what is too large to be sent


@attrs.frozen
class Batch:
    """Entries on their way.

    span: the first and the last.  told: their rows.  sent: the same, packed.  kept: those that are
    not sent, for their devices are not let in.
    timeless: devices whose client attributes are to be told as they are now, and for which entry.
    """

    span: Span
    told: _Told
    sent: _Sent
    kept: _Told
    timeless: dict[str, int] = attrs.field(factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.told and not self.timeless


@attrs.frozen
class Settled:
    """Which entries of a batch were given up, and which were put off; the rest is told."""

    aside: tuple[Aside, ...] = ()
    put_off: frozenset[int] = frozenset()


@attrs.frozen
class _Refusal:
    """passing: it tells of the server's state."""

    parcel: Parcel
    why: str
    passing: bool = False


class Teller:
    """Tells rows over one link.  Owns: when each device spoke, and what is put off."""

    def __init__(
        self,
        link: Watched,
        fleet: Fleet,
        now: Callable[[], datetime],
        statistics: Statistics,
        pace: Pace,
        patience: Patience,
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
        self._patience = patience
        self._admission = Admission(link, pace, patience, session_log)
        self._put_off = PutOff()
        self._spoke: dict[str, float] = {}

    async def send(self, span: Span, told: _Told, *, old: bool = False) -> Batch:
        """Send all, in order, as far as the server takes it.

        old: it belongs to a backlog, and gives way to what is new.  Attributes have no time, so
            that old ones would replace new ones: of those, what is true now is told instead.
        """
        place = self._statistics.told
        timely: _Told = []
        timeless: dict[str, int] = {}
        for seq, row in told:
            if row.ts is None and (old or place.is_overtaken(seq)):
                timeless[row.device] = seq
            else:
                timely.append((seq, row))
        sent, kept = await self._send_all(timely, urgent=not old)
        self._note_spoke(row.device for _, row in timely)
        return Batch(span, timely, sent, kept, timeless)

    async def _send_all(self, told: _Told, *, urgent: bool = True) -> tuple[_Sent, _Told]:
        """What was sent, and what was kept: not let in, or put off as often as anything is."""
        await self._announce(dict.fromkeys(row.device for _, row in told))
        kept = [item for item in told if not self._may_go(*item)]
        here = [item for item in told if self._may_go(*item)] if kept else told
        packed = self._packed(here, many_devices=self._many_devices)
        return [(parcel, await self._send(parcel, urgent=urgent)) for parcel in packed], kept

    def _may_go(self, seq: int, row: Row) -> bool:
        return row.device in self._admission.let_in and not self._patience.is_over(seq)

    async def tell(self, loose: Sequence[Row]) -> None:
        """Tell what is no entry of the journal, when nothing else waits; returns when it is told.

        What is refused is not told again.
        """
        sent, _ = await self._send_all([(0, row) for row in loose], urgent=False)
        await self._refused(sent)

    def _packed(self, told: Iterable[tuple[int, Row]], *, many_devices: bool) -> list[Parcel]:
        return [
            parcel
            for apart in self._link.apart(self._link.untold(told))
            for parcel in parcels(
                apart,
                many_devices=many_devices,
                most_bytes=self.pace.most_bytes,
                most_values=self.pace.most_values,
            )
        ]

    async def _send(self, parcel: Parcel, *, urgent: bool = True) -> Delivery | None:
        """None for what is too large to be sent."""
        if len(parcel.publication.payload) > self.pace.most_bytes:
            return None
        await self.pace.telemetry(parcel.cost, urgent=urgent)
        return await self._link.send_parcel(parcel)

    async def settle(self, batch: Batch) -> Settled:
        """Returns once all is delivered, refused or put off."""
        refused = _of(batch.told, await self._refused(batch.sent))
        timeless = await self._tell_attributes(batch.timeless)
        return await self._one_by_one([*refused, *batch.kept, *timeless])

    async def _tell_attributes(self, timeless: Mapping[str, int]) -> _Told:
        """Client attributes as they are now, and again where that changes while they are told.

        What of it was not taken.
        """
        told: dict[str, Row] = {}
        untaken: dict[str, tuple[int, Row]] = {}
        while changed := [
            (seq, row)
            for device, seq in timeless.items()
            if (row := attributes(device, self._fleet.about(device))).values
            and row != told.get(device)
        ]:
            sent, kept = await self._send_all(changed)
            refused = _of(changed, await self._refused(sent))
            for _, row in changed:
                told[row.device] = row
                untaken.pop(row.device, None)
            untaken |= {row.device: (seq, row) for seq, row in (*refused, *kept)}
        return list(untaken.values())

    async def _refused(self, sent: _Sent) -> list[_Refusal]:
        """The messages that were refused, and why, once all are acknowledged."""
        refused = []
        await confirmed([delivery for _, delivery in sent if delivery is not None])
        for parcel, delivery in sent:
            if delivery is None:
                size = len(parcel.publication.payload)
                refused.append(_Refusal(parcel, f"{size} bytes are more than ThingsBoard takes"))
                continue
            if delivery.why:
                refused.append(_Refusal(parcel, delivery.why))
                continue
            self._statistics.published += 1
            code = delivery.code or 0
            if code == QUOTA:
                self.pace.hit()
            if code >= REFUSED:
                self._statistics.refused += 1
                why = f"refused with code 0x{code:02x}"
                refused.append(_Refusal(parcel, why, passing=tells_of_server(code)))
        return refused

    async def _one_by_one(self, told: _Told) -> Settled:
        """Entries of refused messages, each for itself, so that only the guilty are set aside."""
        aside: list[Aside] = []
        put_off: set[int] = set()
        for seq in dict.fromkeys(seq for seq, _ in told):
            mine = [item for item in told if item[0] == seq]
            why = await self._guilt(mine)
            if why is None:
                put_off.add(seq)
            elif why:
                log.warning("message set aside", seq=seq, why=why)
                self._statistics.aside += 1
                aside.append(Aside(seq, why))
        return Settled(tuple(aside), frozenset(put_off))

    async def _guilt(self, told: _Told) -> str | None:
        """Why an entry is given up; empty where it is told, None where it is put off."""
        seq = told[0][0]
        if self._patience.is_over(seq):
            return "ThingsBoard failed at it for minutes, each time (0x80 or 0x97)"
        here = [item for item in told if item[1].device in self._admission.let_in]
        refused = [_Refusal(parcel, "") for parcel in self._packed(here, many_devices=False)]
        for _ in range(ATTEMPTS):
            refused = await self._refused(
                [(refusal.parcel, await self._send(refusal.parcel)) for refusal in refused]
            )
            if not refused or refused[0].passing:
                break
        waits: list[tuple[int | str, str]] = [
            (row.device, _KEPT_OUT) for _, row in told if row.device not in self._admission.let_in
        ]
        for refusal in refused:
            if not refusal.passing:
                return refusal.why
            waits.append((seq, refusal.why))
        for key, why in waits:
            if self._patience.is_over(key):
                return why
        for key, _ in waits:
            self._put_off.add(key)
        return None if waits else ""

    async def reply(self, device: str, reply: Publication) -> None:
        """Answer in a device's name, where it is let in."""
        await self._announce([device])
        if (
            device not in self._admission.let_in
        ):  # an answer would create it (thingsboard-contract R1)
            log.warning("RPC answer dropped: the device is not let in", device=device)
            return
        await self.pace.call()
        await publish(self._link, [reply])

    async def _announce(self, devices: Iterable[str], *, again: bool = False) -> None:
        await self._admission.announce(devices, again=again)
        if self._admission.is_full:
            for device in self._admission.kept_out:
                self._put_off.add(device)
            await self._begin_anew()

    async def _begin_anew(self) -> None:
        """Give the link up for one that begins with all that was put off.

        The server is well where it takes signs of life; only then was it not its fault.
        """
        if await self._say_signs(sorted(self._admission.let_in)[:_SIGNS_AT_ONCE]):
            for key in self._put_off.keys:
                self._patience.count(key)
        raise self._link.give_up("a new link is to tell what was put off")

    async def ask_limits(self) -> None:
        """Ask the server what it allows; returns when its answer has come to `pace`, or cannot."""
        await publish(self._link, [REQUEST])
        await self.pace.wait_known()

    async def keep_alive(self) -> None:
        """Announce every device, and let each be heard of every few minutes."""
        while True:
            if self._put_off.is_due():
                await self._begin_anew()
            now = trio.current_time()
            due = [
                device
                for device in (self._session_log, *self._fleet.devices)
                if now - self._spoke.get(device, -_SIGN_EVERY) >= _SIGN_EVERY
            ]
            due.sort(key=self._admission.keeps_out)  # who is kept out is perhaps never answered
            for first in range(0, len(due), _SIGNS_AT_ONCE):
                if await self._show(due[first : first + _SIGNS_AT_ONCE]):
                    self._link.alive.set()
            await trio.sleep(_LOOK_EVERY)

    async def _show(self, devices: Sequence[str]) -> bool:
        """Whether the server took any of it."""
        await self._announce(devices, again=True)
        let_in = self._admission.let_in
        taken = await self._say_signs([device for device in devices if device in let_in])
        self._note_spoke(devices)
        return taken

    async def _say_signs(self, devices: Sequence[str]) -> bool:
        """Whether the server took any of it, or there was nothing that could be said."""
        at = self._now()
        signs: _Told = []
        silent = []
        for device in devices:
            sign = sign_of_life(device, self._fleet.about(device), at)
            if sign.values:
                signs.append((0, sign))
            else:  # nothing is known of it that could be said: announcing it again is life too
                silent.append(device)
        await self._admission.connect(silent)
        packed = self._packed(signs, many_devices=self._many_devices)
        sent = [(parcel, await self._send(parcel)) for parcel in packed]
        refused = await self._refused(sent)
        return len(refused) < len(sent) or not sent

    def show_again(self) -> None:
        """Have every device heard of soon, as it is now."""
        self._spoke.clear()

    def _note_spoke(self, devices: Iterable[str]) -> None:
        now = trio.current_time()
        for device in devices:
            self._spoke[device] = now


def _of(told: _Told, refused: Iterable[_Refusal]) -> _Told:
    """What was refused of all that was told.

    What was taken is not told again: of attributes, which have no time, the last one stands.
    """
    concerned = {
        (refusal.parcel.publication.topic, seq)
        for refusal in refused
        for seq in refusal.parcel.seqs
    }
    return [(seq, row) for seq, row in told if (topic_of(row), seq) in concerned]
