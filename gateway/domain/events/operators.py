"""What operators ask of charge points, and what came of it."""

from __future__ import annotations

import attrs

from .base import Event


@attrs.frozen(kw_only=True)
class CommandCarriedOut(Event):
    """method: the RPC's; result: the charge point's status, or our error code.

    connector_id: 0 for a command to the charge point itself.
    tx_active: of a command to begin or end a transaction that did not come to pass: whether the
        connector has one now, for switches that show already what was requested; else None.
    tx_active_ms: the instant to publish that at, ms since 1970: just after it was last published.
    """

    method: str
    result: str
    connector_id: int = 0
    tx_active: bool | None = None
    tx_active_ms: int = 0


@attrs.frozen(kw_only=True)
class RemoteStopRequested(Event):
    """RemoteStopTransaction is about to be sent (OCPP 1.6 §5.11).

    Published before the sending, as charge points may stop before they answer.
    withdrawn: the charge point did not accept it.
    """

    transaction_id: int
    connector_id: int
    withdrawn: bool = False


@attrs.frozen(kw_only=True)
class TransactionClosed(Event):
    """An open transaction that nobody will stop any more is to end at its last reading.

    reason: `Operator`, or `Stale` for one whose charge point never came back.
    """

    transaction_id: int
    connector_id: int
    reason: str
