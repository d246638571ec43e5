"""Receipts of many kinds, as the store gives them back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.billing.receipt import receipt_of
from gateway.billing.settlement import settle
from gateway.cli import replay
from gateway.domain.event_values import Sample
from gateway.domain.json_codec import decode_exact, encode_text
from gateway.export.party import Location, Party

from ..billing.builders import CP, LIVE, component, element, receipt, tariff, tariff_book

PARTY = Party(
    country_code="NL",
    party_id="TST",
    location=Location(
        id="HOME",
        address="Dam 1",
        city="Amsterdam",
        country="NLD",
        latitude=52.3731,
        longitude="4.8926",
    ),
)

PRICED = {
    "no VAT": tariff(element(component("ENERGY", "0.30"), component("FLAT", "0.5"))),
    "no VAT beside VAT": tariff(
        element(component("ENERGY", "0.333", "21"), component("TIME", "1.1"))
    ),
    "several rates": LIVE,
    "with VAT inside": tariff(
        element(component("ENERGY", "0.30", "21"), component("PARKING_TIME", "6", "9")),
        tax_included="YES",
    ),
    "a least price": tariff(
        element(component("ENERGY", "0.30", "21")), min_price={"excl_vat": Decimal(50)}
    ),
    "a greatest price": tariff(
        element(component("ENERGY", "0.30", "21"), component("TIME", "9", "9")),
        max_price={"before_taxes": Decimal("0.5"), "after_taxes": Decimal("0.6")},
    ),
    "yen": tariff(element(component("ENERGY", "33.3", "10")), currency="JPY"),
    "dinar": tariff(element(component("ENERGY", "0.0337", "5")), currency="KWD"),
}


def stored(found: dict[str, Any]) -> dict[str, Any]:
    back: dict[str, Any] = decode_exact(encode_text(found))
    return back


def plain_receipt(name: str = "several rates", **policy: Any) -> dict[str, Any]:
    """12.3456 kWh in two hours, of which the last 20 minutes idle."""
    events = [CP.start("1000"), CP.meter(60, "7000"), CP.status(100, "SuspendedEV")]
    return stored(receipt(tariff_book(PRICED[name], **policy), *events, CP.stop(120, "13345.6")))


def signed_receipt(*values: str, contexts: tuple[str | None, ...] = ()) -> dict[str, Any]:
    """With these signed values; their contexts are Begin, then End."""
    named = contexts or ("Transaction.Begin", *("Transaction.End" for _ in values[1:]))
    samples = [
        Sample(value, context=context, format="SignedData")
        for value, context in zip(values, named, strict=True)
    ]
    prices = tariff_book(PRICED["no VAT"])
    return stored(receipt(prices, CP.start("0"), CP.meter(60, *samples), CP.stop(120, "5000")))


def worked_examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """The receipts of all recorded examples that are worked out for the accountant."""
    folder = Path(__file__).parent.parent / "data" / "billing"
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(), parse_float=Decimal)
        for example in document["vectors"]:
            prices = replay._tariff_book(example, document["default_policy"])
            ledger = replay._Replayed(prices)
            for _, event in replay._events(example):
                ledger.take(event)
            for session in ledger.stopped():
                name = f"{example['id']}-{session.opening.transaction_id}"
                found = receipt_of(settle(session), version=1, software="test")
                yield name, stored(found)
