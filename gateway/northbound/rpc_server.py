"""The RPC server: commands that come from ThingsBoard are carried out, each once, and answered.

A command outlives the link that brought it, for the charge point may act on it: its response waits
for the next link, and is sent again there if it was not acknowledged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import attrs
import structlog
import trio

from ..bus import JournalError
from ..domain.commands import Command, CommandOutcome, Failed
from ..domain.fleet import Fleet
from .delivery_policy import MAX_ATTEMPTS
from .device_sessions import DeviceSessions
from .mqtt import Link, LinkLost, Publication, publish
from .poison import WatchedLink
from .rate_limits import LIMITS_RESPONSE, RateLimiter
from .rpc_messages import RPC_TOPIC, RpcError, RpcRequest, command_of, read_rpc, response_message

_MAX_COMMANDS = 200  # RPCs under way at once
_REMEMBERED_S = 30.0  # seconds in which an equal RPC is a repetition (thingsboard-contract R8)

log = structlog.get_logger(__name__)

CarryOut = Callable[[Command], Awaitable[CommandOutcome]]
MapRpc = Callable[[RpcRequest], RpcRequest]

_Response = tuple[str, Publication]  # a device, and the response in its name


@attrs.define
class _RecentRpc:
    """One RPC under way or done, remembered for as long as it may be repeated."""

    until: float
    outcome: CommandOutcome | None = None


class RpcServer:
    """Owns: the responses that wait for a link, and recent RPCs.

    commands: the nursery in which commands run; it outlives each link.
    """

    def __init__(
        self,
        fleet: Fleet,
        carry_out: CarryOut,
        map_rpc: MapRpc,
        rate_limiter: RateLimiter,
        commands: trio.Nursery,
    ) -> None:
        self._fleet = fleet
        self._carry_out = carry_out
        self._map_rpc = map_rpc
        self._rate_limiter = rate_limiter
        self._commands = commands
        self._recent: dict[tuple[str, int, str, bytes], _RecentRpc] = {}
        self._under_way = 0
        self._send_response, self._responses = trio.open_memory_channel[_Response](_MAX_COMMANDS)
        self._unacknowledged: _Response | None = None  # sent, but not acknowledged
        self._attempts = 0  # on so many links

    async def receive(self, link: Link) -> None:
        """Take what comes on the subscribed topics.  Raises LinkLost when the link ends."""
        async with aclosing(link.messages()) as messages:
            async for message in messages:
                if message.topic == RPC_TOPIC:
                    self._commands.start_soon(self._serve_rpc, message.payload)
                elif message.topic == LIMITS_RESPONSE:
                    self._rate_limiter.apply_limits(message.payload)
        raise LinkLost("the subscription ended")

    async def send_responses(self, link: WatchedLink, device_sessions: DeviceSessions) -> None:
        """Send responses in turn, until `close`; what is not acknowledged is sent again on the next
        link.  Raises LinkLost.
        """
        while True:
            if self._unacknowledged is None:
                try:
                    self._unacknowledged = await self._responses.receive()
                except trio.EndOfChannel:
                    return
                self._attempts = 0
            device, response = self._unacknowledged
            if self._attempts < MAX_ATTEMPTS:
                self._attempts += 1
                await device_sessions.announce([device])
                if device in device_sessions.admitted:
                    await self._rate_limiter.wait_to_send()
                    await publish(link, [response])
                else:  # a response would create it (thingsboard-contract R1)
                    log.warning("RPC response dropped: the device is not admitted", device=device)
            else:
                log.warning("RPC response dropped: each connection ended at it", device=device)
            self._unacknowledged = None

    def close(self) -> None:
        """The gateway stops: `send_responses` returns when it has sent what is ready."""
        self._send_response.close()

    async def _serve_rpc(self, payload: bytes) -> None:
        """Serve one RPC.  The guard of the MQTT side: no payload can stop the gateway."""
        try:
            rpc = read_rpc(payload)
            if rpc is not None:
                await self._answer_rpc(rpc)
        except RpcError as exc:
            log.warning("RPC not answered", why=str(exc))
        except trio.WouldBlock:
            log.warning("RPC response dropped: no connection, and too many wait for one")
        except trio.ClosedResourceError:
            log.info("RPC response dropped: the gateway stops")
        except JournalError:
            raise
        except Exception:
            log.exception("RPC dropped")

    async def _answer_rpc(self, rpc: RpcRequest) -> None:
        command = command_of(self._map_rpc(rpc))
        if command is None or not self._fleet.takes_commands(rpc.device):
            # An answer would create the device in ThingsBoard (thingsboard-contract R1).
            log.warning("RPC for an unknown device", device=rpc.device[:80], method=rpc.method[:80])
            return
        now = trio.current_time()
        self._recent = {key: recent for key, recent in self._recent.items() if recent.until > now}
        earlier = self._recent.get(rpc.key)
        if earlier is None:
            outcome = await self._carry_out_once(rpc, command)
        elif earlier.outcome is None:
            return  # it is being carried out, and will be answered then
        else:
            outcome = earlier.outcome
        response = response_message(rpc, outcome)
        if len(response.payload) > self._rate_limiter.max_bytes:
            size = f"an answer of {len(response.payload)} bytes is more than ThingsBoard takes"
            response = response_message(rpc, Failed("CallError", size))
        self._send_response.send_nowait((rpc.device, response))

    async def _carry_out_once(self, rpc: RpcRequest, command: Command) -> CommandOutcome:
        if self._under_way >= _MAX_COMMANDS:
            return Failed("Busy", f"{_MAX_COMMANDS} commands are under way")
        recent = self._recent[rpc.key] = _RecentRpc(float("inf"))
        self._under_way += 1
        try:
            recent.outcome = await self._carry_out(command)
            return recent.outcome
        finally:
            self._under_way -= 1
            recent.until = trio.current_time() + _REMEMBERED_S
