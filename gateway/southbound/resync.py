"""Resync: a charge point that reconnects without a boot is asked for its status (OCPP 1.6 §5.17).

One that only lost its connection does not boot again (OCPP-J 5.4), and tells nothing of what
changed meanwhile, so a restart of ours would be seen in ThingsBoard for as long as nothing
happens.  The laws: who boots tells it all by itself and is not asked; nobody waits for the
answers; one question at a time, and an operator's call waits for no more than one of them; who
does not know such questions, or does not answer, is asked no more on this connection.

Who has then reported no status, not even after a boot, has it inferred from its transactions
(`Desk.infer_statuses`).  Only then, so that a charge point which tells of other connectors than 1
never has a device for one that it lacks.
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

ANSWER_TIMEOUT = (
    5.0  # seconds for an answer, and so the most that an operator's call waits for ours
)

log = structlog.get_logger(__name__)


async def resync(
    connection: ChargePointConnection, booted: trio.Event, fleet: Fleet, boot_wait_s: float
) -> bool:
    """Ask, unless a boot comes within `boot_wait_s` seconds.

    Returns whether the charge point has said that it will tell something.
    booted: set when a BootNotification of this connection is answered.
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
            answer = await connection.call("TriggerMessage", request, timeout=ANSWER_TIMEOUT)
            promised |= answer["status"] == "Accepted"
            if answer["status"] == "NotImplemented":
                unknown.add(kind)
    except ChargePointGone:
        pass
    except (ChargePointRefused, ChargePointSilent, InvalidResponse, TooManyCalls) as exc:
        log.info("charge point does not answer the resync", charge_point=name, why=repr(exc)[:200])
    return promised


def resync_requests(fleet: Fleet, charge_point_id: str) -> Iterator[dict[str, Any]]:
    """TriggerMessage payloads: each connector's status, what is being charged, and at last
    its BootNotification, where it never sent one."""
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
