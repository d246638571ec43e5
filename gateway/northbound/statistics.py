"""How the connection to ThingsBoard stands, for metrics and readiness."""

from __future__ import annotations

import attrs

from .checkpoint import CheckpointTracker


@attrs.define
class DeliveryStatistics:
    """connected: whether there is a link; why: what ended the last one, or kept it from coming.

    published, refused: PUBLISH packets.  dead_letters: entries that were given up.
    """

    tracker: CheckpointTracker = attrs.field(factory=lambda: CheckpointTracker(0))
    connected: bool = False
    why: str = "not tried yet"
    published: int = 0
    refused: int = 0
    dead_letters: int = 0

    @property
    def delivered_seq(self) -> int:
        """Of the newest entry up to which everything is published."""
        return self.tracker.seq
