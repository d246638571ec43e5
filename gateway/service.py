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
from .app import AppSettings, RunningGateway, run
from .config.load import ConfigError
from .config.model import Config
from .config.tariffs import load_tariff_book
from .config.values import Address
from .domain.tags import IdTag, TagList
from .journal.group_commit import open_sqlite
from .northbound import compat_nodered
from .northbound.mqtt import Broker, open_link
from .northbound.publisher import TOPICS, NorthboundSettings
from .southbound.handlers import HandlerSettings
from .southbound.server import SouthboundSettings
from .southbound.tls import tls_context

BACKLOG = 4_096  # connections that may wait to be accepted: a whole fleet comes back at once
_SPARE_FILES = 100  # for the store, MQTT, admin and what libraries open

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


def settings_of(config: Config) -> AppSettings:
    """The configuration as the settings of each part of the gateway."""
    ocpp, board = config.ocpp, config.thingsboard
    tags = {
        name.lower(): IdTag(status=tag.status, expires=tag.expires, parent=tag.parent)
        for name, tag in config.id_tags.items()
    }
    southbound = SouthboundSettings(
        ping_interval_s=ocpp.ping_interval_s,
        call_timeout_s=ocpp.call_timeout_s,
        handshake_timeout_s=ocpp.handshake_timeout_s,
        grace_s=ocpp.grace_s,
        max_message_bytes=ocpp.max_message_bytes,
        max_messages_per_s=ocpp.max_messages_per_s,
        max_handshakes_per_address=ocpp.max_handshakes_per_address,
        max_connections=_max_connections(),
        require_subprotocol=ocpp.require_subprotocol,
        reject_unknown_charge_points=ocpp.unknown_charge_points == "reject",
        lenient=ocpp.lenient,
        passwords={
            name: cp.password_hash for name, cp in config.charge_points.items() if cp.password_hash
        },
        security_profiles={
            name: cp.security_profile
            for name, cp in config.charge_points.items()
            if cp.security_profile is not None
        },
        known_charge_points=frozenset(config.charge_points),
        own_devices=frozenset({board.gateway_name, f"{board.gateway_name} sessions"}),
        handlers=HandlerSettings(
            tags=TagList(tags, accept_unknown=ocpp.unknown_id_tags == "accept"),
            heartbeat_interval_s=ocpp.heartbeat_interval_s,
            publish_heartbeats=board.compat == "node-red",
            pending_unknown=ocpp.unknown_charge_points == "pending",
            concurrent_tx=ocpp.concurrent_tx == "accept",
            energy_scales={
                name: cp.energy_scale
                for name, cp in config.charge_points.items()
                if cp.energy_scale not in (None, 1)
            },
        ),
    )
    northbound = NorthboundSettings(
        session_log=f"{board.gateway_name} sessions",
        batch_devices=board.batch_devices,
        grace_s=ocpp.grace_s,
    )
    if board.compat == "node-red":
        # The prototype's summary at a stop needs all values before it: publish in order only.
        northbound = attrs.evolve(
            northbound,
            extra_rows=compat_nodered.PrototypeKeys().rows,
            map_rpc=compat_nodered.map_rpc,
            max_in_order=None,
        )
    return AppSettings(
        southbound=southbound,
        northbound=northbound,
        default_id_tag=config.commands.default_id_tag,
        remote_start_timeout_s=config.commands.remote_start_timeout_s,
        driver_display=config.pricing.driver_display,
        stale_session=timedelta(hours=config.ocpp.stale_session_h),
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
    tariff_book, _ = load_tariff_book(config)
    settings, broker = settings_of(config), broker_of(config)
    async with open_sqlite(config.storage.url) as journal:
        listeners_by_name = await _open_listeners(config)
        where = {name: _address_of(listeners[0]) for name, listeners in listeners_by_name.items()}
        line = " ".join(["ready", *(f"{name}={address}" for name, address in where.items())])

        async def stop(running: RunningGateway) -> None:
            async with trio.open_nursery() as admin_tasks:
                for admin in listeners_by_name["admin"]:
                    admin_tasks.start_soon(serve_admin, admin, lambda: running)
                gc.collect()
                gc.freeze()  # what lives as long as the process need not be looked at again
                gc.set_threshold(10_000, 50, 100)  # nearly all of the rest dies by its count
                log.info("ready", **where, version=__version__)
                if wait_stop is None:
                    await admin_tasks.start(_reload_tariffs, config, running)
                    await _wait_stop_signal(lambda: ready(line))
                else:
                    ready(line)
                    await wait_stop()
                admin_tasks.cancel_scope.cancel()
            log.info("stopping", charge_points=len(running.registry.connections()))

        await run(
            journal,
            _charge_point_listeners(config, listeners_by_name),
            partial(open_link, broker, TOPICS),
            tariff_book,
            utc_now,
            settings,
            stop,
        )
    log.info("stopped")


Listeners = Sequence[trio.SocketListener]


async def _open_listeners(config: Config) -> Mapping[str, Listeners]:
    """What is listened on, by its name in the ready line."""
    addresses = {
        "ocpp": config.ocpp.listen,
        "admin": config.admin.listen,
        "ocpp_tls": config.ocpp.listen_tls,
    }
    return {name: await _listen(at) for name, at in addresses.items() if at is not None}


def _charge_point_listeners(
    config: Config, listeners: Mapping[str, Listeners]
) -> list[trio.abc.Listener[Any]]:
    """The listeners for charge points: with TLS the second one, or else the only one."""
    ocpp = config.ocpp
    if ocpp.tls_cert is None or ocpp.tls_key is None:
        return [*listeners["ocpp"]]
    tls = tls_context(ocpp.tls_cert, ocpp.tls_key, ocpp.client_ca)
    secure = "ocpp" if ocpp.listen_tls is None else "ocpp_tls"
    plain = [] if secure == "ocpp" else listeners["ocpp"]
    # https_compatible: a peer that leaves without a TLS close_notify is not worth a warning.
    return [
        *plain,
        *(trio.SSLListener(listener, tls, https_compatible=True) for listener in listeners[secure]),
    ]


async def _listen(address: Address) -> Listeners:
    """On every address that the host has: `localhost` is two.  Raises OSError."""
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host, backlog=BACKLOG)
    except OSError as exc:
        raise OSError(f"cannot listen on {address}: {exc.strerror or exc}") from exc


def _address_of(listener: trio.SocketListener) -> str:
    host, port, *_ = listener.socket.getsockname()
    return str(Address(host, port))


async def _reload_tariffs(
    config: Config,
    running: RunningGateway,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """At each SIGHUP, take the tariff file as it then is for the sessions that start from then on.

    A file with faults changes nothing.
    """
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


async def _wait_stop_signal(announce: Callable[[], None]) -> None:
    """Returns at the first SIGTERM or SIGINT; a second one leaves at once, without loss.

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


def _max_connections() -> int:
    """As many as there may be files, once the soft limit is raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, 1_048_576) if hard != resource.RLIM_INFINITY else 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - _SPARE_FILES, limit // 2)
