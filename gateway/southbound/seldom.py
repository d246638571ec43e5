"""What is told to people once in a while, however often it happens."""

from __future__ import annotations

from collections.abc import Hashable

import trio


class Seldom:
    """period: seconds between two times for one key.  most: keys in a period, for all of them may
    be invented; what is beyond is not told."""

    def __init__(self, period: float, most: int) -> None:
        self._period = period
        self._most = most
        self._told: dict[Hashable, float] = {}  # Trio's time, oldest first

    def is_due(self, key: Hashable) -> bool:
        """Whether this is to be told now.  It counts as told."""
        now = trio.current_time()
        while self._told:
            oldest = next(iter(self._told))
            if now - self._told[oldest] < self._period:
                break
            del self._told[oldest]
        if key in self._told or len(self._told) >= self._most:
            return False
        self._told[key] = now
        return True
