"""The admin port: /healthz, /readyz and /metrics for probes and Prometheus, /trace for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import parse_qs

import h11
import structlog
import trio

from ..app import RunningGateway
from ..northbound.statistics import DeliveryStatistics
from ..observability.frame_tap import FrameTap, TappedFrame, TooManyTraces
from .metrics import render

_REQUEST_TIMEOUT = 10.0  # seconds for a whole request and its answer, and for each piece of a trace
_MAX_CONNECTIONS = 50
_SLOW_COMMIT = 5.0  # seconds after which the store is said not to write
_MAX_NAMES = 100  # charge points that one request may name
_MAX_BATCH = 100  # lines of a trace
_JSON_LINES = "application/x-ndjson"
_PATHS = ("/healthz", "/readyz", "/metrics", "/trace")

log = structlog.get_logger(__name__)

Response = tuple[int, str, bytes]


def respond(method: str, target: str, running: RunningGateway) -> Response:
    """(status, content type, body) of all that has an end."""
    path = target.partition("?")[0]
    if path not in _PATHS:
        return 404, "text/plain", f"there is {', '.join(_PATHS)}\n".encode()
    if method not in ("GET", "HEAD"):
        return 405, "text/plain", b"only GET\n"
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", render(running)
    if path == "/readyz":
        return _readiness(running)
    if path == "/trace":
        return 200, _JSON_LINES, b""
    return 200, "text/plain", b"ok\n"


def _readiness(running: RunningGateway) -> Response:
    """MQTT being away is not unready: charge points are served, and ThingsBoard is behind."""
    journal = running.bus.journal.statistics()
    problem = journal.failure
    if problem is None and journal.writing_s > _SLOW_COMMIT:
        problem = f"a commit has been under way for {journal.writing_s:.0f} s"
    ready = problem is None
    entries, seconds = running.lag()
    body = {
        "ready": ready,
        "store": problem or "ok",
        "charge_points": len(running.registry.connections()),
        "mqtt": _mqtt_status(running.delivery),
        "behind_entries": entries,
        "behind_seconds": round(seconds, 1),
    }
    return 200 if ready else 503, "application/json", json.dumps(body).encode() + b"\n"


def _mqtt_status(delivery: DeliveryStatistics) -> str:
    """The connection may be up and unsteady: it is lost again and again for the same reason."""
    if not delivery.connected:
        return f"behind: {delivery.why}"
    return f"unsteady: {delivery.why}" if delivery.why else "connected"


# --- over a socket -------------------------------------------------------------------------------


async def serve_admin(
    listener: trio.SocketListener, get_running: Callable[[], RunningGateway]
) -> None:
    """Answer until cancelled.  No client can stop or starve the gateway, or keep others waiting."""
    requests: list[trio.CancelScope] = []

    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                request = None
                with trio.move_on_after(_REQUEST_TIMEOUT) as scope:
                    requests.append(scope)
                    if len(requests) > _MAX_CONNECTIONS:  # the oldest request makes room
                        requests[0].cancel()
                    try:
                        request = await _answer_request(stream, get_running)
                    finally:
                        requests.remove(scope)
                if request is not None:
                    await _stream_trace(stream, *request, get_running().frame_tap)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
            log.debug("admin client gone", why=str(exc))
        except Exception:
            log.exception("admin request not answered")

    await trio.serve_listeners(handle, [listener])


_Trace = tuple[h11.Connection, str]  # what is to be answered without end, and its target


async def _answer_request(
    stream: trio.SocketStream, get_running: Callable[[], RunningGateway]
) -> _Trace | None:
    """Answer one request; or return it, where its answer has no end."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=8_192)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(8_192))
        elif isinstance(event, h11.Request):
            method, target = event.method.decode(), event.target.decode()
            if method == "GET" and target.partition("?")[0] == "/trace":
                if _is_local(stream):
                    return connection, target
                answer = 403, "text/plain", b"frames are shown on the gateway's own host only\n"
            else:
                answer = respond(method, target, get_running())
            await stream.send_all(_complete_response(connection, answer, bare=method == "HEAD"))
            return None
        else:
            return None


def _complete_response(
    connection: h11.Connection, answer: Response, *, bare: bool = False
) -> bytes:
    status, kind, body = answer
    headers = [
        ("content-type", kind),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    head = connection.send(h11.Response(status_code=status, headers=headers))
    text = b"" if bare else connection.send(h11.Data(data=body))
    return (head or b"") + (text or b"")


# --- the trace -----------------------------------------------------------------------------------


def _is_local(stream: trio.SocketStream) -> bool:
    """Whether the client is on this host: frames are not for everybody who may read /metrics."""
    try:
        peer = ip_address(stream.socket.getpeername()[0])
    except (OSError, ValueError):  # it has left already
        return False
    return (getattr(peer, "ipv4_mapped", None) or peer).is_loopback


async def _stream_trace(
    stream: trio.SocketStream, connection: h11.Connection, target: str, frame_tap: FrameTap
) -> None:
    """What the charge points say that are named, or all, a JSON object a line, until either leaves.

    An empty line is a sign of life.
    """
    names = parse_qs(target.partition("?")[2]).get("charge_point", [])[:_MAX_NAMES]
    try:
        with frame_tap.subscribe(lambda name: _is_named(name, names)) as subscription:
            headers = [("content-type", _JSON_LINES), ("connection", "close")]
            await _send(stream, connection, h11.Response(status_code=200, headers=headers))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_closed, stream, nursery.cancel_scope)
                while True:
                    frames: Sequence[TappedFrame] = ()
                    with trio.move_on_after(_REQUEST_TIMEOUT):
                        frames = await subscription.take_batch(_MAX_BATCH)
                    text = "".join(map(_line, frames)) or "\n"
                    await _send(stream, connection, h11.Data(data=text.encode()))
    except* TooManyTraces as group:
        why = f"{group.exceptions[0]}\n".encode()
        await stream.send_all(_complete_response(connection, (503, "text/plain", why)))
    except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as group:
        log.debug("admin client gone", why=str(group.exceptions[0]))


def _is_named(charge_point_id: str, names: Sequence[str]) -> bool:
    """Names may have wildcards, as file names have; without any, everybody is named."""
    return not names or any(fnmatchcase(charge_point_id, name) for name in names)


def _line(traced: TappedFrame) -> str:
    about = {"at": _iso(traced), "charge_point": traced.charge_point_id}
    return json.dumps(about | traced.as_json()) + "\n"


def _iso(traced: TappedFrame) -> str:
    return traced.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _send(
    stream: trio.SocketStream, connection: h11.Connection, event: h11.Response | h11.Data
) -> None:
    with trio.fail_after(_REQUEST_TIMEOUT):
        await stream.send_all(connection.send(event) or b"")


async def _cancel_when_closed(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some(8_192):
            pass  # whatever it has still to say
    except trio.BrokenResourceError:
        pass
    scope.cancel()
