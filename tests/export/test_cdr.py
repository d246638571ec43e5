"""Receipts as OCPI CDRs: valid by OCPI's own table, and adding up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.json_codec import encode_text
from gateway.export.cdr import StillOpen, Unpriced, cdr, credit, export
from gateway.tariffs.tariff import TariffBook

from ..billing.builders import CP, PER_KWH, at, component, element, receipt, tariff, tariff_book
from ..billing.test_properties import BOOKS, last_receipt, messages
from .cdr_checks import PARTS, adds_up, valid
from .corpus import PARTY, PRICED, plain_receipt, stored, worked_examples

EXAMPLES = [pytest.param(found, id=name) for name, found in worked_examples()]
PRICES = [*BOOKS, *map(tariff_book, PRICED.values()), tariff_book(PER_KWH, min_billable_wh=2000)]


@pytest.mark.parametrize("of", EXAMPLES)
def test_every_worked_example_is_a_valid_cdr_that_adds_up(of):
    if of["tariff"] is None:
        with pytest.raises(Unpriced):
            cdr(of, party=PARTY)
    else:
        adds_up(valid(cdr(of, party=PARTY)), of)


@pytest.mark.parametrize("name", PRICED)
def test_every_kind_of_tariff_gives_a_valid_cdr_that_adds_up(name):
    of = plain_receipt(name)
    adds_up(valid(cdr(of, party=PARTY)), of)


@settings(deadline=None)
@given(st.sampled_from(PRICES), messages())
def test_whatever_a_charge_point_sends_its_cdr_is_valid_and_adds_up(prices, events):
    of = stored(last_receipt(prices, events))
    adds_up(valid(cdr(of, party=PARTY)), of)


def test_a_cdr_says_what_the_receipt_says():
    found = valid(cdr(plain_receipt(), party=PARTY))
    assert found["id"] == found["session_id"] == "CP-1-1-1-20260114T153000Z"
    assert (found["country_code"], found["party_id"]) == ("NL", "TST")
    assert found["start_date_time"] == "2026-01-14T15:30:00Z"
    assert found["end_date_time"] == found["last_updated"] == "2026-01-14T17:30:00Z"
    assert found["cdr_token"] == {
        "country_code": "NL",
        "party_id": "TST",
        "uid": "04A1",
        "type": "RFID",
        "contract_id": "04A1",
    }
    assert found["auth_method"] == "WHITELIST"
    assert found["total_energy"] == Decimal("12.3456")
    assert found["total_time"] == 2
    assert found["total_parking_time"] == Decimal("0.3333")
    assert found["total_fixed_cost"] == {"excl_vat": Decimal("0.5"), "incl_vat": Decimal("0.605")}
    assert found["total_parking_cost"] == {"excl_vat": 2, "incl_vat": Decimal("2.42")}
    assert "total_time_cost" not in found  # the tariff has no price for charging time
    assert found["total_cost"] == {"excl_vat": Decimal("9.31"), "incl_vat": Decimal("11.26")}
    assert found["charging_periods"] == [
        {
            "start_date_time": "2026-01-14T15:30:00Z",
            "dimensions": [
                {"type": "ENERGY", "volume": 3},
                {"type": "TIME", "volume": Decimal("0.5")},
            ],
            "tariff_id": "T",
        },
        {
            "start_date_time": "2026-01-14T16:00:00Z",
            "dimensions": [
                {"type": "ENERGY", "volume": Decimal("7.2304")},
                {"type": "TIME", "volume": Decimal("1.1667")},
            ],
            "tariff_id": "T",
        },
        {
            "start_date_time": "2026-01-14T17:10:00Z",
            "dimensions": [
                {"type": "ENERGY", "volume": Decimal("2.1152")},
                {"type": "PARKING_TIME", "volume": Decimal("0.3333")},
            ],
            "tariff_id": "T",
        },
    ]


def test_its_numbers_are_numbers_in_json_too():
    document = json.loads(encode_text(cdr(plain_receipt(), party=PARTY)), parse_float=Decimal)
    valid(document)
    assert document["total_energy"] == Decimal("12.3456")


def test_without_vat_both_amounts_are_the_same():
    found = cdr(plain_receipt("no VAT"), party=PARTY)
    assert found["total_cost"] == {"excl_vat": Decimal("4.2"), "incl_vat": Decimal("4.2")}
    assert all("vat" not in c for c in found["tariffs"][0]["elements"][0]["price_components"])


@pytest.mark.parametrize(("name", "total"), [("yen", "411"), ("dinar", "0.416")])
def test_the_total_has_the_decimals_of_its_currency(name, total):
    """12.346 kWh at 33.3 JPY are 411.1218, at 0.0337 KWD 0.4160602."""
    assert cdr(plain_receipt(name), party=PARTY)["total_cost"]["excl_vat"] == Decimal(total)


def test_what_a_least_price_adds_is_a_fixed_cost_and_in_the_remark():
    """12.346 kWh (a step is 1 Wh) for 3.7038 are raised to 50, and 21 % are on both."""
    found = cdr(plain_receipt("a least price"), party=PARTY)
    assert found["total_energy_cost"]["excl_vat"] == Decimal("3.7038")
    assert found["total_fixed_cost"] == {
        "excl_vat": Decimal("46.2962"),
        "incl_vat": Decimal("56.0184"),
    }
    assert found["total_cost"] == {"excl_vat": 50, "incl_vat": Decimal("60.5")}
    assert found["tariffs"][0]["min_price"] == {"excl_vat": 50}
    limits = "adjusted to the tariff's limits by 46.2962 excl. VAT, 56.0184 incl. VAT"
    assert limits in found["remark"]
    assert "min_price_applied" in found["remark"]


def test_what_a_greatest_price_takes_off_is_negative_in_the_remark():
    found = cdr(plain_receipt("a greatest price"), party=PARTY)
    assert found["total_cost"] == {"excl_vat": Decimal("0.5"), "incl_vat": Decimal("0.6")}
    assert "limits by -" in found["remark"]
    for side in ("excl_vat", "incl_vat"):
        parts = found["total_energy_cost"][side] + found["total_time_cost"][side]
        assert parts == found["total_cost"][side]
        assert 0 < found["total_energy_cost"][side] < found["total_time_cost"][side]


def test_a_session_that_is_waived_costs_nothing_and_has_no_parts():
    of = plain_receipt("no VAT", min_billable_wh=50_000)
    found = valid(cdr(of, party=PARTY))
    assert found["total_cost"] == {"excl_vat": 0, "incl_vat": 0}
    assert not found.keys() & set(PARTS)
    assert found["remark"].endswith("flags: waived_below_min_energy")


def test_a_session_in_which_nothing_happened_has_one_period():
    found = cdr(
        stored(receipt(tariff_book(PER_KWH), CP.start("1000"), CP.stop(0, "1000"))), party=PARTY
    )
    assert valid(found)["charging_periods"] == [
        {
            "start_date_time": "2026-01-14T15:30:00Z",
            "dimensions": [{"type": "ENERGY", "volume": 0}],
            "tariff_id": "T",
        }
    ]


def test_the_remark_begins_with_what_a_person_must_look_at():
    of = stored(receipt(tariff_book(PER_KWH), CP.start("1000"), CP.stop(60, "500", reason="Local")))
    found = valid(cdr(of, party=PARTY))
    assert found["remark"].startswith("needs review; stopped: Local; flags: ")
    assert "meter_stop_below_start" in found["remark"]


def test_a_session_without_anything_to_say_has_no_remark():
    assert "remark" not in cdr(plain_receipt("no VAT") | {"stop_reason": None}, party=PARTY)


def test_a_long_remark_is_cut():
    of = plain_receipt() | {"flags": ["sample_rejected\n"] * 30}
    remark = valid(cdr(of, party=PARTY))["remark"]
    assert len(remark) == 255
    assert remark.endswith("...")


# --- identity -----------------------------------------------------------------------------------


def test_a_long_name_is_shortened_alike_each_time_and_unlike_others():
    long = "CP-" + "0123456789" * 5
    receipts = [
        plain_receipt() | {"receipt_id": f"{long}-{n}-20260114T153000Z", "charge_point": long}
        for n in (1, 2)
    ]
    one, two = (valid(cdr(of, party=PARTY)) for of in receipts)
    assert one == cdr(receipts[0], party=PARTY)
    assert len(one["id"]) == 36
    assert one["id"].startswith("CP-0123456789")
    assert one["id"] != two["id"]
    assert one["session_id"] != two["session_id"]


@pytest.mark.parametrize("tag", ["", "é", "名札", "a\tb", "\ud800", "x" * 37])
def test_an_id_tag_that_ocpi_cannot_spell_is_named_by_its_hash(tag):
    found = valid(cdr(plain_receipt() | {"id_tag": tag}, party=PARTY))
    assert found["cdr_token"]["uid"] != tag


def test_a_corrected_receipt_is_a_cdr_of_its_own_that_names_the_former():
    first = plain_receipt()
    third = cdr(first | {"version": 3}, party=PARTY)
    second = cdr(first | {"version": 2}, party=PARTY)
    ids = {cdr(first, party=PARTY)["id"], valid(second)["id"], valid(third)["id"]}
    assert len(ids) == 3
    assert f"replaces {second['id']}" in third["remark"]
    assert f"replaces {first['receipt_id']}" in second["remark"]
    assert len({found["session_id"] for found in (second, third)}) == 1


def test_a_credit_cdr_takes_the_total_back_and_keeps_all_else():
    found = cdr(plain_receipt(), party=PARTY)
    back = valid(credit(found, last_updated=datetime(2026, 2, 1, tzinfo=UTC)))
    assert back["id"] == found["id"] + "-C"
    assert back["credit"] is True
    assert back["credit_reference_id"] == found["id"]
    assert back["total_cost"] == {"excl_vat": Decimal("-9.31"), "incl_vat": Decimal("-11.26")}
    assert back["last_updated"] == "2026-02-01T00:00:00Z"
    assert {name for name in back if back[name] != found.get(name)} == {
        "id",
        "credit",
        "credit_reference_id",
        "total_cost",
        "last_updated",
    }
    assert credit(found)["last_updated"] == found["last_updated"]
    with pytest.raises(ValueError, match="is a Credit CDR itself"):
        credit(back)


def test_a_credit_of_a_shortened_id_is_valid_too():
    of = plain_receipt() | {"receipt_id": "x" * 60}
    assert len(valid(credit(cdr(of, party=PARTY)))["id"]) == 38


def test_fractions_of_seconds_are_cut_to_what_a_date_time_holds():
    of = plain_receipt() | {"started_at": "2026-01-14T15:29:59.987654Z"}
    assert valid(cdr(of, party=PARTY))["start_date_time"] == "2026-01-14T15:29:59.987Z"


# --- what is no CDR -----------------------------------------------------------------------------


def test_sessions_without_price_or_end_are_left_out_and_reported():
    unpriced = stored(receipt(TariffBook.empty(), CP.start("0"), CP.stop(60, "100")))
    still_open = plain_receipt() | {"receipt_id": "OPEN"}
    del still_open["stopped_at"]
    found = export([plain_receipt(), unpriced, still_open], party=PARTY)
    assert [each["id"] for each in found.cdrs] == ["CP-1-1-1-20260114T153000Z"]
    assert found.unpriced == [unpriced["receipt_id"]]
    assert found.still_open == ["OPEN"]
    with pytest.raises(StillOpen, match="OPEN"):
        cdr(still_open, party=PARTY)


def test_a_receipt_whose_time_cannot_be_read_is_a_fault_of_ours():
    with pytest.raises(ValueError, match="no timestamp"):
        cdr(plain_receipt() | {"stopped_at": "yesterday"}, party=PARTY)


def test_periods_of_a_third_of_a_unit_still_add_up():
    """Three periods of a third of 0.1 Wh: OCPI's four decimals cannot say it of each."""
    prices = tariff_book(
        tariff(
            element(component("ENERGY", "1"), max_duration=1200),
            element(component("ENERGY", "2"), max_duration=2400),
            element(component("ENERGY", "3")),
        )
    )
    of = stored(receipt(prices, CP.start("0"), CP.stop(60, "0.1")))
    found = cdr(of, party=PARTY)
    adds_up(valid(found), of)
    assert found["total_energy"] == Decimal("0.0001")
    assert at(60).isoformat().startswith(found["end_date_time"][:-1])
