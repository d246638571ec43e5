"""The handshake: which charge point asks, and whether it may connect.

A request is refused with an HTTP status and a sentence, so that the person who installs a charge
point reads in its log what is wrong.  What is asked, in this order: a charge point id in the path
(OCPP-J 3.1.1), its password and security profile, the subprotocol, and that the id is not held by
another device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import trio

from .authentication import NO_ID, PasswordVerifier, identity_of, password_of
from .registry import Registry
from .websocket import Handshake

SUBPROTOCOL = "ocpp1.6"

_Headers = list[tuple[bytes, bytes]]


class HandshakeRefused(Exception):
    """A handshake that gets an HTTP error in place of a WebSocket.

    reason: a word for metrics, one of `statistics.REFUSAL_REASONS`.
    """

    def __init__(
        self, status: int, why: str, headers: _Headers | None = None, *, reason: str
    ) -> None:
        super().__init__(f"{status} {why}")
        self.reason = reason
        self.status = status
        self.why = why
        self.headers = headers or []


class HandshakeCheck:
    """Checks the request of each handshake.

    passwords: charge point id -> argon2 hash.
    own_devices: names of ThingsBoard devices that no charge point may have.
    known_charge_points: the ids that may connect; None for any.
    security_profiles: charge point id -> the lowest security profile (0-3) that it may have.
    require_subprotocol: refuse a charge point that offers no subprotocol at all.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        passwords: Mapping[str, str],
        own_devices: Set[str],
        known_charge_points: Set[str] | None,
        security_profiles: Mapping[str, int],
        require_subprotocol: bool,
    ) -> None:
        self._registry = registry
        self._passwords = PasswordVerifier(passwords)
        self._own_devices = own_devices
        self._known_charge_points = known_charge_points
        self._security_profiles = security_profiles
        self._require_subprotocol = require_subprotocol

    async def check(self, handshake: Handshake, stream: trio.abc.Stream) -> tuple[str, int]:
        """(charge point id, security profile).  Raises HandshakeRefused."""
        identity = self._identity(handshake.path)
        profile = await self._security_profile(identity, handshake, stream)
        self._check_subprotocol(handshake.subprotocols)
        if (retry_after_s := self._registry.retry_after_s(identity)) > 0:
            raise HandshakeRefused(
                503,
                "another device with this id holds the connection",
                [(b"retry-after", str(int(retry_after_s) + 1).encode())],
                reason="taken",
            )
        return identity, profile

    def _identity(self, path: str) -> str:
        identity = identity_of(path)
        if identity is None:
            raise HandshakeRefused(404, NO_ID, reason="no_id")
        if identity in self._own_devices:
            raise HandshakeRefused(404, "the gateway's own device has this name", reason="no_id")
        if self._known_charge_points is not None and identity not in self._known_charge_points:
            raise HandshakeRefused(404, "this charge point is not known here", reason="unknown")
        return identity

    async def _security_profile(
        self, identity: str, handshake: Handshake, stream: trio.abc.Stream
    ) -> int:
        """0: nothing.  1: a password.  2: TLS.  3: TLS and a client certificate."""
        secure = isinstance(stream, trio.SSLStream)
        profile = 2 if secure else 0
        if self._passwords.is_required_for(identity):
            password = password_of(handshake.header(b"authorization"), identity)
            if not await self._passwords.is_right(identity, password):
                raise HandshakeRefused(
                    401,
                    "wrong or missing password",
                    [(b"www-authenticate", b'Basic realm="ocpp"')],
                    reason="password",
                )
            profile = 2 if secure else 1
        if isinstance(stream, trio.SSLStream) and stream.getpeercert():
            profile = 3
        if profile < self._security_profiles.get(identity, 0):
            raise HandshakeRefused(
                403, "this charge point may not connect with so little security", reason="profile"
            )
        return profile

    def _check_subprotocol(self, offered: Sequence[str]) -> None:
        if SUBPROTOCOL not in offered and (offered or self._require_subprotocol):
            others = ", ".join(offered)[:200] or "a charge point that names no subprotocol"
            raise HandshakeRefused(
                400,
                f"this is a central system for {SUBPROTOCOL}, not for {others}",
                reason="subprotocol",
            )
