"""RPC as ThingsBoard's device actor does it (thingsboard-contract R6 to R9)."""

from __future__ import annotations

from typing import Any

import attrs
import trio


class RpcTimeout(Exception):
    """The device did not answer the request in time."""


class RpcNoSession(Exception):
    """The device had no session until the timeout."""


@attrs.define(eq=False)
class PendingRpc:
    """A request that waits for a device session or for its answer."""

    id: int
    method: str
    params: Any
    one_way: bool
    sent: int = 0
    """How often it was sent: again for each new session of the device (R8)."""
    answer: Any = None
    is_lost: bool = False
    done: trio.Event = attrs.Factory(trio.Event)

    def for_gateway(self, device: str) -> dict[str, Any]:
        """The request as a gateway receives it for one of its devices (R6)."""
        return {
            "device": device,
            "data": {"id": self.id, "method": self.method, "params": self.params},
        }

    def for_device(self) -> dict[str, Any]:
        """The request as a directly connected device receives it; its id is in the topic (R14)."""
        return {"method": self.method, "params": self.params}

    def complete(self, answer: Any) -> None:
        self.answer = answer
        self.done.set()
