"""What only a disk can do wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import trio

from gateway.journal import Checkpoint, JournalError, sqlite_file
from gateway.journal.group_commit import open_sqlite
from gateway.journal.sqlite import SqliteStore, open_read_only
from gateway.journal.sqlite_file import STEPS

from .test_contract import LATER, boots, settled, start

pytestmark = pytest.mark.real_time


async def test_a_restart_goes_on_where_it_was(tmp_path):
    path = tmp_path / "deep" / "journal.db"
    async with open_sqlite(path) as journal:
        await journal.append(*boots("a"), start(), checkpoint=Checkpoint("r", 1))
    async with open_sqlite(path) as journal:
        (again,) = await journal.append(start())
        (new,) = await journal.append(start(connector_id=2))
        assert (again.seq, again.event.transaction_id, again.event.repeated) == (3, 1, True)
        assert (new.seq, new.event.transaction_id) == (4, 2)
        assert (await journal.checkpoint("r")).seq == 1


async def test_an_id_is_never_given_twice_even_when_its_row_is_gone(tmp_path):
    path = tmp_path / "journal.db"
    async with open_sqlite(path) as journal:
        await journal.append(start(), start(connector_id=2))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("delete from tx")
    async with open_sqlite(path) as journal:
        (entry,) = await journal.append(start(connector_id=3))
        assert entry.event.transaction_id == 3


async def test_many_appends_share_a_commit(tmp_path):
    async with open_sqlite(tmp_path / "journal.db") as journal:
        async with trio.open_nursery() as nursery:
            for n in range(500):
                nursery.start_soon(journal.append, *boots(str(n)))
        statistics = journal.statistics()
        assert statistics.entries == 500
        assert statistics.commits < 100


async def test_what_was_appended_is_written_though_its_sender_was_cancelled(tmp_path):
    path = tmp_path / "journal.db"
    async with open_sqlite(path) as journal:
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.append(*boots("a"))
        journal.append_soon(*boots("b"))
    async with open_sqlite(path) as journal:
        entries = await journal.read(after=0, limit=10)
        assert [entry.event.charge_point_id for entry in entries] == ["a", "b"]


async def test_a_store_that_fails_acknowledges_nothing_from_then_on(tmp_path, monkeypatch):
    """A full disk: who waits hears of it, and nothing is written after the gap."""
    commit = SqliteStore.commit

    def full(self, appends):
        if any(event.charge_point_id == "b" for append in appends for event in append.events):
            self._writer.execute("pragma max_page_count = 1")
        commit(self, appends)

    monkeypatch.setattr(SqliteStore, "commit", full)
    path = tmp_path / "journal.db"
    async with open_sqlite(path) as journal:
        await journal.append(*boots("a"))
        with pytest.raises(JournalError, match="full"):
            await journal.append(*boots("b") * 1_000)
        with pytest.raises(JournalError, match="full"):
            await journal.append(*boots("c"))
        assert "full" in journal.statistics().failure
    monkeypatch.setattr(SqliteStore, "commit", commit)
    async with open_sqlite(path) as journal:
        assert [e.event.charge_point_id for e in await journal.read(after=0, limit=9)] == ["a"]


async def test_a_second_gateway_on_the_same_store_is_refused(tmp_path):
    async with open_sqlite(tmp_path / "journal.db"):
        with pytest.raises(JournalError, match="another gateway"):
            async with open_sqlite(tmp_path / "journal.db"):
                pass


async def test_a_store_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("pragma user_version = 99")
    with pytest.raises(JournalError, match="newer gateway"):
        async with open_sqlite(path):
            pass


async def test_a_file_that_is_no_database_is_reported_and_left_alone(tmp_path):
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, but somebody's file" * 100)
    with pytest.raises(JournalError, match="not a database"):
        async with open_sqlite(path):
            pass
    assert path.read_bytes().startswith(b"not a database")


async def test_the_store_can_be_read_beside_a_gateway_that_runs(tmp_path):
    path = tmp_path / "journal.db"
    async with open_sqlite(path) as journal:
        await journal.append(start(), settled(1, "r"))
        with open_read_only(path) as store:
            assert [one["receipt_id"] for one in store.receipts()] == ["r"]


def test_reading_a_store_that_is_not_there_says_so(tmp_path):
    with pytest.raises(JournalError, match="no such store"), open_read_only(tmp_path / "none.db"):
        pass


async def test_a_store_of_an_older_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(STEPS[0])
        db.execute("pragma user_version = 1")
        db.execute("insert into tx values (7, 'CP', 1, 'TAG', '', '0', 3, 1)")
        db.execute("""insert into receipt values ('r', 1, 5, '{"transaction_id":7}')""")
    with pytest.raises(JournalError, match="older gateway"), open_read_only(path):
        pass
    async with open_sqlite(path) as journal:
        assert await journal.receipts() == ({"transaction_id": 7},)
        (entry,) = await journal.append(start(connector_id=2))
        assert entry.event.transaction_id == 8
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select tx from receipt").fetchall() == [(7,)]
        assert db.execute("select settled from tx where id = 7").fetchone() == (3,)


async def test_a_trim_holds_up_nobody_who_appends(tmp_path):
    async with open_sqlite(tmp_path / "journal.db") as journal:
        await journal.append(*boots("a") * 10_000, checkpoint=Checkpoint("r", 10_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.trim, LATER, ("r",), 9_000)
            await journal.append(*boots("b"))
        assert [entry.seq for entry in await journal.read(after=0, limit=1)] == [9_001]


async def test_of_a_large_store_what_decides_about_sessions_is_looked_through(
    tmp_path, monkeypatch
):
    """HC-136: all of it would keep charge points waiting, on a slow disk for minutes."""
    path = tmp_path / "journal.db"
    monkeypatch.setattr(sqlite_file, "_CHECKED_WHOLE", 0)
    async with open_sqlite(path) as journal:
        await journal.append(*[start(connector_id=number) for number in range(300)])
    async with open_sqlite(path) as journal:
        assert journal.statistics().last_seq == 300
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("select rootpage from sqlite_master where name = 'tx'").fetchone()
        (size,) = db.execute("pragma page_size").fetchone()
    data = bytearray(path.read_bytes())
    data[(root - 1) * size : root * size] = bytes([0xA5]) * size
    path.write_bytes(data)
    with pytest.raises(JournalError, match="restore a backup, or move the file away"):
        SqliteStore.open(path)
    assert path.read_bytes() == data
