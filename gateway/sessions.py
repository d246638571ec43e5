"""The sessions in the store, for people and invoice programs; beside a gateway that runs, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .accountant import END, READER, beginnings, fold
from .config import Config
from .domain.accounting import Ledger
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
        place = store.bookmark(READER).seq
        for charge_point_id, first in beginnings(store.open_transactions(), place).items():
            fold(ledger, store.read_account(charge_point_id, first, END), place)
    return [ledger.receipt_so_far(tx.transaction_id) for tx in ledger.open_transactions()]
