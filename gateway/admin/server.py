"""The admin port: /healthz, /readyz and /metrics for probes and Prometheus, /trace for people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import h11
import structlog
import trio

from ..app import RunningGateway
from .health import readiness
from .http import Response, response_bytes
from .metrics import render
from .trace import JSON_LINES, is_local, stream_trace

_REQUEST_TIMEOUT = 10.0  # seconds for a whole request and its answer
_MAX_CONNECTIONS = 50
_PATHS = ("/healthz", "/readyz", "/metrics", "/trace")

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_admin(
    listeners: Sequence[trio.SocketListener], running: RunningGateway
) -> AsyncIterator[None]:
    """Answer on the admin port while the block runs.

    No client can stop or starve the gateway, or keep others waiting.
    """
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_serve, listener, running)
        yield
        nursery.cancel_scope.cancel()


async def _serve(listener: trio.SocketListener, running: RunningGateway) -> None:
    requests: list[trio.CancelScope] = []

    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                trace = None
                with trio.move_on_after(_REQUEST_TIMEOUT) as scope:
                    requests.append(scope)
                    if len(requests) > _MAX_CONNECTIONS:  # the oldest request makes room
                        requests[0].cancel()
                    try:
                        trace = await _answer_request(stream, running)
                    finally:
                        requests.remove(scope)
                if trace is not None:
                    await stream_trace(stream, *trace, running.frame_tap)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
            log.debug("admin client gone", why=str(exc))
        except Exception:
            log.exception("admin request not answered")

    await trio.serve_listeners(handle, [listener])


_TraceRequest = tuple[h11.Connection, str]  # a request whose answer has no end, and its target


async def _answer_request(
    stream: trio.SocketStream, running: RunningGateway
) -> _TraceRequest | None:
    """Answer one request; or return it, where its answer has no end."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=8_192)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(8_192))
        elif isinstance(event, h11.Request):
            method, target = event.method.decode(), event.target.decode()
            if method == "GET" and target.partition("?")[0] == "/trace":
                if is_local(stream):
                    return connection, target
                response = 403, "text/plain", b"frames are shown on the gateway's own host only\n"
            else:
                response = respond(method, target, running)
            await stream.send_all(response_bytes(connection, response, bare=method == "HEAD"))
            return None
        else:
            return None


def respond(method: str, target: str, running: RunningGateway) -> Response:
    """The response to every request but a GET of /trace, which has no end."""
    path = target.partition("?")[0]
    if path not in _PATHS:
        return 404, "text/plain", f"there is {', '.join(_PATHS)}\n".encode()
    if method not in ("GET", "HEAD"):
        return 405, "text/plain", b"only GET\n"
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", render(running)
    if path == "/readyz":
        return readiness(running)
    if path == "/trace":
        return 200, JSON_LINES, b""
    return 200, "text/plain", b"ok\n"
