"""What the accountant's own events of the past say about a session that is restored.

After a restart the ledger reads the journal's entries of the open transactions again.  Messages of
charge points go the same way as before; but the terms are those that were published with the
start, not those of today's tariff file, and a receipt that was published stands.
"""

from __future__ import annotations

import attrs

from ..domain.events import TransactionOpened, TransactionSettled
from ..domain.fixed_point import WH, microseconds
from ..tariffs.file import terms_of
from .refitting import with_terms
from .session import Session, with_status
from .settlement import NO_TARIFF
from .transitions import end_inferred, unplugged_at_start


def with_published_terms(session: Session, event: TransactionOpened) -> Session:
    """The session on the terms that it began with.  Raises ValueError where the event's tariff or
    policy cannot be read."""
    terms = terms_of(event.tariff, event.policy, event.time_zone)
    if event.status == "Available":
        session = unplugged_at_start(session)
    elif event.status is not None and event.status_at is not None:
        status = (microseconds(event.status_at), event.status)
        if status not in session.statuses:
            session = with_status(session, status[1], status[0])
    flags = session.flags - {NO_TARIFF}
    if terms.unpriced or NO_TARIFF in event.progress.flags:
        flags |= {NO_TARIFF}
    gap = None if event.meter_gap_wh is None else int(event.meter_gap_wh * WH)
    opening = attrs.evolve(session.opening, meter_gap=gap)
    return with_terms(attrs.evolve(session, opening=opening, flags=flags), terms)


def with_published_receipt(session: Session, event: TransactionSettled) -> Session:
    """The session closed, with the version of its newest receipt."""
    if not session.closed:
        session = end_inferred(session, str(event.receipt.get("stop_reason")))
    return attrs.evolve(session, closed=True, version=max(session.version, event.version))
