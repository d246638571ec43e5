"""Which remote start a transaction that begins has come from.  Pure.

RemoteStartTransaction names a connector and an id tag (OCPP 1.6 §5.11), StartTransaction does not
name the request that it obeys.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import IntEnum

import attrs

from ..domain.events import TransactionStarted

_CLOCKS_DIFFER = timedelta(minutes=2)


class Fit(IntEnum):
    """How well a transaction that begins fits a remote start, the best last."""

    NOT = 0
    CONNECTOR = 1  # some charge points change the tag
    TAG = 2  # some begin where the cable is, and not where they were asked to
    BOTH = 3


@attrs.define(eq=False)
class RemoteStart:
    """A remote start and its transaction.

    began: the id of the one it got.  is_exhausted: it waits for none any more.
    """

    charge_point_id: str
    connector_id: int
    id_tag: str
    asked_at: datetime
    began: int | None = None
    is_over: bool = False

    def fit(self, event: TransactionStarted) -> Fit:
        if event.charge_point_id != self.charge_point_id or event.repeated:
            return Fit.NOT
        if (self.is_over or self.began is not None) and self.began != event.transaction_id:
            return Fit.NOT
        same_tag = event.id_tag.lower() == self.id_tag.lower()  # OCPP 1.6 §7.28
        since = self.asked_at - _CLOCKS_DIFFER
        if event.connector_id == self.connector_id:
            # Some have no clock; one that tells only now of a transaction from before, with
            # another tag, has not obeyed yet.
            earlier = event.timestamp is not None and event.timestamp < since
            if same_tag:
                return Fit.BOTH
            return Fit.NOT if earlier else Fit.CONNECTOR
        # Elsewhere, one from before may be of the same tag's last visit, out of a queue.
        return Fit.TAG if same_tag and event.at >= since else Fit.NOT


def is_for(event: TransactionStarted, asked: RemoteStart, pending: Sequence[RemoteStart]) -> bool:
    """Whether a transaction is the one that a remote start has asked for.

    pending: all that wait, oldest first, and those that have their transaction.  The best fit gets
    it; where that is the tag alone, the oldest of several, so that each has one of its own.
    """
    fit = asked.fit(event)
    fits = [other.fit(event) for other in pending]
    if fit is Fit.NOT or fit < max(fits, default=fit):
        return False
    return fit is not Fit.TAG or pending[fits.index(fit)] is asked
