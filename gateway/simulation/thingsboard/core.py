"""The part of ThingsBoard behind its transport: devices, what they sent, requests to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

import attrs
import trio

from .profile import Profile
from .publish_outcomes import QUOTA_EXCEEDED, UNSPECIFIED, DeviceRefused, Part
from .rpc import Pending, RpcNoSession, RpcTimeout
from .store import ClientConnection, Device, Severity, Traffic, Violation, is_device_name
from .values import Stored

_DEVICE_SILENCE: Final = 600.0  # seconds until a device session expires, thingsboard-contract R5
_BAD_NAME_DELAY: Final = 10.0  # seconds until the core gives up, thingsboard-contract 5
_MOST_VIOLATIONS: Final = 10_000


@attrs.frozen
class StoredRow:
    """Values of one device as they were stored."""

    device: str
    ts: int
    values: Mapping[str, Stored]
    is_attributes: bool = False


def real_time() -> datetime:
    return datetime.now(UTC)


class Core:
    """Devices, their values, their sessions and their pending requests.

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
        self.sessions: dict[str, ClientConnection] = {}
        """The open connection of each access token."""
        self.violations: list[Violation] = []
        """What the product did wrong, in order; no more than the first 10,000."""
        self.publishes = Traffic()
        self._now = now
        self._min_rpc_timeout = min_rpc_timeout
        self._change: trio.Event | None = None
        self._readers: list[trio.MemorySendChannel[StoredRow]] = []

    # --- what tests and the demo ask -------------------------------------------------------------

    def failures(self) -> list[Violation]:
        """The violations by which data was lost or a connection closed."""
        return [violation for violation in self.violations if violation.severity == "FAIL"]

    async def wait_for(self, predicate: Callable[[Self], object]) -> None:
        """Return once the predicate holds; it is asked again after each change."""
        while not predicate(self):
            if self._change is None:
                self._change = trio.Event()
            await self._change.wait()

    def rows(self, buffer: int = 1_000) -> trio.MemoryReceiveChannel[StoredRow]:
        """What is stored from now on; a reader that falls `buffer` rows behind misses some.

        Close the channel to stop.
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

        timeout: seconds, at least the board's `min_rpc_timeout`.
        one_way: return None as soon as it was sent (thingsboard-contract R9).
        anyway: send it through a connected gateway although that holds no session for the
            device (thingsboard-contract F11).
        Raises KeyError for a device that does not exist, RpcTimeout when no answer came, and
        RpcNoSession when there was no session to send it to.
        """
        target = self.devices.get(device) or self.gateways.get(device)
        if target is None:
            if not anyway:
                raise KeyError(device)
            target = Device(device, "default")
        pending = Pending(target.next_rpc_id, method, params, one_way)
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
        """Send what is pending and has not gone out yet, or all of it again."""
        session = self._session_of(device)
        if session is None:
            return
        for pending in list(device.pending.values()):
            if pending.sent and not again:
                continue
            if device is session.own:
                topic = f"v1/devices/me/rpc/request/{pending.id}"
                session.send_json(topic, pending.for_device())
            else:
                session.send_json("v1/gateway/rpc", pending.for_gateway(device.name))
            self._sent(pending)

    def _send_anyway(self, device: Device, pending: Pending) -> None:
        for session in self.sessions.values():
            session.send_json("v1/gateway/rpc", pending.for_gateway(device.name))
            self._sent(pending)
            return

    def lose_rpcs(self) -> None:
        """Forget the pending requests and begin at id 0 again, as a restart does (F16)."""
        for device in [*self.devices.values(), *self.gateways.values()]:
            device.next_rpc_id = 0
            for pending in device.pending.values():
                pending.is_lost = True
                pending.done.set()
            device.pending.clear()

    def _sent(self, pending: Pending) -> None:
        pending.sent += 1
        if pending.one_way:
            pending.settle(None)

    def _session_of(self, device: Device) -> ClientConnection | None:
        session = device.session
        if session is None or device is session.own:
            return session
        if trio.current_time() - device.active_at > _DEVICE_SILENCE:
            self.end_device(device)  # R5: the gateway is up, its device's session is not
            return None
        return session

    # --- attributes ----------------------------------------------------------------------------

    def set_shared(self, device: str, values: Mapping[str, Any]) -> None:
        """Set shared attributes; a connected device gets them (thingsboard-contract R11)."""
        self.devices[device].shared.update(values)
        self._tell_attributes(device, dict(values))

    def delete_shared(self, device: str, keys: Collection[str]) -> None:
        """Delete shared attributes; a connected device gets them (thingsboard-contract R11)."""
        for key in keys:
            self.devices[device].shared.pop(key, None)
        self._tell_attributes(device, {"deleted": list(keys)})

    def _tell_attributes(self, device: str, data: dict[str, Any]) -> None:
        if session := self._session_of(self.devices[device]):
            session.send_json("v1/gateway/attributes", {"device": device, "data": data})

    # --- for the transport ----------------------------------------------------------------------

    def open_device(
        self,
        session: ClientConnection,
        name: str,
        *,
        kind: str | None = None,
        is_greeting: bool = False,
    ) -> Device:
        """The device of that name, created if missing, with its session held by this connection.

        Raises DeviceRefused when it cannot be created.
        """
        device = self.devices.get(name)
        if device is None:
            self._judge_new(name)
            device = self.devices[name] = Device(name, kind or "default", self.history)
            if not is_greeting:
                self.report("R1", "FAIL", f"{name!r} was created without `connect`")
        elif kind and device.type != kind:
            self.report("R1", "WARN", f"{name!r} has type {device.type!r}, {kind!r} is ignored")
        elif not is_greeting and name not in session.greeted:
            self.report("R1", "WARN", f"{name!r} was named before `connect`")
        if is_greeting:
            session.greeted.add(name)
        device.active_at = trio.current_time()
        if device.session is not session:
            self.end_device(device)
            device.session = session
            session.devices[name] = device
            self.send_pending(device, again=True)  # R8
        return device

    def _judge_new(self, name: str) -> None:
        """Raise DeviceRefused when ThingsBoard cannot create a device of this name."""
        tells = self.profile.ack_on_connect_failure
        if not is_device_name(name):
            part = Part(UNSPECIFIED if tells else None, delay=_BAD_NAME_DELAY)
            raise DeviceRefused(part, f"the device name {name[:60]!r} is invalid")
        if self.device_limit is not None and len(self.devices) >= self.device_limit:
            raise DeviceRefused(
                Part(QUOTA_EXCEEDED if tells else None), f"{name!r} is beyond the device limit"
            )

    def close_device(self, session: ClientConnection, name: str) -> None:
        """`v1/gateway/disconnect`: the session ends here, no other is touched (R13)."""
        session.greeted.discard(name)
        if device := session.devices.get(name):
            self.end_device(device)

    def end_device(self, device: Device) -> None:
        """End its session on any connection; no client is notified (thingsboard-contract R3)."""
        if device.session is not None:
            device.session.devices.pop(device.name, None)
            device.session = None

    def settle_rpc(self, device: Device, request_id: int, answer: Any) -> None:
        """An answer came; one that nobody waits for is ignored (R7)."""
        self.publishes.rpc_answers += 1
        pending = device.pending.get(request_id)
        if pending is None or pending.done.is_set():
            self.publishes.stale_rpc_answers += 1
        else:
            pending.settle(answer)

    def save_row(self, device: Device, ts: int, values: dict[str, Stored]) -> None:
        device.save(ts, values, self.publishes)
        if self._readers:
            self._show(StoredRow(device.name, ts, values))

    def save_attributes(self, device: Device, values: dict[str, Stored]) -> None:
        device.attributes.update(values)
        if self._readers:
            self._show(StoredRow(device.name, self.now_ms(), values, is_attributes=True))

    def _show(self, row: StoredRow) -> None:
        for reader in list(self._readers):
            try:
                reader.send_nowait(row)
            except trio.WouldBlock:
                pass  # a slow reader misses rows; it never slows the server
            except trio.BrokenResourceError:
                self._readers.remove(reader)
                reader.close()

    def report(self, assertion: str, severity: Severity, what: str) -> None:
        self.violate(Violation(assertion, severity, what))

    def violate(self, violation: Violation) -> None:
        if len(self.violations) < _MOST_VIOLATIONS:
            self.violations.append(violation)

    def changed(self) -> None:
        """Wake those who wait for a change."""
        if self._change is not None:
            self._change.set()
            self._change = None

    def now_ms(self) -> int:
        return int(self._now().timestamp() * 1000)
