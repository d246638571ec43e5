"""Opens a simulated charge point's WebSocket over TCP or TLS (OCPP-J 1.6 chapter 3)."""

from __future__ import annotations

import base64
import ssl
from urllib.parse import quote, urlsplit

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from .ocpp_client import Connect

SUBPROTOCOL = "ocpp1.6"


def websocket_opener(url: str, charge_point_id: str, tls: ssl.SSLContext | None = None) -> Connect:
    """A function that opens this charge point's WebSocket; the URL gets its id as last segment.

    url: ws or wss; raises ValueError for any other.
    tls: for wss; None is the default context.
    With a password, the id is the user name of HTTP Basic authentication (OCPP-J 6.2).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is no ws:// or wss:// URL")
    host, secure = parts.hostname, parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    resource = f"{parts.path.rstrip('/')}/{quote(charge_point_id, safe='')}"
    if parts.query:
        resource += f"?{parts.query}"

    async def connect(nursery: trio.Nursery, password: str | None) -> WebSocketConnection:
        headers = []
        if password is not None:
            credentials = base64.b64encode(f"{charge_point_id}:{password}".encode())
            headers.append((b"Authorization", b"Basic " + credentials))
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        if secure:
            stream = await trio.open_ssl_over_tcp_stream(
                host, port, ssl_context=tls or ssl.create_default_context(), https_compatible=True
            )
        else:
            stream = await trio.open_tcp_stream(host, port)
        try:
            return await wrap_client_stream(
                nursery,
                stream,
                parts.netloc.rpartition("@")[2],
                resource,
                subprotocols=[SUBPROTOCOL],
                extra_headers=headers,
            )
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    return connect
