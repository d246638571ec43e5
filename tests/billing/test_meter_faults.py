"""Meters with a fault: what is billed, and when a person has to look."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing.ledger import Ledger
from gateway.billing.plausibility import boundaries
from gateway.billing.refitting import refitted
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import TransactionProgressed

from .builders import CP, PER_KWH, ChargePoint, at, posted, receipt, tariff_book

BOOK = tariff_book(PER_KWH)
REVIEW = "needs_review"


def billed(start, values, stop, *, every=10, prices=BOOK, left=(), end=None):
    """One reading every few minutes, None for one that is lost; `*` before it: without the
    transaction's id.  The Wh, and the flags."""
    found = receipt(prices, *messages(start, values, stop, every=every, end=end), *left)
    return Decimal(found["energy_wh"]), set(found["flags"])


def messages(start, values, stop, *, every=10, end=None):
    events = [CP.start(str(start))]
    for number, value in enumerate(values, 1):
        if value is None:
            continue
        text = str(value)
        more = {"transaction_id": None} if text.startswith("*") else {}
        events.append(CP.meter(number * every, text.lstrip("*"), **more))
    minutes = (len(values) + 1) * every if end is None else end
    return [*events, CP.stop(minutes, None if stop is None else str(stop))]


def live(start, values, **more):
    """What each progress told: cost, and the flags."""
    facts = posted(BOOK, *messages(start, values, None, **more)[:-1])
    return [
        (fact.progress.cost_total, set(fact.progress.flags))
        for fact in facts
        if isinstance(fact, TransactionProgressed)
    ]


# --- a register that falls ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "values", "stop", "wh"),
    [
        pytest.param(532_000, [534_000, 536_000, 264_900, 266_900], 268_900, 8_000, id="stored"),
        pytest.param(40_000, [41_000, 42_000, 38_000, 39_000], 39_900, 3_900, id="38 kWh"),
        pytest.param(9_000, [10_000, 11_000, 4_000, 5_000], 6_000, 4_000, id="small registers"),
    ],
)
def test_what_a_register_shows_after_a_fall_is_no_energy_unless_it_can_have_flowed(
    start, values, stop, wh
):
    flags = {"register_reset", "register_backwards", REVIEW}
    assert billed(start, values, stop) == (wh, flags)


def test_the_power_after_a_fall_tells_what_the_fall_can_have_counted():
    """Nothing is known before it: the register fell between meterStart and the first reading."""
    assert billed(500_000, [300, 2_300], 4_300) == (4_300, {"register_reset"})
    wrong = {"register_reset", "register_backwards", REVIEW}
    assert billed(500_000, [9_000, 9_300], 9_600) == (600, wrong)


def test_a_restart_in_a_long_pause_may_have_lost_more_than_anybody_saw():
    values = [502_000, 504_000, None, None, None, 300, 2_300]
    assert billed(500_000, values, 4_300) == (8_300, {"register_reset", "energy_unseen", REVIEW})


@pytest.mark.parametrize(
    ("start", "values", "stop", "wh"),
    [
        pytest.param(998_000, [999_000, 999_999, 3, 1_003], 2_003, 4_003, id="10^6, to the Wh"),
        pytest.param(64_000, [64_768, 65_280, 256, 1_024], 1_792, 3_072, id="2^16"),
        pytest.param(2**32 - 3_000, [2**32 - 2_000, 2**32 - 500, 400], 1_400, 3_900, id="2^32"),
        pytest.param(6_551_000, [6_552_000, 6_553_300, 900], 1_900, 4_200, id="2^16 of 0.1 kWh"),
        pytest.param(99_998_000, [99_999_500, None, None, None, 500], 2_500, 4_000, id="pause"),
    ],
)
def test_a_rollover_is_known_by_where_the_register_stood(start, values, stop, wh):
    """What was left to the boundary is counted within the tolerance only; nobody saw the rest."""
    assert billed(start, values, stop) == (wh, {"register_reset"})


def test_boundaries_lie_above_the_register():
    for register in (0, 65_535, 999_999, 2**32 - 1):
        assert all(boundary > register * 10**9 for boundary in boundaries(register * 10**9))
    assert 2**16 * 10**9 in set(boundaries(65_535 * 10**9))
    assert 10**6 * 10**9 in set(boundaries(999_999 * 10**9))


def test_a_relative_register_that_restarts_and_climbs_back_evenly_was_reset():
    """6 kWh, a restart, and 7.5 kWh more: while it passes 6 kWh nothing falls."""
    values = [1_000 * n for n in (1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 7)]
    assert billed(0, values, 7_500, every=5) == (13_500, {"register_reset", REVIEW})
    told = live(0, values, every=5)
    assert [cost for cost, _ in told] == sorted(cost for cost, _ in told)


def test_a_register_that_leaps_back_was_misread():
    values = [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 0, 100, 200, 300, 11_000, 12_000]
    assert billed(0, values, 13_000) == (13_000, {"dip_ignored", REVIEW})


# --- readings that are ignored ------------------------------------------------------------------


@pytest.mark.parametrize("last", [101_500, 100_500, 104_200])
def test_a_run_of_even_readings_is_not_thrown_away_for_a_last_value_that_fell_back(last):
    values = [100_000 + 1_000 * n for n in range(1, 21)]
    found, flags = billed(100_000, [*values, last], last, end=210)
    assert (found, REVIEW in flags) == (20_000, True)


@pytest.mark.parametrize("last", [0, 300])
def test_a_lone_low_value_at_the_end_is_no_restart_that_nobody_looks_at(last):
    values = [100_000 + 1_000 * n for n in range(1, 21)]
    found, flags = billed(100_000, [*values, last], last, end=210)
    assert found == 20_000 + last
    assert {"meter_stop_below_start", REVIEW} <= flags
    assert REVIEW not in billed(100_000, [*values, last], last + 700)[1]


def test_one_dip_or_impossible_spike_is_no_matter_for_a_person_two_are():
    assert billed(100_000, [104_000, 0, 108_000], 110_000) == (10_000, {"dip_ignored"})
    spike = [104_000, 999_999_999, 108_000]
    assert billed(100_000, spike, 110_000) == (10_000, {"spike_ignored"})
    both = billed(100_000, [104_000, 999_999_999, 108_000, 0, 109_000], 110_000)
    assert both == (10_000, {"dip_ignored", "spike_ignored", REVIEW})


def test_energy_that_an_ignored_reading_claimed_above_the_bill_is_for_a_person():
    assert billed(0, [1_000, 4_000, 2_000, 2_500], 4_000)[1] == {"spike_ignored"}
    assert billed(0, [1_000, 4_000, 2_000, 2_500], 3_500)[1] == {"spike_ignored", REVIEW}


def test_a_reading_within_the_tolerance_below_is_neither_dip_nor_fall():
    assert billed(269_456, [269_455, 269_456], 269_455, every=1) == (0, set())
    assert billed(1_000, [2_000, 1_999, 2_000, 1_999], 3_000) == (2_000, set())


# --- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "stop", "end", "policy"),
    [
        ([2_000, 4_000], 104_000, 20, {}),
        ([2_000, 4_000], 40_000, 20, {}),  # ten times what the charge point says itself
        ([2_000, 4_000], 16_000, 20 + 1 / 60, {"max_power_kw": 22}),
        ([2_000, 4_000], 15_000, 30, {"max_power_kw": 11}),
    ],
)
def test_the_end_is_judged_on_its_last_interval(values, stop, end, policy):
    prices = tariff_book(PER_KWH, **policy)
    found = billed(0, values, stop, prices=prices, end=end)
    assert found == (4_000, {"meter_stop_implausible", REVIEW})


def test_the_end_is_judged_by_transaction_data_too():
    ending = Reading(at(60), (Sample("12000", context="Transaction.End"),))
    found = receipt(BOOK, CP.start("0"), CP.stop(60, "120000", readings=(ending,)))
    assert (found["energy_wh"], found["needs_review"]) == ("12000", True)


@pytest.mark.parametrize(("stop", "review"), [("1000", False), ("999", False), ("998.9", True)])
def test_a_stop_within_the_tolerance_below_the_start_is_the_start(stop, review):
    found = receipt(BOOK, CP.start("1000"), CP.stop(2, stop))
    assert (found["energy_wh"], found["needs_review"]) == ("0", review)


@pytest.mark.parametrize(
    ("start", "values", "stop"),
    [
        pytest.param(0, [1_800, 3_600, 5_400, 7_200], 49_000, id="at the end"),
        pytest.param(5_000, [6_800, 8_600, 40_400, 42_200, 44_000], 45_800, id="on the way"),
        pytest.param(20_000, [41_800, 43_600, 45_400, 47_200], 49_000, id="before the first"),
        pytest.param(
            0, [1_800, 3_600, 203_600, 205_400, 207_200], 209_000, id="impossible at first"
        ),
    ],
)
def test_one_interval_unlike_all_others_is_reviewed(start, values, stop):
    assert billed(start, values, stop)[1] >= {"energy_jump", REVIEW}


def test_a_session_that_changes_its_pace_is_not_reviewed():
    for values in (
        [20_000, 35_000, 45_000, 50_000, 52_000],
        [200, 400, 600, 800, 2_600, 4_400],
        [1_000, None, None, None, None, 41_000, 41_500],
    ):
        assert billed(0, values, values[-1] + 300) == (values[-1] + 300, set())


# --- the start ----------------------------------------------------------------------------------


def test_a_first_reading_far_above_a_meter_start_of_zero_is_judged_by_what_flows_afterwards():
    lifetime = [41_000, 42_800, 44_600, 46_400]
    flags = {"register_rebased", REVIEW}
    assert billed(0, lifetime, 48_200) == (7_200, flags)
    assert billed(0, [25_000, 50_000, 73_000], 90_000) == (90_000, set())
    assert billed(0, [41_000], 41_000) == (41_000, set())  # nothing to judge it by
    assert billed(0, [41_000], 48_200) == (48_200, {"energy_jump", REVIEW})  # one interval alone


def test_the_running_price_is_judged_alike_and_says_so():
    told = live(0, [41_000, 42_800, 44_600, 46_400])
    assert told[-1] == (Decimal("1.62"), {"register_rebased", REVIEW})


# --- two registers ------------------------------------------------------------------------------


def test_a_reading_that_names_the_transaction_beats_one_that_does_not():
    assert billed(0, [1_000, "*31500", 2_000, "*33000"], 4_000) == (4_000, set())
    other = {"other_register_ignored"}
    assert billed(0, ["*31500", 1_000, "*33000", 2_000], 4_000) == (4_000, other)
    assert billed(0, ["*31500", 1_000], None)[0] == 1_000


def test_one_register_with_and_without_the_id_is_one_register():
    assert billed(0, ["*1000", 2_000, "*3000", 4_000], 5_000) == (5_000, set())
    assert billed(0, ["*1000", "*2000"], 3_000) == (3_000, set())


@pytest.mark.parametrize("values", [["*31500", "*33000"], ["*1000", "*31500"], ["*31500"]])
def test_readings_without_the_id_never_raise_a_bill_above_the_registers(values):
    found, flags = billed(0, values, 4_000)
    assert found == 4_000
    assert flags >= {"other_register_ignored", REVIEW}


def test_transaction_data_does_not_outvote_the_readings_before_it():
    """The curve of the readings without an id holds, as live, though the end names itself."""
    prices = tariff_book(
        {
            "id": "T",
            "currency": "EUR",
            "elements": [
                {
                    "price_components": [{"type": "ENERGY", "price": 1, "step_size": 1}],
                    "restrictions": {"end_time": "17:00"},
                },
                {"price_components": [{"type": "ENERGY", "price": 2, "step_size": 1}]},
            ],
        }
    )
    ending = Reading(at(60), (Sample("6000", context="Transaction.End"),))
    events = messages(0, ["*1000", "*1500", "*2000"], 6_000, end=60)
    events[-1] = CP.stop(60, "6000", readings=(ending,))
    found = receipt(prices, *events)
    assert [line["quantity"] for line in found["lines"]] == ["2", "4"]
    assert found["flags"] == []


@pytest.mark.parametrize(
    ("first", "stop", "second", "gap"),
    [
        ("0", "5000", "0", None),
        ("0", "5000", "1", None),
        ("0", "5000", "5000", 0),
        ("1000", "5000", "0", -5000),
        ("900000", "906000", "906000", None),  # its readings began at 0, as the next test's
    ],
)
def test_a_register_that_begins_at_zero_in_each_session_has_no_gap(first, stop, second, gap):
    other = ChargePoint(transaction_id=2)
    readings = [CP.meter(10, "2000")] if first == "900000" else []
    events = [CP.start(first), *readings, CP.stop(20, stop), other.start(second, minutes=30)]
    ledger = Ledger(BOOK)
    for event in events:
        ledger.post(event)
    (settled,) = ledger.post(other.stop(60, str(int(second) + 1000)))
    assert settled.receipt["meter_gap_wh"] == gap


# --- any fault ----------------------------------------------------------------------------------

POWER = 11  # kW, as the connector's greatest: what is more cannot have flowed
PRICES = tariff_book(PER_KWH, max_power_kw=POWER)
SLACK = 1_000 + 1


@st.composite
def true_sessions(draw):
    """meterStart, a reading every ten minutes, meterStop: at the connector's power."""
    step = POWER * 1000 // 6
    base = draw(
        st.one_of(
            st.sampled_from([0, 1, 10**6 - 4_000, 2**16 - 3_000, 2**32 - 5_000]),
            st.integers(20_000, 5_000_000),
        )
    )
    count = draw(st.integers(4, 16))
    return base, [base + step * n for n in range(1, count + 1)], base + step * (count + 1)


@st.composite
def faulty(draw, most=2):
    """A true session's energy, and what a meter with one or two faults makes of it."""
    start, values, stop = draw(true_sessions())
    energy, readings = stop - start, list(values)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, len(readings) - 1))
        by = draw(st.integers(SLACK + 1, 300_000))
        length = draw(st.integers(1, 4))
        fault = draw(st.sampled_from(list(FAULTS) if text_free(readings) else ["jump at the stop"]))
        readings, stop = FAULTS[fault](readings, stop, place, by, length)
    return energy, start, readings, stop


def _changed(readings, place, length, change):
    return [
        change(value) if value is not None and place <= n < place + length else value
        for n, value in enumerate(readings)
    ]


def _since(readings, stop, place, change):
    return _changed(readings, place, len(readings), change), change(stop)


FAULTS = {
    "spike": lambda r, stop, n, by, k: (_changed(r, n, 1, lambda v: v + by), stop),
    "spikes": lambda r, stop, n, by, k: (_changed(r, n, k, lambda v: v + by), stop),
    "dip": lambda r, stop, n, by, k: (_changed(r, n, k, lambda v: max(0, v - by)), stop),
    "zeros": lambda r, stop, n, by, k: (_changed(r, n, k, lambda _: 0), stop),
    "restart": lambda r, stop, n, by, k: _since(r, stop, n, lambda v: max(0, v - (r[n] or v))),
    "set back": lambda r, stop, n, by, k: _since(r, stop, n, lambda v: max(0, v - by)),
    "rollover": lambda r, stop, n, by, k: _since(r, stop, 0, lambda v: v % 10**6),
    "16 bits": lambda r, stop, n, by, k: _since(r, stop, n, lambda v: v % 2**16),
    "stuck": lambda r, stop, n, by, k: (_changed(r, n, k, lambda v: r[n]), stop),
    "jump": lambda r, stop, n, by, k: _since(r, stop, n, lambda v: v + by),
    "jump at the stop": lambda r, stop, n, by, k: (r, stop + by),
    "lost": lambda r, stop, n, by, k: (_changed(r, n, k, lambda _: None), stop),
    "two registers": lambda r, stop, n, by, k: (_changed(r, n, k, lambda v: f"*{v + by}"), stop),
}


def text_free(readings):
    """Faults after the first find plain numbers only."""
    return all(value is None or isinstance(value, int) for value in readings)


def climbs(registers):
    """Whether a register only climbs: then nobody can see what it lost within an interval."""
    held = [value for value in registers if isinstance(value, int)]
    return all(after >= before - 1 for before, after in pairwise(held))


@settings(max_examples=400)
@given(faulty())
def test_a_faulty_meter_never_bills_more_without_review_nor_less_without_a_flag(session):
    energy, start, readings, stop = session
    found, flags = billed(start, readings, stop, prices=PRICES)
    assert found <= energy + SLACK or REVIEW in flags
    assert found >= energy - SLACK or flags or climbs([start, *readings, stop])


@settings(max_examples=200)
@given(faulty(most=1))
def test_what_was_told_before_the_stop_is_the_bill_where_the_end_says_the_same(session):
    _, start, readings, stop = session
    if stop < start:
        return
    *events, last = messages(start, [*readings, stop], stop)
    last = CP.stop((len(readings) + 1) * 10, str(stop))
    facts = posted(PRICES, *events, last)
    running = [f.progress for f in facts if isinstance(f, TransactionProgressed)][-1]
    settled = facts[-1]
    if not set(running.flags) and not set(settled.progress.flags):
        assert running.cost_total == settled.progress.cost_total
    elif running.cost_total != settled.progress.cost_total:
        assert settled.progress.flags


@settings(max_examples=200)
@given(faulty(most=1))
def test_the_running_price_never_falls_without_a_flag(session):
    _, start, readings, stop = session
    facts = posted(PRICES, *messages(start, readings, stop))
    told = [f.progress for f in facts if isinstance(f, TransactionProgressed)]
    for before, after in pairwise(told):
        assert after.cost_total >= before.cost_total or after.flags


@settings(max_examples=300)
@given(faulty())
def test_the_course_step_by_step_is_the_course_traced_anew(session):
    _, start, readings, stop = session
    ledger = Ledger(BOOK)
    for event in messages(start, readings, stop)[:-1]:
        ledger.post(event)
        held = ledger.session(1)
        anew = refitted(held)
        assert (held.curve.last, held.curve.flags) == (anew.curve.last, anew.curve.flags)
        assert held.curve.powers == anew.curve.powers
