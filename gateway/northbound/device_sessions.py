"""Letting devices in over one link: `connect` before anything else (thingsboard-contract R1)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import structlog

from .batching import connect
from .deferrals import Patience
from .mqtt import REFUSED, Delivery, acknowledged, no_puback
from .poison import Watched
from .rate_limits import Pace

_AT_ONCE = 20
_MOST_UNANSWERED = 20  # on one link: each holds a place among the messages under way

log = structlog.get_logger(__name__)


class Admission:
    """Owns: which devices are let in on this link, and which are kept out."""

    def __init__(self, link: Watched, pace: Pace, patience: Patience, session_log: str) -> None:
        self._link = link
        self._pace = pace
        self._patience = patience
        self._session_log = session_log
        self._unanswered = 0
        self.let_in: set[str] = set()
        self.kept_out: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether more `connect`s are unanswered than a link can bear."""
        return self._unanswered > _MOST_UNANSWERED

    def keeps_out(self, device: str) -> bool:
        """Whether it was kept out, on this link or until now on all of them."""
        return device in self.kept_out or self._patience.is_over(device)

    async def announce(self, devices: Iterable[str], *, again: bool = False) -> None:
        """Have devices let in that are not yet, as long as the link is not full.

        again: also some of those that were kept out until now.  A server before 4.2.1.1 says
            nothing, ever, to one that it does not let in (section 9), and only so many may be
            waited for.
        Raises LinkLost, also where it is the server that lets nobody in.
        """
        devices = [device for device in devices if device not in self.let_in]
        new = [device for device in devices if not self.keeps_out(device)]
        if again and len(new) < len(devices):
            kept_out = [device for device in devices if self.keeps_out(device)]
            room = max(0, _MOST_UNANSWERED // 2 - self._unanswered)
            new += random.sample(kept_out, min(room, len(kept_out)))  # each has its turn
        for first in range(0, len(new), _AT_ONCE):
            if not self.is_full:
                await self.connect(new[first : first + _AT_ONCE])

    async def connect(self, devices: Sequence[str]) -> None:
        """Announce devices, whether they are let in already or not.  Raises LinkLost."""
        sent = []
        for device in devices:
            await self._pace.call()
            sent.append((device, await self._link.send(connect(device, self._session_log))))
        await acknowledged([delivery for _, delivery in sent])
        out = {device for device, delivery in sent if not _is_taken(delivery)}
        if out:
            await self._ask_whether_it_is_the_server()
            out.discard(self._session_log)  # which is let in by now
            if news := [device for device in out if not self.keeps_out(device)]:
                log.warning("ThingsBoard does not let devices in", devices=sorted(news))
        for device, delivery in sent:
            if device in out:
                self.let_in.discard(device)
                self.kept_out.add(device)
                self._unanswered += delivery.code is None
            else:
                self.let_in.add(device)
                self.kept_out.discard(device)
                self._patience.taken(device)

    async def _ask_whether_it_is_the_server(self) -> None:
        ours = await self._link.send(connect(self._session_log, self._session_log))
        if not await acknowledged([ours]):
            raise self._link.give_up(str(no_puback()))
        if not _is_taken(ours):
            raise self._link.give_up(f"ThingsBoard lets nobody in (0x{ours.code:02x})")


def _is_taken(delivery: Delivery) -> bool:
    return delivery.code is not None and delivery.code < REFUSED
