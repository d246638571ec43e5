"""Lag: when the oldest entry that is not published yet was appended, to the second or so."""

from __future__ import annotations

from bisect import bisect_right

_MARK_INTERVAL = 1.0  # seconds from one mark to the next
# Beyond so many, every other mark is forgotten, and new ones are made half as often.
_MAX_MARKS = 4_096


class LagClock:
    """Owns: marks (sequence number, time), both ascending."""

    def __init__(self) -> None:
        self._seqs: list[int] = []
        self._times: list[float] = []
        self._interval = _MARK_INTERVAL

    def mark(self, seq: int, at: float) -> None:
        """Entry `seq` came at this time; those that follow came later.

        One that is older than all, as a start finds it, may be noted afterwards.
        """
        if self._seqs and seq < self._seqs[0]:
            self._seqs.insert(0, seq)
            self._times.insert(0, min(at, self._times[0]))
            return
        if self._times and at - self._times[-1] < self._interval:
            return
        self._seqs.append(seq)
        self._times.append(at)
        if len(self._seqs) > _MAX_MARKS:
            del self._seqs[1::2], self._times[1::2]
            self._interval *= 2

    def oldest_at(self, seq: int) -> float | None:
        """When the entry came, or a little earlier; entries before it cannot be asked for any more.

        None where nothing is known.
        """
        mark = bisect_right(self._seqs, seq) - 1
        if mark > 0:
            del self._seqs[:mark], self._times[:mark]
        if len(self._seqs) < _MAX_MARKS // 4:
            self._interval = _MARK_INTERVAL
        return self._times[0] if self._times else None
