"""The part of ThingsBoard behind its transport: devices, their values, RPCs to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

import attrs
import trio

from .profile import Profile
from .publish_outcomes import QUOTA_EXCEEDED, UNSPECIFIED, DeviceOutcome, DeviceRefused
from .rpc import PendingRpc, RpcNoSession, RpcTimeout
from .store import ClientConnection, Device, Severity, Traffic, Violation, is_device_name
from .values import Stored

_DEVICE_SESSION_TIMEOUT: Final = (
    600.0  # seconds until a device session expires, thingsboard-contract R5
)
_BAD_NAME_DELAY: Final = 10.0  # seconds until the core gives up, thingsboard-contract 5
_MAX_VIOLATIONS: Final = 10_000


@attrs.frozen
class StoredRow:
    """Values of one device as they were stored."""

    device: str
    ts: int
    values: Mapping[str, Stored]
    is_attributes: bool = False


def utc_now() -> datetime:
    return datetime.now(UTC)


class Core:
    """Devices, their values, their device sessions and their pending RPCs.

    The arguments are those of ThingsBoard.
    """

    def __init__(
        self,
        *,
        profile: Profile,
        now: Callable[[], datetime],
        history: int | None,
        device_limit: int | None,
        min_rpc_timeout: float,
        gateway_flag: bool,
        session_limits: Mapping[str, Any],
    ) -> None:
        self.profile = profile
        self.gateway_flag = gateway_flag
        self.session_limits = session_limits
        """What `getSessionLimits` is answered with."""
        self.history = history
        self.device_limit = device_limit
        self.devices: dict[str, Device] = {}
        self.gateways: dict[str, Device] = {}
        """The devices of the gateways themselves, by access token."""
        self.connections: dict[str, ClientConnection] = {}
        """The open connection of each access token."""
        self.violations: list[Violation] = []
        """The rules that the product broke, in order; the first 10,000 only."""
        self.publishes = Traffic()
        self._now = now
        self._min_rpc_timeout = min_rpc_timeout
        self._change: trio.Event | None = None
        self._readers: list[trio.MemorySendChannel[StoredRow]] = []

    # --- for tests and the demo ------------------------------------------------------------------

    def failures(self) -> list[Violation]:
        """The violations by which data was lost or a connection closed."""
        return [violation for violation in self.violations if violation.severity == "FAIL"]

    async def wait_for(self, predicate: Callable[[Self], object]) -> None:
        """Return once the predicate holds; it is evaluated again after each change."""
        while not predicate(self):
            if self._change is None:
                self._change = trio.Event()
            await self._change.wait()

    def rows(self, buffer: int = 1_000) -> trio.MemoryReceiveChannel[StoredRow]:
        """The rows stored from now on; a reader more than `buffer` rows behind misses some.

        The reader closes the channel to stop.
        """
        send, receive = trio.open_memory_channel[StoredRow](buffer)
        self._readers.append(send)
        return receive

    # --- RPC -----------------------------------------------------------------------------------

    async def rpc(
        self,
        device: str,
        method: str,
        params: Any = None,
        *,
        timeout: float = 10.0,
        one_way: bool = False,
        anyway: bool = False,
    ) -> Any:
        """Call a method of a device as ThingsBoard's REST API would, and return its answer.

        timeout: seconds; a value below `min_rpc_timeout` is raised to it.
        one_way: return None as soon as the request was sent (thingsboard-contract R9).
        anyway: send it through a connected gateway that holds no session for the device
            (thingsboard-contract F11).
        Raises KeyError for a device that does not exist, RpcTimeout when no answer came, and
        RpcNoSession when the device had no session.
        """
        target = self.devices.get(device) or self.gateways.get(device)
        if target is None:
            if not anyway:
                raise KeyError(device)
            target = Device(device, "default")
        pending = PendingRpc(target.next_rpc_id, method, params, one_way)
        target.next_rpc_id += 1
        target.pending[pending.id] = pending
        try:
            if anyway:
                self._send_anyway(target, pending)
            self.send_pending(target)
            with trio.move_on_after(max(timeout, self._min_rpc_timeout)):
                await pending.done.wait()
        finally:
            target.pending.pop(pending.id, None)
        if pending.is_lost:
            raise RpcNoSession(f"{device}: ThingsBoard restarted")
        if pending.done.is_set():
            return pending.answer
        if pending.sent:
            raise RpcTimeout(f"{device} did not answer {method}")
        raise RpcNoSession(f"{device} has no session")

    def resend_rpcs(self, device: str) -> None:
        """Send a device's pending requests once more, with their ids (F9)."""
        self.send_pending(self.devices[device], again=True)

    def send_pending(self, device: Device, *, again: bool = False) -> None:
        """Send the pending requests that were not sent yet; with `again` all of them."""
        connection = self._connection_to(device)
        if connection is None:
            return
        for pending in list(device.pending.values()):
            if pending.sent and not again:
                continue
            if device is connection.own:
                topic = f"v1/devices/me/rpc/request/{pending.id}"
                connection.send_json(topic, pending.for_device())
            else:
                connection.send_json("v1/gateway/rpc", pending.for_gateway(device.name))
            self._sent(pending)

    def _send_anyway(self, device: Device, pending: PendingRpc) -> None:
        for connection in self.connections.values():
            connection.send_json("v1/gateway/rpc", pending.for_gateway(device.name))
            self._sent(pending)
            return

    def lose_rpcs(self) -> None:
        """Drop the pending RPCs and count their ids from 0 again, as a restart does (F16)."""
        for device in [*self.devices.values(), *self.gateways.values()]:
            device.next_rpc_id = 0
            for pending in device.pending.values():
                pending.is_lost = True
                pending.done.set()
            device.pending.clear()

    def _sent(self, pending: PendingRpc) -> None:
        pending.sent += 1
        if pending.one_way:
            pending.complete(None)

    def _connection_to(self, device: Device) -> ClientConnection | None:
        connection = device.connection
        if connection is None or device is connection.own:
            return connection
        if trio.current_time() - device.active_at > _DEVICE_SESSION_TIMEOUT:
            self.end_device_session(device)  # R5: it expires though the gateway is connected
            return None
        return connection

    # --- attributes ----------------------------------------------------------------------------

    def set_shared(self, device: str, values: Mapping[str, Any]) -> None:
        """Set shared attributes; a connected device gets them (thingsboard-contract R11)."""
        self.devices[device].shared.update(values)
        self._send_attributes(device, dict(values))

    def delete_shared(self, device: str, keys: Collection[str]) -> None:
        """Delete shared attributes; a connected device gets them (thingsboard-contract R11)."""
        for key in keys:
            self.devices[device].shared.pop(key, None)
        self._send_attributes(device, {"deleted": list(keys)})

    def _send_attributes(self, device: str, data: dict[str, Any]) -> None:
        if connection := self._connection_to(self.devices[device]):
            connection.send_json("v1/gateway/attributes", {"device": device, "data": data})

    # --- for the transport ----------------------------------------------------------------------

    def open_device_session(
        self,
        connection: ClientConnection,
        name: str,
        *,
        kind: str | None = None,
        is_connect: bool = False,
    ) -> Device:
        """The device of that name, created if missing; this connection then holds its session.

        Raises DeviceRefused when it cannot be created.
        """
        device = self.devices.get(name)
        if device is None:
            self._check_new_device(name)
            device = self.devices[name] = Device(name, kind or "default", self.history)
            if not is_connect:
                self.report_violation("R1", "FAIL", f"{name!r} was created without `connect`")
        elif kind and device.type != kind:
            self.report_violation(
                "R1", "WARN", f"{name!r} has type {device.type!r}, {kind!r} is ignored"
            )
        elif not is_connect and name not in connection.announced:
            self.report_violation("R1", "WARN", f"{name!r} was named before `connect`")
        if is_connect:
            connection.announced.add(name)
        device.active_at = trio.current_time()
        if device.connection is not connection:
            self.end_device_session(device)
            device.connection = connection
            connection.devices[name] = device
            self.send_pending(device, again=True)  # R8
        return device

    def _check_new_device(self, name: str) -> None:
        """Raise DeviceRefused when ThingsBoard cannot create a device of this name."""
        is_acknowledged = self.profile.ack_on_connect_failure
        if not is_device_name(name):
            outcome = DeviceOutcome(UNSPECIFIED if is_acknowledged else None, delay=_BAD_NAME_DELAY)
            raise DeviceRefused(outcome, f"the device name {name[:60]!r} is invalid")
        if self.device_limit is not None and len(self.devices) >= self.device_limit:
            raise DeviceRefused(
                DeviceOutcome(QUOTA_EXCEEDED if is_acknowledged else None),
                f"{name!r} is beyond the device limit",
            )

    def close_device_session(self, connection: ClientConnection, name: str) -> None:
        """`v1/gateway/disconnect`: end the device's session on this connection only (R13)."""
        connection.announced.discard(name)
        if device := connection.devices.get(name):
            self.end_device_session(device)

    def end_device_session(self, device: Device) -> None:
        """End the device's session on any connection; no client is notified (R3)."""
        if device.connection is not None:
            device.connection.devices.pop(device.name, None)
            device.connection = None

    def complete_rpc(self, device: Device, request_id: int, answer: Any) -> None:
        """Complete the RPC that this answers; an answer to no pending RPC is ignored (R7)."""
        self.publishes.rpc_answers += 1
        pending = device.pending.get(request_id)
        if pending is None or pending.done.is_set():
            self.publishes.stale_rpc_answers += 1
        else:
            pending.complete(answer)

    def save_row(self, device: Device, ts: int, values: dict[str, Stored]) -> None:
        device.save(ts, values, self.publishes)
        if self._readers:
            self._send_to_readers(StoredRow(device.name, ts, values))

    def save_attributes(self, device: Device, values: dict[str, Stored]) -> None:
        device.attributes.update(values)
        if self._readers:
            self._send_to_readers(StoredRow(device.name, self.now_ms(), values, is_attributes=True))

    def _send_to_readers(self, row: StoredRow) -> None:
        for reader in list(self._readers):
            try:
                reader.send_nowait(row)
            except trio.WouldBlock:
                pass  # A slow reader misses rows; it never slows the server.
            except trio.BrokenResourceError:
                self._readers.remove(reader)
                reader.close()

    def report_violation(self, assertion: str, severity: Severity, what: str) -> None:
        self.add_violation(Violation(assertion, severity, what))

    def add_violation(self, violation: Violation) -> None:
        if len(self.violations) < _MAX_VIOLATIONS:
            self.violations.append(violation)

    def wake_waiters(self) -> None:
        """Let each `wait_for` evaluate its predicate again."""
        if self._change is not None:
            self._change.set()
            self._change = None

    def now_ms(self) -> int:
        return int(self._now().timestamp() * 1000)
