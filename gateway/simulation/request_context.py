"""What the handlers of the central system's requests use of their charge point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol

from .charging_profiles import Profiles
from .configuration_keys import ConfigurationKeys
from .connector import Connector, SimulatedSession
from .ocpp_connection import Payload
from .uplink import Uplink


class RequestContext(Protocol):
    """The charge point behind the handlers; tests need no whole one."""

    profiles: Profiles
    settings: ConfigurationKeys
    uplink: Uplink

    @property
    def connectors(self) -> Mapping[int, Connector]: ...
    @property
    def now(self) -> Callable[[], datetime]: ...
    def stamp(self, at: datetime) -> str: ...
    def boot_notification(self) -> Payload: ...
    def begin(
        self, connector: Connector, session: SimulatedSession
    ) -> Callable[[], Awaitable[None]]: ...
    async def sleep_simulated(self, seconds: float) -> None: ...
    async def send_status(self, number: int, *, again: bool = False) -> None: ...
    async def reboot(self, reason: str) -> None: ...
