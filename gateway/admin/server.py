"""The admin port: /healthz, /readyz, /metrics for probes and Prometheus, and /trace for eyes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import parse_qs

import h11
import structlog
import trio

from ..app import House
from ..northbound.statistics import Statistics
from ..observability.frame_tap import Tap, TooManyTraces, Traced
from .metrics import render

_REQUEST_TIMEOUT = 10.0  # seconds for a whole request and its answer, and for each piece of a trace
_MOST_VISITORS = 50
_SLOW_COMMIT = 5.0  # seconds after which the store is said not to write
_MOST_NAMES = 100  # charge points that one who looks on may name
_AT_ONCE = 100  # lines of a trace
_LINES = "application/x-ndjson"
_PATHS = ("/healthz", "/readyz", "/metrics", "/trace")

log = structlog.get_logger(__name__)

Response = tuple[int, str, bytes]


def respond(method: str, target: str, house: House) -> Response:
    """(status, content type, body) of all that has an end."""
    path = target.partition("?")[0]
    if path not in _PATHS:
        return 404, "text/plain", f"there is {', '.join(_PATHS)}\n".encode()
    if method not in ("GET", "HEAD"):
        return 405, "text/plain", b"only GET\n"
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", render(house)
    if path == "/readyz":
        return _readiness(house)
    if path == "/trace":
        return 200, _LINES, b""
    return 200, "text/plain", b"ok\n"


def _readiness(house: House) -> Response:
    """MQTT being away is not unready: charge points are served, and ThingsBoard is behind."""
    journal = house.bus.journal.statistics()
    trouble = journal.failure
    if trouble is None and journal.writing_s > _SLOW_COMMIT:
        trouble = f"a commit has been under way for {journal.writing_s:.0f} s"
    ready = trouble is None
    entries, seconds = house.behind()
    told = {
        "ready": ready,
        "store": trouble or "ok",
        "charge_points": len(house.registry.sessions()),
        "mqtt": _link_of(house.north),
        "behind_entries": entries,
        "behind_seconds": round(seconds, 1),
    }
    return 200 if ready else 503, "application/json", json.dumps(told).encode() + b"\n"


def _link_of(north: Statistics) -> str:
    """The link may be up and in trouble: it is lost again and again for the same reason."""
    if not north.connected:
        return f"behind: {north.why}"
    return f"unsteady: {north.why}" if north.why else "connected"


# --- over a socket -------------------------------------------------------------------------------


async def serve_admin(listener: trio.SocketListener, look: Callable[[], House]) -> None:
    """Answer until cancelled.  No visitor can fell or starve the house, or keep others waiting."""
    visits: list[trio.CancelScope] = []

    async def visit(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                request = None
                with trio.move_on_after(_REQUEST_TIMEOUT) as visiting:
                    visits.append(visiting)
                    if len(visits) > _MOST_VISITORS:  # who has been here longest makes room
                        visits[0].cancel()
                    try:
                        request = await _converse(stream, look)
                    finally:
                        visits.remove(visiting)
                if request is not None:
                    await _show_trace(stream, *request, look().tap)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
            log.debug("admin visitor gone", why=str(exc))
        except Exception:
            log.exception("admin request not answered")

    await trio.serve_listeners(visit, [listener])


_Trace = tuple[h11.Connection, str]  # what is to be answered without end, and its target


async def _converse(stream: trio.SocketStream, look: Callable[[], House]) -> _Trace | None:
    """Answer one request; or return it, where its answer has no end."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=8_192)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(8_192))
        elif isinstance(event, h11.Request):
            method, target = event.method.decode(), event.target.decode()
            if method == "GET" and target.partition("?")[0] == "/trace":
                if _from_here(stream):
                    return connection, target
                answer = 403, "text/plain", b"frames are shown on the gateway's own host only\n"
            else:
                answer = respond(method, target, look())
            await stream.send_all(_whole(connection, answer, bare=method == "HEAD"))
            return None
        else:
            return None


def _whole(connection: h11.Connection, answer: Response, *, bare: bool = False) -> bytes:
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


def _from_here(stream: trio.SocketStream) -> bool:
    """Whether the visitor is on this host: frames are not for everybody whom /metrics is for."""
    try:
        peer = ip_address(stream.socket.getpeername()[0])
    except (OSError, ValueError):  # it has left already
        return False
    return (getattr(peer, "ipv4_mapped", None) or peer).is_loopback


async def _show_trace(
    stream: trio.SocketStream, connection: h11.Connection, target: str, tap: Tap
) -> None:
    """What the charge points say that are named, or all, a JSON object a line, until either leaves.

    An empty line is a sign of life.
    """
    names = parse_qs(target.partition("?")[2]).get("charge_point", [])[:_MOST_NAMES]
    try:
        with tap.watch(lambda name: _is_named(name, names)) as watch:
            headers = [("content-type", _LINES), ("connection", "close")]
            await _send(stream, connection, h11.Response(status_code=200, headers=headers))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_it_leaves, stream, nursery.cancel_scope)
                while True:
                    seen: Sequence[Traced] = ()
                    with trio.move_on_after(_REQUEST_TIMEOUT):
                        seen = await watch.gathered(_AT_ONCE)
                    text = "".join(map(_line, seen)) or "\n"
                    await _send(stream, connection, h11.Data(data=text.encode()))
    except* TooManyTraces as group:
        why = f"{group.exceptions[0]}\n".encode()
        await stream.send_all(_whole(connection, (503, "text/plain", why)))
    except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as group:
        log.debug("admin visitor gone", why=str(group.exceptions[0]))


def _is_named(charge_point_id: str, names: Sequence[str]) -> bool:
    """Names may have wildcards, as file names have; without any, everybody is named."""
    return not names or any(fnmatchcase(charge_point_id, name) for name in names)


def _line(traced: Traced) -> str:
    about = {"at": _iso(traced), "charge_point": traced.charge_point_id}
    return json.dumps(about | traced.told()) + "\n"


def _iso(traced: Traced) -> str:
    return traced.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _send(
    stream: trio.SocketStream, connection: h11.Connection, event: h11.Response | h11.Data
) -> None:
    with trio.fail_after(_REQUEST_TIMEOUT):
        await stream.send_all(connection.send(event) or b"")


async def _until_it_leaves(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some(8_192):
            pass  # whatever it has still to say
    except trio.BrokenResourceError:
        pass
    scope.cancel()
