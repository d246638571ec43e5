"""Receipts as rows of a spreadsheet."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.export.csv_table import HEADER, csv_rows, write
from gateway.tariffs.tariff import TariffBook

from ..billing.builders import CP, receipt
from ..billing.test_properties import last_receipt, messages
from .corpus import plain_receipt, stored
from .test_cdr import PRICES


def only_row(of):
    header, row = csv_rows([of])
    return dict(zip(header, row, strict=True))


def test_a_session_is_one_row():
    assert only_row(plain_receipt()) == {
        "receipt_id": "CP-1-1-1-20260114T153000Z",
        "version": "1",
        "charge_point": "CP-1",
        "connector": "1",
        "transaction_id": "1",
        "id_tag": "04A1",
        "started_at_utc": "2026-01-14T15:30:00Z",
        "stopped_at_utc": "2026-01-14T17:30:00Z",
        "time_zone": "Europe/Amsterdam",
        "started_at_local": "2026-01-14T16:30:00+01:00",
        "stopped_at_local": "2026-01-14T18:30:00+01:00",
        "stop_reason": "Local",
        "energy_kwh": "12.3456",
        "duration_min": "120",
        "charging_min": "100",
        "idle_min": "20",
        "price_excl_vat": "9.31",
        "vat": "1.95",
        "price_incl_vat": "11.26",
        "currency": "EUR",
        "tariff_id": "T",
        "energy_source": "meter_stop",
        "signed_values": "0",
        "flags": "",
        "needs_review": "no",
    }


def test_the_header_comes_even_without_sessions():
    assert list(csv_rows([])) == [list(HEADER)]


def test_a_session_without_price_or_end_has_empty_cells():
    of = stored(receipt(TariffBook.empty(), CP.start("0"), CP.stop(1, "100")))
    del of["stopped_at"]
    row = only_row(of)
    empty = {name for name, cell in row.items() if not cell}
    assert empty >= {"price_excl_vat", "vat", "price_incl_vat", "currency", "tariff_id"}
    assert empty >= {"stopped_at_utc", "stopped_at_local", "time_zone"}
    assert row["started_at_local"] == "2026-01-14T15:30:00+00:00"
    assert row["energy_kwh"] == "0.1"


def test_doubts_are_in_the_row():
    of = plain_receipt() | {"flags": ["dip_ignored", "needs_review"], "needs_review": True}
    row = only_row(of)
    assert row["flags"] == "dip_ignored needs_review"
    assert row["needs_review"] == "yes"


@pytest.mark.parametrize(
    "tag",
    [
        "=1+1",
        "+49",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        '=HYPERLINK("x","y")',
        "\uff1d1",
    ],
)
def test_text_that_a_spreadsheet_would_run_begins_with_an_apostrophe(tag):
    assert only_row(plain_receipt() | {"id_tag": tag})["id_tag"] == f"'{tag}"


@pytest.mark.parametrize("tag", ["04A1", "1-2", "a=b", "'=1", "", "a@b"])
def test_other_text_stays_as_it_is(tag):
    assert only_row(plain_receipt() | {"id_tag": tag})["id_tag"] == tag


@given(st.text())
@settings(deadline=None, max_examples=200)
def test_no_id_tag_breaks_the_file_or_is_a_formula(tag):
    of = RECEIPT | {"id_tag": tag, "charge_point": tag, "stop_reason": tag}
    out = io.StringIO(newline="")
    write([of, of], out)
    text = out.getvalue().encode().decode()
    header, one, two = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert header == list(HEADER)
    assert one == two
    cell = one[header.index("id_tag")]
    assert cell.lstrip()[:1] not in tuple("=+-@") or cell.startswith("'")
    assert cell.lstrip("'").replace("\ufffd", "") == tag.replace("\0", "").replace(
        "\ufffd", ""
    ).lstrip("'")


RECEIPT = plain_receipt()


@given(st.sampled_from(PRICES), messages())
@settings(deadline=None)
def test_price_and_vat_add_up_to_the_price_with_vat(prices, events):
    row = only_row(stored(last_receipt(prices, events)))
    excl, vat, incl = (Decimal(row[name]) for name in ("price_excl_vat", "vat", "price_incl_vat"))
    assert excl + vat == incl
    minutes = Decimal(row["charging_min"]) + Decimal(row["idle_min"])
    assert minutes <= Decimal(row["duration_min"]) + Decimal("0.02")
