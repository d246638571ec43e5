"""What all connections to the double share: checks at CONNECT, faults, what a test triggers."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from datetime import datetime
from typing import Any, Final

import attrs
import mqtt5
import structlog
import trio

from .core import Core, utc_now
from .faults import Faults
from .profile import PROFILES, Budget, Profile, TenantLimits
from .publish_outcomes import PublishOutcome
from .store import ClientConnection, Device
from .wire import MAX_PACKET_SIZE

log = structlog.get_logger(__name__)

_SESSION_TAKEN_OVER: Final = 0x8E


@attrs.frozen
class Received:
    """One PUBLISH and the answer to it."""

    topic: str
    payload: bytes
    outcome: PublishOutcome


class Transport(Core):
    """The clients' side of ThingsBoard: it accepts and ends connections on top of the core.

    profile: the version to behave like, a name in PROFILES or a Profile of your own.
    access_tokens: the user names that are accepted; None accepts any.
    gateway_flag: False when the device of the token is no gateway (thingsboard-contract P3).
    now: aware wall time, for rows without `ts` and to check those with one.
    history: points kept for each key of each device, 0 for none, None for all.
    kept_messages: how many of the last PUBLISHes stay in `messages`.
    device_limit: how many devices the tenant may have; None for no limit.
    rate_limits, gateway_rate_limits: budgets of the gateway's own device and of its sub-devices.
    min_rpc_timeout: seconds; a shorter timeout of an RPC is raised to it, as ThingsBoard does.
    first_downlink_id: packet id of the first PUBLISH to each client.
    """

    def __init__(
        self,
        *,
        profile: str | Profile = "4.3",
        access_tokens: Collection[str] | None = None,
        gateway_flag: bool = True,
        now: Callable[[], datetime] = utc_now,
        history: int | None = 10_000,
        kept_messages: int = 1_000,
        device_limit: int | None = None,
        rate_limits: TenantLimits | None = None,
        gateway_rate_limits: TenantLimits | None = None,
        min_rpc_timeout: float = 5.0,
        first_downlink_id: int = 1,
    ) -> None:
        super().__init__(
            profile=PROFILES[profile] if isinstance(profile, str) else profile,
            now=now,
            history=history,
            device_limit=device_limit,
            min_rpc_timeout=min_rpc_timeout,
            gateway_flag=gateway_flag,
            session_limits=_session_limits(
                rate_limits or TenantLimits(), gateway_rate_limits or TenantLimits(), gateway_flag
            ),
        )
        self.access_tokens = access_tokens
        self.first_downlink_id = first_downlink_id
        self.messages: deque[Received] = deque(maxlen=kept_messages)
        self.faults = Faults()
        self._gateway_rate_limits = gateway_rate_limits or TenantLimits()
        self._budgets: dict[str, Budget] = {}
        self._all_connections: set[ClientConnection] = set()
        self._thawed: trio.Event | None = None

    # --- faults at once -------------------------------------------------------------------------

    def disconnect_all(self, reason_code: int | None = None) -> None:
        """Close every connection, with a DISCONNECT where a reason is given."""
        for connection in list(self._all_connections):
            connection.close(reason_code)

    def take_over(self, token: str | None = None) -> None:
        """Close a token's connection, or all, as if another client had connected with it (F7)."""
        for known, connection in list(self.connections.items()):
            if token is None or token == known:
                connection.close(_SESSION_TAKEN_OVER)

    def lose_session(self, device: str) -> None:
        """End a device's session without a message to its gateway (F8)."""
        self.end_device_session(self.devices[device])
        self.wake_waiters()

    def publish_unasked(self, topic: str, payload: bytes | str) -> None:
        """Send a PUBLISH to every client, subscribed or not (F15)."""
        data = payload.encode() if isinstance(payload, str) else payload
        for connection in list(self.connections.values()):
            connection.publish(topic, data)

    def restart(self) -> None:
        """Lose connections, device sessions, pending RPCs and RPC ids; keep the values (F16)."""
        for connection in list(self._all_connections):
            connection.abort()
            self.end_connection(connection)
        self.lose_rpcs()
        self.wake_waiters()

    def freeze(self) -> None:
        """Read and write nothing from now on, as a host that hangs; connections stay open."""
        if self._thawed is None:
            self._thawed = trio.Event()

    def thaw(self) -> None:
        """End a freeze; packets that arrived meanwhile are handled."""
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze for the length of a block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    # --- for the connections --------------------------------------------------------------------

    def wait_thawed(self) -> Awaitable[None]:
        """Wait for the end of a freeze."""
        return self._thawed.wait() if self._thawed is not None else _return_at_once()

    def connack_code(self, packet: mqtt5.ConnectPacket) -> int:
        """The CONNACK code in MQTT 5 numbers (thingsboard-contract C1, C2)."""
        name, password = packet.username, packet.password
        if name and (self.access_tokens is None or name in self.access_tokens):
            return 0
        if (name is None) != (password is None) or (name is not None and password is not None):
            return 0x86
        return 0x85 if packet.client_id.strip() else 0x87

    def accept_client(self, connection: ClientConnection, token: str) -> None:
        """Accept a connection; an older one of its token is closed (thingsboard-contract C3)."""
        if before := self.connections.get(token):
            self.end_connection(before)
            before.close(_SESSION_TAKEN_OVER)
        own = self.gateways.get(token)
        if own is None:
            own = self.gateways[token] = Device(token, "default", self.history)
        connection.own = own
        budget = self._budgets.get(token)
        if budget is None:
            budget = Budget(self._gateway_rate_limits, trio.current_time)
            self._budgets[token] = budget
        connection.budget = budget
        self.connections[token] = connection
        own.connection = connection
        log.info("client connected")
        self.send_pending(own, again=True)
        self.wake_waiters()

    def end_connection(self, connection: ClientConnection) -> None:
        """End the device sessions that a closed connection held."""
        if connection.token is not None and self.connections.get(connection.token) is connection:
            del self.connections[connection.token]
            connection.own.connection = None
        for device in list(connection.devices.values()):
            self.end_device_session(device)
        self.wake_waiters()

    def count_publish(self, topic: str, payload: bytes, *, is_duplicate: bool) -> None:
        traffic = self.publishes
        traffic.messages += 1
        traffic.bytes += len(payload)
        traffic.by_topic[topic] += 1
        traffic.duplicates += is_duplicate

    def record_publish(self, topic: str, payload: bytes, outcome: PublishOutcome) -> None:
        self.messages.append(Received(topic, payload, outcome))


async def _return_at_once() -> None:
    """Wait for nothing; the callers have checkpoints of their own."""


def _session_limits(own: TenantLimits, gateway: TenantLimits, is_gateway: bool) -> dict[str, Any]:
    """The answer to `getSessionLimits` (thingsboard-contract 8)."""
    limits: dict[str, Any] = {
        "maxPayloadSize": MAX_PACKET_SIZE,
        "maxInflightMessages": 100,
        "rateLimits": own.as_json(),
    }
    if is_gateway:
        limits["gatewayRateLimits"] = gateway.as_json()
    return limits
