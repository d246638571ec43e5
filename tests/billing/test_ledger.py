"""The ledger: what is published of a session, from its start to its receipt."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest

from gateway.billing.ledger import Ledger
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import (
    ACCOUNTED,
    HeartbeatReceived,
    TransactionOpened,
    TransactionProgressed,
    TransactionSettled,
)
from gateway.tariffs.tariff import TariffBook

from .builders import (
    CP,
    LIVE,
    PER_KWH,
    ChargePoint,
    at,
    component,
    element,
    given_up,
    kinds,
    posted,
    progress,
    receipt,
    tariff,
    tariff_book,
)

BOOK = tariff_book(PER_KWH)

NEXT = ChargePoint(transaction_id=2)


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
