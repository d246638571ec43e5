"""The tariff in a CDR: as OCPI has it, whatever the gateway read."""

from __future__ import annotations

from decimal import Decimal

from gateway.export.cdr import cdr

from ..billing.builders import CP, PER_KWH, component, element, receipt, tariff, tariff_book
from .cdr_checks import valid
from .corpus import PARTY, stored


def tariff_told(snapshot):
    of = stored(receipt(tariff_book(snapshot), CP.start("0"), CP.stop(60, "9000")))
    (exported,) = valid(cdr(of, party=PARTY))["tariffs"]
    return exported


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
    exported = tariff_told(
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
    assert exported == {
        "country_code": "NL",
        "party_id": "TST",
        "id": exported["id"],
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
    exported = tariff_told(
        tariff(element(component("ENERGY", "0.3")), min_price={"incl_vat": Decimal(2)})
    )
    assert exported["min_price"] == {"excl_vat": 2, "incl_vat": 2}
