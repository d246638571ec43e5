"""The sessions in the store, for people and invoice programs; beside a gateway that runs, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import __version__
from ..accountant import END, first_entries, restore_entries
from ..billing.ledger import Ledger
from ..billing.receipt import receipt_of
from ..billing.session import Session
from ..billing.settlement import settle_so_far
from ..bus import Entry
from ..config.model import Config
from ..config.tariffs import load_tariff_book
from ..journal.sqlite import open_read_only

Receipt = Mapping[str, Any]


def receipts(config: Config) -> Sequence[Receipt]:
    """The newest version of every receipt, oldest session first.  Raises JournalError."""
    with open_read_only(config.storage.url) as store:
        return store.receipts()


def receipt_versions(config: Config) -> Sequence[Receipt]:
    """Every version of every receipt, oldest first.  Raises JournalError."""
    with open_read_only(config.storage.url) as store:
        return store.receipt_versions()


def open_sessions(config: Config, fault: Callable[[str], None]) -> Sequence[Receipt]:
    """What has not ended, as receipts without `stopped_at`.  Raises JournalError, ConfigError.

    fault: is called for each session or event that a bug of ours leaves out; the others are there.
    """

    def refused(entry: Entry, exc: Exception) -> None:
        event = entry.event
        fault(f"{event.charge_point_id}: entry {entry.seq} cannot be accounted for: {exc!r}")

    tariff_book, _ = load_tariff_book(config)
    ledger = Ledger(tariff_book)
    with open_read_only(config.storage.url) as store:
        for charge_point_id, first in first_entries(store.open_transactions(), END).items():
            restore_entries(ledger, store.read_account(charge_point_id, first, END), END, refused)
    found: list[Receipt] = []
    for tx in ledger.open_transactions():
        session = ledger.session(tx.transaction_id)
        try:
            if session is not None:
                found.append(_receipt_so_far(session))
        except Exception as exc:  # noqa: BLE001  one must not hide the others
            name = f"{tx.charge_point_id}/{tx.connector_id}"
            fault(f"{name}: transaction {tx.transaction_id} cannot be priced: {exc!r}")
    return sorted(found, key=lambda receipt: (receipt["started_at"], receipt["transaction_id"]))


def _receipt_so_far(session: Session) -> Receipt:
    """What the receipt would say if the session ended with its newest data."""
    receipt = receipt_of(settle_so_far(session), version=session.version, software=__version__)
    del receipt["stopped_at"]
    return receipt
