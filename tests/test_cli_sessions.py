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

from gateway.cli import main
from gateway.journal.codec import dump_object
from gateway.journal.groupcommit import open_sqlite

from .export.corpus import plain_receipt, signed_receipt
from .export.fields import faults

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
                row = (receipt["receipt_id"], receipt["version"], place, dump_object(receipt), 0)
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
    told = capsys.readouterr()
    (line,) = told.out.splitlines()
    cdr = json.loads(line, parse_float=Decimal)
    assert (cdr["country_code"], cdr["party_id"], cdr["id"]) == ("NL", "ABC", "A")
    assert list(faults("CDR", cdr)) == []
    assert told.err == "B: no CDR, for it has no price\n"


def test_cdrs_without_a_party_say_what_to_configure(store, capsys):
    config = store(plain_receipt())
    assert main(["sessions", "--config", config, "--format", "ocpi-cdr"]) == 2
    assert "[party]" in capsys.readouterr().err


def test_signed_values_are_handed_over_session_by_session(store, capsys):
    first, second = (named(signed_receipt("OCMF|{}|{}"), name) for name in "AB")
    config = store(first, second, named(plain_receipt(), "C"))
    assert main(["sessions", "--config", config, "--signed-xml"]) == 2
    assert capsys.readouterr().err.split() == ["choose", "one", "by", "--receipt:", "A", "B"]
    assert main(["sessions", "--config", config, "--signed-xml", "--receipt", "A"]) == 0
    assert "OCMF|{}|{}" in capsys.readouterr().out
    assert main(["sessions", "--config", config, "--signed-xml", "--receipt", "C"]) == 1
    assert capsys.readouterr().err == "there are no signed values\n"
