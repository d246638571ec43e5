"""Retention: old entries that no reader needs are deleted, a few at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog
import trio

from . import Journal

_EVERY = 3_600.0  # seconds
_AT_ONCE = 500  # entries: no append waits for more than these to go
_PAUSE = 0.1  # seconds between two such steps
_DOUBT = timedelta(days=1)  # by which the wall clock may have gone ahead

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_retention(
    journal: Journal, readers: Sequence[str], keep: timedelta, now: Callable[[], datetime]
) -> AsyncIterator[None]:
    """Trim the journal while the block runs.

    readers: the names of those that must have dealt with an entry before it may go.
    keep: how old an entry must be to go.  It stays all the same while a reader has not dealt
        with it, or a transaction that began before it is open.
    """
    newest = await journal.read(after=journal.statistics().last_seq - 1, limit=1)
    calendar = _Calendar(newest[-1].event.received_at if newest else now(), now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_trim, journal, readers, keep, calendar)
        yield
        nursery.cancel_scope.cancel()


class _Calendar:
    """The wall clock as far as it can be believed: what a wrong one takes, nothing brings back.

    Time goes on from the newest entry that was found at the start as it does for Trio, and a day
    more than that is let pass.  A clock that is years ahead makes nothing older; after years
    without a gateway, what is old goes at the second start.
    """

    def __init__(self, known: datetime, now: Callable[[], datetime]) -> None:
        self._known, self._since = known, trio.current_time()
        self._now = now

    def now(self) -> datetime:
        went_by = timedelta(seconds=trio.current_time() - self._since)
        return min(self._now(), self._known + went_by + _DOUBT)


async def _trim(
    journal: Journal, readers: Sequence[str], keep: timedelta, calendar: _Calendar
) -> None:
    while True:
        gone = 0
        before = calendar.now() - keep
        while step := await journal.trim(before, readers, _AT_ONCE):
            gone += step
            await trio.sleep(_PAUSE)
        if gone:
            log.info("journal trimmed", entries=gone, older_than_days=keep.days)
        await trio.sleep(_EVERY)
