"""One suite for every journal: what holds for the fake holds for the disk."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
import pytest
import trio

from gateway.domain import events
from gateway.domain.event_values import Progress
from gateway.domain.events import ChargePointBooted, ConnectorStatusChanged
from gateway.journal import Checkpoint, DeadLetter, JournaledTransaction
from gateway.journal.group_commit import open_sqlite
from tests.memory_journal import MemoryJournal

from ..fakes import EPOCH

pytestmark = pytest.mark.real_time  # SQLite writes in a thread, which virtual time cannot see


@asynccontextmanager
async def open_memory(_path):
    yield MemoryJournal()


@pytest.fixture(params=[open_memory, open_sqlite], ids=["memory", "sqlite"])
async def journal(request, tmp_path):
    async with request.param(tmp_path / "journal.db") as journal:
        yield journal


def boots(*ids):
    return [ChargePointBooted(charge_point_id=i, received_at=EPOCH, vendor="v") for i in ids]


def start(charge_point_id="CP", **more):
    about = {"connector_id": 1, "id_tag": "TAG", "meter_start": "0", "timestamp": EPOCH}
    return events.TransactionStarted(
        charge_point_id=charge_point_id, received_at=EPOCH, **(about | more)
    )


def settled(tx, receipt_id, **more):
    about = {"timestamp": EPOCH, "version": 1, "connector_id": 1} | more
    return events.TransactionSettled(
        charge_point_id="CP",
        received_at=EPOCH,
        transaction_id=tx,
        started_at=EPOCH,
        progress=Progress(as_of=EPOCH, energy_wh=Decimal(1), duration_s=0, charging_s=0, idle_s=0),
        receipt={"receipt_id": receipt_id, "version": about["version"], "n": Decimal("0.10")},
        **about,
    )


@pytest.mark.parametrize("timestamp", [None, datetime(1970, 1, 1, tzinfo=UTC)])
async def test_a_start_without_a_time_repeats_only_what_is_still_open(journal, timestamp):
    """HC-71, HC-94: of a charge point without a clock, whose register counts from 0 each time."""
    again = start(timestamp=timestamp)

    async def begun():
        ((entry,),) = [await journal.append(again)]
        return entry.event.transaction_id, entry.event.repeated

    first, _ = await begun()
    assert await begun() == (first, True)
    await journal.append(settled(first, "r-1"))
    second, repeated = await begun()
    assert (second > first, repeated) == (True, False)
    assert await begun() == (second, True)
    assert (await journal.transaction(first)).transaction_id == first
    assert [tx.transaction_id for tx in await journal.open_transactions()] == [second]
    await journal.append(settled(second, "r-2"))
    third, repeated = await begun()
    assert (third > second, repeated) == (True, False)


async def test_entries_come_back_whole_and_in_order(journal):
    first = await journal.append(*boots("a", "b"))
    second = await journal.append(
        events.ChargePointDisconnected(charge_point_id="a", received_at=EPOCH, reason="r")
    )
    assert [entry.seq for entry in first + second] == [1, 2, 3]
    assert await journal.read(after=0, limit=10) == first + second
    assert await journal.read(after=1, limit=1) == first[1:]
    assert await journal.read(after=3, limit=10) == ()


async def test_every_kind_of_event_survives(journal):
    """Each class with every field set to something that is not its default."""
    sample = events.Sample("1.50", "c", "f", "m", "p", "l", "u")
    readings = (events.Reading(EPOCH, (sample,)), events.Reading(None, ()))
    progress = Progress(
        as_of=EPOCH, energy_wh=Decimal("10.5"), duration_s=1, charging_s=1, idle_s=0,
        cost_total=Decimal("0.10"), cost_total_minor=10, currency="EUR", flags=("a",),
    )  # fmt: skip
    about = {"charge_point_id": "CP", "received_at": EPOCH, "timestamp": EPOCH - timedelta(hours=1)}
    fact = about | {"transaction_id": 7, "connector_id": 2}
    written = [
        events.ChargePointConnected(**about, remote_address="1.2.3.4:5", security_profile=2),
        events.ConnectorStatusChanged(**about, connector_id=1, status="Ä\0", error_code="E"),
        events.MeterSampled(**about, connector_id=1, transaction_id=-1, readings=readings),
        start(transaction_id=9, repeated=True, defects=("meterStart",)),
        events.TransactionStopped(
            **about, transaction_id=None, meter_stop="1e3", readings=readings, reason="Local"
        ),
        events.TransactionOpened(
            **fact,
            started_at=EPOCH,
            id_tag="T",
            progress=progress,
            tariff={"price": Decimal("0.30"), "n": 1},
            policy={},
            time_zone="UTC",
        ),
        events.TransactionProgressed(**fact, started_at=EPOCH, progress=progress),
        events.MessageOrphaned(**about, message="m", transaction_id=2**63 - 1, content="{}"),
        events.SecurityEventReported(**about, type="t", tech_info=None),
        events.NotAccounted(**about, seq=3, why="w"),
    ]
    appended = await journal.append(*written)
    assert [entry.event for entry in appended] == written
    assert await journal.read(after=0, limit=100) == appended


async def test_a_bookmark_is_kept_with_what_was_appended(journal):
    assert await journal.checkpoint("reader") == Checkpoint("reader")
    await journal.append(*boots("a"), checkpoint=Checkpoint("reader", 1, ((3, 3), (5, 9))))
    assert await journal.checkpoint("reader") == Checkpoint("reader", 1, ((3, 3), (5, 9)))
    await journal.append(checkpoint=Checkpoint("reader", 5))
    assert await journal.checkpoint("reader") == Checkpoint("reader", 5)
    assert len(await journal.read(after=0, limit=10)) == 1


async def test_what_a_reader_gave_up_stays_known(journal):
    await journal.append(
        checkpoint=Checkpoint("reader", 1, dead_letters=(DeadLetter(1, "refused"),))
    )
    await journal.append(checkpoint=Checkpoint("reader", 2))
    assert (await journal.checkpoint("reader")).dead_letters == ()
    assert await journal.dead_letters("reader") == (DeadLetter(1, "refused"),)


async def test_a_retried_start_is_the_same_transaction(journal):
    """Equal connector, id tag, time and register: the same id, under whatever message id."""
    (first,), (again,) = await journal.append(start()), await journal.append(start())
    others = await journal.append(
        start("CP-2"),
        start(connector_id=2),
        start(id_tag="OTHER"),
        start(timestamp=EPOCH + timedelta(seconds=1)),
        start(meter_start="1"),
    )
    assert (first.event.transaction_id, first.event.repeated) == (1, False)
    assert (again.event.transaction_id, again.event.repeated) == (1, True)
    assert [entry.event.transaction_id for entry in others] == [2, 3, 4, 5, 6]
    assert not any(entry.event.repeated for entry in others)


async def test_two_starts_in_one_append_are_kept_apart(journal):
    entries = await journal.append(start(), start(), start(connector_id=2))
    assert [entry.event.transaction_id for entry in entries] == [1, 1, 2]


async def test_a_transaction_is_open_until_it_has_a_receipt(journal):
    await journal.append(*boots("a"))
    (entry,) = await journal.append(start())
    known = JournaledTransaction(1, "CP", entry.seq)
    assert await journal.open_transactions() == (known,)
    await journal.append(settled(1, "r"))
    assert await journal.open_transactions() == ()
    assert await journal.transaction(1) == known
    assert await journal.transaction(2) is None


async def test_each_receipt_has_an_instant_of_its_own(journal):
    """Two cars that stop in the same second must not overwrite each other's row."""
    later = EPOCH + timedelta(hours=1)
    entries = await journal.append(
        settled(1, "a"),
        settled(2, "b"),
        settled(3, "c", timestamp=EPOCH + timedelta(milliseconds=1)),
        settled(1, "a", version=2, timestamp=later),
    )
    first = int(EPOCH.timestamp() * 1000)
    assert [entry.event.published_ms - first for entry in entries] == [0, 1, 2, 0]
    (same,) = await journal.append(settled(2, "b", version=2, timestamp=later))
    assert same.event.published_ms - first == 1


async def test_the_newest_version_of_each_receipt_is_kept(journal):
    await journal.append(settled(1, "a"), settled(2, "b"))
    await journal.append(settled(1, "a", version=2))
    receipts = await journal.receipts()
    assert [(one["receipt_id"], one["version"]) for one in receipts] == [("a", 2), ("b", 1)]


async def test_devices_are_what_the_events_made_of_them(journal):
    about = {"charge_point_id": "CP", "received_at": EPOCH}
    await journal.append(
        events.ChargePointConnected(**about, remote_address="here"),
        ConnectorStatusChanged(**about, connector_id=1, status="Available"),
        ConnectorStatusChanged(**about, connector_id=1, status="Charging"),
        events.MeterSampled(**about, connector_id=2),
        events.ChargePointDisconnected(**about, reason="left"),
    )
    await journal.append(start())
    devices = await journal.devices()
    assert devices.keys() == {"CP", "CP/1", "CP/2"}
    assert (devices["CP"]["connected"], devices["CP"]["reason"]) == (False, "left")
    assert devices["CP/1"]["status"] == "Charging"
    assert devices["CP/2"] == {}


async def test_what_is_reported_anew_of_a_device_replaces_all_that_was_reported_before(journal):
    """A boot without a serial number must not keep the one of the hardware before."""
    about = {"charge_point_id": "CP", "received_at": EPOCH, "vendor": "v"}
    await journal.append(
        ChargePointBooted(**about, serial_number="0042"), ChargePointBooted(**about)
    )
    assert (await journal.devices())["CP"]["charger"] == {"vendor": "v"}


async def test_accounts_are_read_by_charge_point_and_hold_what_matters(journal):
    status = ConnectorStatusChanged(
        charge_point_id="CP", received_at=EPOCH, connector_id=1, status="Charging"
    )
    connected = events.ChargePointConnected(
        charge_point_id="CP", received_at=EPOCH, remote_address="r"
    )
    await journal.append(connected, start(), start("OTHER"), status, status)
    found = await journal.read_account("CP", first=1, last=4)
    assert [entry.seq for entry in found] == [2, 4]


async def test_what_is_durable_is_received_in_order_before_anybody_goes_on(journal):
    received = []
    journal.on_durable = received.extend

    async def append(name):
        (entry,) = await journal.append(*boots(name))
        assert entry in received

    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(append, f"CP-{n}")
    journal.append_soon(*boots("soon"))
    await journal.append(*boots("last"))
    assert [entry.seq for entry in received] == list(range(1, 53))
    assert received == list(await journal.read(after=0, limit=100))


async def test_an_event_that_cannot_be_written_fails_its_own_sender_only(journal):
    good = boots("a")
    bad = attrs.evolve(good[0], vendor=object())
    if isinstance(journal, MemoryJournal):
        return  # memory takes everything
    with pytest.raises(TypeError):
        await journal.append(bad)
    assert len(await journal.append(*good)) == 1


LATER = EPOCH + timedelta(days=1)


async def trimmed(journal, before=LATER, readers=("a", "b"), most=100):
    """How many entries went, and which are left."""
    gone = await journal.trim(before, readers, most)
    return gone, [entry.seq for entry in await journal.read(after=0, limit=100)]


async def save_checkpoints(journal, **places):
    for reader, seq in places.items():
        await journal.append(checkpoint=Checkpoint(reader, seq))


async def test_what_is_old_goes_the_oldest_first_and_the_newest_stays(journal):
    await journal.append(*boots(*"abcdef"))
    await save_checkpoints(journal, a=6, b=6)
    assert await trimmed(journal, most=2) == (2, [3, 4, 5, 6])
    assert await trimmed(journal) == (3, [6])
    assert await trimmed(journal) == (0, [6])
    (entry,) = await journal.append(*boots("g"))
    assert entry.seq == 7


async def test_what_is_young_stays(journal):
    young = attrs.evolve(boots("b")[0], received_at=EPOCH + timedelta(days=2))
    await journal.append(*boots("a"), young, young)
    await save_checkpoints(journal, a=3, b=3)
    assert await trimmed(journal, before=EPOCH) == (0, [1, 2, 3])
    assert await trimmed(journal, most=1) == (1, [2, 3])
    assert await trimmed(journal) == (0, [2, 3])


async def test_what_a_reader_has_not_dealt_with_stays(journal):
    await journal.append(*boots(*"abcdef"))
    assert (await trimmed(journal))[0] == 0
    await save_checkpoints(journal, a=5)
    assert (await trimmed(journal))[0] == 0
    await journal.append(checkpoint=Checkpoint("b", 2, ahead=((4, 6),)))
    assert await trimmed(journal) == (2, [3, 4, 5, 6])


async def test_what_an_open_transaction_rests_on_stays(journal):
    """A restart reads it again from its start."""
    await journal.append(*boots("a"), start(), *boots(*"bcd"))
    await save_checkpoints(journal, a=5, b=5)
    assert await trimmed(journal) == (1, [2, 3, 4, 5])
    await journal.append(settled(1, "r"), *boots("e"))
    await save_checkpoints(journal, a=7, b=7)
    assert await trimmed(journal) == (5, [7])
    assert await journal.transaction(1) is None


async def test_a_receipt_goes_with_its_transaction_but_not_before_its_own_time(journal):
    new = settled(2, "new", published_ms=int(LATER.timestamp() * 1000) + 1)
    await journal.append(start(), start(connector_id=2), settled(1, "old"), new, *boots(*"ab"))
    await save_checkpoints(journal, a=6, b=6)
    await journal.trim(LATER, ("a", "b"), 3)
    assert [receipt["receipt_id"] for receipt in await journal.receipts()] == ["new"]
    await journal.trim(LATER, ("a", "b"), 3)
    assert [receipt["receipt_id"] for receipt in await journal.receipts()] == ["new"]
    assert await journal.transaction(2) is None


async def test_ids_go_on_after_a_trim(journal):
    await journal.append(start(), settled(1, "r"), *boots("a"))
    await save_checkpoints(journal, a=3, b=3)
    assert (await trimmed(journal))[0] == 2
    (again,) = await journal.append(start())
    assert (again.event.transaction_id, again.event.repeated) == (2, False)


async def test_what_was_given_up_is_forgotten_with_its_entry(journal):
    await journal.append(*boots(*"abc"))
    await journal.append(
        checkpoint=Checkpoint("a", 3, dead_letters=(DeadLetter(1, "refused"), DeadLetter(3, "r")))
    )
    await trimmed(journal, readers=("a",))
    assert await journal.dead_letters("a") == (DeadLetter(3, "r"),)
