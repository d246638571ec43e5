"""What the process does at SIGTERM, SIGINT and SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from .app import RunningGateway
from .config.load import ConfigError
from .config.model import Config
from .config.tariffs import load_tariff_book

log = structlog.get_logger(__name__)


async def wait_stop_signal(announce: Callable[[], None]) -> None:
    """Returns at the first SIGTERM or SIGINT; a second one ends the process at once, without loss.

    announce: called once signals are received, so that its reader may send one.
    """
    signals = (signal.SIGTERM, signal.SIGINT)
    with trio.open_signal_receiver(*signals) as received:
        announce()
        async for _ in received:
            break
    # From here on the default action holds: the next signal ends the process where it stands,
    # and what the journal holds is published after the next start.
    for number in signals:
        signal.signal(number, signal.SIG_DFL)


@asynccontextmanager
async def open_tariff_reload(config: Config, running: RunningGateway) -> AsyncIterator[None]:
    """While the block runs, SIGHUP reloads the tariff file for the sessions that start later.

    A file with faults changes nothing.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(_reload_at_sighup, config, running)
        yield
        nursery.cancel_scope.cancel()


async def _reload_at_sighup(
    config: Config,
    running: RunningGateway,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as received:
        task_status.started()
        async for _ in received:
            try:
                running.ledger.tariff_book, warnings = load_tariff_book(config)
            except ConfigError as exc:
                running.reloads.refused += 1
                log.warning("tariffs not reloaded: the old ones stay", faults=str(exc).splitlines())
            else:
                running.reloads.taken += 1
                log.info("tariffs reloaded", warnings=[fault.what for fault in warnings])
