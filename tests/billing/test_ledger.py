"""The ledger: which message belongs to which transaction, and what is told of it."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest

from gateway.billing.ledger import Ledger
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import (
    ACCOUNTED,
    HeartbeatReceived,
    MessageOrphaned,
    TransactionClosed,
    TransactionOpened,
    TransactionProgressed,
    TransactionSettled,
)
from gateway.tariffs.tariff import TariffBook

from .builders import (
    CP,
    LIVE,
    PER_KWH,
    TIME_AND_PARKING,
    ChargePoint,
    at,
    component,
    element,
    posted,
    progress,
    receipt,
    tariff,
    tariff_book,
)

BOOK = tariff_book(PER_KWH)
NEXT = ChargePoint(transaction_id=2)
OTHER = ChargePoint("CP-2", transaction_id=7)
PARKING = tariff_book(
    tariff(element(component("ENERGY", "0.30"), component("PARKING_TIME", "6"))),
    post_stop_parking=True,
)


def given_up(transaction_id, received_at):
    return TransactionClosed(
        charge_point_id=CP.name,
        received_at=received_at,
        transaction_id=transaction_id,
        connector_id=1,
        reason="Operator",
    )


def kinds(facts):
    return [type(fact) for fact in facts]


def test_a_session_is_told_from_its_start_to_its_receipt():
    facts = posted(BOOK, CP.start("1000"), CP.meter(30, "5000"), CP.stop(60, "11000"))
    assert kinds(facts) == [TransactionOpened, TransactionProgressed, TransactionSettled]
    opened, half_way, settled = facts
    assert (opened.started_at, opened.timestamp, opened.received_at) == (at(0), at(0), at(0))
    assert half_way.progress.cost_total == Decimal("1.20")
    assert half_way.progress.meter_wh == 5000
    assert settled.timestamp == at(60)
    assert settled.receipt["total_incl_vat"] == "3.00"
    assert settled.progress.cost_total == Decimal("3.00")


def test_the_running_cost_at_the_end_is_the_receipt():
    facts = posted(
        tariff_book(LIVE),
        CP.start("0"),
        CP.meter(30, "6000"),
        CP.status(40, "SuspendedEV"),
        CP.meter(60, "8000"),
        CP.stop(60, "8000"),
    )
    assert facts[-2].progress.cost_total == facts[-1].progress.cost_total == Decimal("7.38")
    told = facts[-1].progress
    assert (told.cost_fixed, told.cost_energy) == (Decimal("0.61"), Decimal("4.36"))
    assert (told.cost_time, told.cost_idle) == (Decimal("0.00"), Decimal("2.42"))
    assert (told.cost_total_minor, told.currency) == (738, "EUR")


def test_prices_are_those_that_hold_now():
    facts = posted(tariff_book(LIVE), CP.start("0"), CP.meter(29, "6000"))
    assert progress(facts).progress.price_kwh == Decimal("0.484")
    facts = posted(tariff_book(LIVE), CP.start("0"), CP.meter(30, "6000"))
    assert progress(facts).progress.price_kwh == Decimal("0.726")
    assert progress(facts).progress.price_idle_min == Decimal("0.121")
    assert progress(facts).progress.price_min is None


def test_without_prices_there_is_energy_and_no_money():
    settled = posted(TariffBook.empty(), CP.start("1000"), CP.stop(60, "11000"))[-1]
    assert settled.progress.energy_wh == 10000
    assert settled.progress.cost_total is settled.progress.price_kwh is None
    assert settled.receipt["total_incl_vat"] is settled.receipt["tariff"] is None
    assert settled.receipt["flags"] == []


def test_a_session_that_no_tariff_is_valid_for_is_flagged_not_free():
    prices = tariff_book(PER_KWH | {"end_date_time": "2020-01-01T00:00:00Z"})
    found = receipt(prices, CP.start("1000"), CP.stop(60, "11000"))
    assert found["total_incl_vat"] is None
    assert found["flags"] == ["needs_review", "no_tariff"]


def test_a_retried_start_is_the_same_transaction():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    assert ledger.post(CP.start("1000", repeated=True)) == ()
    (settled,) = ledger.post(CP.stop(60, "2000"))
    assert settled.receipt["flags"] == ["duplicate_start"]
    assert ledger.post(CP.start("1000", repeated=True)) == ()
    assert ledger.open_transactions() == []


def test_a_repeated_stop_changes_nothing():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    assert len(ledger.post(CP.stop(60, "2000"))) == 1
    assert ledger.post(CP.stop(60, "2000", received_at=at(70))) == ()
    assert "duplicate_stop" in ledger.session(1).flags


def test_a_second_stop_that_says_something_else_is_shown_but_not_billed():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    (first,) = ledger.post(CP.stop(60, "2000"))
    (second,) = ledger.post(CP.stop(60, "9000"))
    assert second.version == second.receipt["version"] == 2
    assert second.receipt["total_incl_vat"] == first.receipt["total_incl_vat"]
    assert second.receipt["receipt_id"] == first.receipt["receipt_id"]
    assert second.receipt["flags"] == ["duplicate_stop"]
    assert ledger.post(CP.stop(60, "9000")) == ()


def test_a_start_over_an_open_one_settles_the_old_one_at_its_last_reading():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    ledger.post(CP.meter(30, "4000"))
    settled, opened = ledger.post(NEXT.start("4000", minutes=90))
    assert kinds((settled, opened)) == [TransactionSettled, TransactionOpened]
    assert (settled.transaction_id, opened.transaction_id) == (1, 2)
    assert settled.timestamp == at(30)
    assert settled.received_at == at(90)
    assert settled.receipt["duration_s"] == 1800
    assert settled.receipt["stop_reason"] == "Inferred"
    assert settled.receipt["flags"] == ["needs_review", "stop_inferred"]


def test_an_old_one_without_any_reading_bills_no_energy():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    settled, _ = ledger.post(NEXT.start("4000", minutes=90))
    assert settled.receipt["energy_wh"] == "0"
    assert "energy_unknown" in settled.receipt["flags"]


def test_a_stop_that_comes_after_all_corrects_the_receipt():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    ledger.post(CP.meter(30, "4000"))
    first, _ = ledger.post(NEXT.start("6000", minutes=90))
    (second,) = ledger.post(CP.stop(80, "6000", received_at=at(95)))
    assert (second.version, second.receipt["version"]) == (2, 2)
    assert second.receipt["receipt_id"] == first.receipt["receipt_id"]
    assert second.receipt["energy_wh"] == "5000"
    assert second.receipt["stop_reason"] == "Local"
    assert second.receipt["flags"] == ["stop_late"]
    assert [open_.transaction_id for open_ in ledger.open_transactions()] == [2]


def test_an_operator_can_close_what_nobody_ends():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    ledger.post(CP.meter(30, "4000"))
    (settled,) = ledger.post(given_up(1, at(5000)))
    assert (settled.timestamp, settled.received_at) == (at(30), at(5000))
    assert settled.receipt["stop_reason"] == "Operator"
    assert settled.receipt["needs_review"] is True
    assert ledger.post(given_up(1, at(5000))) == ()
    assert ledger.post(given_up(99, at(5000))) == ()


@pytest.mark.parametrize("transaction_id", [-1, 0, 5, 2**63 - 1])
def test_messages_of_no_known_transaction_are_kept_for_people(transaction_id):
    ledger = Ledger(BOOK)
    (sampled,) = ledger.post(CP.meter(10, "2000", transaction_id=transaction_id))
    (stopped,) = ledger.post(CP.stop(10, "2000", transaction_id=transaction_id))
    assert kinds((sampled, stopped)) == [MessageOrphaned, MessageOrphaned]
    assert (sampled.message, stopped.message) == ("MeterValues", "StopTransaction")
    assert '"meterStop": "2000"' in stopped.content
    assert ledger.open_transactions() == []


def test_a_stop_without_a_transaction_id_is_an_orphan():
    assert kinds(Ledger(BOOK).post(CP.stop(10, "2000", transaction_id=None))) == [MessageOrphaned]


def test_another_charge_point_cannot_speak_for_a_transaction():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    assert kinds(ledger.post(OTHER.stop(10, "9000", transaction_id=1))) == [MessageOrphaned]
    assert len(ledger.open_transactions()) == 1


def test_readings_without_a_transaction_are_of_the_one_open_on_their_connector():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    (fact,) = ledger.post(CP.meter(10, "2000", transaction_id=None))
    assert fact.progress.energy_wh == 1000
    assert ledger.post(CP.meter(10, "9000", transaction_id=None, connector_id=2)) == ()
    assert ledger.post(CP.meter(10, "9000", transaction_id=None, connector_id=0)) == ()


def test_readings_without_a_transaction_go_by_their_time():
    """Taken while the old one was open, delivered when the next one is."""
    ledger = Ledger(BOOK)
    for event in (CP.start("1000"), CP.stop(30, "2000"), NEXT.start("2000", minutes=40)):
        ledger.post(event)
    old, new = Reading(at(20), (Sample("1500"),)), Reading(at(50), (Sample("2500"),))
    (fact,) = ledger.post(CP.readings(50, old, new, transaction_id=None))
    assert (fact.transaction_id, fact.progress.energy_wh) == (2, 500)
    assert ledger.session(1).flags == {"late_samples"}


def test_readings_after_the_stop_do_not_touch_the_bill():
    ledger = Ledger(BOOK)
    for event in (CP.start("1000"), CP.stop(30, "2000")):
        ledger.post(event)
    assert ledger.post(CP.meter(40, "9000")) == ()
    assert ledger.session(1).flags == {"late_samples"}


@pytest.mark.parametrize(
    ("before", "start", "gap"),
    [("2000", "2000", 0), ("2000", "2004", 4), ("2000", "1990.5", "-9.5"), (None, "2000", None)],
)
def test_a_receipt_tells_what_the_register_moved_between_two_sessions(before, start, gap):
    """More than a few Wh are a missed session, a wrong meter, or fraud."""
    second = ChargePoint(transaction_id=2)
    ledger, journal = Ledger(BOOK), []
    for event in (CP.start("1000"), CP.stop(10, before), second.start(start, minutes=20)):
        journal += [event, *ledger.post(event)]
    heir = Ledger(BOOK)
    for past in journal[-2:]:
        heir.restore(past)
    stop = second.stop(30, "3000")
    facts = ledger.post(stop)
    assert facts == heir.post(stop)
    assert facts[0].receipt["meter_gap_wh"] == gap


def test_a_refused_tag_is_accounted_for_too():
    found = receipt(BOOK, CP.start("1000", id_tag_status="Invalid"), CP.stop(60, "2000"))
    assert found["total_incl_vat"] == "0.30"


def test_defects_of_start_and_stop_ask_for_a_review():
    found = receipt(
        BOOK,
        CP.start("1000", id_tag="", defects=("idTag",)),
        CP.stop(60, "2000"),
    )
    assert found["flags"] == ["defect_idTag", "needs_review"]


def test_json_numbers_among_the_samples_are_no_defect():
    found = receipt(
        BOOK,
        CP.start("1000"),
        CP.meter(30, "1500", defects=("sampledValue",)),
        CP.stop(60, "2000"),
    )
    assert found["flags"] == []


def test_the_price_is_that_of_the_start_even_if_the_book_changes():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    ledger.tariff_book = tariff_book(tariff(element(component("ENERGY", "9"))))
    (settled,) = ledger.post(CP.stop(60, "2000"))
    assert settled.receipt["total_incl_vat"] == "0.30"
    (_,) = ledger.post(NEXT.start("2000", minutes=70))
    (settled,) = ledger.post(NEXT.stop(80, "3000"))
    assert settled.receipt["total_incl_vat"] == "9.00"


def test_an_event_of_another_kind_is_none_of_its_business():
    event = HeartbeatReceived(charge_point_id="CP-1", received_at=at(0))
    assert Ledger(BOOK).post(event) == ()
    assert type(event) not in ACCOUNTED


def test_nothing_changes_if_an_event_cannot_be_accounted():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    broken = attrs.evolve(CP.meter(10, "2000"), readings=(Reading(at(10), (None,)),))
    with pytest.raises(AttributeError):
        ledger.post(broken)
    (settled,) = ledger.post(CP.stop(60, "2000"))
    assert settled.receipt["flags"] == []


# --- idle time --------------------------------------------------------------------------------


def ticked(ledger: Ledger, minute: int):
    """What a look at the clock tells, of all transactions that nothing was told of for long."""
    return tuple(fact for one in ledger.due(at(minute)) for fact in ledger.tick(one, at(minute)))


def test_time_that_costs_is_told_by_the_clock_where_no_frame_comes():
    ledger = Ledger(tariff_book(TIME_AND_PARKING))
    ledger.post(CP.start("1000"))
    assert ticked(ledger, 0) == ()
    (fact,) = ticked(ledger, 10)
    assert (fact.timestamp, fact.progress.duration_s) == (at(10), 600)
    ledger.post(CP.status(10, "SuspendedEV"))
    assert ticked(ledger, 10) == ()
    (fact,) = ticked(ledger, 20)
    assert (fact.timestamp, fact.progress.cost_idle) == (at(20), Decimal("1.00"))
    assert ledger.post(CP.stop(10, "1000"))[0].progress.cost_idle == 0


def test_time_is_told_of_once_a_minute_and_of_no_session_that_speaks():
    ledger = Ledger(tariff_book(TIME_AND_PARKING))
    ledger.post(CP.start("1000"))
    assert [len(ticked(ledger, minute)) for minute in (1, 1, 2, 3, 3)] == [1, 0, 1, 1, 0]
    ledger.post(CP.meter(4, "2000"))
    assert ticked(ledger, 4) == ()
    assert len(ticked(ledger, 5)) == 1
    ledger.post(CP.stop(6, "2000"))
    assert ticked(ledger, 9) == ()


def test_what_comes_out_of_a_queue_is_not_counted_up_to_now():
    ledger = Ledger(tariff_book(TIME_AND_PARKING))
    ledger.post(CP.start("1000", received_at=at(600)))
    assert ticked(ledger, 601) == ()
    ledger.post(CP.meter(599, "2000", received_at=at(600)))
    assert len(ticked(ledger, 602)) == 1


def test_a_tick_sees_idle_time_that_only_power_tells():
    ledger = Ledger(tariff_book(TIME_AND_PARKING, idle_detection="power"))
    for event in (CP.start("0"), CP.meter(10, "3000"), CP.meter(20, "3000")):
        ledger.post(event)
    (fact,) = ticked(ledger, 30)
    assert fact.progress.cost_idle == Decimal("2.00")


def test_a_tick_after_a_restart_tells_what_it_would_have_told():
    ledger, reborn = Ledger(tariff_book(TIME_AND_PARKING)), Ledger(TariffBook.empty())
    for event in (CP.start("0"), CP.meter(5, "500"), CP.status(10, "SuspendedEV")):
        for entry in (event, *ledger.post(event)):
            reborn.restore(entry)
    assert ticked(reborn, 30) == ticked(ledger, 30) != ()


def test_a_tick_counts_no_idle_cost_during_grace():
    ledger = Ledger(tariff_book(TIME_AND_PARKING, idle_grace_s=600))
    for event in (CP.start("1000"), CP.status(10, "SuspendedEV")):
        ledger.post(event)
    costs = [ticked(ledger, minute)[0].progress.cost_idle for minute in (19, 20, 30)]
    assert costs == [0, 0, Decimal("1.00")]


def test_idle_time_after_the_stop_counts_until_the_connector_is_available():
    ledger = Ledger(PARKING)
    ledger.post(CP.start("0"))
    (waiting,) = ledger.post(CP.stop(60, "10000"))
    assert isinstance(waiting, TransactionProgressed)
    assert [open_.stopped for open_ in ledger.open_transactions()] == [True]
    assert ticked(ledger, 70)[0].progress.cost_idle == Decimal("1.00")
    (settled,) = ledger.post(CP.status(85, "Available"))
    assert settled.receipt["total_incl_vat"] == "5.50"
    assert settled.receipt["stopped_at"] == "2026-01-14T16:55:00Z"
    assert ledger.open_transactions() == []


def test_while_the_cable_is_in_after_the_stop_each_message_tells_what_it_costs_by_now():
    """20 min idle x 6/h = 2.00, then 30 min = 3.00."""
    prices = tariff_book(TIME_AND_PARKING, post_stop_parking=True)
    facts = posted(prices, CP.start("0"), CP.stop(0, "0"), CP.status(20, "Finishing"))
    running = progress(facts).progress
    assert (running.idle_s, running.cost_total) == (1200, Decimal("2.00"))
    facts = posted(
        prices, CP.start("0"), CP.stop(0, "0"), CP.status(20, "Finishing"), CP.status(30, "Faulted")
    )
    assert progress(facts).progress.cost_total == Decimal("3.00")


def test_the_cable_out_is_known_before_the_stop():
    """Available overtakes StopTransaction when the charge point was offline."""
    events = (CP.start("0"), CP.status(70, "Available"), CP.stop(60, "10000", received_at=at(75)))
    assert receipt(PARKING, *events)["total_incl_vat"] == "4.00"
    events = (CP.start("0"), CP.unplugged(65), CP.stop(60, "10000", received_at=at(75)))
    assert receipt(PARKING, *events)["total_incl_vat"] == "3.50"


def test_an_earlier_unplugging_corrects_the_receipt():
    ledger = Ledger(PARKING)
    for event in (CP.start("0"), CP.stop(60, "10000"), CP.status(85, "Available")):
        ledger.post(event)
    (corrected,) = ledger.post(CP.unplugged(70, told=90))
    assert (corrected.version, corrected.receipt["total_incl_vat"]) == (2, "4.00")
    assert ledger.post(CP.unplugged(80, told=95)) == ()


def test_without_word_of_the_cable_idle_time_ends_with_the_evidence():
    ledger = Ledger(PARKING)
    for event in (CP.start("0"), CP.stop(60, "10000"), CP.status(70, "Finishing")):
        ledger.post(event)
    settled, _ = ledger.post(NEXT.start("10000", minutes=300))
    assert settled.receipt["total_incl_vat"] == "4.00"


@pytest.mark.parametrize("data", [None, "", "[]", "{", '{"transactionId": true}', "{}"])
def test_an_unreadable_unplugging_is_ignored(data):
    ledger = Ledger(PARKING)
    ledger.post(CP.start("0"))
    assert ledger.post(attrs.evolve(CP.unplugged(10), data=data)) == ()


def test_a_status_before_the_start_still_holds_at_the_start():
    prices = tariff_book(TIME_AND_PARKING)
    events = (CP.status(-1, "SuspendedEV"), CP.start("0"), CP.stop(60, "0"))
    assert receipt(prices, *events)["idle_s"] == 3600
    events = (CP.status(-1, "Finishing"), CP.start("0"), CP.stop(60, "0"))
    assert receipt(prices, *events)["idle_s"] == 0


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_told_of_when_all_is_over_waits_for_no_cable(restarted):
    """HC-79: the connector is free when an offline session is delivered.  Else it would run up idle
    time until the next one starts."""
    prices = tariff_book(TIME_AND_PARKING, post_stop_parking=True)
    ledger, late = Ledger(prices), at(180)
    ledger.post(CP.status(180, "Available"))
    start = CP.start("0", received_at=late)
    (opened,) = ledger.post(start)
    if restarted:
        ledger = Ledger(prices)
        ledger.restore(start)
        ledger.restore(opened)
    (settled,) = ledger.post(CP.stop(60, "0", received_at=late))
    assert (settled.receipt["idle_s"], settled.receipt["total_incl_vat"]) == (0, "3.00")


def test_a_status_before_the_start_outlives_a_restart():
    """Who restores begins to read at the start of the transaction."""
    ledger = Ledger(tariff_book(TIME_AND_PARKING))
    ledger.post(CP.status(-1, "SuspendedEV"))
    facts = ledger.post(CP.start("0"))
    reborn = Ledger(TariffBook.empty())
    for event in (CP.start("0"), *facts):
        reborn.restore(event)
    assert reborn.post(CP.stop(60, "0")) == ledger.post(CP.stop(60, "0"))


def test_a_status_of_the_session_before_says_nothing_of_the_next():
    ledger = Ledger(tariff_book(TIME_AND_PARKING))
    for event in (CP.start("0"), CP.status(10, "SuspendedEV"), CP.stop(20, "0")):
        ledger.post(event)
    ledger.post(NEXT.start("0", minutes=30))
    (settled,) = ledger.post(NEXT.stop(40, "0"))
    assert settled.receipt["idle_s"] == 0


# --- what is not held -------------------------------------------------------------------------


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


def test_readings_that_come_after_an_inferred_stop_wait_for_the_true_one():
    ledger = Ledger(BOOK)
    for event in (CP.start("1000"), CP.meter(30, "4000")):
        ledger.post(event)
    ledger.post(given_up(1, at(60)))
    assert ledger.post(CP.meter(50, "6000", received_at=at(61))) == ()
    (settled,) = ledger.post(CP.stop(55, None, received_at=at(62)))
    assert settled.receipt["energy_wh"] == "5000"
    assert {"late_samples", "stop_late"} <= set(settled.receipt["flags"])


def test_a_stop_without_a_time_is_at_its_receipt():
    stop = CP.stop(60, "2000", timestamp=None, defects=("timestamp",))
    found = receipt(BOOK, CP.start("1000"), stop)
    assert found["duration_s"] == 3600
    assert found["flags"] == ["defect_timestamp", "needs_review", "timestamp_from_receipt"]
    stop = CP.stop(60, "2000", defects=("timestamp",))  # a reading's
    assert receipt(BOOK, CP.start("1000"), stop)["flags"] == []


def test_a_cable_that_comes_out_without_a_status_ends_waiting_at_the_stop():
    ledger = Ledger(PARKING)
    for event in (CP.start("0"), CP.stop(60, "10000")):
        ledger.post(event)
    (settled,) = ledger.post(given_up(1, at(5000)))
    assert settled.receipt["total_incl_vat"] == "3.00"
    assert settled.receipt["flags"] == []


def test_an_unplugging_may_name_the_transaction_as_text():
    ledger = Ledger(PARKING)
    for event in (CP.start("0"), CP.stop(60, "10000")):
        ledger.post(event)
    told = CP.unplugged(70)
    (settled,) = ledger.post(attrs.evolve(told, data=told.data.replace("1,", '"1",', 1)))
    assert settled.receipt["total_incl_vat"] == "4.00"


def test_time_without_a_price_is_told_as_time():
    ledger = Ledger(TariffBook.empty())
    for event in (CP.start("0"), CP.status(10, "SuspendedEV")):
        ledger.post(event)
    (fact,) = ticked(ledger, 30)
    assert (fact.progress.duration_s, fact.progress.idle_s) == (1_800, 1_200)
    assert fact.progress.cost_total is None


# --- one instant ------------------------------------------------------------------------------


def amperes(phase: str | None, value: str) -> Sample:
    return Sample(value, measurand="Current.Import", unit="A", phase=phase)


BY_CURRENT = tariff(
    element(component("ENERGY", "0.60"), min_current=20), element(component("ENERGY", "0.30"))
)


@pytest.mark.parametrize("apart", ["samples", "values", "messages"])
@pytest.mark.parametrize(
    ("phases", "price"),
    [(("L1", "L2", "L3"), "1.80"), (("L1",), "0.90"), (("N",), "0.90"), ((None,), "0.90")],
)
def test_the_lines_of_one_instant_are_one_current(apart, phases, price):
    """evcc #27686: each line in a meter value, or a message, of its own."""
    ledger = Ledger(tariff_book(BY_CURRENT))
    ledger.post(CP.start("0"))
    for minute in (0, 10, 20, 30):
        samples = [Sample(str(100 * minute)), *(amperes(phase, "10") for phase in phases)]
        readings = [Reading(at(minute), (sample,)) for sample in samples]
        if apart == "samples":
            readings = [Reading(at(minute), tuple(samples))]
        messages = [(one,) for one in readings] if apart == "messages" else [tuple(readings)]
        for some in messages:
            ledger.post(attrs.evolve(CP.meter(minute, "0"), readings=some))
    (settled,) = ledger.post(CP.stop(30, "3000"))
    assert (settled.receipt["total_excl_vat"], settled.receipt["flags"]) == (price, [])


# --- ids that are another transaction's -------------------------------------------------------


@pytest.mark.parametrize("named", [0, None, 1])
def test_a_session_whose_messages_name_another_is_billed_and_reviewed(named):
    """0 for every transaction, or the id of the one before (TKT, Delta)."""
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(CP.stop(10, "1000"))
    ledger.post(attrs.evolve(CP.start("1000", 20), transaction_id=2))
    ledger.post(attrs.evolve(CP.meter(30, "1500"), transaction_id=named))
    (settled,) = ledger.post(attrs.evolve(CP.stop(40, "3000"), transaction_id=named))
    assert (settled.transaction_id, settled.receipt["energy_wh"]) == (2, "2000")
    wanted = {"needs_review", "transaction_id_mismatch"}
    assert wanted <= set(settled.receipt["flags"])
    assert settled.receipt["duration_s"] == 1_200


def test_an_old_id_may_be_that_of_another_connector():
    ledger = Ledger(BOOK)
    ledger.post(attrs.evolve(CP.start("0"), connector_id=2))
    ledger.post(CP.stop(10, "1000"))
    ledger.post(attrs.evolve(CP.start("5000", 20), transaction_id=2))
    ledger.post(CP.meter(30, "5500"))
    (settled,) = ledger.post(CP.stop(40, "7000"))
    assert (settled.transaction_id, settled.receipt["energy_wh"]) == (2, "2000")
    assert {"needs_review", "transaction_id_mismatch"} <= set(settled.receipt["flags"])


def test_a_late_stop_of_another_connector_is_its_own():
    ledger = Ledger(BOOK)
    ledger.post(attrs.evolve(CP.start("0"), connector_id=2))
    ledger.post(attrs.evolve(given_up(1, at(15)), connector_id=2))
    ledger.post(attrs.evolve(CP.start("5000", 20), transaction_id=2))
    (settled,) = ledger.post(CP.stop(40, "7000"))
    assert (settled.transaction_id, settled.receipt["energy_wh"]) == (1, "7000")
    assert [held.transaction_id for held in ledger.open_transactions()] == [2]


def test_its_own_stop_takes_the_place_of_one_that_named_another():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=0))
    (settled,) = ledger.post(CP.stop(20, "2000"))
    assert (settled.version, settled.receipt["energy_wh"]) == (2, "2000")
    assert ledger.post(CP.stop(20, "2000")) == ()


@pytest.mark.parametrize("named", [4711, -1, 2**63 - 1])
def test_an_id_that_is_nobodys_and_not_0_stays_an_orphan(named):
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    (orphan,) = ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=named))
    assert orphan.message == "StopTransaction"
    assert len(ledger.open_transactions()) == 1


def test_0_is_nobodys_where_two_sessions_are_open():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(attrs.evolve(CP.start("0"), transaction_id=2, connector_id=2))
    (orphan,) = ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=0))
    assert orphan.message == "StopTransaction"
    ledger.post(attrs.evolve(CP.meter(5, "700"), transaction_id=0, connector_id=2))
    assert len(ledger.open_transactions()) == 2
    (settled,) = ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=2))
    assert "transaction_id_mismatch" in settled.receipt["flags"]


def test_what_names_an_ended_transaction_and_is_of_its_time_is_its_own():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(CP.stop(10, "1000"))
    ledger.post(attrs.evolve(CP.start("1000", 20), transaction_id=2))
    ledger.post(CP.meter(5, "500"))
    assert ledger.post(CP.stop(10, "1000")) == ()
    (settled,) = ledger.post(attrs.evolve(CP.stop(40, "3000"), transaction_id=2))
    assert settled.receipt["flags"] == []
