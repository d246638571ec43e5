"""How the connection to ThingsBoard stands, for metrics and readiness."""

from __future__ import annotations

import attrs

from .checkpoint import Place


@attrs.define
class Statistics:
    """connected: whether there is a link; why: what ended the last one, or kept it from coming.

    published, refused: PUBLISH packets.  aside: entries given up.
    """

    told: Place = attrs.field(factory=lambda: Place(0))
    connected: bool = False
    why: str = "not tried yet"
    published: int = 0
    refused: int = 0
    aside: int = 0

    @property
    def place(self) -> int:
        """Of the newest entry up to which everything is told."""
        return self.told.seq
