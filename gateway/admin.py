"""The admin port: GET /healthz, /readyz and /metrics, for probes and Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable

import h11
import structlog
import trio

from .app import House
from .metrics import render
from .northbound.teller import Statistics

_REQUEST_TIMEOUT = 10.0  # seconds for a whole request and its answer
_MOST_VISITORS = 50
_SLOW_COMMIT = 5.0  # seconds after which the store is said not to write

log = structlog.get_logger(__name__)

Response = tuple[int, str, bytes]


def respond(method: str, target: str, house: House) -> Response:
    """(status, content type, body)"""
    path = target.partition("?")[0]
    if path not in ("/healthz", "/readyz", "/metrics"):
        return 404, "text/plain", b"there is /healthz, /readyz and /metrics\n"
    if method not in ("GET", "HEAD"):
        return 405, "text/plain", b"only GET\n"
    if path == "/healthz":
        return 200, "text/plain", b"ok\n"
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", render(house)
    return _readiness(house)


def _readiness(house: House) -> Response:
    """MQTT being away is not unready: charge points are served, and ThingsBoard is behind."""
    journal = house.bus.journal.statistics()
    trouble = journal.failure
    if trouble is None and journal.writing_s > _SLOW_COMMIT:
        trouble = f"a commit has been under way for {journal.writing_s:.0f} s"
    ready = trouble is None
    told = {
        "ready": ready,
        "store": trouble or "ok",
        "charge_points": len(house.registry.sessions()),
        "mqtt": _link_of(house.north),
        "behind_entries": house.north.told.behind(journal.last_seq),
    }
    return 200 if ready else 503, "application/json", json.dumps(told).encode() + b"\n"


def _link_of(north: Statistics) -> str:
    """The link may be up and in trouble: it is lost again and again for the same reason."""
    if not north.connected:
        return f"behind: {north.why}"
    return f"unsteady: {north.why}" if north.why else "connected"


async def serve_admin(listener: trio.SocketListener, look: Callable[[], House]) -> None:
    """Answer until cancelled.  No visitor can fell or starve the house, or keep others waiting."""
    visits: list[trio.CancelScope] = []

    async def visit(stream: trio.SocketStream) -> None:
        with trio.move_on_after(_REQUEST_TIMEOUT) as visiting:
            visits.append(visiting)
            if len(visits) > _MOST_VISITORS:  # who has been here longest makes room
                visits[0].cancel()
            await _answer(stream)
        visits.remove(visiting)

    async def _answer(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await _converse(stream, look)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
            log.debug("admin visitor gone", why=str(exc))
        except Exception:
            log.exception("admin request not answered")

    await trio.serve_listeners(visit, [listener])


async def _converse(stream: trio.SocketStream, look: Callable[[], House]) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=8_192)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(8_192))
        elif isinstance(event, h11.Request):
            status, kind, body = respond(event.method.decode(), event.target.decode(), look())
            headers = [
                ("content-type", kind),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            head = connection.send(h11.Response(status_code=status, headers=headers))
            text = b"" if event.method == b"HEAD" else connection.send(h11.Data(data=body))
            await stream.send_all((head or b"") + (text or b""))
            return
        else:
            return
