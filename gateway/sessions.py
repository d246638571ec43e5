"""The sessions in the store, for people and invoice programs; beside a gateway that runs, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import __version__
from .accountant import END, beginnings, fold
from .config import Config
from .domain.accounting import Ledger
from .domain.receipt import receipt_of
from .domain.session import Session
from .domain.settlement import so_far
from .journal.sqlite import reading
from .service import open_book

Receipt = Mapping[str, Any]


def receipts(config: Config) -> Sequence[Receipt]:
    """The newest version of every receipt, oldest session first.  Raises JournalError."""
    with reading(config.storage.url) as store:
        return store.receipts()


def open_sessions(config: Config) -> Sequence[Receipt]:
    """What has not ended, as receipts without `stopped_at`.  Raises JournalError, ConfigError."""
    book, _ = open_book(config)
    ledger = Ledger(book)
    with reading(config.storage.url) as store:
        for charge_point_id, first in beginnings(store.open_transactions(), END).items():
            fold(ledger, store.read_account(charge_point_id, first, END), END)
    accounts = [ledger.account(tx.transaction_id) for tx in ledger.open_transactions()]
    return sorted(
        (_receipt_so_far(session) for session in accounts if session is not None),
        key=lambda receipt: (receipt["started_at"], receipt["transaction_id"]),
    )


def _receipt_so_far(session: Session) -> Receipt:
    """What the receipt would say if the session ended with its newest data."""
    receipt = receipt_of(so_far(session), version=session.version, software=__version__)
    del receipt["stopped_at"]
    return receipt
