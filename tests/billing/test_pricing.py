"""Prices: each case is small enough to be worked out in its docstring."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.domain.event_values import Sample

from .builders import (
    CP,
    PER_KWH,
    TIME_AND_PARKING,
    at,
    component,
    element,
    receipt,
    tariff,
    tariff_book,
)


def totals(prices, *events):
    found = receipt(prices, *events)
    return found["total_excl_vat"], found["total_incl_vat"]


def current(minutes, amperes, *, phase=None):
    return CP.meter(minutes, Sample(amperes, measurand="Current.Import", unit="A", phase=phase))


def test_charging_time_that_is_not_stepped_once_parking_was_priced():
    """17 min charging at 3/h with 10-min steps and 8 min parking at 6/h with 5-min steps: the
    steps apply to parking alone, 10 min = 1.00, beside 17 min = 0.85."""
    prices = tariff_book(
        tariff(
            element(
                component("TIME", "3", step=600),
                component("PARKING_TIME", "6", step=300),
            )
        )
    )
    events = (CP.start("0"), CP.status(17, "SuspendedEV"), CP.stop(25, "0"))
    assert totals(prices, *events) == ("1.85", "1.85")


def test_parking_is_stepped_even_if_charging_came_last():
    """8 min parking become 10 min = 1.00; 17 + 5 min charging stay 22 min = 1.10."""
    prices = tariff_book(
        tariff(
            element(
                component("TIME", "3", step=600),
                component("PARKING_TIME", "6", step=300),
            )
        )
    )
    events = (
        CP.start("0"),
        CP.status(17, "SuspendedEV"),
        CP.status(25, "Charging"),
        CP.stop(30, "0"),
    )
    assert totals(prices, *events) == ("2.10", "2.10")


def test_parking_that_has_no_price_is_not_stepped_and_leaves_charging_stepped():
    """Parking costs 5/h until 17:00 only.  Parked from 17:10 on: 40 min charging become 60."""
    prices = tariff_book(
        tariff(
            element(component("TIME", "3", step=1800)),
            element(component("PARKING_TIME", "5", step=300), end_time="17:00"),
        )
    )
    events = (CP.start("0"), CP.status(40, "SuspendedEV"), CP.stop(80, "0"))
    assert totals(prices, *events) == ("3.00", "3.00")


def test_the_last_used_component_prices_what_a_step_adds():
    """6 kWh at 0.40 and 4.3 kWh at 0.60, stepped to 11 kWh in all: 2.40 + 5 x 0.60 = 5.40."""
    prices = tariff_book(
        tariff(
            element(component("ENERGY", "0.40", step=500), end_time="17:00"),
            element(component("ENERGY", "0.60", step=1000)),
        )
    )
    events = (CP.start("0"), CP.meter(30, "6000"), CP.stop(60, "10300"))
    assert totals(prices, *events) == ("5.40", "5.40")


def test_a_whole_number_of_steps_adds_none():
    prices = tariff_book(tariff(element(component("ENERGY", "0.25", step=1000))))
    assert totals(prices, CP.start("0"), CP.stop(60, "20000")) == ("5.00", "5.00")


def test_a_step_of_zero_prices_what_was_used():
    prices = tariff_book(tariff(element(component("TIME", "3.6", step=0))))
    events = (CP.start("0"), CP.stop(0.1083333, "0"))  # 6.5 s, at a thousandth a second
    line = receipt(prices, *events)["lines"][0]
    assert line["quantity"] == line["billed_quantity"]


def test_grace_is_free_in_each_idle_period():
    """Twice 20 idle minutes with 5 of grace: 30 min x 6/h = 3.00, beside 20 min x 3/h = 1.00."""
    prices = tariff_book(TIME_AND_PARKING, idle_grace_s=300)
    events = (
        CP.start("0"),
        CP.status(10, "SuspendedEV"),
        CP.status(30, "Charging"),
        CP.status(40, "SuspendedEV"),
        CP.stop(60, "0"),
    )
    found = receipt(prices, *events)
    assert found["total_incl_vat"] == "4.00"
    assert found["idle_s"] == 2400


def test_one_idle_period_goes_on_through_finishing():
    """SuspendedEV, then Finishing: one grace.  20 min idle, 5 free: 15 x 0.10 = 1.50 + 0.50."""
    prices = tariff_book(TIME_AND_PARKING, idle_grace_s=300)
    events = (
        CP.start("0"),
        CP.status(10, "SuspendedEV"),
        CP.status(20, "Finishing"),
        CP.stop(30, "0"),
    )
    assert totals(prices, *events) == ("2.00", "2.00")


def test_a_status_that_comes_late_is_heard_at_its_own_time():
    prices = tariff_book(TIME_AND_PARKING)
    events = (
        CP.start("0"),
        *(CP.meter(minute, str(minute)) for minute in range(1, 50)),
        CP.status(10, "SuspendedEV", received_at=at(50)),
        CP.stop(60, "100"),
    )
    assert totals(prices, *events) == ("5.50", "5.50")


def test_a_fee_per_session_is_due_without_any_energy():
    prices = tariff_book(tariff(element(component("FLAT", "0.50", "20"))))
    assert totals(prices, CP.start("0"), CP.stop(0, "0")) == ("0.50", "0.60")


def test_a_fee_that_becomes_due_later_is_billed_once():
    prices = tariff_book(tariff(element(component("FLAT", "2"), min_kwh=5)))
    assert totals(prices, CP.start("0"), CP.stop(60, "4000")) == ("0.00", "0.00")
    assert totals(prices, CP.start("0"), CP.stop(60, "9000")) == ("2.00", "2.00")


def test_a_fee_that_depends_on_power_waits_for_the_first_reading():
    prices = tariff_book(
        tariff(element(component("FLAT", "1"), max_power=11), element(component("FLAT", "2")))
    )
    assert totals(prices, CP.start("0"), CP.stop(60, "0")) == ("1.00", "1.00")
    assert totals(prices, CP.start("0"), CP.stop(0, "0")) == ("2.00", "2.00")


def test_a_fee_that_begins_with_the_end_is_not_due():
    """The session stops at 17:00 sharp, when the fee would begin."""
    prices = tariff_book(tariff(element(component("FLAT", "5"), start_time="17:00")))
    found = receipt(prices, CP.start("0"), CP.stop(30, "1000"))
    assert (found["lines"], found["total_incl_vat"]) == ([], "0.00")


def test_current_decides_from_sample_to_sample():
    """10 min before any sample and 20 min at 20 A have the fallback's price, 30 min at 10 A
    the lower one: 30 min x 6/h + 30 min x 2/h = 4.00."""
    prices = tariff_book(
        tariff(element(component("TIME", "2"), max_current=16), element(component("TIME", "6")))
    )
    events = (CP.start("0"), current(10, "20"), current(30, "10"), CP.stop(60, "0"))
    assert totals(prices, *events) == ("4.00", "4.00")


def test_current_is_that_of_all_phases_together():
    prices = tariff_book(
        tariff(element(component("TIME", "2"), max_current=16), element(component("TIME", "6")))
    )
    phases = [Sample("6", measurand="Current.Import", phase=f"L{n}") for n in (1, 2, 3)]
    events = (CP.start("0"), CP.meter(0, *phases), CP.stop(60, "0"))
    assert totals(prices, *events) == ("6.00", "6.00")


def test_power_is_the_average_between_two_readings():
    """10 kW for half an hour below 11 kW at 0.20, 20 kW for half an hour at 0.50: 1 + 5."""
    prices = tariff_book(
        tariff(
            element(component("ENERGY", "0.20"), max_power=11),
            element(component("ENERGY", "0.50")),
        )
    )
    events = (CP.start("0"), CP.meter(30, "5000"), CP.stop(60, "15000"))
    assert totals(prices, *events) == ("6.00", "6.00")


def test_power_that_was_never_measured_lies_in_no_range():
    prices = tariff_book(
        tariff(element(component("TIME", "2"), max_power=11), element(component("TIME", "6")))
    )
    assert totals(prices, CP.start("0"), CP.stop(60, None)) == ("6.00", "6.00")


def test_a_window_of_equal_times_is_the_whole_day():
    prices = tariff_book(
        tariff(element(component("TIME", "2"), start_time="09:00", end_time="09:00"))
    )
    assert totals(prices, CP.start("0"), CP.stop(60, "0")) == ("2.00", "2.00")


def test_power_of_a_stretch_without_a_reading_goes_on_as_before():
    """No meterStop: from the last reading to the stop, time is priced as at 10 kW."""
    prices = tariff_book(
        tariff(element(component("TIME", "2"), max_power=11), element(component("TIME", "6")))
    )
    events = (CP.start("0"), CP.meter(30, "5000"), CP.stop(60, None))
    assert totals(prices, *events) == ("2.00", "2.00")


def test_idle_by_power_needs_two_readings():
    prices = tariff_book(TIME_AND_PARKING, idle_detection="power")
    events = (CP.start("0"), CP.meter(30, "5000"), CP.meter(40, "5000"), CP.stop(60, "10000"))
    assert receipt(prices, *events)["idle_s"] == 600
    assert receipt(prices, CP.start("0"), CP.stop(60, None))["idle_s"] == 0


def test_a_pause_by_the_charge_point_is_never_idle_by_power():
    prices = tariff_book(TIME_AND_PARKING, idle_detection="power", suspended_evse="FREE")
    events = (CP.start("0"), CP.status(0, "SuspendedEVSE"), CP.stop(60, "0"))
    found = receipt(prices, *events)
    assert (found["idle_s"], found["charging_s"], found["total_incl_vat"]) == (0, 0, "0.00")
    found = receipt(tariff_book(TIME_AND_PARKING, idle_detection="power"), *events)
    assert (found["idle_s"], found["charging_s"], found["total_incl_vat"]) == (0, 3600, "3.00")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"min_price": {"excl_vat": Decimal(5), "incl_vat": Decimal("6.5")}}, ("5.00", "6.50")),
        ({"min_price": {"excl_vat": Decimal(2), "incl_vat": Decimal(5)}}, ("3.00", "5.00")),
        ({"min_price": {"incl_vat": Decimal("7.2")}}, ("6.00", "7.20")),
        ({"min_price": {"before_taxes": Decimal(5)}}, ("5.00", "6.00")),
        ({"min_price": Decimal(5)}, ("5.00", "6.00")),
        ({"max_price": {"excl_vat": Decimal(1)}}, ("1.00", "1.20")),
        ({"max_price": {"excl_vat": Decimal(0), "incl_vat": Decimal(0)}}, ("0.00", "0.00")),
        ({"max_price": {"excl_vat": Decimal(4)}}, ("3.00", "3.60")),
    ],
)
def test_least_and_greatest_price_hold_for_both_amounts(limits, expected):
    """10 kWh x 0.30 with 20 % VAT: 3.00 and 3.60 before the limits."""
    prices = tariff_book(tariff(element(component("ENERGY", "0.30", "20")), **limits))
    found = receipt(prices, CP.start("0"), CP.stop(60, "10000"))
    assert (found["total_excl_vat"], found["total_incl_vat"]) == expected
    adjusted = [line for line in found["lines"] if line["dimension"] == "ADJUSTMENT"]
    assert bool(adjusted) == (expected != ("3.00", "3.60"))


def test_halves_are_rounded_to_even_where_that_is_asked_for():
    prices = tariff_book(tariff(element(component("ENERGY", "0.25"))), rounding="HALF_EVEN")
    assert totals(prices, CP.start("0"), CP.stop(60, "20100")) == ("5.02", "5.02")
    assert totals(prices, CP.start("0"), CP.stop(60, "20300")) == ("5.08", "5.08")


def test_what_floats_get_wrong_is_right():
    """0.7 kWh x 0.10 + 0.005 is 0.075, and 0.07499... in floats."""
    prices = tariff_book(tariff(element(component("ENERGY", "0.1"), component("FLAT", "0.005"))))
    assert totals(prices, CP.start("0"), CP.stop(60, "700")) == ("0.08", "0.08")


def test_a_session_below_the_least_energy_costs_nothing():
    prices = tariff_book(tariff(element(component("FLAT", "1"))), min_billable_wh=100)
    found = receipt(prices, CP.start("0"), CP.stop(60, "99"))
    assert (found["total_incl_vat"], found["lines"]) == ("0.00", [])
    assert found["flags"] == ["waived_below_min_energy"]
    assert totals(prices, CP.start("0"), CP.stop(60, "100")) == ("1.00", "1.00")


def test_the_later_of_two_tariffs_holds_from_its_first_moment():
    old = PER_KWH | {"id": "OLD", "end_date_time": "2026-01-14T15:30:00Z"}
    new = tariff(element(component("ENERGY", "0.60")), start_date_time="2026-01-14T15:30:00Z")
    prices = tariff_book(old, new)
    assert totals(prices, CP.start("0"), CP.stop(60, "10000")) == ("6.00", "6.00")
    assert totals(prices, CP.start("0", minutes=-1), CP.stop(60, "10000")) == ("3.00", "3.00")


def test_a_jump_of_the_clock_skips_the_hour_that_is_not():
    """Lord Howe moves by half an hour; 02:00 to 02:30 never is on that night."""
    prices = tariff_book(
        tariff(
            element(component("TIME", "60"), start_time="02:00", end_time="02:30"),
            element(component("TIME", "6")),
        ),
        zone="Australia/Lord_Howe",
    )
    start = at(0).replace(year=2026, month=10, day=3, hour=15, minute=0)  # 01:30 there
    found = receipt(
        prices,
        CP.start("0", timestamp=start, received_at=start),
        CP.stop(0, "0", timestamp=start.replace(hour=16), received_at=start.replace(hour=16)),
    )
    assert found["total_incl_vat"] == "6.00"


def test_dates_and_days_are_those_of_the_local_clock():
    """In India Wednesday the 14th ends at 18:30 UTC, three hours after the start."""
    prices = tariff_book(
        tariff(
            element(component("TIME", "1"), end_date="2026-01-15", day_of_week=["WEDNESDAY"]),
            element(component("TIME", "5"), start_date="2026-01-15"),
        ),
        zone="Asia/Kolkata",
    )
    assert totals(prices, CP.start("0"), CP.stop(300, "0")) == ("13.00", "13.00")


def test_periods_add_up_to_the_session():
    prices = tariff_book(
        tariff(
            element(component("ENERGY", "0.40"), end_time="17:00"),
            element(component("ENERGY", "0.60"), component("PARKING_TIME", "6")),
        )
    )
    events = (
        CP.start("0"),
        CP.meter(20, "4000"),
        CP.meter(40, "8000"),
        CP.status(40, "SuspendedEV"),
        CP.stop(60, "8000"),
    )
    assert receipt(prices, *events)["periods"] == [
        {
            "start": "2026-01-14T15:30:00Z",
            "energy_kwh": "6",
            "time_h": "0.5",
            "parking_time_h": "0",
        },
        {
            "start": "2026-01-14T16:00:00Z",
            "energy_kwh": "2",
            "time_h": "0.166667",
            "parking_time_h": "0",
        },
        {
            "start": "2026-01-14T16:10:00Z",
            "energy_kwh": "0",
            "time_h": "0",
            "parking_time_h": "0.333333",
        },
    ]


def test_a_receipt_says_what_it_rests_on():
    prices = tariff_book(PER_KWH)
    found = receipt(prices, CP.start("100000.5"), CP.stop(60, "108000", reason="EVDisconnected"))
    assert found["receipt_id"] == "CP-1-1-1-20260114T153000Z"
    assert (found["version"], found["charge_point"], found["connector"]) == (1, "CP-1", 1)
    assert (found["started_at"], found["stopped_at"]) == (
        "2026-01-14T15:30:00Z",
        "2026-01-14T16:30:00Z",
    )
    assert (found["meter_start_wh"], found["meter_stop_wh"]) == ("100000.5", 108000)
    assert (found["energy_wh"], found["energy_source"]) == ("7999.5", "meter_stop")
    assert (found["stop_reason"], found["time_zone"]) == ("EVDisconnected", "Europe/Amsterdam")
    assert found["tariff"] == PER_KWH
    assert len(found["tariff_sha256"]) == 64
    assert found["lines"] == [
        {
            "dimension": "ENERGY",
            "quantity": "7.9995",
            "billed_quantity": "8",
            "unit": "kWh",
            "unit_price": "0.30",
            "vat": None,
            "step_size": 1,
            "cost_excl_vat": "2.4000",
            "cost_incl_vat": "2.4000",
        }
    ]
    assert (found["total_incl_vat"], found["vat_total"]) == ("2.40", "0.00")
