"""Resync: a charge point that reconnects without a boot is asked for its status (OCPP 1.6 §5.17).

A charge point that only lost its connection does not boot again (OCPP-J 5.4), and does not report
what changed meanwhile.  Without a resync, ThingsBoard would show the state from before for as long
as nothing happens.  The laws:

* A charge point that boots reports its state by itself, so it is not asked.
* No other task waits for the responses.
* One TriggerMessage is under way at a time, so an operator's call waits for one of them at most.
* A charge point that does not know TriggerMessage, or does not respond, is asked no more on this
  connection.

Connectors of which no status has come then, not even after a boot, have it inferred from their
transactions (`RequestHandlers.infer_statuses`).  Not earlier: a charge point that reports other
connectors than 1 must never get a device for a connector that it lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog
import trio

from ..domain.fleet import Fleet
from .connection import ChargePointConnection
from .errors import ChargePointGone, ChargePointRefused, ChargePointSilent, TooManyCalls
from .messages import InvalidResponse

RESPONSE_TIMEOUT = 5.0  # seconds for one response, and so the longest wait of an operator's call

log = structlog.get_logger(__name__)


async def resync(
    connection: ChargePointConnection, booted: trio.Event, fleet: Fleet, boot_wait_s: float
) -> bool:
    """Ask for statuses and meter values, unless a boot comes within `boot_wait_s` seconds.

    Returns whether the charge point will report something: it has booted or accepted a request.
    booted: set when a BootNotification of this connection got its response.
    """
    with trio.move_on_after(boot_wait_s):
        await booted.wait()
    name = connection.charge_point_id
    unknown: set[str] = set()
    promised = False
    try:
        for request in resync_requests(fleet, name):
            if booted.is_set():
                return True
            kind = request["requestedMessage"]
            if kind in unknown:
                continue
            response = await connection.call("TriggerMessage", request, timeout=RESPONSE_TIMEOUT)
            promised |= response["status"] == "Accepted"
            if response["status"] == "NotImplemented":
                unknown.add(kind)
    except ChargePointGone:
        pass
    except (ChargePointRefused, ChargePointSilent, InvalidResponse, TooManyCalls) as exc:
        log.info("charge point does not answer the resync", charge_point=name, why=repr(exc)[:200])
    return promised


def resync_requests(fleet: Fleet, charge_point_id: str) -> Iterator[dict[str, Any]]:
    """TriggerMessage payloads: each connector's status, the meter values of open transactions, and
    last the BootNotification, where the charge point never sent one.
    """
    connectors = fleet.connectors(charge_point_id)
    if not connectors:
        yield {"requestedMessage": "StatusNotification"}
    for connector in connectors:
        yield {"requestedMessage": "StatusNotification", "connectorId": connector}
    for connector in connectors:
        if fleet.open_transaction(charge_point_id, connector) is not None:
            yield {"requestedMessage": "MeterValues", "connectorId": connector}
    if not fleet.state_of(charge_point_id).get("charger"):
        yield {"requestedMessage": "BootNotification"}
