"""What the handlers of the central system's requests use of their charge point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol

from .charging_profiles import Profiles
from .configuration_keys import ConfigurationKeys
from .connector import Connector, SimulatedSession
from .ocpp_client import OcppClient
from .ocpp_connection import Payload


class RequestContext(Protocol):
    """The charge point, as far as handlers use it: no import runs in a circle."""

    profiles: Profiles
    settings: ConfigurationKeys
    client: OcppClient

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
