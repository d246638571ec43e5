"""A rate limit for log lines whose cause a peer can repeat at will."""

from __future__ import annotations

from collections.abc import Hashable

import trio


class LogLimiter:
    """period: seconds between two times for one key.  max_keys: keys in a period, for all of them
    may be invented; what is beyond is not logged."""

    def __init__(self, period: float, max_keys: int) -> None:
        self._period = period
        self._max_keys = max_keys
        self._logged_at: dict[Hashable, float] = {}  # Trio's time, oldest first

    def is_due(self, key: Hashable) -> bool:
        """Whether this is to be logged now.  It counts as logged."""
        now = trio.current_time()
        while self._logged_at:
            oldest = next(iter(self._logged_at))
            if now - self._logged_at[oldest] < self._period:
                break
            del self._logged_at[oldest]
        if key in self._logged_at or len(self._logged_at) >= self._max_keys:
            return False
        self._logged_at[key] = now
        return True
