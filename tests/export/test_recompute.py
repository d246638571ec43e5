"""A CDR and its tariff are enough to tell what the session costs."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.event_values import Sample
from gateway.export.cdr import cdr

from ..billing import test_reference_pricer as sessions
from ..billing.builders import CP, ZONE, component, element, receipt, tariff, tariff_book
from . import partner
from .cdr_checks import MINOR, adds_up, valid
from .corpus import PARTY, stored, worked_examples

STEP = Fraction(1, 10_000)  # of a volume, and of a price
EXAMPLES = [
    pytest.param(found, id=name) for name, found in worked_examples() if found["tariff"] is not None
]


def assert_recomputed(of, prices_with_vat_inside=False):
    made = valid(cdr(of, party=PARTY))
    adds_up(made, of)
    recomputed = partner.price(made, of["time_zone"] or "UTC")
    (prices,) = made["tariffs"]
    components = [c for e in prices["elements"] for c in e["price_components"]]
    dearest = max(Fraction(c["price"]) * (1 + Fraction(c.get("vat", 0)) / 100) for c in components)
    volumes = Fraction(made["total_energy"] + made["total_time"])
    within = (
        Fraction(MINOR[made["currency"]]) / 2
        # each volume is rounded, and a step may begin with what that takes off
        + dearest * (2 * STEP * len(made["charging_periods"]) + Fraction(2, 1000))
        + volumes * STEP * prices_with_vat_inside
    )
    for mine, side in zip(recomputed, ("excl_vat", "incl_vat"), strict=True):
        assert abs(mine - Fraction(made["total_cost"][side])) <= within
    return made


@pytest.mark.parametrize("of", EXAMPLES)
def test_every_worked_example_can_be_recomputed(of):
    assert_recomputed(of, of["tariff"].get("tax_included") == "YES")


def finest(tariff):
    """The same in steps of one second and Wh, which volumes of four decimals can tell, and with
    limits that do not depend on the mix of VAT."""
    for each in tariff["elements"]:
        for part in each["price_components"]:
            part["step_size"] = min(part["step_size"], 1)
    for name in ("min_price", "max_price"):
        if name in tariff:
            amounts = tariff[name].values()
            tariff[name] = {"excl_vat": min(amounts), "incl_vat": max(amounts)}
    return tariff


metered = st.sampled_from(
    [{"min_power": Decimal("7.2")}, {"max_power": Decimal("7.2")}, {"min_power": 10},
     {"min_power": 5, "max_power": 10}, {"min_current": 10}, {"max_current": 16},
     {"min_current": 10, "max_current": 16}, {"min_power": 5, "max_current": 16}]
)  # fmt: skip


@st.composite
def tariffs(draw):
    """Any tariff, at least one element of which asks for power or current."""
    found = finest(draw(sessions.tariffs))
    chosen = draw(st.sampled_from(found["elements"]))
    chosen["restrictions"] = draw(metered) | (
        chosen.get("restrictions", {}) if draw(st.booleans()) else {}
    )
    return found


def ordered(found):
    return sessions.ordered(found.get("min_price", {}), found.get("max_price", {}))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    tariffs().filter(ordered),
    st.sampled_from(sessions.STARTS),
    sessions.intervals,
    sessions.statuses,
    sessions.policies,
    st.integers(0, 300),
)
def test_any_session_by_power_or_current_can_be_recomputed(
    tariff, start, pieces, changes, policy, more
):
    found, _ = sessions.receipt_and_gateway(tariff, start, pieces, changes, policy, more)
    assert_recomputed(stored(found), tariff.get("tax_included") == "YES")


BY_POWER = tariff(
    element(component("ENERGY", "0.20"), max_power=16),
    element(component("ENERGY", "0.35"), max_power=32),
    element(component("ENERGY", "0.50")),
)


def periods(made):
    return [
        {d["type"]: d["volume"] for d in period["dimensions"]}
        for period in made["charging_periods"]
    ]


def test_periods_of_a_tariff_by_power_tell_the_least_and_the_greatest_power():
    """6, 12, 48 and 4 kW: the first two have one price, and so one period."""
    events = [CP.meter(10, "2000"), CP.meter(20, "4000"), CP.meter(80, "52000")]
    of = stored(receipt(tariff_book(BY_POWER), CP.start("1000"), *events, CP.stop(110, "54000")))
    assert periods(assert_recomputed(of)) == [
        {"ENERGY": 3, "TIME": Decimal("0.3333"), "MIN_POWER": 6, "MAX_POWER": 12},
        {"ENERGY": 48, "TIME": 1, "MIN_POWER": 48, "MAX_POWER": 48},
        {"ENERGY": 2, "TIME": Decimal("0.5"), "MIN_POWER": 4, "MAX_POWER": 4},
    ]


def test_a_period_never_lies_on_both_sides_of_a_bound_though_its_price_is_the_same():
    """Below 10 and from 20 kW the same element holds, and in between another one."""
    prices = tariff(
        element(component("ENERGY", "1"), min_power=10, max_power=20),
        element(component("ENERGY", "0.2")),
    )
    events = [CP.meter(60, "6000"), CP.meter(120, "36000")]
    of = stored(receipt(tariff_book(prices), CP.start("1000"), *events, CP.stop(180, "51000")))
    made = assert_recomputed(of)
    assert [(p["MIN_POWER"], p["MAX_POWER"]) for p in periods(made)] == [(5, 5), (30, 30), (15, 15)]


def test_a_power_just_below_a_bound_is_not_rounded_onto_it():
    """15.999996 kW for an hour."""
    of = stored(receipt(tariff_book(BY_POWER), CP.start("1000"), CP.stop(60, "16999.996")))
    assert periods(assert_recomputed(of))[0]["MAX_POWER"] == Decimal("15.9999")


def test_periods_of_a_tariff_by_current_tell_it_and_none_where_it_was_not_sampled():
    prices = tariff(
        element(component("TIME", "6"), min_current=16), element(component("TIME", "1"))
    )

    def current(minute, amperes):
        return CP.meter(minute, Sample(amperes, measurand="Current.Import"))

    events = [current(10, "10"), current(20, "12.5"), current(30, "16"), current(40, "32")]
    of = stored(receipt(tariff_book(prices), CP.start("1000"), *events, CP.stop(60, "5000")))
    limits = [(p.get("MIN_CURRENT"), p.get("MAX_CURRENT")) for p in periods(assert_recomputed(of))]
    assert limits == [(None, None), (10, Decimal("12.5")), (16, 32)]
    assert not any("MIN_POWER" in period for period in periods(assert_recomputed(of)))


def test_other_tariffs_tell_neither():
    of = stored(
        receipt(tariff_book(PER_HOUR), CP.start("1000"), CP.meter(9, "2000"), CP.stop(60, "5000"))
    )
    assert periods(assert_recomputed(of)) == [{"ENERGY": 4, "TIME": 1}]


PER_HOUR = tariff(element(component("TIME", "6"), component("PARKING_TIME", "12")))


def test_the_grace_of_an_idle_spell_is_a_period_of_no_tariff():
    """30 minutes charging, 15 free, 15 idle: 3 + 3 EUR."""
    events = [CP.start("1000"), CP.status(30, "SuspendedEV"), CP.stop(60, "5000")]
    made = assert_recomputed(stored(receipt(tariff_book(PER_HOUR, idle_grace_s=900), *events)))
    assert made["total_cost"]["excl_vat"] == 6
    assert made["total_parking_time"] == Decimal("0.5")
    free = [p["dimensions"] for p in made["charging_periods"] if "tariff_id" not in p]
    assert free == [[{"type": "PARKING_TIME", "volume": Decimal("0.25")}]]


def test_a_session_that_is_waived_has_no_relevant_tariff():
    of = stored(
        receipt(tariff_book(PER_HOUR, min_billable_wh=9000), CP.start("0"), CP.stop(60, "100"))
    )
    made = assert_recomputed(of)
    assert ["tariff_id" in period for period in made["charging_periods"]] == [False]


def test_a_fee_that_only_a_fault_met_has_its_period():
    prices = tariff(
        element(component("FLAT", "2"), max_duration=600), element(component("ENERGY", "1"))
    )
    events = [CP.start("1000"), CP.status(0, "Faulted"), CP.status(20, "Charging")]
    made = assert_recomputed(stored(receipt(tariff_book(prices), *events, CP.stop(60, "1000"))))
    assert made["total_cost"]["excl_vat"] == 2


def test_no_parking_time_is_not_reported_as_zero():
    of = stored(receipt(tariff_book(PER_HOUR), CP.start("0"), CP.stop(60, "100")))
    assert "total_parking_time" not in cdr(of, party=PARTY)


def test_a_receipt_of_an_older_version_has_periods_without_power():
    of = stored(receipt(tariff_book(BY_POWER), CP.start("1000"), CP.stop(60, "5000")))
    for period in of["periods"]:
        del period["min_power_kw"], period["max_power_kw"]
    assert periods(valid(cdr(of, party=PARTY))) == [{"ENERGY": 4, "TIME": 1}]


def test_the_zone_of_the_worked_examples_is_that_of_their_receipts():
    assert {of.values[0]["time_zone"] for of in EXAMPLES} >= {ZONE}
