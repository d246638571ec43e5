"""What we ask of TCP for a charge point's connection, where there is one."""

from __future__ import annotations

import socket

import trio

# What the kernel keeps for one charge point, so that one that floods, or never reads, costs no
# more than this: OCPP's messages are small, and a queue of hundreds still fits.
_RECEIVE_BUFFER, _SEND_BUFFER = 32_768, 131_072
# A peer that vanished: found out by our pings too, but also where there are none yet.
_IDLE_S, _PROBE_S, _PROBES = 60, 15, 3
_UNACKNOWLEDGED_MS = 60_000
_ESTABLISHED = b"\x01"  # the first byte of tcp_info: both sides are open


def tune(stream: trio.abc.Stream) -> None:
    """Bound what the kernel keeps for a peer, and have it find out one that is gone."""
    plain = _plain(stream)
    if plain is None:
        return
    try:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    except OSError:  # it has left already, as the first read will show
        return


def has_left(stream: trio.abc.Stream) -> bool:
    """Whether the peer has ended or reset the connection, also where what it sent before that is
    not read yet; False where there is no TCP below."""
    plain = _plain(stream)
    if plain is None:
        return False
    try:
        info = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except (OSError, ValueError):  # closed on our side too
        return True
    return bytes(info) != _ESTABLISHED


def address_of(stream: trio.abc.Stream) -> tuple[str, str]:
    """(host, "host:port") of the peer; where there is none, a word for what it is."""
    plain = _plain(stream)
    if plain is None:
        return "memory", "memory"
    try:
        host, port, *_ = plain.socket.getpeername()
    except (OSError, ValueError):  # it has left already
        return "unknown", "unknown"
    return host, f"{host}:{port}"


def _plain(stream: trio.abc.Stream) -> trio.SocketStream | None:
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream if isinstance(stream, trio.SocketStream) else None
