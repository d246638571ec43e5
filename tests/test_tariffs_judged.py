"""Tariff files as operators write them: what prices no session, and what `check` says."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.ledger import Ledger
from gateway.cli.main import main
from gateway.domain.events import TransactionOpened, TransactionProgressed, TransactionSettled
from gateway.tariffs.file import read_tariffs, terms_of

from .billing.builders import (
    CP,
    PER_KWH,
    START,
    ZONE,
    component,
    element,
    posted,
    receipt,
    tariff,
    tariff_book,
)
from .conftest import open_gateway

RESERVED = element(component("FLAT", "5"), reservation="RESERVATION")
LIMITS = [
    {},
    {"min_price": {"excl_vat": Decimal(1)}},
    {"max_price": {"incl_vat": Decimal(1)}},
    {"min_price": {"incl_vat": 1}, "max_price": {"excl_vat": 9}},
]


# --- what prices no session -----------------------------------------------------------------------


@pytest.mark.parametrize("limits", LIMITS)
def test_a_tariff_for_reservations_alone_prices_no_session(limits):
    prices = tariff_book(tariff(RESERVED, RESERVED, **limits))
    facts = posted(prices, CP.start("1000"), CP.meter(30, "3000"), CP.stop(60, "6000"))
    opened, progressed, settled = facts
    assert isinstance(opened, TransactionOpened)
    assert opened.tariff is None
    assert isinstance(progressed, TransactionProgressed)
    assert progressed.progress.cost_total is None
    assert isinstance(settled, TransactionSettled)
    priced = settled.receipt
    assert (priced["energy_wh"], priced["total_incl_vat"], priced["tariff"]) == ("5000", None, None)
    assert priced["flags"] == ["needs_review", "no_tariff"]


def test_the_next_tariff_of_the_list_that_prices_sessions_is_theirs():
    prices = tariff_book(tariff(RESERVED, min_price=1) | {"id": "R"}, PER_KWH)
    priced = receipt(prices, CP.start("1000"), CP.stop(60, "6000"))
    assert (priced["tariff_id"], priced["total_incl_vat"], priced["flags"]) == ("T", "1.50", [])


def test_a_session_that_an_older_version_opened_with_it_is_restored_without_a_price():
    """It journaled the tariff as the session's: it would have cost nothing, by accident."""
    snapshot = tariff(RESERVED)
    terms = terms_of(snapshot, None, ZONE)
    assert (terms.tariff, terms.unpriced) == (None, True)
    first, *_ = Ledger(tariff_book(PER_KWH)).post(CP.start("1000"))
    assert isinstance(first, TransactionOpened)
    ledger = Ledger(tariff_book(PER_KWH))
    ledger.restore(CP.start("1000"))
    ledger.restore(TransactionOpened(**{
        name: getattr(first, name) for name in ("charge_point_id", "received_at", "timestamp",
        "transaction_id", "connector_id", "started_at", "id_tag", "progress", "policy",
        "time_zone")}, tariff=snapshot))  # fmt: skip
    (settled,) = ledger.post(CP.stop(60, "6000"))
    assert settled.receipt["total_incl_vat"] is None
    assert "no_tariff" in settled.receipt["flags"]


async def test_the_gateway_accounts_for_it_and_for_everybody_else():
    prices, faults = read_tariffs(
        {
            "tariffs": [tariff(RESERVED, min_price=1) | {"id": "R"}, PER_KWH],
            "assign": [
                {"charge_point": "A", "tariffs": ["R"]},
                {"default": True, "tariffs": ["T"]},
            ],
            "time_zone": ZONE,
        }
    )
    assert [f.where for f in faults if "prices no session" in f.what] == ["tariffs[0]"]
    async with open_gateway(tariff_book=prices) as gateway:
        for name in ("A", "B"):
            async with gateway.charger(name) as charger:
                tx = await charger.start(meter_wh=0)
                await charger.stop(tx, meter_wh=900)
                await gateway.settled()
        totals = [event.receipt["total_incl_vat"] for event in gateway.events(TransactionSettled)]
    assert totals == [None, "0.27"]


# --- `check` --------------------------------------------------------------------------------------


@pytest.fixture
def check(tmp_path, capsys):
    """The exit status of `check` for a tariff file, and its lines."""

    def checked(text):
        (tmp_path / "tariffs.json").write_text(text)
        (tmp_path / "gateway.toml").write_text(
            f'[storage]\nurl = "sqlite:///{tmp_path}/x.db"\n'
            '[thingsboard]\naccess_token = "x"\n[pricing]\ntariffs = "tariffs.json"\n'
        )
        status = main(["check", "--config", str(tmp_path / "gateway.toml")])
        return status, capsys.readouterr().err.replace(f"{tmp_path}/", "").splitlines()

    return checked


def with_component(text, before=""):
    return (
        f'{{"time_zone": "UTC", "tariffs": [{{"id": "T", "currency": "EUR", {before}'
        f'"elements": [{{"price_components": [{text}]}}]}}]}}'
    )


PLACE = "tariffs.json: tariffs[0].elements[0].price_components[0]"


@pytest.mark.parametrize(
    ("component", "key", "what", "status"),
    [
        ('{"type": "ENERGY", "price": 0.3, "step_size": 0}', ".step_size", "warning: is 0", 0),
        ('{"type": "ENERGY", "price": 0.3, "vat": 121}', ".vat", "is 121 %", 2),
        ('{"type": "ENERGY", "price": 0.3, "vat": -1}', ".vat", "must not be negative", 2),
        ('{"type": "ENERGY", "price": 0.3, "vat": 0.21}', ".vat", "so 21 and not 0.21", 0),
        ('{"type": "ENERGY", "price": 0.3, "vat": 77}', ".vat", "is that meant", 0),
        ('{"type": "ENERGY", "price": 1000}', ".price", "warning: is 1000 EUR per kWh", 0),
        ('{"type": "ENERGY", "price": 45}', ".price", "not in its hundredths", 0),
        ('{"type": "TIME", "price": 600}', ".price", "is 600 EUR per h", 0),
        ('{"type": "FLAT", "price": 2500}', ".price", "is 2500 EUR per session", 0),
        ('{"type": "ENERGY", "price": -0.3}', ".price", "must not be negative", 2),
        ('{"type": "ENERGY", "price": true}', ".price", "must be a number, not true", 2),
        ('{"type": "ENERGY", "price": "0,30"}', ".price", 'not "0,30"', 2),
        ('{"type": "ENERGY", "price": 1e-999999999}', ".price", "more than 20 decimals", 2),
        ('{"type": "ENERGY", "price": 1e999999999}', ".price", "out of all proportion", 2),
        ('{"type": "SESSION_TIME", "price": 1}', ".type", "use TIME for charging and PARK", 2),
        ('{"type": "CONGESTION_TIME", "price": 1}', ".type", "; use PARKING_TIME", 2),
        ('{"type": "chargingTime", "price": 1}', ".type", "; use TIME", 2),
        ('{"type": "energy", "price": 1}', ".type", "; use ENERGY", 2),
        ('{"type": "BREAKFAST", "price": 1}', ".type", 'not "BREAKFAST"', 2),
        ('{"type": "ENERGY", "price": 0.3, "price": 0.4}', ".price", "twice in one object", 2),
        ('{"type": "ENERGY", "price": 0.3, "vat_rate": 21}', ".vat_rate", "ignored", 0),
        ('{"type": "ENERGY", "price": 0.3, "stepsize": 1}', ".stepsize", "is step_size meant", 0),
    ],
)
def test_what_is_wrong_with_a_price_is_reported_with_its_place(component, key, what, status, check):
    found, lines = check(with_component(component))
    assert found == status
    assert [line for line in lines if line.startswith(f"{PLACE}{key}: ") and what in line], lines


@pytest.mark.parametrize(
    ("text", "line", "status"),
    [
        (
            '{"time_zone": "UTC", "tariffs": [{"id": "T", "currency": "EUR", "min_price": 1,'
            ' "elements": [{"price_components": [{"type": "FLAT", "price": 5}],'
            ' "restrictions": {"reservation": "RESERVATION"}}]}]}',
            "tariffs.json: tariffs[0]: warning: prices no session",
            0,
        ),
        (
            '{"time_zone": "UTC", "tariffs": [{"id": "T", "currency": "EUR", "elements": []}]}',
            "tariffs.json: tariffs[0].elements: is missing: a tariff without elements prices no",
            2,
        ),
        (with_component(""), "tariffs.json: tariffs[0].elements[0].price_components: is miss", 2),
        (
            with_component('{"type": "ENERGY", "price": 1}', '"currency": "USD", '),
            "tariffs.json: tariffs[0].currency: is there twice in one object",
            2,
        ),
        (
            '{"time_zone": "UTC", "tariffs": [], "policy": {}, "policy": {}}',
            "tariffs.json: policy: is there twice",
            2,
        ),
        (
            with_component('{"type": "ENERGY", "price": 1}', '"max_prices": 5, '),
            "tariffs.json: tariffs[0].max_prices: warning: is not known to OCPI: ignored; is max_",
            0,
        ),
        (
            with_component('{"type": "FLAT", "price": 1}', '"max_price": 0, '),
            "tariffs.json: tariffs[0].max_price: warning: is 0",
            0,
        ),
        (
            with_component('{"type": "FLAT", "price": 1}', '"min_price": 5000, '),
            "tariffs.json: tariffs[0].min_price: warning: is more than any session costs",
            0,
        ),
        (
            with_component(
                '{"type": "FLAT", "price": 1}', '"min_price": {"excl_vat": 2, "incl_vat": 1}, '
            ),
            "tariffs.json: tariffs[0].min_price: warning: is less including VAT",
            0,
        ),
        (
            '{"time_zone": "UTC", "tariffs": [], "policy": {"max_power_kw": 0}}',
            "tariffs.json: policy.max_power_kw: must be above 0",
            2,
        ),
        ('{"tariffs": [NaN]}', "tariffs.json: not readable as JSON", 2),
        ("[" * 100_000, "tariffs.json: not readable as JSON", 2),
        ('{"tariffs": ' + "9" * 5000 + "}", "tariffs.json: ", 2),
        (
            with_component('{"type": "FLAT", "price": 1}').replace(
                "]}]}", '], "restriction": {"min_kwh": 1}}]}'
            ),
            "tariffs.json: tariffs[0].elements[0].restriction: warning: is not known to OCPI",
            0,
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_reported_with_its_place(text, line, status, check):
    found, lines = check(text)
    assert found == status
    assert [one for one in lines if one.startswith(line)], lines


def test_more_elements_than_can_be_looked_at_for_each_message_are_a_fault(check):
    one = {"price_components": [{"type": "FLAT", "price": 1}]}
    text = json.dumps({"time_zone": "UTC", "tariffs": [
        {"id": "T", "currency": "EUR", "elements": [one] * 10_000}]})  # fmt: skip
    found, lines = check(text)
    assert (found, lines) == (
        2, ["tariffs.json: tariffs[0].elements: has 10000 of them; 1000 are the most"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("currency", "price", "warned"),
    [("EUR", "10", False), ("EUR", "10.01", True), ("NOK", "10.01", False), ("NOK", "101", True),
     ("IDR", "2466", False), ("JPY", "50", False), ("IDR", "100001", True)],
)  # fmt: skip
def test_a_price_is_judged_by_what_its_currency_is_worth(currency, price, warned):
    document = {"tariffs": [tariff(element(component("ENERGY", price)), currency=currency)],
                "time_zone": "UTC"}  # fmt: skip
    _, faults = read_tariffs(document)
    assert any(fault.where.endswith(".price") for fault in faults) is warned


def test_a_range_of_power_or_current_that_is_empty_is_reported():
    for what in ("power", "current"):
        limits = {f"min_{what}": 16, f"max_{what}": 11}
        document = {"tariffs": [tariff(element(component("TIME", "1"), **limits))],
                    "time_zone": "UTC"}  # fmt: skip
        _, faults = read_tariffs(document)
        assert any(f"the range of {what} is empty" in fault.what for fault in faults)


def test_what_is_judged_in_a_file_does_not_stop_a_session_that_began_with_it():
    for found in (tariff(element(component("ENERGY", "9999", "121", 0))),
                  tariff(*[element(component("FLAT", "1"))] * 1001)):  # fmt: skip
        assert terms_of(found, None, ZONE).tariff is not None


numbers = st.one_of(
    st.integers(-2, 10**30),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.sampled_from([Decimal("1e-400"), Decimal("0e-99"), Decimal("1e400"), Decimal("0e400")]),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.sampled_from(["0.30", "1_000", "\uff11", "1e5", ""]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("id", "currency", "min_price", "max_price", "tax_included", "start_date_time",
             "elements"), numbers),
    ),
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["ENERGY", "TIME", "FLAT", "PARKING_TIME"]), "price": numbers},
            optional={"vat": numbers, "step_size": numbers},
        ),
        max_size=2,
    ),
    st.dictionaries(
        st.sampled_from(["min_kwh", "max_power", "min_current", "max_duration", "reservation",
                         "start_time", "end_date", "day_of_week", "color"]),
        numbers, max_size=3,
    ),
)  # fmt: skip
def test_whatever_stands_in_a_tariff_it_is_refused_or_prices_a_session(given, parts, limits):
    whole = {"price_components": parts, "restrictions": limits}
    document = {
        "tariffs": [{"id": "T", "currency": "EUR", "elements": [whole]} | given],
        "time_zone": "UTC",
    }
    prices, faults = read_tariffs(document)
    terms = prices.terms_for("CP-1", 1, START)
    priced = receipt(prices, CP.start("1000"), CP.meter(30, "3000"), CP.stop(60, "6000"))
    if any(fault.fatal for fault in faults):
        assert not prices.assignments
    elif terms.tariff is None:
        assert priced["flags"] == ["needs_review", "no_tariff"]
    else:
        assert Decimal(priced["total_excl_vat"]) >= 0
