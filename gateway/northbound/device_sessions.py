"""Device sessions on one MQTT connection: `connect` before anything else (thingsboard-contract
R1).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import structlog

from .batching import connect_message
from .deferrals import DeferralCounts
from .mqtt import REFUSED, Delivery, no_puback, wait_acknowledged
from .poison import WatchedLink
from .rate_limits import RateLimiter

_MAX_AT_ONCE = 20
_MAX_UNANSWERED = 20  # on one link: each holds a place among the messages under way

log = structlog.get_logger(__name__)


class DeviceSessions:
    """Owns: which devices are admitted on this connection, and which are rejected."""

    def __init__(
        self,
        link: WatchedLink,
        rate_limiter: RateLimiter,
        deferral_counts: DeferralCounts,
        session_log: str,
    ) -> None:
        self._link = link
        self._rate_limiter = rate_limiter
        self._deferral_counts = deferral_counts
        self._session_log = session_log
        self._unanswered = 0
        self.admitted: set[str] = set()
        self.rejected: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether more `connect`s are unanswered than a link can bear."""
        return self._unanswered > _MAX_UNANSWERED

    def is_rejected(self, device: str) -> bool:
        """Whether it was rejected, on this connection or so far on all of them."""
        return device in self.rejected or self._deferral_counts.is_exhausted(device)

    async def announce(self, devices: Iterable[str], *, retry_rejected: bool = False) -> None:
        """Announce devices that are not admitted yet, as long as the connection is not full.

        retry_rejected: also some of those that were rejected so far.  A server before 4.2.1.1
            says nothing, ever, to a device that it does not admit (section 9), and only so many may
            be waited for.
        Raises LinkLost, also where the server admits no device at all.
        """
        devices = [device for device in devices if device not in self.admitted]
        new = [device for device in devices if not self.is_rejected(device)]
        if retry_rejected and len(new) < len(devices):
            rejected = [device for device in devices if self.is_rejected(device)]
            room = max(0, _MAX_UNANSWERED // 2 - self._unanswered)
            new += random.sample(rejected, min(room, len(rejected)))  # each has its turn
        for first in range(0, len(new), _MAX_AT_ONCE):
            if not self.is_full:
                await self.connect(new[first : first + _MAX_AT_ONCE])

    async def connect(self, devices: Sequence[str]) -> None:
        """Announce devices, whether they are admitted already or not.  Raises LinkLost."""
        sent = []
        for device in devices:
            await self._rate_limiter.wait_to_send()
            sent.append((device, await self._link.send(connect_message(device, self._session_log))))
        await wait_acknowledged([delivery for _, delivery in sent])
        rejected = {device for device, delivery in sent if not _is_admitted(delivery)}
        if rejected:
            await self._check_server()
            rejected.discard(self._session_log)  # which is let in by now
            if newly_rejected := [device for device in rejected if not self.is_rejected(device)]:
                log.warning("ThingsBoard does not admit devices", devices=sorted(newly_rejected))
        for device, delivery in sent:
            if device in rejected:
                self.admitted.discard(device)
                self.rejected.add(device)
                self._unanswered += delivery.code is None
            else:
                self.admitted.add(device)
                self.rejected.discard(device)
                self._deferral_counts.admitted(device)

    async def _check_server(self) -> None:
        delivery = await self._link.send(connect_message(self._session_log, self._session_log))
        if not await wait_acknowledged([delivery]):
            raise self._link.end_error(str(no_puback()))
        if not _is_admitted(delivery):
            raise self._link.end_error(f"ThingsBoard lets nobody in (0x{delivery.code:02x})")


def _is_admitted(delivery: Delivery) -> bool:
    return delivery.code is not None and delivery.code < REFUSED
