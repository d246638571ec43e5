"""`sessions`: the same receipts for people, programs, spreadsheets and roaming hubs."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest
import trio

from gateway.cli import listing, sessions
from gateway.cli.main import main
from gateway.domain.json_codec import encode_text
from gateway.journal.group_commit import open_sqlite

from ..billing.builders import ChargePoint
from ..export.corpus import plain_receipt, signed_receipt
from ..export.fields import faults

PARTY = """
[party]
country_code = "NL"
party_id = "ABC"
[party.location]
id = "LOC1"
address = "Kade 1"
city = "Rotterdam"
country = "NLD"
latitude = 51.9
longitude = 4.5
"""


@pytest.fixture
def store(tmp_path):
    """A store with the given receipts, and its configuration."""

    def made(*receipts, more=""):
        path = tmp_path / "gateway.db"

        async def open_it():
            async with open_sqlite(path):
                pass

        trio.run(open_it)
        with closing(sqlite3.connect(path)) as db, db:
            for place, receipt in enumerate(receipts):
                row = (receipt["receipt_id"], receipt["version"], place, encode_text(receipt), 0)
                db.execute("insert into receipt values (?, ?, ?, ?, ?)", row)
        config = tmp_path / "gateway.toml"
        config.write_text(f'[storage]\nurl = "sqlite://{path}"\n{more}')
        return str(config)

    return made


def named(receipt, name):
    return {**receipt, "receipt_id": name}


def test_csv_has_a_row_for_each_session(store, capsys):
    config = store(named(plain_receipt(), "A"), named(plain_receipt("yen"), "B"))
    assert main(["sessions", "--config", config, "--format", "csv"]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert [dict(zip(header, row, strict=True))["currency"] for row in rows] == ["EUR", "JPY"]


def test_cdrs_are_made_with_the_party_of_the_configuration(store, capsys):
    unpriced = {key: value for key, value in plain_receipt().items() if key != "currency"}
    unpriced |= {"receipt_id": "B", "tariff": None, "lines": []}
    unpriced = {key: value for key, value in unpriced.items() if not key.startswith("total")}
    config = store(named(plain_receipt(), "A"), unpriced, more=PARTY)
    assert main(["sessions", "--config", config, "--format", "ocpi-cdr"]) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    cdr = json.loads(line, parse_float=Decimal)
    assert (cdr["country_code"], cdr["party_id"], cdr["id"]) == ("NL", "ABC", "A")
    assert list(faults("CDR", cdr)) == []
    assert printed.err == "B: no CDR, for it has no price\n"


def test_cdrs_without_a_party_say_what_to_configure(store, capsys):
    config = store(plain_receipt())
    assert main(["sessions", "--config", config, "--format", "ocpi-cdr"]) == 2
    assert "[party]" in capsys.readouterr().err


def credit_of(config, name, capsys, *more):
    status = main(["sessions", "--config", config, "--format", "ocpi-cdr", "--credit", name, *more])
    return status, *capsys.readouterr()


def test_a_credit_cdr_takes_the_cdr_of_a_receipt_back(store, capsys):
    config = store(named(plain_receipt(), "A"), named(plain_receipt("yen"), "B"), more=PARTY)
    assert main(["sessions", "--config", config, "--format", "ocpi-cdr"]) == 0
    sent, _ = (json.loads(one, parse_float=Decimal) for one in capsys.readouterr().out.splitlines())
    status, out, err = credit_of(config, "A", capsys)
    (line,) = out.splitlines()
    back = json.loads(line, parse_float=Decimal)
    assert (status, err) == (0, "")
    assert list(faults("CDR", back)) == []
    assert (back["credit"], back["credit_reference_id"], back["id"]) == (True, "A", "A-C")
    assert back["total_cost"] == {side: -amount for side, amount in sent["total_cost"].items()}
    # "Only the values in the total_cost field SHALL contain the negative amounts" (mod_cdrs).
    assert back["total_energy_cost"] == sent["total_energy_cost"]
    assert back["charging_periods"] == sent["charging_periods"]


def test_each_version_of_a_receipt_is_a_cdr_that_can_be_taken_back(store, capsys):
    first = named(plain_receipt(), "A")
    second = named(plain_receipt("no VAT"), "A") | {"version": 2}
    config = store(first, second, more=PARTY)
    cdrs = {}
    for name in ("A", "A-v2"):
        status, out, _ = credit_of(config, name, capsys)
        assert status == 0
        back = json.loads(out, parse_float=Decimal)
        cdrs[name] = back["credit_reference_id"], back["total_cost"]["excl_vat"]
    assert cdrs == {"A": ("A", Decimal("-9.31")), "A-v2": ("A-v2", Decimal("-4.2"))}


def test_a_receipt_whose_first_version_is_gone_is_taken_back_as_it_is(store, capsys):
    long = named(plain_receipt(), "A" * 60) | {"version": 2}
    config = store(long, more=PARTY)
    status, out, _ = credit_of(config, "A" * 60, capsys)
    back = json.loads(out)
    assert status == 0
    assert back["id"] == back["credit_reference_id"] + "-C"
    assert len(back["credit_reference_id"]) == 36


def test_a_receipt_that_is_unknown_or_has_no_price_is_reported(store, capsys):
    unpriced = named(plain_receipt(), "B") | {"tariff": None}
    config = store(named(plain_receipt(), "A"), unpriced, more=PARTY)
    assert credit_of(config, "C", capsys) == (1, "", "there is no receipt and no CDR 'C'\n")
    status, out, err = credit_of(config, "B", capsys)
    assert (status, out) == (1, "")
    assert err.startswith("B: there is no CDR of it")


def test_a_credit_is_a_cdr_and_nothing_else(store, capsys):
    config = store(named(plain_receipt(), "A"), more=PARTY)
    assert main(["sessions", "--config", config, "--credit", "A"]) == 2
    assert "--format ocpi-cdr" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json", "csv", "ocpi-cdr"])
def test_a_receipt_that_cannot_be_shown_hides_none_of_the_others(form, store, capsys, monkeypatch):
    odd = named(plain_receipt(), "B") | {"started_at": None, "energy_wh": "many", "periods": 7}
    config = store(named(plain_receipt(), "A"), odd, named(plain_receipt(), "C"), more=PARTY)
    if form == "json":

        def dump(receipt):
            if receipt["receipt_id"] == "B":
                raise TypeError("a bug of ours")
            return encode_text(receipt)

        monkeypatch.setattr(listing, "encode_text", dump)
    assert main(["sessions", "--config", config, "--format", form]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == (3 if form == "csv" else 2)
    assert printed.err.startswith("B: ")
    assert len(printed.err.splitlines()) == 1


def test_an_open_session_that_cannot_be_priced_hides_none_of_the_others(
    store, capsys, monkeypatch, tmp_path
):
    config = store()

    async def begin():
        async with open_sqlite(tmp_path / "gateway.db") as journal:
            for number in (1, 2, 3):
                begun = ChargePoint(f"CP-{number}", transaction_id=0).start("1000")
                await journal.append(begun)

    trio.run(begin)
    priced, restore = sessions.settle_so_far, sessions.Ledger.restore

    def settle_so_far(session):
        if session.opening.charge_point_id == "CP-2":
            raise IndexError("a bug of ours")
        return priced(session)

    def restored(ledger, event):
        restore(ledger, event)
        if event.charge_point_id == "CP-3":
            raise ValueError("another one")

    monkeypatch.setattr(sessions, "settle_so_far", settle_so_far)
    monkeypatch.setattr(sessions.Ledger, "restore", restored)
    status = main(["sessions", "--config", config, "--open", "--json"])
    printed = capsys.readouterr()
    assert status == 1
    shown = [json.loads(line)["charge_point"] for line in printed.out.splitlines()]
    assert shown == ["CP-1", "CP-3"]
    assert "CP-2/1: transaction 2 cannot be priced: IndexError" in printed.err
    assert "CP-3: entry 3 cannot be accounted for: ValueError" in printed.err


def test_signed_values_are_handed_over_session_by_session(store, capsys):
    first, second = (named(signed_receipt("OCMF|{}|{}"), name) for name in "AB")
    config = store(first, second, named(plain_receipt(), "C"))
    assert main(["sessions", "--config", config, "--signed-xml"]) == 2
    assert capsys.readouterr().err.split() == ["choose", "one", "by", "--receipt:", "A", "B"]
    assert main(["sessions", "--config", config, "--signed-xml", "--receipt", "A"]) == 0
    assert "OCMF|{}|{}" in capsys.readouterr().out
    assert main(["sessions", "--config", config, "--signed-xml", "--receipt", "C"]) == 1
    assert capsys.readouterr().err == "there are no signed values\n"
