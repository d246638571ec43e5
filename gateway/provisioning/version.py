"""ThingsBoard's version, and what follows from it."""

from __future__ import annotations

import re

import attrs

OLDEST = (3, 9)
NEWEST = (4, 4)
_WHOLE_BATCHES = (4, 2, 1)  # before it, the first device's PUBACK acknowledges the whole batch


@attrs.frozen
class Version:
    """parts: empty where the server does not give a version."""

    text: str
    parts: tuple[int, ...] = ()

    @property
    def is_too_old(self) -> bool:
        return bool(self.parts) and self.parts < OLDEST

    @property
    def is_untested(self) -> bool:
        return self.parts[:2] > NEWEST

    @property
    def batch_devices(self) -> bool:
        """Whether `[thingsboard] batch_devices` may be true (thingsboard-contract 9)."""
        return self.parts >= _WHOLE_BATCHES

    @property
    def advice(self) -> str:
        if not self.parts:
            return "does not give its version; leave [thingsboard] batch_devices = false"
        if self.batch_devices:
            return "[thingsboard] batch_devices may be true"
        return "[thingsboard] batch_devices must stay false: it may be true from 4.2.1 on"


def read(answer: object) -> Version:
    """answer: the response of `GET /api/system/info`, like {"version": "4.2.1.1", ...}."""
    text = str(answer.get("version", "")) if isinstance(answer, dict) else ""
    found = re.match(r"\d+(\.\d+)+", text)
    parts = tuple(int(part) for part in found[0].split(".")) if found else ()
    return Version(text or "unknown", parts)
