"""A ThingsBoard to test against: its MQTT 5 transport, point to point, and what it would store.

It follows the transport contract (assertions B1..R14, section numbers and faults F1..F16 are cited
as `thingsboard-contract X`): it accepts what ThingsBoard accepts, refuses as ThingsBoard refuses,
and keeps a list of everything that ThingsBoard would have lost or shown wrongly.

    board = ThingsBoard()
    port = await nursery.start(board.serve_tcp)
    ...
    await board.wait_for(lambda board: "CP-1" in board.devices)
    answer = await board.rpc("CP-1", "Reset", {"type": "Soft"})
    assert board.violations == []
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
