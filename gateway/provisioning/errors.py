"""Errors between the installer and ThingsBoard, by whose fault they are."""

from __future__ import annotations


class ThingsboardError(Exception):
    """An error in words for an operator.  It never has a credential in it."""


class UsageError(ThingsboardError):
    """The command has wrong arguments."""


class RequestRefused(ThingsboardError):
    """ThingsBoard refused a request.  status: of HTTP; message: its own error message."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"{what}: ThingsBoard answers {status}: {message}")
        self.status = status
        self.message = message
