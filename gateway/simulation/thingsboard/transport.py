"""What all connections to the double share: checks at CONNECT, faults, what tests may trigger."""

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

from .core import Core, real_time
from .faults import Faults
from .profile import PROFILES, Budget, Profile, TenantLimits
from .publish_outcomes import PublishOutcome
from .store import ClientConnection, Device
from .wire import LARGEST_PACKET

log = structlog.get_logger(__name__)

_TAKEN_OVER: Final = 0x8E


@attrs.frozen
class Received:
    """One PUBLISH and what was said to it."""

    topic: str
    payload: bytes
    outcome: PublishOutcome


class Transport(Core):
    """Accepts and ends connections, on the core that they share.

    profile: the version to behave like, a name in PROFILES or a Profile of your own.
    access_tokens: the user names that are let in; None lets in any.
    gateway_flag: False when the device of the token is no gateway (thingsboard-contract P3).
    now: aware wall time, for rows without `ts` and to judge those with one.
    history: points kept for each key of each device, 0 for none, None for all.
    kept_messages: how many of the last PUBLISHes stay in `messages`.
    device_limit: how many devices the tenant may have; None for no limit.
    rate_limits, gateway_rate_limits: budgets of the gateway's own device and of its sub-devices.
    min_rpc_timeout: seconds; a shorter timeout of an RPC is raised to it, as ThingsBoard does.
    first_downlink_id: packet id at which each session's downlink begins.
    """

    def __init__(
        self,
        *,
        profile: str | Profile = "4.3",
        access_tokens: Collection[str] | None = None,
        gateway_flag: bool = True,
        now: Callable[[], datetime] = real_time,
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
        self._connections: set[ClientConnection] = set()
        self._thawed: trio.Event | None = None

    # --- faults by hand -------------------------------------------------------------------------

    def disconnect_all(self, reason_code: int | None = None) -> None:
        """Close every connection, with a DISCONNECT where a reason is given."""
        for session in list(self._connections):
            session.close(reason_code)

    def take_over(self, token: str | None = None) -> None:
        """Close the connection of a token, or all, as if another client had come with it (F7)."""
        for known, session in list(self.sessions.items()):
            if token is None or token == known:
                session.close(_TAKEN_OVER)

    def lose_session(self, device: str) -> None:
        """Forget a device's session without telling its gateway (F8)."""
        self.end_device(self.devices[device])
        self.changed()

    def publish_unasked(self, topic: str, payload: bytes | str) -> None:
        """Send a PUBLISH to every client, subscribed or not (F15)."""
        data = payload.encode() if isinstance(payload, str) else payload
        for session in list(self.sessions.values()):
            session.publish(topic, data)

    def restart(self) -> None:
        """Lose connections, sessions, pending requests and RPC ids; keep what is stored (F16)."""
        for session in list(self._connections):
            session.abort()
            self.forget(session)
        self.lose_rpcs()
        self.changed()

    def freeze(self) -> None:
        """Read and write nothing from now on, like a host that hangs; connections stay open."""
        if self._thawed is None:
            self._thawed = trio.Event()

    def thaw(self) -> None:
        """End a freeze; what arrived meanwhile is served."""
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

    # --- for the sessions -----------------------------------------------------------------------

    def until_thawed(self) -> Awaitable[None]:
        """Wait for the end of a freeze."""
        return self._thawed.wait() if self._thawed is not None else _at_once()

    def judge_connect(self, packet: mqtt5.ConnectPacket) -> int:
        """The CONNACK code in MQTT 5 numbers (thingsboard-contract C1, C2)."""
        name, password = packet.username, packet.password
        if name and (self.access_tokens is None or name in self.access_tokens):
            return 0
        if (name is None) != (password is None) or (name is not None and password is not None):
            return 0x86
        return 0x85 if packet.client_id.strip() else 0x87

    def welcome(self, session: ClientConnection, token: str) -> None:
        """Let a session in; an older one of the same token goes (thingsboard-contract C3)."""
        if before := self.sessions.get(token):
            self.forget(before)
            before.close(_TAKEN_OVER)
        own = self.gateways.get(token)
        if own is None:
            own = self.gateways[token] = Device(token, "default", self.history)
        session.own = own
        budget = self._budgets.get(token)
        if budget is None:
            budget = Budget(self._gateway_rate_limits, trio.current_time)
            self._budgets[token] = budget
        session.budget = budget
        self.sessions[token] = session
        own.session = session
        log.info("client connected")
        self.send_pending(own, again=True)
        self.changed()

    def forget(self, session: ClientConnection) -> None:
        """End all that a connection held."""
        if session.token is not None and self.sessions.get(session.token) is session:
            del self.sessions[session.token]
            session.own.session = None
        for device in list(session.devices.values()):
            self.end_device(device)
        self.changed()

    def count(self, topic: str, payload: bytes, *, is_duplicate: bool) -> None:
        traffic = self.publishes
        traffic.messages += 1
        traffic.bytes += len(payload)
        traffic.by_topic[topic] += 1
        traffic.duplicates += is_duplicate

    def note(self, topic: str, payload: bytes, outcome: PublishOutcome) -> None:
        self.messages.append(Received(topic, payload, outcome))


async def _at_once() -> None:
    """Nothing to wait for; the callers have checkpoints of their own."""


def _session_limits(own: TenantLimits, gateway: TenantLimits, is_gateway: bool) -> dict[str, Any]:
    """The answer to `getSessionLimits` (thingsboard-contract 8)."""
    limits: dict[str, Any] = {
        "maxPayloadSize": LARGEST_PACKET,
        "maxInflightMessages": 100,
        "rateLimits": own.as_json(),
    }
    if is_gateway:
        limits["gatewayRateLimits"] = gateway.as_json()
    return limits
