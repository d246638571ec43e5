"""`ocpp-gateway sessions`: the sessions in the store, printed in one of their formats.

One that cannot be shown is named on stderr, and hides none of the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..config.load import ConfigError, Fault, load
from ..config.model import Config
from ..domain.json_codec import encode_text
from ..export.cdr import NoCdr, cdr, credit, export, of_cdr
from ..export.csv_table import write_header, write_row
from ..export.party import Party, party_of
from ..export.signed import transparency_xml
from ..journal import JournalError
from .sessions import open_sessions, receipt_versions, receipts


def sessions(arguments: argparse.Namespace) -> int:
    """Print what is asked for; the exit status.  Raises ConfigError."""
    config, _ = load(arguments.config, os.environ)
    faults: list[str] = []
    try:
        if arguments.credit is not None:
            return _credit(arguments, config)
        found = open_sessions(config, faults.append) if arguments.open else receipts(config)
    except JournalError as exc:
        print(f"ocpp-gateway: {exc}", file=sys.stderr)
        return 1
    if arguments.receipt is not None:
        found = [receipt for receipt in found if receipt["receipt_id"] == arguments.receipt]
    if arguments.signed_xml:
        return _signed_xml(found)
    status = _FORMATS["json" if arguments.json else arguments.format](found, config)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else status


def _each(found: Sequence[Any], show: Callable[[Any], object]) -> int:
    """Show each receipt; one that cannot be is named on stderr, and hides none of the others."""
    status = 0
    for receipt in found:
        try:
            show(receipt)
        except BrokenPipeError:
            raise
        except Exception as exc:  # noqa: BLE001  whatever is wrong with this one
            print(f"{receipt.get('receipt_id')}: cannot be shown: {exc!r}", file=sys.stderr)
            status = 1
    return status


def _as_text(found: Sequence[Any], _: Config) -> int:
    if not found:
        print("no sessions")
    return _each(found, lambda receipt: print(_line(receipt)))


def _as_json(found: Sequence[Any], _: Config) -> int:
    return _each(found, lambda receipt: print(encode_text(receipt)))


def _as_csv(found: Sequence[Any], _: Config) -> int:
    write_header(sys.stdout)
    return _each(found, lambda receipt: write_row(receipt, sys.stdout))


def _as_cdrs(found: Sequence[Any], config: Config) -> int:
    """One OCPI CDR a line; what cannot be one is named on stderr."""
    made = export(found, party=_party(config))
    for one in made.cdrs:
        print(encode_text(one))
    for receipt_id in made.unpriced:
        print(f"{receipt_id}: no CDR, for it has no price", file=sys.stderr)
    for receipt_id in made.still_open:
        print(f"{receipt_id}: no CDR, for it has not ended", file=sys.stderr)
    for receipt_id, why in made.faulty.items():
        print(f"{receipt_id}: no CDR, for a fault of the gateway's own: {why}", file=sys.stderr)
    return 1 if made.faulty else 0


def _party(config: Config) -> Party:
    try:
        return party_of(config.party)
    except ValueError as exc:
        raise ConfigError([Fault("[party]", str(exc))]) from exc


def _credit(arguments: argparse.Namespace, config: Config) -> int:
    """The Credit CDR of one CDR.  Raises JournalError."""
    name = arguments.credit
    if arguments.format != "ocpi-cdr" or arguments.json or arguments.open:
        print("--credit goes with --format ocpi-cdr alone: it makes a CDR", file=sys.stderr)
        return 2
    party = _party(config)
    receipt = of_cdr(name, receipt_versions(config))
    try:
        if receipt is None:
            raise NoCdr(f"there is no receipt and no CDR {name!r}")
        made = credit(cdr(receipt, party=party))
    except NoCdr as exc:
        why = "there is no CDR of it to take back" if receipt is not None else ""
        print(": ".join(filter(None, (str(exc), why))), file=sys.stderr)
        return 1
    print(encode_text(made))
    return 0


_FORMATS = {"text": _as_text, "json": _as_json, "csv": _as_csv, "ocpi-cdr": _as_cdrs}


def _signed_xml(found: Sequence[Any]) -> int:
    """The signed values of one session, for the S.A.F.E. transparency software."""
    signed: dict[str, str] = {}

    def keep(receipt: Any) -> None:
        if xml := transparency_xml(receipt):
            signed[receipt["receipt_id"]] = xml

    _each(found, keep)
    if len(signed) == 1:
        print(*signed.values())
        return 0
    if signed:
        print("choose one by --receipt:", *signed, sep="\n  ", file=sys.stderr)
        return 2
    print("there are no signed values", file=sys.stderr)
    return 1


def _line(receipt: Any) -> str:
    """A receipt in a line for people."""
    kwh = float(receipt["energy_wh"]) / 1000
    total = receipt.get("total_incl_vat")
    price = f"{total} {receipt['currency']}" if total is not None else "no price"
    where = f"{receipt['charge_point']}/{receipt['connector']}"
    stopped = receipt.get("stopped_at", "open")
    doubt = "  needs review" if receipt.get("needs_review") else ""
    return (
        f"{receipt['started_at']}  {stopped:<20}  {where:<24}"
        f"  {kwh:10.3f} kWh  {price:>14}  {receipt['id_tag']}{doubt}"
    )
