"""The sockets that the gateway listens on, and TLS on those for charge points."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from ..config.model import Ocpp
from ..config.values import Address
from .tls import tls_context

_BACKLOG = 4_096  # connections that may wait to be accepted: a whole fleet comes back at once
_SPARE_FILES = 100  # for the store, MQTT, admin and what libraries open
_MAX_FILES = 1_048_576

Sockets = Sequence[trio.SocketListener]


async def listen_on(addresses: Mapping[str, Address | None]) -> Mapping[str, Sockets]:
    """The sockets by the names of their addresses, without those that have none.  Raises OSError.

    A name has a socket for every address of its host: `localhost` is two.
    """
    return {name: await _listen(at) for name, at in addresses.items() if at is not None}


async def _listen(address: Address) -> Sockets:
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as exc:
        raise OSError(f"cannot listen on {address}: {exc.strerror or exc}") from exc


def bound_address(sockets: Sockets) -> str:
    """Where the first of them listens: the port is known even where the configuration has 0."""
    host, port, *_ = sockets[0].socket.getsockname()
    return str(Address(host, port))


def charge_point_listeners(
    ocpp: Ocpp, sockets: Mapping[str, Sockets]
) -> list[trio.abc.Listener[Any]]:
    """The listeners for charge points: TLS is on `ocpp_tls`, or else on the only one, `ocpp`.

    Raises OSError, ssl.SSLError.
    """
    if ocpp.tls_cert is None or ocpp.tls_key is None:
        return [*sockets["ocpp"]]
    tls = tls_context(ocpp.tls_cert, ocpp.tls_key, ocpp.client_ca)
    secure = "ocpp" if ocpp.listen_tls is None else "ocpp_tls"
    plain = [] if secure == "ocpp" else sockets["ocpp"]
    # https_compatible: a peer that leaves without a TLS close_notify is not worth a warning.
    return [
        *plain,
        *(trio.SSLListener(socket, tls, https_compatible=True) for socket in sockets[secure]),
    ]


def raise_file_limit() -> int:
    """Let the process open as many files as it may; how many connections there is room for.

    The soft limit of open files is raised to the hard one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, _MAX_FILES) if hard != resource.RLIM_INFINITY else _MAX_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - _SPARE_FILES, limit // 2)
