"""The configuration as frozen values: every table, key, bound and default."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
from ocpp.v16.enums import AuthorizationStatus

from . import values
from .values import Address


def _key(read: Any, default: Any = None, *, secret: bool = False) -> Any:
    return attrs.field(default=default, metadata={"read": read, "secret": secret}, repr=not secret)


@attrs.frozen
class Ocpp:
    listen: Address = _key(values.address, Address("0.0.0.0", 9000))  # noqa: S104  chargers come from outside
    listen_tls: Address | None = _key(values.address)
    heartbeat_interval_s: int = _key(values.number_between(1, 86_400), 300)
    ping_interval_s: float = _key(values.number_between(1, 3_600, float), 30.0)
    call_timeout_s: float = _key(values.number_between(1, 600, float), 30.0)
    handshake_timeout_s: float = _key(values.number_between(1, 120, float), 10.0)
    grace_s: float = _key(values.number_between(0, 300, float), 10.0)
    stale_session_h: float = _key(values.number_between(1, 8_760, float), 72.0)
    max_message_bytes: int = _key(values.number_between(4_096, 67_108_864), 262_144)
    max_messages_per_s: float = _key(values.number_between(1, 100_000, float), 200.0)
    max_handshakes_per_address: int = _key(values.number_between(1, 1_000_000), 2_000)
    unknown_charge_points: str = _key(values.choice("accept", "pending", "reject"), "accept")
    unknown_id_tags: str = _key(values.choice("accept", "reject"), "accept")
    concurrent_tx: str = _key(values.choice("accept", "reject"), "accept")
    require_subprotocol: bool = _key(values.flag, default=False)
    lenient: bool = _key(values.flag, default=True)
    tls_cert: str | None = _key(values.file)
    tls_key: str | None = _key(values.file)
    client_ca: str | None = _key(values.file)


@attrs.frozen
class Thingsboard:
    host: str = _key(values.nonempty_text, "127.0.0.1")
    port: int = _key(values.number_between(1, 65_535), 1883)
    access_token: str | None = _key(values.nonempty_text, secret=True)
    tls: bool = _key(values.flag, default=False)
    ca_cert: str | None = _key(values.file)
    protocol: str = _key(values.choice("5", "3.1.1"), "5")
    gateway_name: str = _key(values.nonempty_text, "ocpp-gateway")
    batch_devices: bool = _key(values.flag, default=False)
    compat: str = _key(values.choice("", "node-red"), "")

    @property
    def session_log(self) -> str:
        """The name of the device that the receipts of all sessions are published for."""
        return f"{self.gateway_name} sessions"


@attrs.frozen
class Storage:
    url: Path = _key(values.store, Path("/var/lib/ocpp-gateway/gateway.db"), secret=True)
    keep_days: int = _key(values.number_between(1, 36_500), 400)


@attrs.frozen
class Pricing:
    time_zone: str | None = _key(values.zone)
    tariffs: str | None = _key(values.file)
    driver_display: bool = _key(values.flag, default=False)


@attrs.frozen
class Commands:
    default_id_tag: str | None = _key(values.nonempty_text)
    remote_start_timeout_s: float = _key(values.number_between(1, 3_600, float), 60.0)


@attrs.frozen
class Admin:
    listen: Address = _key(values.address, Address("127.0.0.1", 9100))


@attrs.frozen
class ChargePoint:
    password_hash: str | None = _key(values.argon2, secret=True)
    security_profile: int | None = _key(values.number_between(0, 3))
    time_zone: str | None = _key(values.zone)
    max_power_kw: Decimal | None = _key(values.exact("0.1", "10000"))
    energy_scale: Decimal | None = _key(values.ENERGY_SCALE)


@attrs.frozen
class IdTag:
    status: str = _key(
        values.choice(*(str(word.value) for word in AuthorizationStatus)), "Accepted"
    )
    expires: datetime | None = _key(values.instant)
    parent: str | None = _key(values.nonempty_text)


@attrs.frozen
class Config:
    ocpp: Ocpp = attrs.field(factory=Ocpp)
    thingsboard: Thingsboard = attrs.field(factory=Thingsboard)
    storage: Storage = attrs.field(factory=Storage)
    pricing: Pricing = attrs.field(factory=Pricing)
    commands: Commands = attrs.field(factory=Commands)
    admin: Admin = attrs.field(factory=Admin)
    charge_points: Mapping[str, ChargePoint] = attrs.field(factory=dict)
    id_tags: Mapping[str, IdTag] = attrs.field(factory=dict)
    party: Mapping[str, Any] = attrs.field(factory=dict)
    """[party]: the operator and its locations, which `export.party` reads when CDRs are made."""
