"""A charge point that comes back without a boot is asked how it is (OCPP 1.6 §5.17).

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
from .connection import ChargePointSession
from .errors import ChargePointGone, ChargePointRefused, ChargePointSilent, TooManyCalls
from .messages import InvalidAnswer

PATIENCE = 5.0  # seconds for an answer, and so the most that an operator's call waits for ours

log = structlog.get_logger(__name__)


async def greet(
    session: ChargePointSession, booted: trio.Event, fleet: Fleet, boot_wait: float
) -> bool:
    """Ask, unless a boot comes within `boot_wait` seconds.

    Returns whether the charge point has said that it will tell something.
    booted: set when a BootNotification of this connection is answered.
    """
    with trio.move_on_after(boot_wait):
        await booted.wait()
    name = session.charge_point_id
    unknown: set[str] = set()
    promised = False
    try:
        for question in questions(fleet, name):
            if booted.is_set():
                return True
            kind = question["requestedMessage"]
            if kind in unknown:
                continue
            answer = await session.call("TriggerMessage", question, timeout=PATIENCE)
            promised |= answer["status"] == "Accepted"
            if answer["status"] == "NotImplemented":
                unknown.add(kind)
    except ChargePointGone:
        pass
    except (ChargePointRefused, ChargePointSilent, InvalidAnswer, TooManyCalls) as exc:
        log.info("charge point does not say how it is", charge_point=name, why=repr(exc)[:200])
    return promised


def questions(fleet: Fleet, charge_point_id: str) -> Iterator[dict[str, Any]]:
    """TriggerMessage payloads: each connector's status, what is being charged, and at last
    who it is, where it never told."""
    connectors = fleet.connectors(charge_point_id)
    if not connectors:
        yield {"requestedMessage": "StatusNotification"}
    for connector in connectors:
        yield {"requestedMessage": "StatusNotification", "connectorId": connector}
    for connector in connectors:
        if fleet.open_transaction(charge_point_id, connector) is not None:
            yield {"requestedMessage": "MeterValues", "connectorId": connector}
    if not fleet.about(charge_point_id).get("charger"):
        yield {"requestedMessage": "BootNotification"}
