"""Which remote start a new transaction belongs to.  Pure.

RemoteStartTransaction names a connector and an id tag (OCPP 1.6 §5.11), but StartTransaction does
not name the request that it follows.  So the two are compared, and the best `Fit` wins.  Example:
remote starts wait for connector 1 with tag A and for connector 2 with tag B.  A transaction of
tag A begins on connector 2: it fits the first by its tag and the second by its connector only, so
it belongs to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import IntEnum

import attrs

from ..domain.events import TransactionStarted

_CLOCKS_DIFFER = timedelta(minutes=2)


class Fit(IntEnum):
    """How well a new transaction fits a remote start, the best last."""

    NOT = 0
    CONNECTOR = 1  # some charge points change the tag
    TAG = 2  # some begin on the connector with the cable, whichever was named
    BOTH = 3


@attrs.define(eq=False)
class RemoteStart:
    """A remote start and its transaction.

    transaction_id: of the transaction that belongs to it; None before there is one.
    is_over: its command has ended, so no later transaction belongs to it.
    """

    charge_point_id: str
    connector_id: int
    id_tag: str
    requested_at: datetime
    transaction_id: int | None = None
    is_over: bool = False

    def fit(self, event: TransactionStarted) -> Fit:
        if event.charge_point_id != self.charge_point_id or event.repeated:
            return Fit.NOT
        if (
            self.is_over or self.transaction_id is not None
        ) and self.transaction_id != event.transaction_id:
            return Fit.NOT
        same_tag = event.id_tag.lower() == self.id_tag.lower()  # OCPP 1.6 §7.28
        since = self.requested_at - _CLOCKS_DIFFER
        if event.connector_id == self.connector_id:
            # Where only the connector fits, a transaction from before the request came out of the
            # charge point's queue.  Some charge points have no clock: then it is believed.
            earlier = event.timestamp is not None and event.timestamp < since
            if same_tag:
                return Fit.BOTH
            return Fit.NOT if earlier else Fit.CONNECTOR
        # On another connector, one from before may be the same tag's last charge, out of the queue.
        return Fit.TAG if same_tag and event.at >= since else Fit.NOT


def belongs_to(
    event: TransactionStarted, start: RemoteStart, pending: Sequence[RemoteStart]
) -> bool:
    """Whether a new transaction belongs to `start`, and not to another of `pending`.

    pending: all remote starts that wait, oldest first, and those that have their transaction.  The
        best fit gets it; where that is the tag alone, the oldest of several, so that each remote
        start gets a transaction of its own.
    """
    fit = start.fit(event)
    fits = [other.fit(event) for other in pending]
    if fit is Fit.NOT or fit < max(fits, default=fit):
        return False
    return fit is not Fit.TAG or pending[fits.index(fit)] is start
