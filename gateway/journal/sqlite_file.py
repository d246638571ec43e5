"""The file of a store: its schema, whose it is, and whether it is sound."""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path
from typing import TextIO

from . import JournalError

STEPS = (  # of the schema; a store has taken as many of them as its user_version says
    """
create table entry (seq integer primary key, kind text not null, account text, body text not null);
create index entry_account on entry (account, seq) where account is not null;
create table bookmark (reader text primary key, seq integer not null, ahead text not null);
create table aside (reader text, seq integer, why text not null, primary key (reader, seq));
create table tx (
    id integer primary key autoincrement,  -- autoincrement: an id is never given twice
    charge_point text not null, connector integer not null, id_tag text not null,
    started text not null, meter_start text not null,
    seq integer not null, settled integer not null default 0,
    unique (charge_point, connector, id_tag, started, meter_start));
create index tx_open on tx (id) where settled = 0;
create table receipt (
    receipt_id text, version integer, published_ms integer not null, body text not null,
    primary key (receipt_id, version));
create index receipt_published on receipt (published_ms);
create table device (name text primary key, state text not null);
""",
    # A receipt knows its transaction, and a settled transaction the entry that settled it.
    """
alter table receipt add column tx integer;
update receipt set tx = json_extract(body, '$.transaction_id');
create index receipt_tx on receipt (tx);
update tx set settled = seq where settled = 1;
""",
)
SCHEMA_VERSION = len(STEPS)

_RESTORE = "restore a backup, or move the file away to begin anew"
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program has held it for a minute; let only the gateway write it",
    sqlite3.SQLITE_CORRUPT: _RESTORE,
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_IOERR: "the disk may be full or broken",
    sqlite3.SQLITE_NOTADB: _RESTORE,
    sqlite3.SQLITE_READONLY: "let the gateway write this file and its folder",
}
_CHECKED_WHOLE = 64 * 2**20  # bytes; a larger store would keep chargers waiting at each start
_SMALL_TABLES = ("bookmark", "aside", "tx", "device")


def store_error(exc: sqlite3.Error, path: Path) -> JournalError:
    """A fault of the store in an operator's words, with what to do about it."""
    advice = _ADVICE.get(getattr(exc, "sqlite_errorcode", 0) & 0xFF)
    return JournalError(f"{path}: {exc}" + (f"; {advice}" if advice else ""))


def locked(path: Path) -> TextIO:
    """What keeps a second gateway away while it is open.  Raises JournalError, OSError."""
    lock = open(path.with_name(path.name + ".lock"), "w")  # noqa: SIM115  held while the store is open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise JournalError(
            f"{path}: another gateway is using this store; stop it, or give this one its own"
        ) from None
    return lock


def connect(path: Path, opened: list[sqlite3.Connection]) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    opened.append(db)
    db.executescript(
        "pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 60000;"
    )
    return db


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring a new store, or one of an older gateway, to this schema.  Raises JournalError."""
    (version,) = db.execute("pragma user_version").fetchone()
    for taken, step in enumerate(STEPS[version:], version + 1):
        db.executescript(f"begin; {step} pragma user_version = {taken}; commit;")
    check_version(db, path)


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """Raises JournalError for a store of another schema."""
    (version,) = db.execute("pragma user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: written by a newer gateway (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); install that version again, or give this one its own store"
        )
    if version < SCHEMA_VERSION:
        raise JournalError(
            f"{path}: written by an older gateway (schema {version}); start this one once to"
            " bring it up to date"
        )


def check_sound(db: sqlite3.Connection, path: Path) -> None:
    """Tell of damage at the start, before anything is added to it.

    Of a large store only the tables that decide about sessions are looked through.
    """
    whole = path.stat().st_size <= _CHECKED_WHOLE
    checks = ["quick_check(1)"] if whole else [f"quick_check({name})" for name in _SMALL_TABLES]
    for check in checks:
        (found,) = db.execute(f"pragma {check}").fetchone()
        if found != "ok":
            why = found.splitlines()[-1]
            raise JournalError(f"{path}: damaged: {why}; {_RESTORE}")
