"""What a CDR takes from elsewhere: signed meter values, and the party of the configuration."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.export.cdr import cdr
from gateway.export.party import Location, party_of

from .cdr_checks import valid
from .corpus import PARTY, plain_receipt, signed_receipt

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


def test_what_ocpi_cannot_carry_is_left_out_and_reported():
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
