"""Deferral: what ThingsBoard cannot take now, and for how long it is retried.

A device that is not admitted, and a message that the server fails at (0x80, 0x97), say as much
about the server as about themselves.  So an entry of theirs is deferred: it stays undone in the
journal while all others go on.  A minute later the link is given up for a new one, which begins
with all that is undone, and where the server has to admit the session log anew.  What was deferred
on several links, on each of which the server acknowledged signs of life in the end, becomes a dead
letter.
"""

from __future__ import annotations

import attrs
import trio

from .checkpoint import CheckpointTracker

DEFERRAL_S = 60.0  # seconds for which an entry or a device is deferred
_MAX_DEFERRALS = 3
_MAX_AT_ONCE = 20  # deferred on one connection, until the server is checked at once

Key = int | str  # an entry, or a device


@attrs.define
class _Deferral:
    times: int = 0
    counted_at: float = -DEFERRAL_S


class DeferralCounts:
    """Owns: how often each entry or device was deferred, over all connections."""

    def __init__(self) -> None:
        self._deferrals: dict[Key, _Deferral] = {}

    def is_exhausted(self, key: Key) -> bool:
        """Whether it was deferred as often as anything may be."""
        return key in self._deferrals and self._deferrals[key].times >= _MAX_DEFERRALS

    def count(self, key: Key) -> None:
        """It was deferred on a connection whose server is healthy; counts once in a minute."""
        now = trio.current_time()
        deferral = self._deferrals.setdefault(key, _Deferral())
        if now - deferral.counted_at >= DEFERRAL_S / 2:
            deferral.times, deferral.counted_at = deferral.times + 1, now

    def admitted(self, device: str) -> None:
        """The device was admitted."""
        self._deferrals.pop(device, None)

    def forget_done(self, tracker: CheckpointTracker) -> None:
        """Entries that are dealt with."""
        self._deferrals = {
            key: deferral
            for key, deferral in self._deferrals.items()
            if isinstance(key, str) or not tracker.is_done(key)
        }


class LinkDeferrals:
    """What is deferred on one connection, and since when."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self._since = 0.0

    def add(self, key: Key) -> None:
        """Put it off."""
        if not self.keys:
            self._since = trio.current_time()
        self.keys.add(key)

    def is_due(self) -> bool:
        """Whether it is time to give the link up for a new one."""
        waited = trio.current_time() - self._since
        return len(self.keys) >= _MAX_AT_ONCE or (bool(self.keys) and waited >= DEFERRAL_S)
