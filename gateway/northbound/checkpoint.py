"""How far the journal is published: a low-water mark, and the runs of entries beyond it that are
done.

After an outage new values go ahead of the backlog, so what is done need not be what is oldest.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..journal import Span


class CheckpointTracker:
    """seq: every entry up to it is dealt with.  ahead: runs beyond it that are too, ascending."""

    def __init__(self, seq: int, ahead: Iterable[Span] = ()) -> None:
        self.seq = seq
        self.ahead: tuple[Span, ...] = ()
        for first, last in ahead:
            self.mark_done(first, last)

    def mark_done(self, first: int, last: int) -> None:
        """Note that the entries from `first` to `last` are dealt with."""
        runs: list[Span] = []
        for begin, end in sorted([*self.ahead, (first, last)]):
            if begin <= self.seq + 1:
                self.seq = max(self.seq, end)
            elif runs and begin <= runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], max(runs[-1][1], end))
            else:
                runs.append((begin, end))
        self.ahead = tuple(runs)

    def mark_done_except(self, first: int, last: int, undone: Collection[int]) -> None:
        """Note that the entries from `first` to `last` are dealt with, except some."""
        for seq in sorted(undone):
            if first < seq:
                self.mark_done(first, seq - 1)
            first = seq + 1
        if first <= last:
            self.mark_done(first, last)

    def is_overtaken(self, seq: int) -> bool:
        """Whether a later entry is dealt with."""
        return bool(self.ahead) and seq < self.ahead[-1][1]

    def is_done(self, seq: int) -> bool:
        return seq <= self.seq or any(first <= seq <= last for first, last in self.ahead)

    def remaining(self, upto: int) -> list[Span]:
        """The runs up to and with `upto` that are not dealt with, ascending."""
        runs = []
        begin = self.seq + 1
        for first, last in (*self.ahead, (upto + 1, upto + 1)):
            if begin < (end := min(first, upto + 1)):
                runs.append((begin, end - 1))
            begin = max(begin, last + 1)
        return runs

    def count_remaining(self, upto: int) -> int:
        """How many entries up to and with `upto` are not dealt with."""
        return sum(last - first + 1 for first, last in self.remaining(upto))
