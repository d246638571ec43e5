"""A configuration -> a running gateway: files, sockets, the store, signals."""

from __future__ import annotations

import gc
import resource
import signal
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import attrs
import structlog
import trio

from . import __version__
from .admin.server import serve_admin
from .app import House, Settings, run
from .config.load import ConfigError
from .config.model import Config
from .config.tariffs import open_book
from .config.values import Address
from .domain.tags import IdTag, TagList
from .journal.group_commit import open_sqlite
from .northbound import compat_nodered
from .northbound.mqtt import Broker, open_link
from .northbound.publisher import TOPICS, NorthSettings
from .southbound.handlers import Rules
from .southbound.server import DoorSettings
from .southbound.tls import tls_context

BACKLOG = 4_096  # connections that may wait to be accepted: a whole fleet comes back at once
_SPARE_FILES = 100  # for the store, MQTT, admin and what libraries open

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


def settings_of(config: Config) -> Settings:
    """What the rooms are told of the configuration."""
    ocpp, board = config.ocpp, config.thingsboard
    tags = {
        name.lower(): IdTag(status=tag.status, expires=tag.expires, parent=tag.parent)
        for name, tag in config.id_tags.items()
    }
    door = DoorSettings(
        ping_interval=ocpp.ping_interval_s,
        call_timeout=ocpp.call_timeout_s,
        handshake_timeout=ocpp.handshake_timeout_s,
        grace=ocpp.grace_s,
        max_message_bytes=ocpp.max_message_bytes,
        frames_per_second=ocpp.max_messages_per_s,
        most_arriving=ocpp.max_handshakes_per_address,
        most_connections=_most_connections(),
        require_subprotocol=ocpp.require_subprotocol,
        reject_unknown=ocpp.unknown_charge_points == "reject",
        lenient=ocpp.lenient,
        passwords={
            name: cp.password_hash for name, cp in config.charge_points.items() if cp.password_hash
        },
        profiles={
            name: cp.security_profile
            for name, cp in config.charge_points.items()
            if cp.security_profile is not None
        },
        known=frozenset(config.charge_points),
        own_devices=frozenset({board.gateway_name, f"{board.gateway_name} sessions"}),
        rules=Rules(
            tags=TagList(tags, accept_unknown=ocpp.unknown_id_tags == "accept"),
            heartbeat_interval=ocpp.heartbeat_interval_s,
            tell_heartbeats=board.compat == "node-red",
            pending=ocpp.unknown_charge_points == "pending",
            concurrent=ocpp.concurrent_tx == "accept",
            energy_scales={
                name: cp.energy_scale
                for name, cp in config.charge_points.items()
                if cp.energy_scale not in (None, 1)
            },
        ),
    )
    north = NorthSettings(
        session_log=f"{board.gateway_name} sessions",
        many_devices=board.batch_devices,
        grace=ocpp.grace_s,
    )
    if board.compat == "node-red":
        # What the prototype tells at a stop was said before it: in order, or not at all.
        north = attrs.evolve(
            north, also=compat_nodered.Prototype().rows, alias=compat_nodered.alias, in_order=None
        )
    return Settings(
        door=door,
        north=north,
        default_id_tag=config.commands.default_id_tag,
        start_timeout=config.commands.remote_start_timeout_s,
        driver_display=config.pricing.driver_display,
        stale_after=timedelta(hours=config.ocpp.stale_session_h),
        keep=timedelta(days=config.storage.keep_days),
        software=__version__,
    )


def broker_of(config: Config) -> Broker:
    """Raises OSError, ssl.SSLError for a ca_cert that is none."""
    board = config.thingsboard
    tls = ssl.create_default_context(cafile=board.ca_cert) if board.tls else None
    return Broker(
        host=board.host,
        port=board.port,
        access_token=board.access_token,
        tls=tls,
        protocol=board.protocol,
    )


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
    book, _ = open_book(config)
    settings, broker = settings_of(config), broker_of(config)
    async with open_sqlite(config.storage.url) as journal:
        doors = await _open_doors(config)
        where = {name: _where(listeners[0]) for name, listeners in doors.items()}
        line = " ".join(["ready", *(f"{name}={address}" for name, address in where.items())])

        async def stop(house: House) -> None:
            async with trio.open_nursery() as looking_on:
                for admin in doors["admin"]:
                    looking_on.start_soon(serve_admin, admin, lambda: house)
                gc.collect()
                gc.freeze()  # what lives as long as the process need not be looked at again
                gc.set_threshold(10_000, 50, 100)  # nearly all of the rest dies by its count
                log.info("ready", **where, version=__version__)
                if wait_stop is None:
                    await looking_on.start(_reload_tariffs, config, house)
                    await _wait_signal(lambda: ready(line))
                else:
                    ready(line)
                    await wait_stop()
                looking_on.cancel_scope.cancel()
            log.info("stopping", charge_points=len(house.registry.sessions()))

        await run(
            journal,
            _for_chargers(config, doors),
            partial(open_link, broker, TOPICS),
            book,
            utc_now,
            settings,
            stop,
        )
    log.info("stopped")


Listeners = Sequence[trio.SocketListener]


async def _open_doors(config: Config) -> Mapping[str, Listeners]:
    """What is listened on, by its name in the ready line."""
    addresses = {
        "ocpp": config.ocpp.listen,
        "admin": config.admin.listen,
        "ocpp_tls": config.ocpp.listen_tls,
    }
    return {name: await _listen(at) for name, at in addresses.items() if at is not None}


def _for_chargers(config: Config, doors: Mapping[str, Listeners]) -> list[trio.abc.Listener[Any]]:
    """The doors of charge points: with TLS the second one, or else the only one."""
    ocpp = config.ocpp
    if ocpp.tls_cert is None or ocpp.tls_key is None:
        return [*doors["ocpp"]]
    tls = tls_context(ocpp.tls_cert, ocpp.tls_key, ocpp.client_ca)
    secure = "ocpp" if ocpp.listen_tls is None else "ocpp_tls"
    plain = [] if secure == "ocpp" else doors["ocpp"]
    # https_compatible: a peer that leaves without TLS's own goodbye is no fault of interest.
    return [
        *plain,
        *(trio.SSLListener(door, tls, https_compatible=True) for door in doors[secure]),
    ]


async def _listen(address: Address) -> Listeners:
    """On every address that the host has: `localhost` is two.  Raises OSError."""
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host, backlog=BACKLOG)
    except OSError as exc:
        raise OSError(f"cannot listen on {address}: {exc.strerror or exc}") from exc


def _where(listener: trio.SocketListener) -> str:
    host, port, *_ = listener.socket.getsockname()
    return str(Address(host, port))


async def _reload_tariffs(
    config: Config, house: House, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """At each SIGHUP, take the tariff file as it then is for the sessions that start from then on.

    A file with faults changes nothing.
    """
    with trio.open_signal_receiver(signal.SIGHUP) as heard:
        task_status.started()
        async for _ in heard:
            try:
                house.ledger.book, warnings = open_book(config)
            except ConfigError as exc:
                house.reloads.refused += 1
                log.warning("tariffs not reloaded: the old ones stay", faults=str(exc).splitlines())
            else:
                house.reloads.taken += 1
                log.info("tariffs reloaded", warnings=[fault.what for fault in warnings])


async def _wait_signal(announce: Callable[[], None]) -> None:
    """Returns at the first SIGTERM or SIGINT; a second one leaves at once, without loss.

    announce: called once signals are heard, so that whoever reads it may send one.
    """
    signals = (signal.SIGTERM, signal.SIGINT)
    with trio.open_signal_receiver(*signals) as heard:
        announce()
        async for _ in heard:
            break
    # From here on the default action holds: the next signal ends the process where it stands,
    # and what the journal has is told at the next start.
    for number in signals:
        signal.signal(number, signal.SIG_DFL)


def _most_connections() -> int:
    """As many as there may be files, once the soft limit is raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, 1_048_576) if hard != resource.RLIM_INFINITY else 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - _SPARE_FILES, limit // 2)
