"""One committer for the whole house: many appends share one commit, so the disk is no limit.

Appends gather in a queue while a commit is under way; the writer thread then takes all of
them at once.  What a commit made durable is heard in the Trio thread, in journal order,
before those who wait for it go on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

import attrs
import trio

from ..domain.events import Event
from . import Aside, Bookmark, Entry, Hear, JournalError, OpenTransaction, Statistics
from .codec import dump
from .sqlite import Append, SqliteStore

P = ParamSpec("P")
T = TypeVar("T")
_MOST_AT_ONCE = 5_000  # appends in one commit: bounds the memory and the pause of a burst


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
    """Keeps the contract of `gateway.journal.Journal`.  Owns: the queue and the writer thread."""

    def __init__(self, store: SqliteStore) -> None:
        self.hear: Hear = lambda _: None
        self._store = store
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._failure: JournalError | None = None
        self._one_reader = trio.CapacityLimiter(1)
        self._entries = self._commits = 0
        self._last_seq = store.last_seq
        self._commit_seconds = 0.0

    async def append(self, *events: Event, bookmark: Bookmark | None = None) -> tuple[Entry, ...]:
        durable = trio.Event()
        waiting = self._enqueue(events, bookmark, durable)
        await durable.wait()
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.entries

    def append_soon(self, *events: Event) -> None:
        self._enqueue(events, None, None)

    def _enqueue(
        self, events: tuple[Event, ...], bookmark: Bookmark | None, durable: trio.Event | None
    ) -> _Waiting:
        if self._failure is not None:
            raise self._failure
        waiting = _Waiting(events, [dump(event) for event in events], bookmark, durable=durable)
        self._queue.put(waiting)
        return waiting

    def close(self) -> None:
        """Write what was appended, then end; appends from now on are not written."""
        self._queue.put(None)

    # --- the writer thread -------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what is appended until `close`."""
        token = trio.lowlevel.current_trio_token()

        def deliver(batch: list[_Waiting], seconds: float) -> None:
            token.run_sync_soon(self._deliver, batch, seconds)

        # Shielded: what was appended is written, also while the house falls.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._commit_all, deliver)

    def _commit_all(self, deliver: Callable[[list[_Waiting], float], None]) -> None:
        failure: JournalError | None = None
        try:
            while batch := _gathered(self._queue):
                began = time.perf_counter()
                try:
                    if failure is None:
                        self._store.commit(batch)
                except JournalError as exc:
                    failure = exc
                if failure is not None:  # nothing is written after a gap
                    for waiting in batch:
                        waiting.failure = failure
                deliver(batch, time.perf_counter() - began)
        finally:
            self._store.close()

    def _deliver(self, batch: list[_Waiting], seconds: float) -> None:
        self._commits += 1
        self._commit_seconds += seconds
        heard: list[Entry] = []
        for waiting in batch:
            if waiting.failure is not None and self._failure is None:
                self._failure = waiting.failure
            heard.extend(waiting.entries)
        if heard:
            self._entries += len(heard)
            self._last_seq = heard[-1].seq
            self.hear(heard)
        for waiting in batch:
            if waiting.durable is not None:
                waiting.durable.set()

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

    async def bookmark(self, reader: str) -> Bookmark:
        return await self._read(self._store.bookmark, reader)

    async def asides(self, reader: str) -> tuple[Aside, ...]:
        return await self._read(self._store.asides, reader)

    async def open_transactions(self) -> tuple[OpenTransaction, ...]:
        return await self._read(self._store.open_transactions)

    async def transaction(self, transaction_id: int) -> OpenTransaction | None:
        return await self._read(self._store.transaction, transaction_id)

    async def devices(self) -> Mapping[str, Mapping[str, Any]]:
        return await self._read(self._store.devices)

    async def receipts(self) -> tuple[Mapping[str, Any], ...]:
        return await self._read(self._store.receipts)

    def statistics(self) -> Statistics:
        return Statistics(
            entries=self._entries,
            commits=self._commits,
            commit_seconds=self._commit_seconds,
            waiting=self._queue.qsize(),
            last_seq=self._last_seq,
            failure=None if self._failure is None else str(self._failure),
        )


def _gathered(queue: SimpleQueue[_Waiting | None]) -> list[_Waiting]:
    """What has gathered, waiting for the first; empty once the queue is closed."""
    batch: list[_Waiting] = []
    item = queue.get()
    while item is not None:
        batch.append(item)
        if len(batch) == _MOST_AT_ONCE:
            return batch
        try:
            item = queue.get_nowait()
        except Empty:
            return batch
    if batch:
        queue.put(None)  # the end is for the next call
    return batch
