"""The journal on SQLite: the statements, one commit for all that has gathered.

WAL with `synchronous = FULL`: a commit that returned survives a power cut.  All writing is
done by one thread (`group_commit`), all reading on a connection of its own, so that neither
waits for the other.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import attrs

from ..domain.clock import milliseconds
from ..domain.events import ACCOUNTED, Event, TransactionSettled, TransactionStarted
from ..domain.fleet import patches
from ..domain.json_codec import decode_exact, encode_text
from . import Checkpoint, DeadLetter, Entry, JournaledTransaction, JournalError
from .codec import dump, load
from .rules import is_retry, receipt_key, retired, start_key
from .sqlite_file import (
    SCHEMA_VERSION,
    check_sound,
    check_version,
    connect,
    locked,
    migrate,
    store_error,
)


@attrs.define(eq=False)
class Append:
    """One request to append, and what came of it.

    bodies: each event as (kind, JSON), encoded by the caller, so that an event which cannot
        be written fails its own append and no other.
    """

    events: tuple[Event, ...]
    bodies: list[tuple[str, str]]
    checkpoint: Checkpoint | None
    entries: tuple[Entry, ...] = ()


@attrs.define(eq=False)
class SqliteStore:
    """Owns both connections and the lock that keeps a second gateway away."""

    path: Path
    _writer: sqlite3.Connection
    _reader: sqlite3.Connection
    _lock: TextIO
    last_seq: int
    _known: set[str]

    @classmethod
    def open(cls, path: Path) -> SqliteStore:
        """Raises JournalError, with what to do about it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = locked(path)
        except OSError as exc:
            raise JournalError(f"{path}: cannot be opened for writing: {exc.strerror}") from exc
        opened: list[sqlite3.Connection] = []
        try:
            writer = connect(path, opened)
            migrate(writer, path)
            check_sound(writer, path)
            # Says what the version is already; a store that cannot be written fails now.
            writer.execute(f"pragma user_version = {SCHEMA_VERSION}")
            reader = connect(path, opened)
            (last,) = writer.execute("select coalesce(max(seq), 0) from entry").fetchone()
            known = {name for (name,) in writer.execute("select name from device")}
        except BaseException as exc:
            for connection in opened:
                connection.close()
            lock.close()
            if isinstance(exc, sqlite3.Error):
                raise store_error(exc, path) from exc  # noqa: ASYNC104  an error of the store
            raise
        return cls(path, writer, reader, lock, last, known)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
        self._lock.close()

    # --- writing: the writer thread only ---------------------------------------------------

    def commit(self, appends: Sequence[Append]) -> None:
        """Make all of it durable, or nothing: then JournalError.  Fills in each one's entries."""
        db, seq = self._writer, self.last_seq
        try:
            db.execute("begin immediate")
            try:
                rows: list[tuple[int, str, str | None, str]] = []
                for append in appends:
                    seq = self._number(append, seq, rows)
                    if append.checkpoint is not None:
                        _save_checkpoint(db, append.checkpoint)
                db.executemany("insert into entry values (?, ?, ?, ?)", rows)
                db.execute("commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("rollback")
                self._known = {name for (name,) in db.execute("select name from device")}
                raise
        except sqlite3.Error as exc:
            raise store_error(exc, self.path) from exc
        self.last_seq = seq

    def _number(
        self, append: Append, seq: int, rows: list[tuple[int, str, str | None, str]]
    ) -> int:
        entries = []
        for given, (kind, dumped) in zip(append.events, append.bodies, strict=True):
            seq += 1
            event, body = given, dumped
            match event:
                case TransactionStarted(transaction_id=0):
                    event = _with_transaction_id(self._writer, event, seq)
                    body = dump(event)[1]
                case TransactionSettled():
                    event = _with_published_ms(self._writer, event, seq)
                    body = dump(event)[1]
            self._remember_devices(event)
            account = event.charge_point_id if isinstance(event, ACCOUNTED) else None
            rows.append((seq, kind, account, body))
            entries.append(Entry(seq, event))
        append.entries = tuple(entries)
        return seq

    def _remember_devices(self, event: Event) -> None:
        for name, patch in patches(event):
            if patch or name not in self._known:
                self._known.add(name)
                # Key by key: json_patch would keep what is inside of a value that is replaced.
                keys = ", ".join(f"'$.{key}', json(?)" for key in patch)
                values = [encode_text(value) for value in patch.values()]
                insert = "insert into device values (?, json_object()) on conflict do nothing"
                self._writer.execute(insert, (name,))
                if patch:
                    update = f"update device set state = json_set(state, {keys}) where name = ?"  # noqa: S608
                    self._writer.execute(update, (*values, name))

    def trim(self, before: datetime, readers: Sequence[str], limit: int) -> int:
        """See `Journal.trim`.  Rows that go leave room in the file for those that come."""
        db = self._writer
        try:
            upto = self._last_unneeded(readers, limit)
            found = db.execute("select kind, body from entry where seq = ?", (upto,)).fetchone()
            if found is None or load(*found).received_at >= before:
                return 0
            db.execute("begin immediate")
            try:
                gone = db.execute("delete from entry where seq <= ?", (upto,)).rowcount
                db.execute("delete from aside where seq <= ?", (upto,))
                db.execute("delete from tx where settled between 1 and ?", (upto,))
                db.execute(
                    "delete from receipt where published_ms < ? and tx not in (select id from tx)",
                    (milliseconds(before),),
                )
                db.execute("commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("rollback")
                raise
        except sqlite3.Error as exc:
            raise store_error(exc, self.path) from exc
        return gone

    def _last_unneeded(self, readers: Sequence[str], limit: int) -> int:
        """The last of the oldest `limit` entries, or an earlier one where others are needed yet.

        The newest entry stays in any case: entries are numbered on from it.
        """
        sql = (
            "select min(first + ? - 1, last - 1, (select coalesce(min(seq) - 1, last) from tx"
            " where settled = 0)) from (select min(seq) as first, max(seq) as last from entry)"
        )
        (upto,) = self._writer.execute(sql, (limit,)).fetchone()
        places: dict[str, int] = dict(self._writer.execute("select reader, seq from bookmark"))
        return min(int(upto or 0), *(places.get(reader, 0) for reader in readers))

    # --- reading: one thread at a time -----------------------------------------------------

    def read(self, after: int, limit: int) -> tuple[Entry, ...]:
        sql = "select seq, kind, body from entry where seq > ? order by seq limit ?"
        return self._entries(sql, (after, limit))

    def read_account(self, charge_point_id: str, first: int, last: int) -> tuple[Entry, ...]:
        sql = (
            "select seq, kind, body from entry"
            " where account = ? and seq between ? and ? order by seq"
        )
        return self._entries(sql, (charge_point_id, first, last))

    def checkpoint(self, reader: str) -> Checkpoint:
        rows = self._rows("select seq, ahead from bookmark where reader = ?", (reader,))
        for seq, ahead in rows:
            return Checkpoint(
                reader, seq, tuple((first, last) for first, last in decode_exact(ahead))
            )
        return Checkpoint(reader)

    def dead_letters(self, reader: str) -> tuple[DeadLetter, ...]:
        rows = self._rows("select seq, why from aside where reader = ? order by seq", (reader,))
        return tuple(DeadLetter(seq, why) for seq, why in rows)

    def open_transactions(self) -> tuple[JournaledTransaction, ...]:
        rows = self._rows("select id, charge_point, seq from tx where settled = 0 order by id")
        return tuple(JournaledTransaction(*row) for row in rows)

    def transaction(self, transaction_id: int) -> JournaledTransaction | None:
        sql = "select id, charge_point, seq from tx where id = ?"
        for row in self._rows(sql, (transaction_id,)):
            return JournaledTransaction(*row)
        return None

    def devices(self) -> Mapping[str, Mapping[str, Any]]:
        rows = self._rows("select name, state from device")
        return {name: decode_exact(state) for name, state in rows}

    def receipts(self) -> tuple[Mapping[str, Any], ...]:
        rows = self._rows(
            "select body, max(version) from receipt group by receipt_id order by published_ms"
        )
        return tuple(decode_exact(body) for body, _ in rows)

    def receipt_versions(self) -> tuple[Mapping[str, Any], ...]:
        """Every version of every receipt, those of a session one after the other."""
        rows = self._rows("select body from receipt order by published_ms, receipt_id, version")
        return tuple(decode_exact(body) for (body,) in rows)

    def _entries(self, sql: str, given: tuple[Any, ...]) -> tuple[Entry, ...]:
        return tuple(Entry(seq, load(kind, body)) for seq, kind, body in self._rows(sql, given))

    def _rows(self, sql: str, given: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._reader.execute(sql, given).fetchall()
        except sqlite3.Error as exc:
            raise store_error(exc, self.path) from exc


@contextmanager
def open_read_only(path: Path) -> Iterator[SqliteStore]:
    """The store of a gateway that may be running, for reading only.  Raises JournalError."""
    if not path.exists():
        raise JournalError(f"{path}: there is no such store; has the gateway ever run?")
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with closing(db), open(os.devnull) as nothing:
            check_version(db, path)
            yield SqliteStore(path, db, db, nothing, 0, set())
    except sqlite3.Error as exc:
        raise store_error(exc, path) from exc


def _save_checkpoint(db: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    db.execute(
        "insert into bookmark values (?, ?, ?) on conflict (reader)"
        " do update set seq = excluded.seq, ahead = excluded.ahead",
        (checkpoint.reader, checkpoint.seq, encode_text(checkpoint.ahead)),
    )
    db.executemany(
        "insert or replace into aside values (?, ?, ?)",
        [(checkpoint.reader, letter.seq, letter.why) for letter in checkpoint.dead_letters],
    )


def _with_transaction_id(
    db: sqlite3.Connection, event: TransactionStarted, seq: int
) -> TransactionStarted:
    key = start_key(event)
    where = "(charge_point, connector, id_tag, started, meter_start) = (?, ?, ?, ?, ?)"
    found = db.execute(f"select id, settled from tx where {where}", key).fetchone()  # noqa: S608
    if found is not None:
        known, over = found
        if is_retry(event, settled=bool(over)):
            return attrs.evolve(event, transaction_id=known, repeated=True)
        _, _, _, started, _ = retired(key, known)
        db.execute("update tx set started = ? where id = ?", (started, known))
    given = db.execute(
        "insert into tx (charge_point, connector, id_tag, started, meter_start, seq)"
        " values (?, ?, ?, ?, ?, ?)",
        (*key, seq),
    ).lastrowid
    assert given is not None  # noqa: S101  an insert has a row id
    return attrs.evolve(event, transaction_id=given)


def _with_published_ms(
    db: sqlite3.Connection, event: TransactionSettled, seq: int
) -> TransactionSettled:
    key = receipt_key(event)
    found = db.execute("select published_ms from receipt where receipt_id = ?", (key,)).fetchone()
    if found is not None:
        (published_ms,) = found
    else:
        published_ms = event.published_ms or milliseconds(event.at)
        taken = "select 1 from receipt where published_ms = ?"
        while db.execute(taken, (published_ms,)).fetchone():
            published_ms += 1
    event = attrs.evolve(event, published_ms=published_ms)
    db.execute(
        "insert or replace into receipt values (?, ?, ?, ?, ?)",
        (key, event.version, published_ms, encode_text(event.receipt), event.transaction_id),
    )
    db.execute("update tx set settled = ? where id = ?", (seq, event.transaction_id))
    return event
