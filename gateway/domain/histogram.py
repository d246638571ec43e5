"""How often a figure was how large: a count for each bucket, cheap enough for every message."""

from __future__ import annotations

from bisect import bisect_left

import attrs

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@attrs.define(eq=False)
class Histogram:
    """bounds: the greatest value of each bucket, ascending; one more bucket has no bound."""

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = attrs.field(init=False)
    total: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, int]]:
        """(bound, how many were no greater), as Prometheus has it."""
        names = [*map(str, self.bounds), "+Inf"]
        return [(name, sum(self.counts[: i + 1])) for i, name in enumerate(names)]
