"""What the journal need not remember any longer goes, a little at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog
import trio

from .accountant import READER as ACCOUNTANT
from .journal import Journal
from .northbound.outbox import READER as THINGSBOARD

_EVERY = 3_600.0  # seconds
_AT_ONCE = 500  # entries: no append waits for more than these to go
_PAUSE = 0.1  # seconds between two such steps

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_retention(
    journal: Journal, keep: timedelta, now: Callable[[], datetime]
) -> AsyncIterator[None]:
    """Trim the journal while the block runs.

    keep: how old an entry must be to go.  It stays all the same while the accountant or
        ThingsBoard has not had it, or a transaction that began before it is open.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_trim, journal, keep, now)
        yield
        nursery.cancel_scope.cancel()


async def _trim(journal: Journal, keep: timedelta, now: Callable[[], datetime]) -> None:
    while True:
        gone = 0
        while step := await journal.trim(now() - keep, (ACCOUNTANT, THINGSBOARD), _AT_ONCE):
            gone += step
            await trio.sleep(_PAUSE)
        if gone:
            log.info("journal trimmed", entries=gone, older_than_days=keep.days)
        await trio.sleep(_EVERY)
