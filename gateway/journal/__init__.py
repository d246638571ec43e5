"""The journal: an append-only log of events, and each reader's checkpoint in it.

This is the contract.  `sqlite` keeps it, as does the journal in memory of the tests; one suite of
tests holds both to it.

What the journal promises: an append that returned is durable; entries are numbered 1, 2, 3
... in the order in which they were appended; subscribers get them in that order, each
only after it is durable.  What is old and no reader needs may be trimmed, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import attrs

from ..domain.events import Event
from ..domain.histogram import Histogram

ENTRY_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)


class JournalError(Exception):
    """The journal cannot be read or written: no event can be made durable any more."""


@attrs.frozen
class Entry:
    """seq: 1, 2, 3, ... without a hole."""

    seq: int
    event: Event


@attrs.frozen
class DeadLetter:
    """An entry that a reader gave up on, and why: kept for people."""

    seq: int
    why: str


Span = tuple[int, int]
"""The first and the last of a run of entries."""


@attrs.frozen
class Checkpoint:
    """How far a reader is in the journal: every entry up to `seq` is dealt with.

    ahead: runs of entries beyond `seq` that are dealt with too, ascending.
    dead_letters: entries given up with this step; the journal keeps those of earlier steps.
    """

    reader: str
    seq: int = 0
    ahead: tuple[Span, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()


@attrs.frozen
class JournaledTransaction:
    """seq: of the entry that started it."""

    transaction_id: int
    charge_point_id: str
    seq: int


@attrs.frozen
class JournalStatistics:
    """What a journal has done since it was opened.

    entries, commits: how many; waiting: appends not yet durable.
    commit_entries, commit_seconds: how large each commit was, and how long it took.
    last_seq: of the newest entry.  failure: why nothing can be written any more.
    writing_s: seconds that the commit under way has taken so far; 0 while there is none.
    """

    entries: int
    commits: int
    waiting: int
    last_seq: int
    failure: str | None = None
    writing_s: float = 0.0
    commit_entries: Histogram = attrs.field(factory=lambda: Histogram(ENTRY_BUCKETS))
    commit_seconds: Histogram = attrs.field(factory=Histogram)


OnDurable = Callable[[Sequence[Entry]], None]


class Journal(Protocol):
    """Every method raises JournalError when the store fails."""

    on_durable: OnDurable
    """Called with what each commit made durable, in order, before the waiting tasks go on."""

    async def append(
        self, *events: Event, checkpoint: Checkpoint | None = None
    ) -> tuple[Entry, ...]:
        """Make events and a reader's checkpoint durable together or not at all.

        The entries carry the events completed: a TransactionStarted has its transaction_id
        (and `repeated` where the same charge point, connector, id tag, time and register
        began one before), a TransactionSettled its published_ms.
        """

    def append_soon(self, *events: Event, checkpoint: Checkpoint | None = None) -> None:
        """Append without waiting, for what need not be durable before an answer.  Order is kept."""

    async def read(self, *, after: int, limit: int) -> tuple[Entry, ...]:
        """The entries that follow `after`, oldest first, at most `limit`."""

    async def read_account(
        self, charge_point_id: str, *, first: int, last: int
    ) -> tuple[Entry, ...]:
        """What concerns the accounts of a charge point, from entry `first` to `last`."""

    async def checkpoint(self, reader: str) -> Checkpoint:
        """Where the reader is; at 0 for one that never was.  `dead_letters` is empty."""

    async def dead_letters(self, reader: str) -> tuple[DeadLetter, ...]:
        """All that the reader has given up on."""

    async def open_transactions(self) -> tuple[JournaledTransaction, ...]:
        """Transactions that have no receipt, oldest first."""

    async def transaction(self, transaction_id: int) -> JournaledTransaction | None:
        """Where a transaction began, settled or not; None where the id was never given."""

    async def devices(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each device by its name (see `domain.fleet.patches`)."""

    async def receipts(self) -> tuple[Mapping[str, Any], ...]:
        """The newest version of every receipt, in the order in which they were published."""

    async def trim(self, before: datetime, readers: Sequence[str], limit: int) -> int:
        """Delete the entries that were received before an instant; returns how many entries went.

        At most `limit` of the oldest entries go at a time, so that no append waits long; 0
        means that there is nothing left to trim.  Kept whatever its age: what a reader has not
        dealt with, and all since an open transaction began.  With its entries goes a
        transaction's receipt, once that is older than `before` too.
        """

    def statistics(self) -> JournalStatistics: ...
