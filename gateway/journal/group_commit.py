"""Group commit: one task commits for the whole gateway, so that many appends share one fsync.

Appends gather while a commit is under way, and for one round of Trio's schedule before one
begins; then all of them are written at once, in a thread.  What a commit made durable is
heard in journal order before the tasks that wait for it go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import attrs
import trio

from ..domain.events import Event
from ..domain.histogram import Histogram
from . import (
    ENTRY_BUCKETS,
    Checkpoint,
    DeadLetter,
    Entry,
    JournaledTransaction,
    JournalError,
    JournalStatistics,
    OnDurable,
)
from .codec import dump
from .sqlite import Append, SqliteStore

P = ParamSpec("P")
T = TypeVar("T")

_MIN_INTERVAL = 0.002  # seconds from one commit to the next: under load they would do nothing else


@attrs.define(eq=False)
class _Waiting(Append):
    durable: trio.Event | None = None
    failure: JournalError | None = None


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[GroupCommitJournal]:
    """A journal in a file.  Raises JournalError if it cannot be opened.

    When the store fails later, every append raises JournalError from then on: nothing was
    acknowledged that is not durable.
    """
    store = await trio.to_thread.run_sync(SqliteStore.open, path)
    journal = GroupCommitJournal(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        try:
            yield journal
        finally:
            journal.close()


class GroupCommitJournal:
    """Keeps the contract of `gateway.journal.Journal`.  Owns: the store, and what has gathered."""

    def __init__(self, store: SqliteStore) -> None:
        self.on_durable: OnDurable = lambda _: None
        self._store = store
        self._gathered: list[_Waiting] = []
        self._something = trio.Event()
        self._closing = False
        self._failure: JournalError | None = None
        self._one_writer = trio.CapacityLimiter(1)
        self._one_reader = trio.CapacityLimiter(1)
        self._entries = self._commits = 0
        self._last_seq = store.last_seq
        self._commit_entries = Histogram(ENTRY_BUCKETS)
        self._commit_seconds = Histogram()
        self._committed_at = -math.inf
        self._committing_since: float | None = None

    async def append(
        self, *events: Event, checkpoint: Checkpoint | None = None
    ) -> tuple[Entry, ...]:
        durable = trio.Event()
        waiting = self._gather(events, checkpoint, durable)
        await durable.wait()
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.entries

    def append_soon(self, *events: Event, checkpoint: Checkpoint | None = None) -> None:
        self._gather(events, checkpoint, None)

    def _gather(
        self, events: tuple[Event, ...], checkpoint: Checkpoint | None, durable: trio.Event | None
    ) -> _Waiting:
        if self._failure is not None:
            raise self._failure
        waiting = _Waiting(events, [dump(event) for event in events], checkpoint, durable=durable)
        self._gathered.append(waiting)
        self._something.set()
        return waiting

    # --- the committer -----------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what is appended, until `close`."""
        # Shielded: what was appended is written, also while the gateway is being cancelled.
        with trio.CancelScope(shield=True):
            while not self._closing or self._gathered:
                await self._something.wait()  # for one round at least, in which more may gather
                await trio.sleep_until(self._committed_at + _MIN_INTERVAL)
                self._something = trio.Event()
                batch, self._gathered = self._gathered, []
                if batch:
                    await self._commit(batch)
            await trio.to_thread.run_sync(self._store.close)

    def close(self) -> None:
        """Write what was appended, then end; nothing may be appended from now on."""
        self._closing = True
        self._something.set()

    async def _commit(self, batch: list[_Waiting]) -> None:
        began = self._committing_since = time.perf_counter()
        try:
            if self._failure is None:
                await trio.to_thread.run_sync(self._store.commit, batch, limiter=self._one_writer)
        except JournalError as exc:
            self._failure = exc
        if self._failure is not None:  # nothing is written after a gap
            for waiting in batch:
                waiting.failure = self._failure
        self._committing_since = None
        self._commits += 1
        self._committed_at = trio.current_time()
        self._commit_seconds.add(time.perf_counter() - began)
        self._announce_durable(batch)

    def _announce_durable(self, batch: list[_Waiting]) -> None:
        entries = [entry for waiting in batch for entry in waiting.entries]
        if entries and self._failure is None:
            self._commit_entries.add(len(entries))
            self._entries += len(entries)
            self._last_seq = entries[-1].seq
            self.on_durable(entries)
        for waiting in batch:
            if waiting.durable is not None:
                waiting.durable.set()

    async def trim(self, before: datetime, readers: Sequence[str], limit: int) -> int:
        return await trio.to_thread.run_sync(
            self._store.trim, before, readers, limit, limiter=self._one_writer
        )

    # --- reading -------------------------------------------------------------------------------

    async def _read(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def read() -> T:
            return fn(*args, **kwargs)

        return await trio.to_thread.run_sync(read, limiter=self._one_reader)

    async def read(self, *, after: int, limit: int) -> tuple[Entry, ...]:
        return await self._read(self._store.read, after, limit)

    async def read_account(
        self, charge_point_id: str, *, first: int, last: int
    ) -> tuple[Entry, ...]:
        return await self._read(self._store.read_account, charge_point_id, first, last)

    async def checkpoint(self, reader: str) -> Checkpoint:
        return await self._read(self._store.checkpoint, reader)

    async def dead_letters(self, reader: str) -> tuple[DeadLetter, ...]:
        return await self._read(self._store.dead_letters, reader)

    async def open_transactions(self) -> tuple[JournaledTransaction, ...]:
        return await self._read(self._store.open_transactions)

    async def transaction(self, transaction_id: int) -> JournaledTransaction | None:
        return await self._read(self._store.transaction, transaction_id)

    async def devices(self) -> Mapping[str, Mapping[str, Any]]:
        return await self._read(self._store.devices)

    async def receipts(self) -> tuple[Mapping[str, Any], ...]:
        return await self._read(self._store.receipts)

    def statistics(self) -> JournalStatistics:
        since = self._committing_since
        return JournalStatistics(
            entries=self._entries,
            commits=self._commits,
            waiting=len(self._gathered),
            last_seq=self._last_seq,
            failure=None if self._failure is None else str(self._failure),
            writing_s=0.0 if since is None else time.perf_counter() - since,
            commit_entries=self._commit_entries,
            commit_seconds=self._commit_seconds,
        )
