"""What holds for the connections of all charge points, from the configuration."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..config.model import Config
from .handlers import HandlerSettings


@attrs.frozen(kw_only=True)
class SouthboundSettings:
    """Names that end in `_s` are in seconds.

    boot_wait_s: the wait for a BootNotification, before `resync` asks a charge point how it is.
    max_messages_per_s: see `throttle`.
    max_handshakes_per_address: handshakes under way from one address.
    passwords: charge point id -> argon2 hash.
    security_profiles: charge point id -> the lowest security profile (0-3) that it may connect
        with.
    known_charge_points: charge points that the configuration names.
    own_devices: names of ThingsBoard devices that no charge point may have.
    """

    ping_interval_s: float = 30.0
    call_timeout_s: float = 30.0
    handshake_timeout_s: float = 10.0
    grace_s: float = 10.0
    boot_wait_s: float = 10.0
    max_message_bytes: int = 262_144
    max_messages_per_s: float = 200.0
    max_connections: int = 10_000
    max_handshakes_per_address: int = 2_000
    require_subprotocol: bool = False
    reject_unknown_charge_points: bool = False
    lenient: bool = True
    passwords: Mapping[str, str] = attrs.field(factory=dict)
    security_profiles: Mapping[str, int] = attrs.field(factory=dict)
    known_charge_points: frozenset[str] = frozenset()
    own_devices: frozenset[str] = frozenset()
    handlers: HandlerSettings = attrs.field(factory=HandlerSettings)

    @classmethod
    def of(cls, config: Config, *, max_connections: int = 10_000) -> SouthboundSettings:
        """max_connections: what the process has files for, see `listeners.raise_file_limit`."""
        ocpp, charge_points = config.ocpp, config.charge_points.items()
        return cls(
            ping_interval_s=ocpp.ping_interval_s,
            call_timeout_s=ocpp.call_timeout_s,
            handshake_timeout_s=ocpp.handshake_timeout_s,
            grace_s=ocpp.grace_s,
            max_message_bytes=ocpp.max_message_bytes,
            max_messages_per_s=ocpp.max_messages_per_s,
            max_connections=max_connections,
            max_handshakes_per_address=ocpp.max_handshakes_per_address,
            require_subprotocol=ocpp.require_subprotocol,
            reject_unknown_charge_points=ocpp.unknown_charge_points == "reject",
            lenient=ocpp.lenient,
            passwords={name: cp.password_hash for name, cp in charge_points if cp.password_hash},
            security_profiles={
                name: cp.security_profile
                for name, cp in charge_points
                if cp.security_profile is not None
            },
            known_charge_points=frozenset(config.charge_points),
            own_devices=frozenset(
                {config.thingsboard.gateway_name, config.thingsboard.session_log}
            ),
            handlers=HandlerSettings.of(config),
        )
