"""Receipts as a table, one row a session, for spreadsheets and accounting programs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TextIO
from zoneinfo import ZoneInfo

from ..domain.clock import iso, parse_timestamp
from ..domain.fixed_point import trimmed

Receipt = Mapping[str, Any]

HEADER = (
    "receipt_id",
    "version",
    "charge_point",
    "connector",
    "transaction_id",
    "id_tag",
    "started_at_utc",
    "stopped_at_utc",
    "time_zone",
    "started_at_local",
    "stopped_at_local",
    "stop_reason",
    "energy_kwh",
    "duration_min",
    "charging_min",
    "idle_min",
    "price_excl_vat",
    "vat",
    "price_incl_vat",
    "currency",
    "tariff_id",
    "energy_source",
    "signed_values",
    "flags",
    "needs_review",
)

_FORMULA = re.compile(r"\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_SURROGATES = re.compile("[\ud800-\udfff\0]")


def csv_rows(receipts: Iterable[Receipt]) -> Iterator[list[str]]:
    """The header, then one row a receipt; empty cells for what it does not have.

    Times are ISO 8601, in UTC and in the session's time zone (UTC where it has none).  Amounts
    have a decimal point and no currency.  Text that a spreadsheet would take for a formula begins
    with an apostrophe.
    """
    yield list(HEADER)
    for receipt in receipts:
        yield _row(receipt)


def write(receipts: Iterable[Receipt], out: TextIO) -> None:
    """As CSV (RFC 4180).  out: opened with newline=""."""
    csv.writer(out).writerows(csv_rows(receipts))


def write_header(out: TextIO) -> None:
    csv.writer(out).writerow(HEADER)


def write_row(receipt: Receipt, out: TextIO) -> None:
    """All of it or nothing."""
    csv.writer(out).writerow(_row(receipt))


def _row(receipt: Receipt) -> list[str]:
    zone = ZoneInfo(receipt["time_zone"] or "UTC")
    started, stopped = (parse_timestamp(receipt.get(f"{end}_at")) for end in ("started", "stopped"))
    return [
        _text(receipt["receipt_id"]),
        str(receipt["version"]),
        _text(receipt["charge_point"]),
        str(receipt["connector"]),
        str(receipt["transaction_id"]),
        _text(receipt["id_tag"]),
        _time(started),
        _time(stopped),
        _text(receipt["time_zone"]),
        _time(started, zone),
        _time(stopped, zone),
        _text(receipt["stop_reason"]),
        str(trimmed(Decimal(receipt["energy_wh"]) / 1000)),
        _minutes(receipt["duration_s"]),
        _minutes(receipt["charging_s"]),
        _minutes(receipt["idle_s"]),
        receipt["total_excl_vat"] or "",
        receipt["vat_total"] or "",
        receipt["total_incl_vat"] or "",
        _text(receipt["currency"]),
        _text(receipt["tariff_id"]),
        receipt["energy_source"],
        str(len(receipt["signed"])),
        _text(" ".join(receipt["flags"])),
        "yes" if receipt["needs_review"] else "no",
    ]


def _text(value: str | None) -> str:
    """Safe to open: https://owasp.org/www-community/attacks/CSV_Injection"""
    text = _SURROGATES.sub("\ufffd", value or "")
    return f"'{text}" if _FORMULA.match(text) else text


def _time(at: datetime | None, zone: ZoneInfo | None = None) -> str:
    if at is None:
        return ""
    return iso(at) if zone is None else at.astimezone(zone).isoformat()


def _minutes(seconds: int) -> str:
    return str(trimmed((Decimal(seconds) / 60).quantize(Decimal("0.01"), ROUND_HALF_UP)))
