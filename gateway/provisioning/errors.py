"""What may go wrong between the installer and ThingsBoard, by whose fault it is."""

from __future__ import annotations


class ThingsboardError(Exception):
    """What went wrong, in words for an operator.  No credential is ever in it."""


class Misused(ThingsboardError):
    """The command was given something that cannot be meant."""


class Refused(ThingsboardError):
    """ThingsBoard understood, and said no.  status: of HTTP; said: its own words."""

    def __init__(self, what: str, status: int, said: str) -> None:
        super().__init__(f"{what}: ThingsBoard answers {status}: {said}")
        self.status = status
        self.said = said
