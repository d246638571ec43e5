"""Energy: which readings count, and what is made of registers that do not behave."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import TransactionProgressed

from .builders import CP, LIVE, PER_KWH, at, posted, progress, receipt, tariff_book

BOOK = tariff_book(PER_KWH)
REGISTER = "Energy.Active.Import.Register"


def energy(*events, prices=BOOK):
    found = receipt(prices, *events)
    return found["energy_wh"], set(found["flags"])


def test_the_session_takes_what_the_registers_differ():
    assert energy(CP.start("1000"), CP.stop(60, "11000")) == ("10000", set())


def test_a_fractional_meter_start_is_taken_as_it_is():
    assert energy(CP.start("1000.4"), CP.stop(60, "11000")) == ("9999.6", set())


@pytest.mark.parametrize("junk", ["", "NaN", "1e5", "1_000", "１０", "-5", "0x10", "12,5", "."])  # noqa: RUF001
def test_a_meter_stop_that_is_no_number_is_missing(junk):
    found = energy(CP.start("1000"), CP.meter(30, "5000"), CP.stop(60, junk))
    assert found == ("4000", {"meter_stop_missing", "needs_review"})


def test_a_missing_meter_start_is_replaced_by_the_transaction_begin_register():
    begin = Sample("1000", context="Transaction.Begin")
    found = energy(CP.start(None), CP.meter(0, begin), CP.stop(60, "3000"))
    assert found == ("2000", {"meter_start_missing", "needs_review"})


def test_a_missing_meter_start_is_else_replaced_by_the_first_register():
    found = energy(CP.start(None), CP.meter(10, "1500"), CP.stop(60, "3000"))
    assert found == ("1500", {"meter_start_missing", "needs_review"})


def test_with_neither_meter_start_nor_readings_nothing_is_billed():
    found = energy(CP.start(None), CP.stop(60, "3000"))
    assert found == ("0", {"energy_unknown", "meter_start_missing", "needs_review"})


def test_a_begin_that_comes_after_the_first_register_is_still_the_start():
    begin = Sample("1000", context="Transaction.Begin")
    found = energy(
        CP.start(None),
        CP.meter(10, "1500"),
        CP.meter(20, "1700", begin),
        CP.stop(60, "3000"),
    )
    assert found == ("2000", {"meter_start_missing", "needs_review"})


def test_transaction_begin_repeated_after_the_live_value_is_no_reading():
    """Growatt's THOR adds the register at the start to every message."""
    begin = Sample("1000", context="Transaction.Begin")
    facts = posted(BOOK, CP.start("1000"), CP.meter(10, "4000", begin))
    assert progress(facts).progress.energy_wh == 3000


def test_a_stop_below_the_start_is_replaced_by_the_samples():
    found = energy(CP.start("1000"), CP.meter(30, "4000"), CP.stop(60, "500"))
    assert found == ("3000", {"meter_stop_below_start", "needs_review"})


def test_a_stop_below_the_start_without_samples_bills_nothing():
    found = energy(CP.start("1000"), CP.stop(60, "500"))
    assert found == ("0", {"energy_unknown", "meter_stop_below_start", "needs_review"})


def test_a_register_that_counts_from_zero_in_each_session_is_read_so():
    found = energy(
        CP.start("900000"),
        CP.meter(20, "2000"),
        CP.meter(40, "4000"),
        CP.stop(60, "906000"),
    )
    assert found == ("6000", {"register_session_relative"})


def test_a_relative_register_that_reaches_meter_start_was_never_relative():
    found = energy(
        CP.start("9000"),
        CP.meter(10, "0"),
        CP.meter(20, "10000"),
        CP.stop(30, "11000"),
    )
    assert found == ("2000", {"dip_ignored"})


def test_a_reset_before_the_first_sample_counts_from_zero():
    found = energy(
        CP.start("500000"),
        CP.meter(10, "300"),
        CP.meter(20, "2300"),
        CP.stop(30, "4300"),
    )
    assert found == ("4300", {"register_reset"})


def test_a_low_last_reading_is_a_dip_when_meter_stop_is_back():
    found = energy(CP.start("1000"), CP.meter(10, "4000"), CP.meter(20, "0"), CP.stop(30, "5000"))
    assert found == ("4000", {"dip_ignored"})


def test_a_low_last_reading_is_a_reset_when_meter_stop_counts_on_from_it():
    found = energy(
        CP.start("500000"),
        CP.meter(10, "504000"),
        CP.meter(20, "300"),
        CP.stop(30, "2300"),
    )
    assert found == ("6300", {"register_reset"})


def test_a_reset_to_more_than_can_have_flowed_adds_nothing():
    found = energy(
        CP.start("5000000"),
        CP.meter(10, "5004000"),
        CP.meter(11, "900000"),
        CP.meter(12, "901000"),
        CP.stop(13, "902000"),
    )
    assert found == ("6000", {"register_reset", "register_backwards", "needs_review"})


def test_a_first_reading_far_off_is_a_spike_where_the_next_one_is_not():
    """Else the lifetime register that comes next would be taken for energy since a reset."""
    events = [CP.start("100000"), CP.meter(5, "9999999"), CP.meter(20, "100500")]
    assert energy(*events, CP.stop(60, "108000")) == ("8000", {"spike_ignored"})
    events.append(CP.meter(40, "104000"))
    assert energy(*events, CP.stop(60, "108000")) == ("8000", {"spike_ignored"})
    unknown = {"spike_ignored", "meter_stop_missing", "needs_review"}
    assert energy(*events, CP.stop(60, None)) == ("4000", unknown)


def test_after_a_spike_at_first_the_register_may_be_another_one_all_the_same():
    events = [CP.meter(5, "9999999"), CP.meter(20, "5000000"), CP.meter(40, "5001000")]
    found = energy(CP.start("1000"), *events, CP.stop(60, "5002000"))
    flags = {"spike_ignored", "register_rebased", "meter_stop_implausible", "needs_review"}
    assert found == ("2000", flags)


def test_a_meter_that_was_silent_for_a_while_was_not_reset():
    """It reads 0 twice.  Counted from zero, its 4 kWh afterwards would be billed once more."""
    two_ignored = {"dip_ignored", "needs_review"}
    silent = [CP.meter(10, "2000"), CP.meter(20, "0"), CP.meter(30, "0"), CP.meter(40, "4000")]
    start = CP.start("1000")
    assert energy(start, *silent, CP.stop(60, "6000")) == ("5000", two_ignored)
    assert energy(start, *silent[:3], CP.stop(60, "6000")) == ("5000", two_ignored)
    never_stopped = {"dip_ignored", "meter_stop_missing", "needs_review"}
    assert energy(start, *silent, CP.stop(60, None)) == ("3000", never_stopped)
    assert progress(posted(BOOK, start, *silent)).progress.energy_wh == 3000


def test_a_register_that_climbs_from_zero_was_reset_however_long_it_stood_there():
    """1 kWh before, 300 Wh and then 2 kWh after: at 17:00, half of the last 2 kWh have flowed."""
    readings = [CP.meter(10, "101000"), CP.meter(15, "300"), CP.meter(20, "300")]
    readings.append(CP.meter(40, "2300"))
    found = receipt(tariff_book(LIVE), CP.start("100000"), *readings, CP.stop(60, "2300"))
    assert (found["energy_wh"], found["flags"]) == ("3300", ["register_reset"])
    assert [line["quantity"] for line in found["lines"]] == ["1", "2.3", "1"]


def run(start, values, stop):
    """One reading every ten minutes, and the stop ten minutes after the last."""
    meters = [CP.meter(10 * number, value) for number, value in enumerate(values.split(), 1)]
    return energy(CP.start(start), *meters, CP.stop(10 * len(meters) + 10, stop))


@pytest.mark.parametrize(
    ("start", "values", "stop", "wh"),
    [
        pytest.param("10000", "11000 8000 8100 13000", "13000", "3000", id="back at a reading"),
        pytest.param("10000", "11000 8000 8100 8200", "13000", "3000", id="back at the stop"),
        pytest.param("10000", "11000 8000 8100 11000", "11000", "1000", id="back where it was"),
        pytest.param("26108", "27.321 28.376 28957", "29136", "3028", id="kWh without a unit"),
        pytest.param("10000", "11000 8000 8100 3000 3100 13000", "13000", "3000", id="fell twice"),
        pytest.param("10000", "11000 8000 8100 9 9 10 8200 8300", "12000", "2000", id="two steps"),
        pytest.param("10000", "11000 80 81 12000 70 71 13000", "14000", "4000", id="two dips"),
        pytest.param("500000", "501000 7 8 502000", "503000", "3000", id="more than could flow"),
    ],
)
def test_a_register_that_comes_back_was_not_reset(start, values, stop, wh):
    """However many readings lie below.  Counted from zero they would be billed once more.  But a
    person looks where more than one reading was not believed."""
    assert run(start, values, stop) == (wh, {"dip_ignored", "needs_review"})


def test_the_curve_goes_straight_over_a_dip_of_several_readings():
    """11000 at 16:40 and 17000 at 17:10: 4 of these 6 kWh before 17:00."""
    events = [CP.meter(10, "11000"), CP.meter(20, "8000"), CP.meter(30, "8100")]
    events.append(CP.meter(40, "17000"))
    facts = posted(tariff_book(LIVE), CP.start("10000"), *events, CP.stop(60, "17000"))
    lines = facts[-1].receipt["lines"]
    assert [line["quantity"] for line in lines if line["dimension"] == "ENERGY"] == ["5", "2"]
    *_, running, ended = (f.progress for f in facts if hasattr(f, "progress"))
    assert running.cost_total == ended.cost_total


def test_a_register_that_comes_back_to_more_than_can_have_flowed_was_reset():
    """501000 would be 497 kWh after half an hour."""
    found = run("500000", "504000 300 2300 1004000", "4300")
    assert found == ("8300", {"register_reset", "spike_ignored"})


@pytest.mark.parametrize(
    ("start", "values", "stop", "wh"),
    [
        pytest.param("1948", "4473 6635 4253", "4275", "2327", id="from meterStart on"),
        pytest.param("1948", "4473 6635 4253 4260", "4275", "2327", id="two readings after them"),
        pytest.param("1000", "2000 7000 8000 9000 2000", "3000", "2000", id="from a reading on"),
        pytest.param("0", "1500 3000 3200 1800", "2500", "2500", id="from zero, but counting"),
        pytest.param("1000", "7000 8000 1500 9000 9500 2000", "3000", "2000", id="highs twice"),
    ],
)
def test_highs_above_meter_stop_were_spikes_where_the_register_goes_on_as_before(
    start, values, stop, wh
):
    assert run(start, values, stop) == (wh, {"spike_ignored", "needs_review"})


@pytest.mark.parametrize(
    ("start", "values", "stop", "wh"),
    [
        pytest.param("0", "1500 3000 500", "2500", "5500", id="a register from zero, restarted"),
        pytest.param("0", "3000 4000 500", "2500", "6500", id="of which no reading tells before"),
        pytest.param("1000", "2000 5000 6000 500", "1800", "6800", id="below where it stood"),
    ],
)
def test_a_reset_that_bills_more_than_the_registers_differ_is_reviewed(start, values, stop, wh):
    """Highs and a restart look the same there."""
    assert run(start, values, stop) == (wh, {"register_reset", "needs_review"})


def test_the_newest_of_two_dips_does_not_hide_a_spike():
    """4000 was a spike over 2000, which the next two readings climb on from."""
    found = energy(
        CP.start("0"),
        CP.meter(10, "1000"),
        CP.meter(20, "4000"),
        CP.meter(30, "2000"),
        CP.meter(40, "2500"),
        CP.stop(50, "3000"),
    )
    assert found == ("3000", {"spike_ignored", "needs_review"})


def test_a_better_location_starts_the_session_anew():
    inlet, outlet = Sample("900000", location="Inlet"), Sample("3000", location="Outlet")
    found = energy(CP.start("1000"), CP.meter(10, inlet), CP.meter(20, outlet), CP.stop(30, None))
    assert found == ("2000", {"meter_stop_missing", "needs_review"})


def test_a_worse_location_is_never_mixed_in():
    inlet, outlet = Sample("900000", location="Inlet"), Sample("3000", location="Outlet")
    found = energy(CP.start("1000"), CP.meter(10, outlet), CP.meter(20, inlet), CP.stop(30, "4000"))
    assert found == ("3000", set())


def test_a_register_at_the_inlet_is_named():
    inlet = Sample("3000", location="Inlet")
    found = energy(CP.start("1000"), CP.meter(10, inlet), CP.stop(30, "4000"))
    assert found == ("3000", {"energy_location_inlet"})


def test_what_the_car_says_is_never_billed():
    found = energy(
        CP.start("1000"), CP.meter(10, Sample("9000", location="EV")), CP.stop(30, "4000")
    )
    assert found == ("3000", set())


def test_a_phase_that_is_missing_keeps_its_last_value():
    def phases(**values):
        return [Sample(value, phase=phase) for phase, value in values.items()]

    facts = posted(
        BOOK,
        CP.start("3000"),
        CP.meter(10, *phases(L1="1000", L2="1000", L3="1000")),
        CP.meter(20, *phases(L1="1500", L3="1400")),
    )
    assert progress(facts).progress.energy_wh == 900


def test_phases_in_messages_of_their_own_are_summed_at_their_instant():
    found = energy(
        CP.start("3000"),
        CP.meter(10, Sample("1100", phase="L1")),
        CP.meter(10, Sample("1100", phase="L2")),
        CP.meter(10, Sample("1100", phase="L3")),
        CP.stop(20, None),
    )
    assert found == ("300", {"energy_from_phases", "meter_stop_missing", "needs_review"})


def test_a_line_phase_after_the_neutral_replaces_it():
    found = energy(
        CP.start("1000"),
        CP.meter(10, Sample("7", phase="N")),
        CP.meter(20, Sample("2000", phase="L1")),
        CP.stop(30, None),
    )
    assert found == ("1000", {"energy_from_phases", "meter_stop_missing", "needs_review"})


def test_of_one_instant_the_transaction_end_register_counts():
    found = energy(
        CP.start("1000"),
        CP.meter(30, Sample("2900", context="Sample.Clock")),
        CP.meter(30, Sample("3000", context="Transaction.End")),
        CP.stop(30, None),
    )
    assert found == ("2000", {"meter_stop_missing", "needs_review"})


def test_amounts_count_only_where_there_is_no_register():
    amount = Sample("2500", measurand="Energy.Active.Import.Interval")
    found = energy(CP.start("0"), CP.meter(15, amount), CP.meter(30, amount), CP.stop(30, "0"))
    assert found == ("5000", {"energy_from_intervals"})
    found = energy(CP.start("0"), CP.meter(15, amount), CP.stop(30, "6000"))
    assert found == ("6000", set())
    found = energy(CP.start("0"), CP.meter(15, amount), CP.meter(20, "3000"), CP.stop(30, None))
    assert found == ("3000", {"meter_stop_missing", "needs_review"})


def test_a_reading_without_a_time_has_the_time_of_receipt():
    reading = Reading(None, (Sample("3000"),))
    facts = posted(BOOK, CP.start("1000"), CP.readings(10, reading))
    assert progress(facts).progress.as_of == at(10)
    assert progress(facts).progress.flags == ("timestamp_from_receipt",)


def test_a_start_in_1970_is_accounted_from_its_receipt():
    """Else a clock that was never set would cost half a century of parking."""
    found = receipt(
        BOOK,
        CP.start("1000", timestamp=at(0).replace(year=1970)),
        CP.stop(60, "2000"),
    )
    assert found["duration_s"] == 3600
    assert found["flags"] == ["needs_review", "timestamp_from_receipt"]


def test_the_energy_shown_never_falls_while_the_session_is_open():
    """1000, a spike to 4000, and 2000: the spike is seen through only afterwards."""
    facts = posted(
        BOOK,
        CP.start("0"),
        CP.meter(10, "1000"),
        CP.meter(20, "4000"),
        CP.meter(30, "2000"),
        CP.stop(40, "3000"),
    )
    shown = [f.progress.energy_wh for f in facts if isinstance(f, TransactionProgressed)]
    assert shown == [1000, 4000, 4000]
    assert facts[-1].progress.energy_wh == 3000


def test_power_is_derived_only_where_none_is_sampled():
    facts = posted(BOOK, CP.start("1000"), CP.meter(30, "6500"))
    assert progress(facts).progress.power_w == 11000
    sampled = Sample("11", measurand="Power.Active.Import", unit="kW")
    facts = posted(BOOK, CP.start("1000"), CP.meter(30, "6500", sampled))
    assert progress(facts).progress.power_w is None


def test_signed_values_are_kept_verbatim_and_never_read_as_numbers():
    signed = Sample(" 90000 ", format="SignedData", context="Transaction.End")
    found = receipt(BOOK, CP.start("1000"), CP.meter(30, signed, "2000"), CP.stop(60, "3000"))
    assert found["energy_wh"] == "2000"
    assert [item["value"] for item in found["signed"]] == [" 90000 "]


@pytest.mark.parametrize("unit", ["kWh", "KWH", " kwh "])
def test_units_are_read_in_any_case(unit):
    facts = posted(BOOK, CP.start("1000"), CP.meter(30, Sample("3.5", unit=unit)))
    assert progress(facts).progress.energy_wh == 2500


def test_decimals_keep_all_their_digits():
    facts = posted(BOOK, CP.start("0.1"), CP.meter(30, Sample("0.000123456789", unit="kWh")))
    assert progress(facts).progress.energy_wh == Decimal("0.023456789")


def test_a_whole_number_with_blanks_is_a_number():
    assert energy(CP.start(" 1000 "), CP.stop(60, " 3000\n")) == ("2000", set())


def test_lines_between_phases_are_no_register():
    between = Sample("9000", phase="L1-L2")
    assert energy(CP.start("1000"), CP.meter(10, between), CP.stop(60, "3000")) == ("2000", set())


def test_the_neutral_is_not_heard_once_a_total_was():
    neutral = Sample("90", phase="N")
    found = energy(
        CP.start("1000"), CP.meter(10, "2000"), CP.meter(20, neutral), CP.stop(60, "3000")
    )
    assert found == ("2000", set())


def test_amounts_obey_the_same_rules_of_place_and_plausibility():
    def amount(value, location=None):
        return Sample(value, measurand="Energy.Active.Import.Interval", location=location)

    found = energy(
        CP.start("0"),
        CP.meter(10, amount("500", "Inlet")),
        CP.meter(20, amount("2000")),
        CP.meter(30, amount("700", "Inlet")),
        CP.meter(40, amount("900000000")),
        CP.stop(60, "0"),
    )
    assert found == ("2000", {"energy_from_intervals", "spike_ignored"})


def test_an_amount_of_the_neutral_is_dropped_once_a_total_is_known():
    def amount(value, phase=None):
        return Sample(value, measurand="Energy.Active.Import.Interval", phase=phase)

    events = (
        CP.start("0"),
        CP.meter(10, amount("7", "N")),
        CP.meter(20, amount("2000")),
        CP.meter(30, amount("9", "N")),
        CP.meter(40, amount("1000", "L1")),
    )
    assert energy(*events, CP.stop(60, "0")) == (
        "3000",
        {"energy_from_intervals", "energy_from_phases"},
    )
    assert energy(*events[:2], CP.stop(60, "0")) == (
        "7",
        {"energy_from_intervals", "energy_from_neutral"},
    )


def test_a_total_just_below_the_last_samples_draws_the_curve_down():
    """Two samples lie a little above meterStop, within the tolerance of 1 Wh."""
    found = receipt(
        tariff_book(LIVE),
        CP.start("0"),
        CP.meter(10, "1000.2"),
        CP.meter(20, "1000.6"),
        CP.meter(40, "1000.8"),
        CP.stop(60, "1000"),
    )
    energies = [line["quantity"] for line in found["lines"] if line["dimension"] == "ENERGY"]
    assert energies == ["1"]
    assert found["flags"] == []


def test_the_same_signed_value_twice_is_one():
    signed = Sample("ab", format="SignedData")
    found = receipt(BOOK, CP.start("0"), CP.meter(9, signed), CP.meter(9, signed), CP.stop(9, "0"))
    assert len(found["signed"]) == 1


def test_a_register_that_only_falls_is_billed_to_nobody_without_review():
    """Nobody sets a register to 4900 of 5000; to 300 of 504000, as after a power cut, they do."""
    _, flags = run("5000", "5000 4900 4800", "4700")
    assert flags >= {"register_reset", "register_backwards", "needs_review"}
    assert run("500000", "502000 504000 300 2300", "4300") == ("8300", {"register_reset"})
