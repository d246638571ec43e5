"""`ocpp-gateway tail`: the frames of charge points, from /trace on the admin port."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import h11
import trio

from ..config.values import Address
from ..domain.redaction import printable

_TIMEOUT = 10.0  # seconds to connect and to be answered
_SILENCE = 60.0  # seconds without a sign of life of a gateway that gives one every ten


class TailError(Exception):
    """There is nothing to show (any more), and why."""


Show = Callable[[dict[str, Any]], None]


async def tail(admin: Address, charge_points: Sequence[str], show: Show) -> None:
    """Show each frame from now on, as a JSON object.

    charge_points: ids, wildcards allowed; none for all.
    Returns never; raises TailError when there is nothing to show any more.
    """
    query = urlencode([("charge_point", name) for name in charge_points])
    try:
        with trio.fail_after(_TIMEOUT):
            stream = await trio.open_tcp_stream(admin.reachable_host, admin.port)
    except (OSError, trio.TooSlowError) as exc:
        raise TailError(f"no gateway answers on {admin}: {exc or 'it is silent'}") from exc
    async with stream:
        connection = h11.Connection(h11.CLIENT)
        asked = connection.send(
            h11.Request(method="GET", target=f"/trace?{query}", headers=[("host", str(admin))])
        )
        try:
            await stream.send_all(asked or b"")
            await _read(stream, connection, show)
        except (trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as exc:
            raise TailError("the gateway has ended the connection") from exc


async def _read(stream: trio.SocketStream, connection: h11.Connection, show: Show) -> None:
    status, rest = 0, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            with trio.fail_after(_SILENCE):
                connection.receive_data(await stream.receive_some(65_536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            *whole, rest = (rest + bytes(event.data)).split(b"\n")
            if status != 200:
                raise TailError(f"the gateway says: {printable(b''.join(whole).decode())}")
            for line in whole:
                if line:
                    show(json.loads(line))
        else:
            raise TailError("the gateway has ended the connection")


def as_text(frame: dict[str, Any]) -> str:
    """A line for people, which no terminal obeys."""
    if "way" in frame:
        what = f"{frame['way']:<3}  {frame['frame']}"
        if "cut_from" in frame:
            what += f"... ({frame['cut_from']} characters)"
        if "reason" in frame:
            what += f"  <- {frame['reason']}"
    else:
        what = f"--   {frame['event']}: {frame.get('reason', '')}"
    if "missed" in frame:
        what = f"({frame['missed']} missed)  {what}"
    return printable(f"{frame['at']}  {frame['charge_point'] or '?'}  {what}")
