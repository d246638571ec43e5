"""The accountant's task: it feeds the ledger of `billing.ledger` from the bus.

What it remembers is not stored: it is what the ledger makes of the journal's entries, so a
restart reads again what concerns the transactions that are open, and goes on.  Derived
events and the checkpoint are saved in one commit, so that each is published once.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

import attrs
import structlog
import trio

from .billing.ledger import Ledger
from .bus import Entry, EventBus, Overflow, Subscription
from .domain.connector_state import completed, inferred
from .domain.events import (
    ACCOUNTED,
    Event,
    MessageOrphaned,
    MeterSampled,
    NotAccounted,
    TransactionClosed,
    TransactionFact,
    TransactionSettled,
    TransactionStopped,
)
from .journal import Checkpoint, Journal, JournaledTransaction
from .offload import offload

READER = "accountant"
_MAX_BATCH = 500  # entries accounted for in one commit
_ENTRIES_PER_CHECKPOINT = 25  # without letting others run
_BATCH_INTERVAL = (
    0.02  # seconds between two batches: what comes meanwhile costs one commit, not one each
)
_MAX_WAITING = 2_000  # appends that may wait for the disk before we do
END = 2**62  # beyond every entry
_TICK = 10.0  # seconds between two looks for what time alone has changed
_LONG = 500  # samples of one event beyond which the event loop serves others meanwhile

log = structlog.get_logger(__name__)


@attrs.define
class AccountingStatistics:
    """What was accounted for since the start, for metrics.

    receipts, of which needs_review: corrections count again.  orphans: messages that belong
    to no transaction.  not_accounted: entries that a bug of ours kept out of the ledger.
    """

    receipts: int = 0
    needs_review: int = 0
    orphans: int = 0
    not_accounted: int = 0

    def count(self, fact: Event) -> None:
        match fact:
            case TransactionSettled():
                self.receipts += 1
                self.needs_review += bool(fact.receipt.get("needs_review"))
            case MessageOrphaned():
                self.orphans += 1
            case NotAccounted():
                self.not_accounted += 1


@asynccontextmanager
async def open_accountant(
    bus: EventBus,
    ledger: Ledger,
    now: Callable[[], datetime],
    stale_session: timedelta,
    grace_s: float = math.inf,
) -> AsyncIterator[AccountingStatistics]:
    """Account for all that is published; on leaving the block, first finish what there is.

    stale_session: how old the newest word of a transaction may be whose charge point is away, or
        knows nothing of it.
    grace_s: seconds for finishing.  What they do not suffice for is done after the next start: the
        place in the journal is saved with what follows from the entries before it.
    """
    checkpoint = await bus.journal.checkpoint(READER)
    await restore_open_transactions(ledger, bus.journal, checkpoint.seq)
    statistics = AccountingStatistics()
    async with trio.open_nursery() as ticking:
        ticking.start_soon(_tick, bus, ledger, now, stale_session)
        async with trio.open_nursery() as nursery:
            with bus.subscribe(
                *ACCOUNTED, overflow=Overflow.REREAD, after=checkpoint.seq, capacity=5_000
            ) as entries:
                # The task ends because the subscription closes first.
                nursery.start_soon(_account_for_entries, entries, bus, ledger, statistics)  # noqa: ASYNC111
                yield statistics
            nursery.cancel_scope.deadline = trio.current_time() + grace_s
        ticking.cancel_scope.cancel()


async def restore_open_transactions(ledger: Ledger, journal: Journal, checkpoint: int) -> None:
    """Give the ledger every transaction that was open at `checkpoint`, as it was then."""
    for charge_point_id, first in first_entries(
        await journal.open_transactions(), checkpoint
    ).items():
        restore_entries(
            ledger, await journal.read_account(charge_point_id, first=first, last=END), checkpoint
        )


def first_entries(
    open_transactions: Iterable[JournaledTransaction], checkpoint: int
) -> dict[str, int]:
    """The entry from which each charge point's accounts are to be read again."""
    since: dict[str, int] = {}
    for tx in open_transactions:
        if tx.seq <= checkpoint:
            since[tx.charge_point_id] = min(tx.seq, since.get(tx.charge_point_id, tx.seq))
    return since


def _log_refused(entry: Entry, exc: Exception) -> None:
    log.error("event not restored", seq=entry.seq, exc_info=exc)


def restore_entries(
    ledger: Ledger,
    entries: Iterable[Entry],
    checkpoint: int,
    refused: Callable[[Entry, Exception], None] = _log_refused,
) -> None:
    """Restore what happened up to `checkpoint`, and the facts that followed from it.

    Facts are numbered after the events that they follow from, so some lie beyond the place.
    refused: is called with an event that the ledger cannot account for, which is a bug of ours (or
        a tariff of an older version); all others are restored.
    """
    for entry in entries:
        if entry.seq <= checkpoint or isinstance(entry.event, TransactionFact):
            try:
                ledger.restore(entry.event)
            except Exception as exc:  # noqa: BLE001  a gateway that cannot start accounts for no session
                refused(entry, exc)


async def _account_for_entries(
    entries: Subscription, bus: EventBus, ledger: Ledger, statistics: AccountingStatistics
) -> None:
    while batch := await entries.take_batch(_MAX_BATCH):
        facts: list[Event] = []
        for count, entry in enumerate(batch, 1):
            await _recall(entry, bus.journal, ledger)
            facts.extend(await _accounted(entry, ledger))
            if count % _ENTRIES_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        facts = [known for fact in facts for known in _in_full(fact, bus)]
        for fact in facts:
            statistics.count(fact)
        # The derived events and the checkpoint, or neither.  Nothing waits for them, so the next
        # batch need not wait until they are durable.  When many appends wait for the disk already,
        # it does wait, to bound memory.
        checkpoint = Checkpoint(READER, batch[-1].seq)
        if bus.journal.statistics().waiting < _MAX_WAITING:
            bus.publish_soon(*facts, checkpoint=checkpoint)
            await trio.sleep(0 if len(batch) == _MAX_BATCH else _BATCH_INTERVAL)
        else:
            await bus.publish(*facts, checkpoint=checkpoint)


async def _accounted(entry: Entry, ledger: Ledger) -> tuple[Event, ...]:
    event = entry.event
    try:
        if _samples(event) <= _LONG:
            return ledger.post(event)
        outcomes = await offload(partial(ledger.outcomes, event))
        return ledger.enter(event, outcomes)
    except Exception as exc:
        # `post` changes nothing when it raises, so the rest of the ledger stays right.
        log.exception("event not accounted", seq=entry.seq)
        return (
            NotAccounted(
                charge_point_id=event.charge_point_id,
                received_at=event.received_at,
                seq=entry.seq,
                why=repr(exc)[:500],
            ),
        )


def _in_full(fact: Event, bus: EventBus) -> Iterator[Event]:
    """A fact with what is known of its connector, and what else follows for telemetry."""
    fact = completed(fact, bus.fleet)
    yield fact
    yield from inferred(fact, bus.fleet)


def _samples(event: Event) -> int:
    """How many there are to look at.  A StopTransaction may bring tens of thousands."""
    if not isinstance(event, MeterSampled | TransactionStopped):
        return 0
    return sum(1 + len(reading.samples) for reading in event.readings)


async def _recall(entry: Entry, journal: Journal, ledger: Ledger) -> None:
    """A transaction that the ledger has put away, for an event that came late."""
    transaction_id = ledger.missing_transaction(entry.event)
    if transaction_id is None:
        return
    known = await journal.transaction(transaction_id)
    if known is None or known.charge_point_id != entry.event.charge_point_id:
        return
    past = Ledger(ledger.tariff_book)
    account = await journal.read_account(known.charge_point_id, first=known.seq, last=END)
    restore_entries(past, account, entry.seq - 1)
    ledger.adopt(past, transaction_id)


async def _tick(
    bus: EventBus, ledger: Ledger, now: Callable[[], datetime], stale_session: timedelta
) -> None:
    """What time alone brings: minutes that cost, and transactions that no message will end."""
    while True:
        await trio.sleep(_TICK)
        at = now()
        due = ledger.due(at)
        for first in range(0, len(due), _ENTRIES_PER_CHECKPOINT):
            several = due[first : first + _ENTRIES_PER_CHECKPOINT]
            if facts := [fact for one in several for fact in _ticked(ledger, one, at)]:
                await bus.publish(*facts)
        if closed := tuple(_abandoned(bus, ledger, at, stale_session)):
            await bus.publish(*closed)


def _ticked(ledger: Ledger, transaction_id: int, at: datetime) -> tuple[Event, ...]:
    try:
        return ledger.tick(transaction_id, at)
    except Exception:  # the other transactions are published all the same
        log.exception("time not priced", transaction_id=transaction_id)
        return ()


def _abandoned(
    bus: EventBus, ledger: Ledger, at: datetime, stale_session: timedelta
) -> Iterator[TransactionClosed]:
    for tx in ledger.open_transactions():
        # A charge point that is there will stop what it knows of.
        away = not bus.fleet.state_of(tx.charge_point_id).get("connected")
        if (away or tx.unconfirmed) and at - tx.newest_at > stale_session:
            yield TransactionClosed(
                charge_point_id=tx.charge_point_id,
                received_at=at,
                transaction_id=tx.transaction_id,
                connector_id=tx.connector_id,
                reason="Stale",
            )
