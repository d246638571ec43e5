"""Device sessions on one link: each device is announced, kept alive, and found admitted or not.

ThingsBoard keeps a session for each device of a gateway.  `connect` opens it, before anything else
is sent about the device, and gives the device's type, which it keeps for ever (thingsboard-contract
R1).  ThingsBoard closes a session that is silent for ten minutes, and then no RPC reaches the
device.  So the gateway sends a sign of life of every device that has had nothing new for four.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import structlog
import trio

from ..domain.fleet import Fleet
from .batching import connect_message, pack
from .deferrals import DeferralCounts, LinkDeferrals
from .delivery_policy import is_accepted
from .mqtt import no_puback, wait_acknowledged
from .poison import EntryRows, WatchedLink
from .rate_limits import RateLimiter
from .telemetry import sign_of_life

_KEEP_ALIVE_EVERY = 240.0  # seconds; ThingsBoard closes a silent device's session after 600
_CHECK_EVERY = _KEEP_ALIVE_EVERY / 8
_MAX_SIGNS = 50  # signs of life sent together
_MAX_CONNECTS = 20  # sent together
_MAX_UNANSWERED = 20  # `connect`s on one link: each is one of the messages on their way

log = structlog.get_logger(__name__)


class DeviceSessions:
    """Owns: which devices are admitted on this link and which are rejected, what is deferred on it,
    and when each device was last sent.
    """

    def __init__(
        self,
        link: WatchedLink,
        fleet: Fleet,
        now: Callable[[], datetime],
        rate_limiter: RateLimiter,
        deferral_counts: DeferralCounts,
        *,
        session_log: str,
        batch_devices: bool,
    ) -> None:
        self._link = link
        self._fleet = fleet
        self._now = now
        self._rate_limiter = rate_limiter
        self._deferral_counts = deferral_counts
        self._session_log = session_log
        self._batch_devices = batch_devices
        self._unanswered = 0
        self._rejected: set[str] = set()
        self._last_sent: dict[str, float] = {}
        self.admitted: set[str] = set()
        self.deferrals = LinkDeferrals()

    # --- announcing ----------------------------------------------------------------------------

    async def announce(self, devices: Iterable[str], *, retry_rejected: bool = False) -> None:
        """Announce devices that are not admitted yet.

        retry_rejected: also some of those that were rejected so far.  A server before 4.2.1.1
            never answers the `connect` of a device that it does not admit (section 9), and only so
            many may be waited for.
        Raises LinkLost, also where the server admits no device at all, and where more devices are
        unanswered than one link can bear.
        """
        devices = [device for device in devices if device not in self.admitted]
        new = [device for device in devices if not self._is_rejected(device)]
        if retry_rejected and len(new) < len(devices):
            rejected = [device for device in devices if self._is_rejected(device)]
            room = max(0, _MAX_UNANSWERED // 2 - self._unanswered)
            new += random.sample(rejected, min(room, len(rejected)))  # each has its turn
        for first in range(0, len(new), _MAX_CONNECTS):
            if self._unanswered <= _MAX_UNANSWERED:
                await self._connect(new[first : first + _MAX_CONNECTS])
        if self._unanswered > _MAX_UNANSWERED:
            for device in self._rejected:
                self.deferrals.add(device)
            await self._reconnect()

    def _is_rejected(self, device: str) -> bool:
        """Whether it was rejected, on this link or so far on all of them."""
        return device in self._rejected or self._deferral_counts.is_exhausted(device)

    async def _connect(self, devices: Sequence[str]) -> None:
        """Announce devices, whether they are admitted already or not.  Raises LinkLost."""
        sent = []
        for device in devices:
            await self._rate_limiter.wait_to_send()
            sent.append((device, await self._link.send(connect_message(device, self._session_log))))
        await wait_acknowledged([delivery for _, delivery in sent])
        rejected = {device for device, delivery in sent if not is_accepted(delivery.code)}
        if rejected:
            await self._check_server()
            rejected.discard(self._session_log)  # which is admitted by now
            if newly_rejected := [device for device in rejected if not self._is_rejected(device)]:
                log.warning("ThingsBoard does not admit devices", devices=sorted(newly_rejected))
        for device, delivery in sent:
            if device in rejected:
                self.admitted.discard(device)
                self._rejected.add(device)
                self._unanswered += delivery.code is None
            else:
                self.admitted.add(device)
                self._rejected.discard(device)
                self._deferral_counts.forget_admitted(device)

    async def _check_server(self) -> None:
        """Whether it admits the session log.  If it does not, no device is to blame: LinkLost."""
        delivery = await self._link.send(connect_message(self._session_log, self._session_log))
        if not await wait_acknowledged([delivery]):
            raise self._link.end_error(str(no_puback()))
        if not is_accepted(delivery.code):
            raise self._link.end_error(f"ThingsBoard admits no device (0x{delivery.code:02x})")

    async def _reconnect(self) -> None:
        """End this link for a new one, which begins with all that was deferred.  Raises LinkLost.

        Where the server acknowledges signs of life, it is healthy, and the deferrals count.
        """
        if await self._send_signs_of_life(sorted(self.admitted)[:_MAX_SIGNS]):
            for key in self.deferrals.keys:
                self._deferral_counts.count(key)
        raise self._link.end_error("a new connection is to send what was deferred")

    # --- keeping alive -------------------------------------------------------------------------

    async def keep_alive(self) -> None:
        """Announce every device, and send a sign of life of each every few minutes.  Raises
        LinkLost.
        """
        while True:
            if self.deferrals.is_due():
                await self._reconnect()
            now = trio.current_time()
            due = [
                device
                for device in (self._session_log, *self._fleet.devices)
                if now - self._last_sent.get(device, -_KEEP_ALIVE_EVERY) >= _KEEP_ALIVE_EVERY
            ]
            due.sort(key=self._is_rejected)  # a device that is rejected may never be answered
            for first in range(0, len(due), _MAX_SIGNS):
                devices = due[first : first + _MAX_SIGNS]
                await self.announce(devices, retry_rejected=True)
                if await self._send_signs_of_life([d for d in devices if d in self.admitted]):
                    self._link.server_alive.set()
                self.note_sent(devices)
            await trio.sleep(_CHECK_EVERY)

    def keep_alive_soon(self) -> None:
        """Have a sign of life of every device sent soon."""
        self._last_sent.clear()

    def note_sent(self, devices: Iterable[str]) -> None:
        """Something was published about these devices: they need no sign of life for a while."""
        now = trio.current_time()
        for device in devices:
            self._last_sent[device] = now

    async def _send_signs_of_life(self, devices: Sequence[str]) -> bool:
        """Whether the server took any of it, or there was nothing to publish.  Raises LinkLost."""
        at = self._now()
        signs: EntryRows = []
        silent = []
        for device in devices:
            sign = sign_of_life(device, self._fleet.state_of(device), at)
            if sign.values:
                signs.append((0, sign))
            else:  # nothing is known of it that could be published: announcing it again is life too
                silent.append(device)
        await self._connect(silent)
        sent = [
            await self._link.send_message(message)
            for message in pack(
                signs,
                batch_devices=self._batch_devices,
                max_bytes=self._rate_limiter.max_bytes,
                max_values=self._rate_limiter.max_values,
            )
        ]
        undelivered = await self._link.undelivered_of(sent)
        return len(undelivered) < len(sent) or not sent
