"""RPC as ThingsBoard's device actor does it (thingsboard-contract R6 to R9)."""

from __future__ import annotations

from typing import Any

import attrs
import trio


class RpcTimeout(Exception):
    """The request was sent and no answer came in time."""


class RpcNoSession(Exception):
    """No session of the device existed in all the time."""


@attrs.define(eq=False)
class Pending:
    """A request that waits for a session or for its answer."""

    id: int
    method: str
    params: Any
    one_way: bool
    sent: int = 0
    """How often it went out: again for each new session of the device (R8)."""
    answer: Any = None
    is_lost: bool = False
    done: trio.Event = attrs.Factory(trio.Event)

    def for_gateway(self, device: str) -> dict[str, Any]:
        """The request as a gateway gets it for one of its devices (R6)."""
        return {
            "device": device,
            "data": {"id": self.id, "method": self.method, "params": self.params},
        }

    def for_device(self) -> dict[str, Any]:
        """The request as a device of its own gets it; the id stands in the topic (R14)."""
        return {"method": self.method, "params": self.params}

    def settle(self, answer: Any) -> None:
        self.answer = answer
        self.done.set()
