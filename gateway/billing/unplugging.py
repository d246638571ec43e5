"""ConnectorUnplugged: the charge point reports when the cable came out.

It is a DataTransfer of the OCA's "OCPP & California Pricing Requirements", for charge points that
send StopTransaction while the cable is still in, and no status when it is pulled.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ..domain.events import DataTransferred

_COSTMSG = "org.openchargealliance.costmsg"


class Unplugging(NamedTuple):
    """timestamp: as the charge point wrote it, which may be anything."""

    transaction_id: int
    timestamp: Any


def unplugging_of(event: DataTransferred) -> Unplugging | None:
    """None where the DataTransfer is about something else, or cannot be read."""
    if event.vendor_id != _COSTMSG or event.message_id != "ConnectorUnplugged":
        return None
    try:
        data = json.loads(event.data or "")
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    transaction_id = data.get("transactionId")
    if isinstance(transaction_id, str) and transaction_id.isascii() and transaction_id.isdigit():
        transaction_id = int(transaction_id)
    if not isinstance(transaction_id, int) or isinstance(transaction_id, bool):
        return None
    return Unplugging(transaction_id, data.get("timestamp"))
