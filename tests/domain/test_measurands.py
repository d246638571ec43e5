"""What is measured at one instant, by telemetry's names."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.domain.event_values import Sample
from gateway.domain.fixed_point import rounded, scaled
from gateway.domain.measurands import instantaneous


def sample(value, measurand, phase=None, unit=None, **more):
    return Sample(value, measurand=measurand, phase=phase, unit=unit, **more)


def phases(measurand, unit, **values):
    return [sample(value, measurand, phase, unit) for phase, value in values.items()]


def test_a_bare_value_is_the_register_at_the_outlet():
    assert instantaneous([Sample("106000")]) == {"meter_wh": 106000}


def test_kilo_units_are_converted():
    assert instantaneous(
        [
            sample("12.5", "Energy.Active.Import.Register", unit="kWh"),
            sample("7.4", "Power.Active.Import", unit="kW"),
            sample("22", "Power.Offered", unit="kW"),
            sample("3", "Energy.Active.Export.Register", unit="kWh"),
        ]
    ) == {
        "meter_wh": 12500,
        "power_w": 7400,
        "power_offered_w": 22000,
        "energy_export_wh": 3000,
    }


def test_power_of_phases_is_summed_where_there_is_no_total():
    lines = phases("Power.Active.Import", "W", L1="100", L2="200.5", L3="300")
    assert instantaneous(lines) == {"power_w": 600.5}
    assert instantaneous([*lines, sample("7", "Power.Active.Import")]) == {"power_w": 7}


def test_currents_are_told_by_phase_and_in_all():
    lines = phases("Current.Import", "A", L1="6", L2="7", N="1")
    assert instantaneous(lines) == {"current_l1_a": 6, "current_l2_a": 7, "current_a": 13}


def test_voltage_is_the_mean_of_the_lines():
    lines = phases("Voltage", "V", **{"L1-N": "230", "L2-N": "231", "L3-N": "233"})
    assert instantaneous(lines) == {
        "voltage_l1_v": 230,
        "voltage_l2_v": 231,
        "voltage_l3_v": 233,
        "voltage_v": 231.3,
    }


def test_one_line_is_its_own_mean():
    assert instantaneous(phases("Voltage", "V", L1="230"))["voltage_v"] == 230


def test_voltage_between_the_lines_is_brought_down_to_one_line():
    lines = phases("Voltage", "V", **{"L1-L2": "400", "L2-L3": "400"})
    assert instantaneous(lines) == {"voltage_v": 230.9}


def test_the_neutral_is_told_where_nothing_else_is():
    """Injet's single-phase chargers say N where they mean their one phase."""
    assert instantaneous(phases("Current.Import", "A", N="15.6")) == {"current_a": 15.6}
    assert instantaneous(phases("Power.Active.Import", "kW", N="3.6")) == {"power_w": 3600}
    assert instantaneous(phases("Voltage", "V", N="2")) == {}
    for kept in (phases("Current.Import", "A", L2="6"), [sample("6", "Current.Import")]):
        measured = instantaneous([*phases("Current.Import", "A", N="1"), *kept])
        assert measured["current_a"] == 6
    neutral = sample("5", "Energy.Active.Import.Register", "N")
    assert instantaneous([neutral]) == {"meter_wh": 5}


def test_the_car_is_heard_about_itself_alone():
    assert instantaneous(
        [
            sample("45", "SoC", unit="Percent", location="EV"),
            sample("-3.5", "Temperature", unit="Celsius", location="EV"),
            sample("7000", "Power.Active.Import", location="EV"),
        ]
    ) == {"soc_percent": 45, "temperature_c": Decimal("-3.5")}


def test_the_outlet_comes_before_the_inlet():
    inlet = sample("900", "Power.Active.Import", location="Inlet")
    outlet = sample("800", "Power.Active.Import", location="Outlet")
    assert instantaneous([inlet, outlet]) == instantaneous([outlet, inlet]) == {"power_w": 800}


@pytest.mark.parametrize(
    "unusable",
    [
        sample("", "SoC"),
        sample("NaN", "Voltage"),
        sample("1_0", "Voltage"),
        sample("-5", "Energy.Active.Import.Register"),
        sample("-5", "Voltage"),
        sample("--5", "Power.Active.Import"),
        sample("10", "Power.Active.Import", unit="Wh"),
        sample("10", "Power.Factor"),
        sample("10", "Voltage", phase="L9"),
        sample("10", "Voltage", format="SignedData"),
        sample("10", "Voltage", context="Transaction.Begin"),
    ],
)
def test_what_cannot_be_used_is_absent(unusable):
    assert instantaneous([unusable]) == {}


def test_power_into_the_grid_is_negative():
    assert instantaneous(phases("Power.Active.Import", "kW", L1="-3.7", L2="-3.7")) == {
        "power_w": -7400
    }
    assert instantaneous([sample("-16", "Current.Import")]) == {"current_a": -16}


@pytest.mark.parametrize("text", ["-0", "-0.0", " -0.000 ", "-0.0000001"])
@pytest.mark.parametrize(
    "measurand", ["Power.Active.Import", "Current.Import", "Voltage", "Power.Offered", "SoC", None]
)
def test_a_negative_zero_is_zero(measurand, text):
    if text.strip("-0. ") and measurand not in ("Power.Active.Import", "Current.Import"):
        return
    (value,) = instantaneous([sample(text, measurand)]).values()
    assert str(value) == "0.0"


def test_units_are_read_in_any_case_and_spelling():
    assert instantaneous(
        [
            sample("20", "Temperature", unit="Celcius"),
            sample("16", "Current.Offered", unit="Amp"),
            sample(" 50.0 ", "Frequency", unit="hertz"),
            sample("230", "Voltage", unit=" V "),
        ]
    ) == {"temperature_c": 20, "current_offered_a": 16, "frequency_hz": 50, "voltage_v": 230}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("106000", 106000_000),
        (" 106000.0 ", 106000_000),
        ("0.0004", 0),
        ("1.2345", 1234),
        ("-1", None),
        ("+1", None),
        ("1.", None),
        (".5", None),
        ("1e3", None),
        ("1_000", None),
        ("１２", None),  # noqa: RUF001
        ("²", None),
        ("Infinity", None),
        ("9" * 16, None),
        ("", None),
    ],
)
def test_a_register_is_an_unsigned_ascii_decimal(text, expected):
    assert scaled(text, 3) == expected


@pytest.mark.parametrize(
    ("numerator", "up", "even"), [(5, 1, 0), (15, 2, 2), (25, 3, 2), (-5, -1, 0), (-4, 0, 0)]
)
def test_halves_are_rounded_away_from_zero_or_to_even(numerator, up, even):
    assert rounded(numerator, 10, 0) == up
    assert rounded(numerator, 10, 0, half_even=True) == even
