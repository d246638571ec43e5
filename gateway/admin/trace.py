"""/trace: the frames of charge points as they pass, for people on the gateway's own host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import parse_qs

import h11
import structlog
import trio

from ..domain.clock import iso
from ..domain.exceptions import first_cause
from ..observability.frame_tap import FrameTap, TappedFrame, TooManyTraces
from .http import response_bytes

JSON_LINES = "application/x-ndjson"
_MAX_SILENCE = 10.0  # seconds from one sign of life to the next
_SEND_TIMEOUT = 10.0  # seconds for the client to take what it is sent at once
_MAX_NAMES = 100  # charge points that one request may name
_MAX_BATCH = 100  # frames that are sent at once

log = structlog.get_logger(__name__)


def is_local(stream: trio.SocketStream) -> bool:
    """Whether the client is on this host: frames are more private than what /metrics shows."""
    try:
        peer = ip_address(stream.socket.getpeername()[0])
    except (OSError, ValueError):  # it has left already
        return False
    return (getattr(peer, "ipv4_mapped", None) or peer).is_loopback


async def stream_trace(
    stream: trio.SocketStream, connection: h11.Connection, target: str, frame_tap: FrameTap
) -> None:
    """Send the frames of the charge points that `target` names, or of all, until the client leaves.

    Each is a JSON object on a line; an empty line is a sign of life.
    """
    patterns = parse_qs(target.partition("?")[2]).get("charge_point", [])[:_MAX_NAMES]
    try:
        with frame_tap.subscribe(lambda name: _matches(name, patterns)) as subscription:
            headers = [("content-type", JSON_LINES), ("connection", "close")]
            await _send(stream, connection, h11.Response(status_code=200, headers=headers))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_closed, stream, nursery.cancel_scope)
                while True:
                    frames: Sequence[TappedFrame] = ()
                    with trio.move_on_after(_MAX_SILENCE):
                        frames = await subscription.take_batch(_MAX_BATCH)
                    text = "".join(map(_line, frames)) or "\n"
                    await _send(stream, connection, h11.Data(data=text.encode()))
    except* TooManyTraces as group:
        why = f"{first_cause(group)}\n".encode()
        await stream.send_all(response_bytes(connection, (503, "text/plain", why)))
    except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as group:
        log.debug("admin client gone", why=str(first_cause(group)))


def _matches(charge_point_id: str, patterns: Sequence[str]) -> bool:
    """Patterns may have wildcards, as those of file names have; without any, all ids match."""
    return not patterns or any(fnmatchcase(charge_point_id, pattern) for pattern in patterns)


def _line(frame: TappedFrame) -> str:
    about = {"at": iso(frame.at, "milliseconds"), "charge_point": frame.charge_point_id}
    return json.dumps(about | frame.as_json()) + "\n"


async def _send(
    stream: trio.SocketStream, connection: h11.Connection, event: h11.Response | h11.Data
) -> None:
    with trio.fail_after(_SEND_TIMEOUT):
        await stream.send_all(connection.send(event) or b"")


async def _cancel_when_closed(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some(8_192):
            pass  # whatever the client sends after its request is ignored
    except trio.BrokenResourceError:
        pass
    scope.cancel()
