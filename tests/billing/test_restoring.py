"""The ledger after a restart, and older transactions that it restores from the journal."""

from __future__ import annotations

from gateway.billing.ledger import Ledger
from gateway.tariffs.tariff import TariffBook

from .builders import (
    CP,
    PER_KWH,
    TIME_AND_PARKING,
    ChargePoint,
    at,
    given_up,
    receipt,
    tariff_book,
    ticked,
)

BOOK = tariff_book(PER_KWH)

NEXT = ChargePoint(transaction_id=2)


def test_a_tick_after_a_restart_tells_what_it_would_have_told():
    ledger, reborn = Ledger(tariff_book(TIME_AND_PARKING)), Ledger(TariffBook.empty())
    for event in (CP.start("0"), CP.meter(5, "500"), CP.status(10, "SuspendedEV")):
        for entry in (event, *ledger.post(event)):
            reborn.restore(entry)
    assert ticked(reborn, 30) == ticked(ledger, 30) != ()


def test_a_status_before_the_start_outlives_a_restart():
    """Who restores begins to read at the start of the transaction."""
    ledger = Ledger(tariff_book(TIME_AND_PARKING))
    ledger.post(CP.status(-1, "SuspendedEV"))
    facts = ledger.post(CP.start("0"))
    reborn = Ledger(TariffBook.empty())
    for event in (CP.start("0"), *facts):
        reborn.restore(event)
    assert reborn.post(CP.stop(60, "0")) == ledger.post(CP.stop(60, "0"))


def test_an_older_transaction_is_restored_and_adopted():
    """The stop of 1 comes when 2 has already ended on the same connector."""
    history = [CP.start("1000"), CP.meter(30, "4000"), NEXT.start("6000", minutes=90)]
    ledger = Ledger(BOOK)
    journal = []
    for event in [*history, NEXT.stop(120, "7000")]:
        journal += [event, *ledger.post(event)]
    late = CP.stop(80, "6000", received_at=at(130))
    assert ledger.session(1) is None
    assert ledger.missing_transaction(late) == 1
    scratch = Ledger(BOOK)
    for event in journal:
        scratch.restore(event)
    ledger.adopt(scratch, 1)
    assert ledger.missing_transaction(late) is None
    (corrected,) = ledger.post(late)
    assert (corrected.version, corrected.receipt["energy_wh"]) == (2, "5000")
    assert ledger.session(2).closed


def test_only_what_may_have_been_a_transaction_is_lacking():
    ledger = Ledger(BOOK)
    assert ledger.missing_transaction(CP.meter(1, "1", transaction_id=-1)) is None
    assert ledger.missing_transaction(CP.meter(1, "1", transaction_id=2**63 - 1)) is None
    assert ledger.missing_transaction(CP.meter(1, "1", transaction_id=None)) is None
    assert ledger.missing_transaction(CP.meter(1, "1", transaction_id=5)) == 5
    assert ledger.missing_transaction(CP.start("1")) is None
    assert ledger.missing_transaction(CP.start("1", repeated=True)) == 1
    assert ledger.missing_transaction(CP.unplugged(1)) == 1
    assert ledger.missing_transaction(CP.status(1, "Charging")) is None
    ledger.post(CP.start("1"))
    assert ledger.missing_transaction(CP.start("1", repeated=True)) is None


def test_an_adopted_transaction_makes_room_for_the_next():
    ledger, scratch = Ledger(BOOK), Ledger(BOOK)
    for number in range(1, 5):
        point = ChargePoint(transaction_id=number)
        for event in (point.start("0", minutes=number), point.stop(number + 0.5, "10")):
            ledger.post(event)
            scratch.restore(event)
    for number in (1, 2, 3):
        ledger.adopt(scratch, number)
        assert [held for held in range(1, 5) if ledger.session(held)] == [number, 4]
    ledger.adopt(scratch, 4)
    ledger.post(NEXT.stop(2, "11"))
    assert [held for held in range(1, 5) if ledger.session(held)] == [3, 4]


def test_an_open_transaction_can_be_adopted():
    ledger, scratch = Ledger(BOOK), Ledger(BOOK)
    scratch.restore(CP.start("0"))
    ledger.adopt(scratch, 1)
    assert ledger.open_transactions() == scratch.open_transactions()


def test_adopting_what_the_other_lacks_too_changes_nothing():
    ledger = Ledger(BOOK)
    ledger.adopt(Ledger(BOOK), 5)
    assert ledger.session(5) is None


def test_the_ledger_holds_one_closed_transaction_of_a_connector():
    ledger = Ledger(BOOK)
    for number in range(1, 30):
        point = ChargePoint(transaction_id=number)
        ledger.post(point.start("0", minutes=number))
        ledger.post(point.stop(number + 0.5, "10"))
    assert [number for number in range(30) if ledger.session(number)] == [29]


def restored(*entries):
    ledger = Ledger(TariffBook.empty())
    for entry in entries:
        ledger.restore(entry)
    return ledger


def test_what_an_operator_closed_stays_closed_after_a_restart():
    ledger = Ledger(BOOK)
    journal = []
    for event in (CP.start("1000"), CP.meter(30, "4000")):
        journal += [event, *ledger.post(event)]
    journal += ledger.post(given_up(1, at(5000)))
    reborn = restored(*journal)
    assert reborn.open_transactions() == []
    late = CP.stop(60, "6000", received_at=at(5001))
    assert reborn.post(late) == ledger.post(late)


def test_a_session_without_a_price_has_none_after_a_restart():
    prices = tariff_book(PER_KWH | {"end_date_time": "2020-01-01T00:00:00Z"})
    ledger = Ledger(prices)
    facts = ledger.post(CP.start("1000"))
    reborn = restored(CP.start("1000"), *facts)
    reborn.tariff_book = BOOK
    assert reborn.post(CP.stop(60, "2000")) == ledger.post(CP.stop(60, "2000"))


def test_facts_about_what_is_not_held_restore_nothing():
    ledger = Ledger(BOOK)
    opened = ledger.post(CP.start("1000"))
    settled = ledger.post(CP.stop(60, "2000"))
    assert restored(*opened, *settled, CP.status(1, "Charging")).session(1) is None


def test_facts_may_follow_the_events_of_many_transactions():
    """The accountant tells them in batches, after all of a batch's events."""
    events = [CP.start("1000"), CP.meter(30, "4000"), NEXT.start("6000", minutes=90),
              CP.stop(80, "6000", received_at=at(95))]  # fmt: skip
    ledger = Ledger(BOOK)
    facts = [fact for event in events for fact in ledger.post(event)]
    reborn = restored(*events, *facts)
    assert [reborn.session(number).version for number in (1, 2)] == [2, 0]
    assert reborn.post(NEXT.stop(120, "9000")) == ledger.post(NEXT.stop(120, "9000"))


def test_a_start_that_only_the_journal_remembers_is_opened_all_the_same():
    found = receipt(BOOK, CP.start("1000", repeated=True), CP.stop(60, "2000"))
    assert found["flags"] == ["duplicate_start"]
    assert found["total_incl_vat"] == "0.30"
