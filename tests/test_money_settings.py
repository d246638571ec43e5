"""No setting about money is accepted and ignored: each changes what a receipt says."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest

from gateway.app import AppSettings
from gateway.config.load import load
from gateway.config.model import ChargePoint as Configured
from gateway.config.tariffs import load_tariff_book
from gateway.tariffs.policy import POLICY_FIELDS

from .billing.builders import CP, ZONE, component, element, receipt, tariff, tariff_book

PRICES = tariff(
    element(component("ENERGY", "0.305", "21"), component("TIME", "0.01"),
            component("PARKING_TIME", "6")),
)  # fmt: skip
SCENES = {
    "suspended_evse": ("PARKING_TIME", [CP.status(30, "SuspendedEVSE")], "5000"),
    "faulted": ("TIME", [CP.status(30, "Faulted")], "5000"),
    "idle_detection": ("power", [CP.meter(30, "5000")], "5000"),
    "idle_power_w": (20_000, [], "5000"),
    "idle_grace_s": (600, [CP.status(30, "SuspendedEV")], "5000"),
    "post_stop_parking": (True, [CP.status(30, "Charging")], "5000"),
    "min_billable_wh": (100_000, [], "5000"),
    "max_power_kw": (3, [CP.meter(30, "2000")], "9000"),
    "plausibility_slack_wh": (400_000, [CP.meter(30, "2000")], "505000"),
    "max_session_h": (Decimal("0.5"), [], "5000"),
    "stop_tolerance_wh": (600, [CP.meter(30, "5500")], "5000"),
    "rounding": ("HALF_EVEN", [], "2000"),
}
BESIDE = {"idle_power_w": {"idle_detection": "power"}}
ROUNDED = tariff(element(component("FLAT", "0.125")))


def test_every_key_of_the_policy_has_a_scene():
    assert SCENES.keys() == set(POLICY_FIELDS)


@pytest.mark.parametrize("name", SCENES)
def test_every_key_of_the_policy_changes_what_a_session_costs(name):
    value, events, register = SCENES[name]
    prices = ROUNDED if name == "rounding" else PRICES
    beside = BESIDE.get(name, {})

    def receipt_with(**policy):
        after = [CP.stop(60, register), CP.status(90, "Available")]
        return receipt(tariff_book(prices, **beside, **policy), CP.start("0"), *events, *after)

    plain, changed = receipt_with(), receipt_with(**{name: value})
    if name == "max_session_h":  # a person looks at what a longer session costs
        assert (plain["needs_review"], changed["needs_review"]) == (False, True)
    else:
        assert plain["total_incl_vat"] != changed["total_incl_vat"]


# --- of a charge point, from the file -------------------------------------------------------------


def priced(tmp_path, text, *events):
    path = tmp_path / "gateway.toml"
    path.write_text(f'[storage]\nurl = "sqlite:///{tmp_path}/x.db"\n{text}')
    config = load(path, {})[0]
    first, *rest = events
    scale = AppSettings.of(config).southbound.handlers.energy_scales.get("CP-1")
    return receipt(load_tariff_book(config)[0], attrs.evolve(first, energy_scale=scale), *rest)


OF_A_CHARGE_POINT = {  # key -> (value, what a receipt says with it)
    "time_zone": ('"Asia/Tokyo"', {"total_incl_vat": "9.00", "time_zone": "Asia/Tokyo"}),
    "max_power_kw": ("3.7", {"total_incl_vat": "0.00", "energy_wh": "0"}),
    "energy_scale": ("0.5", {"total_incl_vat": "1.00", "energy_scale": "0.5"}),
}
NO_MONEY = {"password_hash", "security_profile"}
DAY_AND_NIGHT = """
{"time_zone": "Europe/Amsterdam", "tariffs": [{"id": "T", "currency": "EUR", "elements": [
    {"price_components": [{"type": "ENERGY", "price": 0.2}],
     "restrictions": {"start_time": "07:00", "end_time": "23:00"}},
    {"price_components": [{"type": "ENERGY", "price": 0.9}]}]}]}
"""


def test_every_key_of_a_charge_point_about_money_has_a_scene():
    assert {field.name for field in attrs.fields(Configured)} - NO_MONEY == set(OF_A_CHARGE_POINT)


@pytest.mark.parametrize("name", OF_A_CHARGE_POINT)
def test_every_key_of_a_charge_point_changes_what_its_sessions_cost(name, tmp_path):
    """10 kWh at 16:30 in Amsterdam, which is 00:30 in Tokyo: 2.00 EUR by day."""
    (tmp_path / "tariffs.json").write_text(DAY_AND_NIGHT)
    value, expected = OF_A_CHARGE_POINT[name]
    text = '[pricing]\ntariffs = "tariffs.json"\n'
    events = CP.start("1000"), CP.stop(60, "11000")
    plain = priced(tmp_path, text, *events)
    assert (plain["total_incl_vat"], plain["time_zone"]) == ("2.00", ZONE)
    changed = priced(tmp_path, f'{text}[charge_points."CP-1"]\n{name} = {value}\n', *events)
    assert {key: changed[key] for key in expected} == expected


def test_without_tariffs_they_decide_about_energy_all_the_same(tmp_path):
    text = '[charge_points."CP-1"]\ntime_zone = "Asia/Tokyo"\nmax_power_kw = 3.7\n'
    settled = priced(tmp_path, text, CP.start("1000"), CP.meter(30, "2000"), CP.stop(60, "11000"))
    assert (settled["energy_wh"], settled["time_zone"]) == ("1000", "Asia/Tokyo")
    assert settled["flags"] == ["meter_stop_implausible", "needs_review"]
    assert Decimal(settled["energy_wh"]) == 1000
