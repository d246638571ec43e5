"""A ThingsBoard double: its MQTT transport, and the values that it would store.

It follows the transport contract (assertions B1..R14, section numbers and faults F1..F16 are cited
as `thingsboard-contract X`): it accepts what ThingsBoard accepts, refuses what ThingsBoard refuses,
and lists as violations what ThingsBoard would have lost or shown wrongly.

    thingsboard = ThingsBoard()
    port = await nursery.start(thingsboard.serve_tcp)
    ...
    await thingsboard.wait_for(lambda double: "CP-1" in double.devices)
    answer = await thingsboard.rpc("CP-1", "Reset", {"type": "Soft"})
    assert thingsboard.violations == []
"""

from .core import StoredRow
from .faults import Act, Fault, Faults
from .profile import PROFILES, Profile, TenantLimits
from .rpc import RpcNoSession, RpcTimeout
from .server import ThingsBoard
from .store import Device, Traffic, Violation
from .transport import Received

__all__ = [
    "PROFILES",
    "Act",
    "Device",
    "Fault",
    "Faults",
    "Profile",
    "Received",
    "RpcNoSession",
    "RpcTimeout",
    "StoredRow",
    "TenantLimits",
    "ThingsBoard",
    "Traffic",
    "Violation",
]
