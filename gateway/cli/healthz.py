"""`ocpp-gateway healthz`: a container's health check of the gateway that runs in it."""

from __future__ import annotations

import http.client

from ..config.values import Address

_WITHIN = 4.0  # seconds for each step: health checks give 5 s in all


def ask_health(listen: Address, path: str) -> tuple[bool, str]:
    """Whether the gateway is healthy, and its answer or why there is none.

    listen: where the gateway's admin port is.  path: `/healthz` or `/readyz`.
    """
    host = listen.reachable_host
    connection = http.client.HTTPConnection(host, listen.port, timeout=_WITHIN)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status == 200, answer.read(65_536).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as exc:
        why = str(exc).strip()[:200] or type(exc).__name__
        return False, f"no answer from {Address(host, listen.port)}: {why}"
    finally:
        connection.close()
