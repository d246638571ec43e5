"""Deferral: for how long what ThingsBoard cannot take now is left, and how often.

Why an entry is deferred is decided by `delivery_policy` (laws 3, 5 and 6).  A deferred entry stays
undone in the journal while all others go on.  A minute later the gateway ends the link for a new
one, which begins with all that is undone, and where the server has to admit the session log anew.
"""

from __future__ import annotations

import attrs
import trio

from .checkpoint import CheckpointTracker
from .delivery_policy import MAX_DEFERRALS

DEFERRAL_S = 60.0  # seconds for which an entry or a device is deferred
_MAX_AT_ONCE = 20  # deferred on one link, until it is ended at once

Key = int | str  # an entry, or a device


@attrs.define
class _Deferral:
    times: int = 0
    counted_at: float = -DEFERRAL_S


class DeferralCounts:
    """Owns: how often each entry or device was deferred, over all links."""

    def __init__(self) -> None:
        self._deferrals: dict[Key, _Deferral] = {}

    def times(self, key: Key) -> int:
        """On how many links it was deferred."""
        return self._deferrals[key].times if key in self._deferrals else 0

    def is_exhausted(self, key: Key) -> bool:
        """Whether it was deferred as often as anything may be."""
        return self.times(key) >= MAX_DEFERRALS

    def count(self, key: Key) -> None:
        """It was deferred on a link whose server is healthy; counts once in a minute."""
        now = trio.current_time()
        deferral = self._deferrals.setdefault(key, _Deferral())
        if now - deferral.counted_at >= DEFERRAL_S / 2:
            deferral.times, deferral.counted_at = deferral.times + 1, now

    def forget_admitted(self, device: str) -> None:
        self._deferrals.pop(device, None)

    def forget_done(self, tracker: CheckpointTracker) -> None:
        """Forget the entries that are dealt with."""
        self._deferrals = {
            key: deferral
            for key, deferral in self._deferrals.items()
            if isinstance(key, str) or not tracker.is_done(key)
        }


class LinkDeferrals:
    """What is deferred on one link, and since when."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self._since = 0.0

    def add(self, key: Key) -> None:
        if not self.keys:
            self._since = trio.current_time()
        self.keys.add(key)

    def is_due(self) -> bool:
        """Whether it is time to end the link for a new one."""
        waited = trio.current_time() - self._since
        return len(self.keys) >= _MAX_AT_ONCE or (bool(self.keys) and waited >= DEFERRAL_S)
