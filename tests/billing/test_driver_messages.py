"""What drivers are told, in words and in numbers."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from gateway.billing.driver_messages import final_cost, happened_offline, running_cost, user_price
from gateway.billing.price_text import price_in_words, receipt_in_words
from gateway.domain.events import TransactionOpened, TransactionProgressed, TransactionSettled
from gateway.tariffs.policy import Policy
from gateway.tariffs.tariff import TariffBook

from .builders import (
    CP,
    LIVE,
    PER_KWH,
    START,
    TIME_AND_PARKING,
    at,
    component,
    element,
    posted,
    receipt,
    tariff,
    tariff_book,
)

NOW = START


def words(*tariffs, when=NOW, **policy):
    return price_in_words(tariff_book(*tariffs, **policy).terms_for("CP-1", 1, when), when)


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        (PER_KWH, "0.30 EUR per kWh"),
        (TIME_AND_PARKING, "0.05 EUR per min, 0.10 EUR per min idle"),
        (
            LIVE,
            "0.484 EUR per kWh, 0.121 EUR per min idle, 0.605 EUR per session (incl. VAT),"
            " prices may change while charging",
        ),
        (tariff(element(component("ENERGY", "0"))), "free of charge"),
        (
            tariff(element(component("ENERGY", "0")), min_price=Decimal(1)),
            "free of charge, at least 1.00 EUR",
        ),
        (
            tariff(element(component("FLAT", "1"), component("ENERGY", "0")), currency="JPY"),
            "1 JPY per session",
        ),
        (tariff(element(component("TIME", "1")), currency="KWD"), "0.0167 KWD per min"),
        (
            tariff(
                element(component("ENERGY", "0.3", "20")),
                min_price={"excl_vat": Decimal(1), "incl_vat": Decimal("1.20")},
                max_price={"excl_vat": Decimal(50)},
            ),
            "0.36 EUR per kWh (incl. VAT), at least 1.20 EUR, at most 50.00 EUR before VAT",
        ),
    ],
)
def test_a_price_is_told_per_kwh_then_per_minute_then_per_session_then_all_else(prices, said):
    assert words(prices) == said


def test_the_price_told_is_that_of_the_hour():
    """Amsterdam's 17:00 is 30 minutes after the start."""
    assert words(LIVE, when=at(29)).startswith("0.484 EUR per kWh")
    assert words(LIVE, when=at(30)).startswith("0.726 EUR per kWh")


def test_idle_minutes_that_are_free_are_told():
    assert words(TIME_AND_PARKING, idle_grace_s=630) == (
        "0.05 EUR per min, 0.10 EUR per min idle after 10 min"
    )


def test_nothing_is_told_of_a_price_where_there_is_none():
    free = TariffBook.empty().terms_for("CP-1", 1, NOW)
    priced = tariff_book(PER_KWH).terms_for("CP-1", 2, NOW)
    assert user_price("TAG", {1: free}, NOW) is None
    assert user_price("TAG", {}, NOW) is None
    assert user_price("TAG", {1: free, 2: priced}, NOW) == {
        "idToken": "TAG",
        "priceText": "connector 2: 0.30 EUR per kWh",
    }


def test_one_price_for_all_connectors_is_told_once():
    priced = tariff_book(PER_KWH).terms_for("CP-1", 1, NOW)
    told = user_price("TAG", {1: priced, 2: priced}, NOW)
    assert told == {"idToken": "TAG", "priceText": "0.30 EUR per kWh"}


def test_a_receipt_is_told_line_by_line():
    """40 min at 3/h are 2.00, 20 min idle at 6/h are 2.00."""
    told = receipt_in_words(
        receipt(
            tariff_book(TIME_AND_PARKING),
            CP.start("1000"),
            CP.status(40, "SuspendedEV"),
            CP.stop(60, "9000"),
        )
    )
    assert told == (
        "2.00 EUR for 40 min at 0.05 EUR/min, 2.00 EUR for 20 min idle at 0.10 EUR/min,"
        " TOTAL 8 kWh, 1 h 00 min, 4.00 EUR"
    )


def test_a_receipt_tells_each_price_that_applied_and_the_session_fee():
    """8 kWh evenly over an hour, half of it after 17:00."""
    told = receipt_in_words(receipt(tariff_book(LIVE), CP.start("1000"), CP.stop(60, "9000")))
    assert told == (
        "1.94 EUR for 4 kWh at 0.484 EUR/kWh, 2.90 EUR for 4 kWh at 0.726 EUR/kWh,"
        " 0.61 EUR per session, TOTAL 8 kWh, 1 h 00 min, 5.45 EUR incl. VAT"
    )


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"min_price": Decimal(5)}, "2.60 EUR to the least price, TOTAL 8 kWh, 1 h 00 min, 5.00"),
        (
            {"max_price": Decimal(1)},
            "-1.40 EUR to the greatest price, TOTAL 8 kWh, 1 h 00 min, 1.00",
        ),
    ],
)
def test_a_receipt_tells_what_was_added_or_left_out_to_meet_a_limit(limit, said):
    prices = tariff_book({**PER_KWH, **limit})
    told = receipt_in_words(receipt(prices, CP.start("1000"), CP.stop(60, "9000")))
    assert told == f"2.40 EUR for 8 kWh at 0.30 EUR/kWh, {said} EUR"


def test_a_receipt_of_nothing_is_its_total():
    told = receipt_in_words(receipt(tariff_book(PER_KWH), CP.start("1000"), CP.stop(1, "1000")))
    assert told == "TOTAL 0 kWh, 0 h 01 min, 0.00 EUR"


def test_numbers_have_the_decimals_that_the_display_asks_for():
    """2.40/h is 0.04 a minute; 1/3 kWh at 0.1239 is 0.04."""
    prices = tariff_book(tariff(element(component("ENERGY", "0.1239"), component("TIME", "1"))))
    opened, *_ = posted(prices, CP.start("1000"))
    assert isinstance(opened, TransactionOpened)
    for decimals, energy, time in ((4, "0.1239", "1"), (3, "0.124", "1"), (0, "0", "1")):
        price = running_cost(opened, None, decimals)["chargingPrice"]
        assert (price["kWhPrice"], price["hourPrice"]) == (Decimal(energy), Decimal(time))


def test_idle_is_told_as_the_operator_understands_it():
    """By power: an hour with 8 kWh, then one with nothing."""
    prices = tariff_book(TIME_AND_PARKING, idle_detection="power", idle_grace_s=300)
    found = posted(prices, CP.start("1000"), CP.meter(60, "9000"), CP.meter(120, "9000"))
    costs = [running_cost(fact, Policy(idle_grace_s=Decimal(300)), 3) for fact in found]
    assert [cost["state"] for cost in costs] == ["Charging", "Charging", "Idle"]
    assert costs[-1]["idlePrice"] == {"graceMinutes": 5, "hourPrice": 6}
    assert costs[-1]["meterValue"] == 9_000


def test_a_pause_of_the_charge_point_is_not_idle():
    found = posted(tariff_book(TIME_AND_PARKING), CP.start("1000"), CP.status(10, "SuspendedEVSE"))
    assert [running_cost(fact, None, 3)["state"] for fact in found] == ["Charging"] * 2


def test_without_a_price_or_a_register_there_is_no_cost_to_show():
    unpriced = posted(TariffBook.empty(), CP.start("1000"), CP.stop(60, "2000"))
    assert running_cost(unpriced[0], None, 3) is None
    assert isinstance(unpriced[1], TransactionSettled)
    assert final_cost(unpriced[1]) is None
    assert unpriced[1].progress.idle is False
    (unmetered,) = posted(tariff_book(PER_KWH), CP.start(None))
    assert running_cost(unmetered, None, 3) is None


@pytest.mark.parametrize(
    ("start_late", "fact_late", "lasted", "offline"),
    [
        (0, 0, 60, False),
        (180, 120, 60, True),  # all of it, delivered at once
        (60, 120, 60, False),  # told while it went on, if late
        (180, 1, 60, False),  # it ended when we heard of it
        (600, 600, 60, False),  # a clock that is ten hours slow
        (600, 600, 0, True),  # the same at the start, where nothing tells the two apart
        (1, 1, 0, False),
    ],
)
def test_what_happened_offline_is_told_from_a_clock_that_is_slow(
    start_late, fact_late, lasted, offline
):
    """All in minutes."""
    _, progressed = posted(tariff_book(PER_KWH), CP.start("1000"), CP.meter(lasted, "2000"))
    assert isinstance(progressed, TransactionProgressed)
    heard = attrs.evolve(progressed, received_at=at(lasted + fact_late))
    assert happened_offline(heard, START + timedelta(minutes=start_late)) is offline
