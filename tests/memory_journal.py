"""The journal of the tests: the contract without a disk, and so without a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
import trio

from gateway.domain.clock import milliseconds
from gateway.domain.events import ACCOUNTED, Event, TransactionSettled, TransactionStarted
from gateway.domain.fleet import Fleet
from gateway.journal import (
    Checkpoint,
    DeadLetter,
    Entry,
    JournaledTransaction,
    JournalStatistics,
    OnDurable,
)
from gateway.journal.rules import StartKey, is_retry, receipt_key, retired, start_key


@attrs.define(eq=False)
class MemoryJournal:
    on_durable: OnDurable = lambda _: None
    _entries: list[Entry] = attrs.field(factory=list)
    _checkpoints: dict[str, Checkpoint] = attrs.field(factory=dict)
    _dead_letters: dict[str, list[DeadLetter]] = attrs.field(factory=dict)
    _started: dict[StartKey, JournaledTransaction] = attrs.field(factory=dict)
    _settled: dict[int, int] = attrs.field(factory=dict)  # transaction -> its newest receipt's seq
    _last_id: int = 0
    _receipts: dict[str, TransactionSettled] = attrs.field(factory=dict)
    _published: set[int] = attrs.field(factory=set)
    _fleet: Fleet = attrs.field(factory=Fleet)
    _commits: int = 0
    _trimmed: int = 0  # entries up to here are as good as gone

    async def append(
        self, *events: Event, checkpoint: Checkpoint | None = None
    ) -> tuple[Entry, ...]:
        entries = self._append(events, checkpoint)  # in the order of the calls, like on a disk
        await trio.lowlevel.checkpoint()
        return entries

    def append_soon(self, *events: Event, checkpoint: Checkpoint | None = None) -> None:
        self._append(events, checkpoint)

    def _append(
        self, events: tuple[Event, ...], checkpoint: Checkpoint | None
    ) -> tuple[Entry, ...]:
        entries = tuple(self._entry(event) for event in events)
        if checkpoint is not None:
            self._checkpoints[checkpoint.reader] = attrs.evolve(checkpoint, dead_letters=())
            self._dead_letters.setdefault(checkpoint.reader, []).extend(checkpoint.dead_letters)
        self._commits += 1
        self.on_durable(entries)
        return entries

    def _entry(self, event: Event) -> Entry:
        seq = len(self._entries) + 1
        match event:
            case TransactionStarted(transaction_id=0):
                event = self._with_transaction_id(event, seq)
            case TransactionSettled():
                event = self._with_published_ms(event, seq)
        self._fleet.apply(event)
        entry = Entry(seq, event)
        self._entries.append(entry)
        return entry

    def _with_transaction_id(self, event: TransactionStarted, seq: int) -> TransactionStarted:
        key = start_key(event)
        known = self._started.get(key)
        if known and not is_retry(event, settled=known.transaction_id in self._settled):
            self._started[retired(key, known.transaction_id)] = known
            known = None
        if known is None:
            known = JournaledTransaction(self._last_id + 1, event.charge_point_id, seq)
            self._started[key] = known
            self._last_id = known.transaction_id
            return attrs.evolve(event, transaction_id=known.transaction_id)
        return attrs.evolve(event, transaction_id=known.transaction_id, repeated=True)

    def _with_published_ms(self, event: TransactionSettled, seq: int) -> TransactionSettled:
        key = receipt_key(event)
        if key in self._receipts:
            published_ms = self._receipts[key].published_ms
        else:
            published_ms = event.published_ms or milliseconds(event.at)
            while published_ms in self._published:
                published_ms += 1
        self._published.add(published_ms)
        self._settled[event.transaction_id] = seq
        event = attrs.evolve(event, published_ms=published_ms)
        self._receipts[key] = event
        return event

    async def read(self, *, after: int, limit: int) -> tuple[Entry, ...]:
        await trio.lowlevel.checkpoint()
        after = max(after, self._trimmed)
        return tuple(self._entries[after : after + limit])

    async def read_account(
        self, charge_point_id: str, *, first: int, last: int
    ) -> tuple[Entry, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(
            entry
            for entry in self._entries[max(first - 1, self._trimmed) : last]
            if entry.event.charge_point_id == charge_point_id and isinstance(entry.event, ACCOUNTED)
        )

    async def checkpoint(self, reader: str) -> Checkpoint:
        await trio.lowlevel.checkpoint()
        return self._checkpoints.get(reader, Checkpoint(reader))

    async def dead_letters(self, reader: str) -> tuple[DeadLetter, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(self._dead_letters.get(reader, ()))

    async def open_transactions(self) -> tuple[JournaledTransaction, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(
            known for known in self._started.values() if known.transaction_id not in self._settled
        )

    async def transaction(self, transaction_id: int) -> JournaledTransaction | None:
        await trio.lowlevel.checkpoint()
        for known in self._started.values():
            if known.transaction_id == transaction_id:
                return known
        return None

    async def devices(self) -> Mapping[str, Mapping[str, Any]]:
        await trio.lowlevel.checkpoint()
        return {name: dict(state) for name, state in self._fleet.devices.items()}

    async def receipts(self) -> tuple[Mapping[str, Any], ...]:
        await trio.lowlevel.checkpoint()
        settled = sorted(self._receipts.values(), key=lambda event: event.published_ms)
        return tuple(event.receipt for event in settled)

    async def trim(self, before: datetime, readers: Sequence[str], limit: int) -> int:
        await trio.lowlevel.checkpoint()
        dealt_with = min(self._checkpoints.get(name, Checkpoint(name)).seq for name in readers)
        begun = [
            tx.seq - 1 for tx in self._started.values() if tx.transaction_id not in self._settled
        ]
        upto = min(dealt_with, len(self._entries) - 1, self._trimmed + limit, *begun)
        if upto <= self._trimmed or self._entries[upto - 1].event.received_at >= before:
            return 0
        gone, self._trimmed = upto - self._trimmed, upto
        for key, tx in list(self._started.items()):
            if self._settled.get(tx.transaction_id, upto + 1) <= upto:
                del self._started[key]
        kept = {tx.transaction_id for tx in self._started.values()}
        for name, event in list(self._receipts.items()):
            if event.transaction_id not in kept and event.published_ms < milliseconds(before):
                del self._receipts[name]
        for reader, letters in self._dead_letters.items():
            self._dead_letters[reader] = [letter for letter in letters if letter.seq > upto]
        return gone

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(
            entries=len(self._entries),
            commits=self._commits,
            waiting=0,
            last_seq=len(self._entries),
        )
