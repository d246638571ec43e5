"""The tariff file: every fault is named with its place, all of them at once."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.tariffs.file import read_tariffs, terms_of
from gateway.tariffs.ocpi_tariff import canonical
from gateway.tariffs.tariff import TariffBook

from ..billing.builders import LIVE, PER_KWH, START, ZONE, component, element, tariff

FIRST = "tariffs[0].elements[0].price_components[0]"
DEFAULT = {"default": True, "tariffs": ["T"]}


def faults_of(document: Any, *, fatal: bool = True, **more: Any) -> dict[str, str]:
    tariff_book, faults = read_tariffs(document, **more)
    found = {fault.where: fault.what for fault in faults if fault.fatal is fatal}
    if fatal and found:
        assert not tariff_book.assignments
    return found


def file(*tariffs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tariffs": list(tariffs), "time_zone": ZONE} | more


def with_component(**changes: Any) -> dict[str, Any]:
    return file(tariff(element(component("ENERGY", "0.30") | changes)))


def with_restriction(**restrictions: Any) -> dict[str, Any]:
    return file(
        tariff(element(component("TIME", "1"), **restrictions), element(component("TIME", "1")))
    )


def test_a_pasted_ocpi_object_is_read_as_it_is():
    document = json.loads(
        """{"tariffs": [{"country_code": "NL", "party_id": "EXA", "id": "12", "currency": "EUR",
        "type": "REGULAR", "tariff_alt_url": "https://example.com", "energy_mix": {"is_green":
        true}, "elements": [{"price_components": [{"type": "ENERGY", "price": 0.25, "vat": 10.0,
        "step_size": 1}]}], "last_updated": "2018-12-17T17:15:01Z"}]}""",
        parse_float=Decimal,
    )
    tariff_book, faults = read_tariffs(document, default_time_zone=ZONE)
    assert faults == ()
    terms = tariff_book.terms_for("CP-1", 1, START)
    assert terms.tariff is not None
    assert terms.tariff.snapshot == document["tariffs"][0]
    assert terms.time_zone == ZONE


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"type": "MAGIC"}, ".type", "must be one of FLAT, ENERGY, TIME, PARKING_TIME"),
        ({"price": None}, ".price", "is missing"),
        ({"price": "dear"}, ".price", 'must be a number, not "dear"'),
        ({"price": True}, ".price", "must be a number, not true"),
        ({"price": ["1", None]}, ".price", 'must be a number, not ["1", null]'),
        ({"price": Decimal("NaN")}, ".price", "must be a number"),
        ({"price": Decimal(-1)}, ".price", "must not be negative"),
        ({"price": Decimal(10) ** 20}, ".price", "out of all proportion"),
        ({"step_size": -1}, ".step_size", "must not be negative"),
        ({"step_size": Decimal("0.5")}, ".step_size", "must be a whole number"),
        ({"vat": []}, ".vat", "must be a number"),
    ],
)
def test_a_faulty_price_component_is_named(changes, where, what):
    found = faults_of(with_component(**changes))
    assert list(found) == [FIRST + where]
    assert what in found[FIRST + where]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start_time", "24:00"),
        ("end_time", "7:00"),
        ("start_time", 7),
        ("start_date", "2026-02-30"),
        ("end_date", "tomorrow"),
        ("day_of_week", "MONDAY"),
        ("min_kwh", "much"),
        ("max_power", -1),
        ("min_duration", {}),
        ("max_current", True),
    ],
)
def test_a_faulty_restriction_is_named(name, value):
    found = faults_of(with_restriction(**{name: value}))
    assert list(found) == [f"tariffs[0].elements[0].restrictions.{name}"]


def test_a_day_that_is_none_is_named_in_its_list():
    found = faults_of(with_restriction(day_of_week=["MONDAY", "FUNDAY"]))
    assert list(found) == ["tariffs[0].elements[0].restrictions.day_of_week[1]"]


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ([], "document"),
        ("tariffs", "document"),
        ({"tariffs": {}}, "tariffs"),
        (file("T"), "tariffs[0]"),
        (file({"currency": "EUR", "elements": LIVE["elements"]}), "tariffs[0].id"),
        (file(PER_KWH | {"id": 7}), "tariffs[0].id"),
        (
            file(PER_KWH | {"elements": [PER_KWH["elements"][0] | {"restrictions": 7}]}),
            "tariffs[0].elements[0].restrictions",
        ),
        (file(PER_KWH | {"currency": "XYZ"}), "tariffs[0].currency"),
        (file(PER_KWH | {"currency": None}), "tariffs[0].currency"),
        (file(PER_KWH | {"elements": []}), "tariffs[0].elements"),
        (file(PER_KWH | {"elements": [7]}), "tariffs[0].elements[0]"),
        (file(PER_KWH | {"elements": [{}]}), "tariffs[0].elements[0].price_components"),
        (file(PER_KWH | {"elements": "none"}), "tariffs[0].elements"),
        (file(PER_KWH | {"start_date_time": "soon"}), "tariffs[0].start_date_time"),
        (file(PER_KWH | {"tax_included": "MAYBE"}), "tariffs[0].tax_included"),
        (file(PER_KWH | {"min_price": {}}), "tariffs[0].min_price"),
        (file(PER_KWH | {"min_price": "x"}), "tariffs[0].min_price"),
        (file(PER_KWH | {"min_price": {"excl_vat": "x"}}), "tariffs[0].min_price.excl_vat"),
        (file(PER_KWH | {"min_price": 3, "max_price": 2}), "tariffs[0].min_price"),
        (file(PER_KWH, PER_KWH), "tariffs[1]"),
        (file(PER_KWH, time_zone="Mars/Olympus"), "time_zone"),
        (file(PER_KWH, time_zone="../etc"), "time_zone"),
        (file(PER_KWH, time_zone=7), "time_zone"),
        ({"tariffs": [PER_KWH]}, "time_zone"),
        (file(PER_KWH, policy=[]), "policy"),
        (file(PER_KWH, policy={"idle_gracs_s": 3}), "policy.idle_gracs_s"),
        (file(PER_KWH, policy={"faulted": "MAYBE"}), "policy.faulted"),
        (file(PER_KWH, policy={"post_stop_parking": 1}), "policy.post_stop_parking"),
        (file(PER_KWH, policy={"rounding": "DOWN"}), "policy.rounding"),
        (file(PER_KWH, assign={}), "assign"),
        (file(PER_KWH, assign=[{"tariffs": ["T"]}]), "assign[0]"),
        (file(PER_KWH, assign=[{"default": True, "tariffs": ["U"]}]), "assign[0].tariffs[0]"),
        (file(PER_KWH, assign=[{"default": True, "tariffs": "T"}]), "assign[0].tariffs"),
        (file(PER_KWH, assign=[{"default": True, "tariffs": ["T"], "x": 1}]), "assign[0].x"),
        (
            file(PER_KWH, assign=[DEFAULT, {"charge_point": "X", "tariffs": ["T"]}, DEFAULT]),
            "assign[2].default",
        ),
        (file(PER_KWH, assign=[DEFAULT | {"connector": 1}, DEFAULT]), "assign[1].default"),
    ],
)
def test_a_fault_is_named_with_its_place_and_nothing_is_priced(document, where):
    assert list(faults_of(document)) == [where]


def test_two_prices_of_one_dimension_in_an_element_are_a_fault():
    document = file(tariff(element(component("TIME", "1"), component("TIME", "2"))))
    assert list(faults_of(document)) == ["tariffs[0].elements[0].price_components[1]"]


def test_all_faults_are_told_at_once():
    document = file(
        tariff(element(component("MAGIC", "1")), element({"type": "TIME"}), currency="?"),
        policy={"nonsense": 1},
    )
    assert list(faults_of(document)) == [
        "tariffs[0].currency",
        "tariffs[0].elements[0].price_components[0].type",
        "tariffs[0].elements[1].price_components[0].price",
        "policy.nonsense",
    ]


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (with_component(step_size=1000), "OCPI advises 1"),
        (file(tariff(element(component("TIME", "1"), max_current=16))), "Current.Import"),
        (file(tariff(element(component("TIME", "1"), max_power=16))), "average between two"),
        (file(tariff(element(component("TIME", "1"), min_kwh=1))), "free then"),
        (file(tariff(*PER_KWH["elements"], *PER_KWH["elements"])), "never applies for ENERGY"),
        (with_restriction(color="blue"), "ignored"),
        (with_restriction(reservation="RESERVATION"), "reservations are not priced"),
        (with_restriction(min_kwh=5, max_kwh=5), "never holds"),
        (with_restriction(min_duration=5, max_duration=5), "never holds"),
        (with_restriction(start_date="2026-02-01", end_date="2026-01-01"), "never holds"),
        (file(PER_KWH, extra=1), "ignored"),
        (file(PER_KWH, PER_KWH | {"id": "U"}, assign=[DEFAULT]), 'nobody pays by the tariff "U"'),
        (
            file(
                PER_KWH,
                assign=[
                    {"charge_point": "CP-*", "tariffs": ["T"]},
                    {"charge_point": "CP-*", "connector": 2, "tariffs": ["T"]},
                ],
            ),
            "assign[0] covers all",
        ),
        (file(tariff(element(component("ENERGY", "1", "21"), component("TIME", "1")))), "VAT"),
        (file(PER_KWH | {"tax_included": "YES"}), "without vat"),
        (
            file(tariff(element(component("FLAT", "1")), type="AD_HOC_PAYMENT")),
            "no fee per session",
        ),
        (file(tariff(element(component("TIME", "1")), type="AD_HOC_PAYMENT")), "occupancy"),
        (
            file(
                PER_KWH
                | {
                    "start_date_time": "2026-01-02T00:00:00Z",
                    "end_date_time": "2026-01-01T00:00:00Z",
                }
            ),
            "valid at no time",
        ),
    ],
)
def test_a_warning_leaves_the_tariff_in_force(document, what):
    tariff_book, faults = read_tariffs(document)
    assert [fault for fault in faults if fault.fatal] == []
    assert any(what in fault.what for fault in faults), faults
    assert tariff_book.assignments


def test_an_empty_list_of_days_is_every_day():
    tariff_book, _ = read_tariffs(with_restriction(day_of_week=[]))
    assert tariff_book.terms_for("CP-1", 1, START).tariff.elements[0].restrictions.days is None


def test_elements_for_reservations_price_no_session():
    document = file(
        tariff(
            element(component("ENERGY", "9"), reservation="RESERVATION"),
            element(component("ENERGY", "1")),
        )
    )
    tariff_book, _ = read_tariffs(document)
    found = tariff_book.terms_for("CP-1", 1, START).tariff
    assert [component.price for component in found.components] == [1]


def test_the_first_assignment_that_covers_a_connector_holds():
    named = [PER_KWH | {"id": name} for name in ("A", "B", "C")]
    document = file(
        *named,
        assign=[
            {"default": True, "tariffs": ["C"]},
            {"charge_point": "CP-*", "connector": 2, "tariffs": ["A"]},
            {"charge_point": "CP-1", "tariffs": ["B"]},
        ],
    )
    tariff_book, faults = read_tariffs(document)
    assert not [fault for fault in faults if fault.fatal]

    def tariff_of(charge_point_id, connector_id):
        return tariff_book.terms_for(charge_point_id, connector_id, START).tariff.id

    assert tariff_of("CP-1", 1) == "B"
    assert tariff_of("CP-1", 2) == tariff_of("CP-7", 2) == "A"
    assert tariff_of("CP-7", 1) == "C"


def test_a_default_may_be_for_some_connectors_only():
    named = [PER_KWH | {"id": name} for name in ("A", "B", "C")]
    document = file(
        *named,
        assign=[
            {"default": True, "connector": 1, "tariffs": ["A"]},
            {"default": True, "connector": 2, "tariffs": ["B"]},
            {"charge_point": "CP-1", "connector": 2, "tariffs": ["C"]},
        ],
    )
    tariff_book, faults = read_tariffs(document)
    assert not faults
    found = {
        (name, n): tariff_book.terms_for(name, n, START).tariff
        for name in ("CP-1", "X")
        for n in (1, 2, 3)
    }
    assert {key: tariff and tariff.id for key, tariff in found.items()} == {
        ("CP-1", 1): "A", ("CP-1", 2): "C", ("CP-1", 3): None,
        ("X", 1): "A", ("X", 2): "B", ("X", 3): None,
    }  # fmt: skip


def test_no_assignment_that_covers_means_no_price_but_says_so():
    tariff_book, _ = read_tariffs(file(PER_KWH, assign=[{"charge_point": "X", "tariffs": ["T"]}]))
    terms = tariff_book.terms_for("CP-1", 1, START)
    assert terms.tariff is None
    assert terms.unpriced


def test_the_empty_book_prices_nothing_and_expects_nothing():
    terms = TariffBook.empty().terms_for("CP-1", 1, START)
    assert terms.tariff is None
    assert not terms.unpriced


def test_a_charge_points_own_time_zone_comes_first():
    tariff_book, _ = read_tariffs(
        file(PER_KWH), default_time_zone="Europe/Rome", zones={"CP-1": "Asia/Tokyo"}
    )
    assert tariff_book.terms_for("CP-1", 1, START).time_zone == "Asia/Tokyo"
    assert tariff_book.terms_for("CP-2", 1, START).time_zone == "Europe/Rome"
    tariff_book, _ = read_tariffs(file(PER_KWH))
    assert tariff_book.terms_for("CP-2", 1, START).time_zone == ZONE
    found = faults_of(file(PER_KWH), zones={"CP-1": "Nowhere"}, default_time_zone="Else/Where")
    assert set(found) == {'zones["CP-1"]', "time_zone"}


def test_a_charge_points_own_greatest_power_comes_first():
    tariff_book, _ = read_tariffs(file(PER_KWH), max_power_kw={"CP-1": Decimal(22)})
    assert tariff_book.terms_for("CP-1", 1, START).policy.max_power_kw == 22
    assert tariff_book.terms_for("CP-2", 1, START).policy.max_power_kw == 500


def test_a_snapshot_prices_like_the_file():
    tariff_book, _ = read_tariffs(file(LIVE, policy={"idle_grace_s": 60}))
    terms = tariff_book.terms_for("CP-1", 1, START)
    again = terms_of(terms.tariff.snapshot, terms.policy_snapshot(), terms.time_zone)
    assert again.policy == terms.policy
    assert again.tariff.components == terms.tariff.components
    assert again.tariff.sha256 == terms.tariff.sha256
    with pytest.raises(ValueError, match="currency"):
        terms_of({"id": "T"}, None, None)


def test_canonical_json_does_not_depend_on_the_order_of_members():
    assert canonical({"b": [1, None, True], "a": Decimal("0.10")}) == '{"a":0.10,"b":[1,null,true]}'


def test_numbers_read_as_floats_are_taken_as_they_are_written():
    tariff_book, _ = read_tariffs(
        json.loads('{"tariffs": [' + json.dumps(float_tariff()) + "]}"), default_time_zone=ZONE
    )
    assert tariff_book.terms_for("CP-1", 1, START).tariff.components[0].price == Decimal("0.1")


def float_tariff():
    return {
        "id": "F",
        "currency": "EUR",
        "elements": [{"price_components": [{"type": "ENERGY", "price": 0.1}]}],
    }


def test_a_faulty_tariff_is_told_of_once_and_not_where_it_is_assigned():
    """Who reads "there is no tariff" would look for a slip of the pen in its name."""
    document = {
        "tariffs": [{"id": "A", "currency": "XXQ", "elements": []}],
        "assign": [{"default": True, "tariffs": ["A", "B"]}],
        "time_zone": "UTC",
    }
    _, faults = read_tariffs(document)
    told = [(fault.where, fault.what) for fault in faults if fault.fatal]
    assert ("assign[0].tariffs[1]", 'there is no tariff "B"') in told
    assert all(where.startswith("tariffs[0]") for where, _ in told[:-1])
