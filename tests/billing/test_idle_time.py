"""Time that costs: idle time, grace, the cable after the stop, and the clock without messages."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest

from gateway.billing.ledger import Ledger
from gateway.domain.events import (
    TransactionProgressed,
)
from gateway.tariffs.tariff import TariffBook

from .builders import (
    CP,
    PARKING,
    TIME_AND_PARKING,
    ChargePoint,
    at,
    given_up,
    posted,
    progress,
    receipt,
    tariff_book,
    ticked,
)

NEXT = ChargePoint(transaction_id=2)


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


def test_a_status_of_the_session_before_says_nothing_of_the_next():
    ledger = Ledger(tariff_book(TIME_AND_PARKING))
    for event in (CP.start("0"), CP.status(10, "SuspendedEV"), CP.stop(20, "0")):
        ledger.post(event)
    ledger.post(NEXT.start("0", minutes=30))
    (settled,) = ledger.post(NEXT.stop(40, "0"))
    assert settled.receipt["idle_s"] == 0


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
