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
from gateway.export.party import Location, party_of
from gateway.tariffs.tariff import TariffBook

from ..billing.builders import CP, PER_KWH, at, component, element, receipt, tariff, tariff_book
from ..billing.test_properties import BOOKS, last_receipt, messages
from .corpus import PARTY, PRICED, plain_receipt, signed_receipt, stored, worked_examples
from .fields import faults

EXAMPLES = [pytest.param(found, id=name) for name, found in worked_examples()]
PRICES = [*BOOKS, *map(tariff_book, PRICED.values()), tariff_book(PER_KWH, min_billable_wh=2000)]
PARTS = ("total_fixed_cost", "total_energy_cost", "total_time_cost", "total_parking_cost")
STEP = Decimal("0.0001")
MINOR = {"EUR": Decimal("0.01"), "JPY": Decimal(1), "KWD": Decimal("0.001")}


def valid(found):
    assert list(faults("CDR", found)) == []
    return found


def volume(found, kind):
    return sum(
        dimension["volume"]
        for period in found["charging_periods"]
        for dimension in period["dimensions"]
        if dimension["type"] == kind
    )


def adds_up(found, of):
    """All that a receiver can check by adding."""
    assert volume(found, "ENERGY") == found["total_energy"]
    assert found.get("total_parking_time") != 0
    parking = found.get("total_parking_time", 0)
    assert volume(found, "PARKING_TIME") == parking
    charging = found["total_time"] - parking
    assert volume(found, "TIME") <= charging + Decimal("0.0001")
    if of["charging_s"] + of["idle_s"] >= of["duration_s"]:
        assert abs(volume(found, "TIME") - charging) <= (0 if volume(found, "TIME") else STEP)
    volumes = [d["volume"] for p in found["charging_periods"] for d in p["dimensions"]]
    assert all(v >= 0 for v in volumes)
    starts = [period["start_date_time"] for period in found["charging_periods"]]
    assert starts == sorted(starts)
    assert found["start_date_time"] <= starts[0] <= starts[-1] <= found["end_date_time"]
    for side in ("excl", "incl"):
        parts = {name: found[name][f"{side}_vat"] for name in PARTS if name in found}
        assert sum(parts.values()) == found["total_cost"][f"{side}_vat"]
        assert all(part >= 0 for part in parts.values())
        if any(line["dimension"] == "ADJUSTMENT" for line in of["lines"]):
            continue  # what the tariff's limits add or take off is in the parts, too
        for kind, name in zip(("FLAT", "ENERGY", "TIME", "PARKING_TIME"), PARTS, strict=True):
            mine = [line for line in of["lines"] if line["dimension"] == kind]
            exact = sum(Decimal(line[f"cost_{side}_vat"]) for line in mine)
            rounding = MINOR[found["currency"]] / 2 + len(mine) * STEP
            assert abs(parts.get(name, 0) - exact) <= rounding
    assert found["total_cost"]["excl_vat"] == Decimal(of["total_excl_vat"])
    assert found["total_cost"]["incl_vat"] == Decimal(of["total_incl_vat"])
    energy = Decimal(of["energy_wh"]) / 1000
    assert abs(found["total_energy"] - energy) <= Decimal("0.00005")
    assert abs(found["total_time"] * 3600 - of["duration_s"]) <= 2


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


def test_sessions_without_price_or_end_are_left_out_and_told():
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


# --- the tariff ---------------------------------------------------------------------------------


def tariff_told(snapshot):
    of = stored(receipt(tariff_book(snapshot), CP.start("0"), CP.stop(60, "9000")))
    (told,) = valid(cdr(of, party=PARTY))["tariffs"]
    return told


def test_a_plain_tariff_gets_an_owner_and_a_date():
    assert tariff_told(PER_KWH) == {
        "country_code": "NL",
        "party_id": "TST",
        "id": "T",
        "currency": "EUR",
        "elements": [
            {"price_components": [{"type": "ENERGY", "price": Decimal("0.3"), "step_size": 1}]}
        ],
        "last_updated": "2026-01-14T15:30:00Z",
    }


def test_an_ocpi_tariff_stays_what_it_is():
    given = tariff(
        element(
            component("ENERGY", "0.25", "19", 1000),
            start_time="00:00",
            end_time="23:00",
            start_date="2025-01-01",
            end_date="2030-01-01",
            day_of_week=["MONDAY", "WEDNESDAY"],
            min_kwh=Decimal("0.5"),
            max_kwh=100,
            min_current=1,
            max_current=64,
            min_power=Decimal("1.5"),
            max_power=22,
            min_duration=60,
            max_duration=7200,
        ),
        element(component("FLAT", "1"), reservation="RESERVATION"),
        element(component("ENERGY", "0.5", "19")),
        country_code="DE",
        party_id="ABC",
        type="AD_HOC_PAYMENT",
        tariff_alt_text=[{"language": "de", "text": "0,25 \u20ac/kWh"}],
        tariff_alt_url="https://example.org/tariff",
        min_price={"excl_vat": Decimal("0.5"), "incl_vat": Decimal("0.6")},
        start_date_time="2025-01-01T00:00:00Z",
        end_date_time="2030-01-01T00:00:00Z",
        last_updated="2025-06-29T20:39:09Z",
    )
    assert tariff_told(given) == given


def test_what_the_gateway_reads_more_generously_is_put_right():
    """0.30 EUR with 21 % VAT inside are 0.2479 without."""
    told = tariff_told(
        {
            "id": "\u540d" * 40,
            "currency": "EUR",
            "tax_included": "YES",
            "country_code": "Netherlands",
            "party_id": "toolong",
            "type": "SUMMER",
            "tariff_alt_text": [{"language": "english", "text": "no"}, "neither"],
            "tariff_alt_url": "x" * 300,
            "energy_mix": {"is_green_energy": True},
            "preauthorize_amount": 5,
            "max_price": {"after_taxes": Decimal("12.1")},
            "min_price": "0.5",
            "last_updated": "2025-06-29T22:39:09+02:00",
            "elements": [
                {
                    "price_components": [{"type": "ENERGY", "price": "0.30", "vat": 21}],
                    "restrictions": {"day_of_week": [], "min_kwh": None, "colour": "red"},
                },
                {
                    "price_components": [{"type": "TIME", "price": 1, "step_size": "60"}],
                    "restrictions": {"reservation": "SOMETIMES"},
                },
                {"price_components": [{"type": "TIME", "price": 1, "step_size": "60"}]},
            ],
        }
    )
    assert told == {
        "country_code": "NL",
        "party_id": "TST",
        "id": told["id"],
        "currency": "EUR",
        "min_price": {"excl_vat": Decimal("0.5")},
        "max_price": {"excl_vat": 10, "incl_vat": Decimal("12.1")},
        "elements": [
            {
                "price_components": [
                    {"type": "ENERGY", "price": Decimal("0.2479"), "vat": 21, "step_size": 1}
                ]
            },
            {"price_components": [{"type": "TIME", "price": 1, "step_size": 60}]},
        ],
        "last_updated": "2025-06-29T20:39:09Z",
    }


def test_a_limit_with_vat_alone_has_the_same_without_where_there_is_no_vat():
    told = tariff_told(
        tariff(element(component("ENERGY", "0.3")), min_price={"incl_vat": Decimal(2)})
    )
    assert told["min_price"] == {"excl_vat": 2, "incl_vat": 2}


# --- signed values ------------------------------------------------------------------------------

OCMF = 'OCMF|{"FV":"1.0","RV":1.20}|{"SD":"3045"}'


def test_signed_values_are_handed_on():
    found = valid(cdr(signed_receipt(OCMF, OCMF + " "), party=PARTY, public_key="3059AF"))
    assert found["signed_data"] == {
        "encoding_method": "OCMF",
        "public_key": "MFmv",
        "signed_values": [
            {
                "nature": "Start",
                "plain_data": '{"FV":"1.0","RV":1.20}',
                "signed_data": "T0NNRnx7IkZWIjoiMS4wIiwiUlYiOjEuMjB9fHsiU0QiOiIzMDQ1In0=",
            },
            {
                "nature": "End",
                "plain_data": '{"FV":"1.0","RV":1.20}',
                "signed_data": "T0NNRnx7IkZWIjoiMS4wIiwiUlYiOjEuMjB9fHsiU0QiOiIzMDQ1In0g",
            },
        ],
    }


def test_a_signed_value_without_context_is_an_intermediate_one():
    found = cdr(signed_receipt(OCMF, contexts=(None,)), party=PARTY)
    assert found["signed_data"]["signed_values"][0]["nature"] == "Intermediate"


def test_what_ocpi_cannot_carry_is_left_out_and_told():
    """A payload of more than 512 characters is only in the blob, a blob of 5000 nowhere."""
    large = 'OCMF|{"FV":"%s"}|{}'
    values = [large % ("1" * 600), large % ("1" * 5000), "AP;0;3;;;;"]
    found = valid(cdr(signed_receipt(*values), party=PARTY))
    (value,) = found["signed_data"]["signed_values"]
    assert value["plain_data"] == ""
    assert "signed values left out: 2" in found["remark"]
    alone = valid(cdr(signed_receipt(values[1]), party=PARTY))
    assert "signed_data" not in alone
    assert "signed values left out: 1" in alone["remark"]


def test_a_key_that_is_too_long_for_ocpi_is_left_out():
    found = valid(cdr(signed_receipt(OCMF), party=PARTY, public_key="AF" * 400))
    assert "public_key" not in found["signed_data"]


def test_a_value_of_no_known_format_has_no_plain_data():
    found = valid(cdr(signed_receipt("??"), party=PARTY))
    assert found["signed_data"] == {
        "encoding_method": "UNKNOWN",
        "signed_values": [{"nature": "Start", "plain_data": "", "signed_data": "Pz8="}],
    }


# --- the party ----------------------------------------------------------------------------------

TABLES = {
    "country_code": "DE",
    "party_id": "ABC",
    "token_country_code": "NL",
    "token_party_id": "MSP",
    "location": {
        "id": "LOT",
        "name": "Parkplatz",
        "address": "Ring 1",
        "city": "K\u00f6ln",
        "postal_code": "50667",
        "state": "NRW",
        "country": "DEU",
        "latitude": Decimal("50.9375"),
        "longitude": -6,
    },
    "locations": {
        "CP-1": {"connector_format": "CABLE"},
        "CP-1/2": {
            "evse_id": "DE*ABC*E1*2",
            "connector_standard": "CHADEMO",
            "connector_power_type": "DC",
        },
    },
}


def test_the_party_is_read_from_configuration():
    party = party_of(TABLES)
    one, two, three = (
        valid(cdr(plain_receipt() | {"charge_point": name, "connector": connector}, party=party))
        for name, connector in (("CP-1", 1), ("CP-1", 2), ("CP-\u00e9/3", 1))
    )
    assert one["cdr_location"] == {
        "id": "LOT",
        "name": "Parkplatz",
        "address": "Ring 1",
        "city": "K\u00f6ln",
        "postal_code": "50667",
        "state": "NRW",
        "country": "DEU",
        "coordinates": {"latitude": "50.937500", "longitude": "-6.000000"},
        "evse_uid": "CP-1-1",
        "evse_id": "DE*ABC*ECP1*1",
        "connector_id": "1",
        "connector_standard": "IEC_62196_T2",
        "connector_format": "CABLE",
        "connector_power_type": "AC_3_PHASE",
    }
    assert one["cdr_token"]["party_id"] == "MSP"
    assert two["cdr_location"]["evse_id"] == "DE*ABC*E1*2"
    assert two["cdr_location"]["connector_standard"] == "CHADEMO"
    assert two["cdr_location"]["connector_format"] == "SOCKET"
    assert three["cdr_location"]["connector_format"] == "SOCKET"
    assert three["cdr_location"]["evse_id"] == "DE*ABC*ECP3*1"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"country_code": "de"}, 'country_code must be like NL, not "de"'),
        ({"country_code": ["D", "E"]}, r'like NL, not \["D", "E"\]'),
        ({"party_id": None}, "party_id must be like TNM"),
        ({"colour": "red"}, "colour"),
        ({"location": {}}, "missing"),
        ({"location": TABLES["location"] | {"latitude": 91}}, "91 is no degrees from -90 to 90"),
        ({"location": TABLES["location"] | {"longitude": "east"}}, '"east" is no degrees'),
        ({"location": TABLES["location"] | {"latitude": "NaN"}}, '"NaN" is no degrees'),
        ({"location": TABLES["location"] | {"latitude": [True]}}, r"\[true\] is no degrees"),
        ({"location": TABLES["location"] | {"address": "x" * 46}}, "address must be text of 1 to"),
        ({"location": TABLES["location"] | {"id": "K\u00f6ln"}}, "id must be text of 1 to 36"),
        ({"location": TABLES["location"] | {"country": "DE"}}, "country must be like NLD"),
        ({"locations": {"CP": {"connector_format": "PLUG"}}}, "must be one of CABLE, SOCKET"),
        ({"locations": {"CP": {"connector_format": ["CABLE"]}}}, "must be one of CABLE, SOCKET"),
        ({"locations": {"CP": ["x"]}}, r'must be a table, not \["x"\]'),
        ({"locations": {"CP": 1}}, "must be a table"),
        ({"locations": []}, "must be a table"),
    ],
)
def test_a_party_that_no_cdr_may_have_is_refused(change, what):
    with pytest.raises(ValueError, match=what):
        party_of(TABLES | change)


def test_a_location_has_all_that_a_cdr_needs():
    with pytest.raises(TypeError):
        Location(id="HOME")


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
