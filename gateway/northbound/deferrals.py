"""What ThingsBoard cannot take now, and how long that is waited for.

A device that is not let in, and a message that the server fails at (0x80, 0x97), tell as much of
the server as of themselves.  So an entry of theirs is put off: it stays undone in the journal while
all others go on.  A minute later the link is given up for a new one, which begins with all that is
undone, and where the server has to let the session log in anew.  What was put off on several links,
on each of which the server took signs of life in the end, is set aside.
"""

from __future__ import annotations

import attrs
import trio

from .checkpoint import CheckpointTracker

DEFERRAL_S = 60.0  # seconds for which something is put off
_MAX_DEFERRALS = 3
_MAX_AT_ONCE = 20  # put off on one link, until it is asked at once whether it is the server

Key = int | str  # an entry, or a device


@attrs.define
class _Deferral:
    times: int = 0
    counted_at: float = -DEFERRAL_S


class DeferralCounts:
    """Owns: how often what was put off, over all links."""

    def __init__(self) -> None:
        self._deferrals: dict[Key, _Deferral] = {}

    def is_exhausted(self, key: Key) -> bool:
        """Whether it was put off as often as anything is."""
        return key in self._deferrals and self._deferrals[key].times >= _MAX_DEFERRALS

    def count(self, key: Key) -> None:
        """It was put off on a link whose server is well; counts once in a minute."""
        now = trio.current_time()
        deferral = self._deferrals.setdefault(key, _Deferral())
        if now - deferral.counted_at >= DEFERRAL_S / 2:
            deferral.times, deferral.counted_at = deferral.times + 1, now

    def admitted(self, device: str) -> None:
        """It was let in."""
        self._deferrals.pop(device, None)

    def forget_done(self, tracker: CheckpointTracker) -> None:
        """Entries that are dealt with."""
        self._deferrals = {
            key: deferral
            for key, deferral in self._deferrals.items()
            if isinstance(key, str) or not tracker.is_done(key)
        }


class LinkDeferrals:
    """What is put off on one link, and since when."""

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
