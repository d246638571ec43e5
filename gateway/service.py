"""A configuration -> a running gateway: listeners, journal, admin port, and `app.run` inside."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog

from . import __version__
from .admin.server import open_admin
from .app import AppSettings, RunningGateway, run
from .config.model import Config
from .config.tariffs import load_tariff_book
from .journal.group_commit import open_sqlite
from .northbound.mqtt import Broker, open_link
from .northbound.publisher import TOPICS
from .signals import open_tariff_reload, wait_stop_signal
from .southbound.listeners import (
    bound_address,
    charge_point_listeners,
    listen_on,
    raise_file_limit,
)

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


async def serve(
    config: Config,
    ready: Callable[[str], None],
    *,
    wait_stop: Callable[[], Any] | None = None,
) -> None:
    """Run the gateway until SIGTERM or SIGINT (or `wait_stop` returns), then leave in order.

    ready: is given the line that says where the gateway listens, once it does.
    Raises ConfigError, JournalError, OSError.
    """
    tariff_book, _ = load_tariff_book(config)
    settings = AppSettings.of(config, max_connections=raise_file_limit())
    broker = Broker.of(config.thingsboard)
    addresses = {
        "ocpp": config.ocpp.listen,
        "admin": config.admin.listen,
        "ocpp_tls": config.ocpp.listen_tls,
    }
    async with open_sqlite(config.storage.url) as journal:
        sockets = await listen_on(addresses)

        async def serve_until_stopped(running: RunningGateway) -> None:
            async with open_admin(sockets["admin"], running):
                _freeze_garbage()
                bound = {name: bound_address(found) for name, found in sockets.items()}
                line = " ".join(["ready", *(f"{name}={at}" for name, at in bound.items())])
                log.info("ready", **bound, version=__version__)
                if wait_stop is None:
                    async with open_tariff_reload(config, running):
                        await wait_stop_signal(partial(ready, line))
                else:
                    ready(line)
                    await wait_stop()
            log.info("stopping", charge_points=len(running.registry.connections()))

        await run(
            journal,
            charge_point_listeners(config.ocpp, sockets),
            partial(open_link, broker, TOPICS),
            tariff_book,
            utc_now,
            settings,
            serve_until_stopped,
        )
    log.info("stopped")


def _freeze_garbage() -> None:
    """Let the garbage collector look seldom, and never at what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)  # nearly all of the rest is freed by its reference count
