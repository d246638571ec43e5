"""`simulate`: simulated charge points against any central system."""

from __future__ import annotations

import json
import signal
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import structlog
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .car import AC_22, DC_60, Outlet
from .charge_point import ID_TAGS, Report, SimulatedChargePoint
from .websocket_client import websocket_opener

log = structlog.get_logger()

_RECONNECT_TIMEOUT_S = 120.0
_ALL_CONNECTED_S = 10.0


@attrs.frozen(kw_only=True)
class SimulateOptions:
    """The options of `simulate`.

    url: of the central system, without a charge point's id; ValueError if it is no ws(s) URL.
    chargers: how many; their ids are SIM-0001 and on.
    sessions: of each charge point, then it ends; None means without end.
    connectors: of each charge point.
    password: for HTTP Basic authentication, the same for all; None means without.
    json_lines: one JSON object a line on stdout instead of a display.
    speed: how much faster than the clock the cars' time passes.
    sample_interval_s: between two MeterValues, in the cars' time.
    id_tags: the tags of the drivers; the central system must accept them.
    connect_timeout_s: seconds after which a charge point that was never accepted gives up.
    tls: for wss URLs; None is the default context.
    """

    url: str = attrs.field()
    chargers: int = 1
    sessions: int | None = None
    connectors: int = 1
    password: str | None = attrs.field(default=None, repr=False)
    json_lines: bool = False
    speed: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    sample_interval_s: int = 60
    id_tags: Sequence[str] = ID_TAGS
    connect_timeout_s: float = 15.0
    tls: ssl.SSLContext | None = None

    @url.validator
    def _check_url(self, _: Any, value: str) -> None:
        websocket_opener(value, "")


async def simulate(
    options: SimulateOptions,
    *,
    report: Report | None = None,
    handle_signals: bool = True,
) -> int:
    """Run the charge points until each has made its sessions; returns the exit status.

    0 when all sessions were made, or when it was stopped and had no number of sessions to make;
    1 when a charge point could not connect, a session failed, or it was stopped before the end:
    a line on stderr then says why.
    report: gets every event in place of the display, a dict with `event` (`connected`, `booted`,
        `session_started`, `session_finished`, `session_failed`, `disconnected`, `not_connected`)
        and `charger`; a finished session has `connector`, `tx_id`, `id_tag`, `energy_wh`,
        `duration_s` and `reason`.
    handle_signals: end orderly on SIGINT and SIGTERM; False where the caller handles them.
    """
    with _display(options) if report is None else _Reporting(report) as display:
        chargers = [_charger(options, number, display) for number in range(1, options.chargers + 1)]
        stopped = False
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                nonlocal stopped
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    async for _ in signals:
                        stopped = True
                        nursery.cancel_scope.cancel()

            if handle_signals:
                nursery.start_soon(stop_on_signal)
            await _run_all(chargers)
            nursery.cancel_scope.cancel()
    failures = [failure for charger in chargers for failure in charger.failures]
    if failures:
        more = f" (and {len(failures) - 1} more like it)" if len(failures) > 1 else ""
        sys.stderr.write(f"simulate: {failures[0]}{more}\n")
    elif stopped and options.sessions is not None:
        sys.stderr.write("simulate: stopped before all sessions were made\n")
    else:
        return 0
    return 1


async def _run_all(chargers: Sequence[SimulatedChargePoint]) -> None:
    """Run them concurrently; they connect one after the other, all within 10 s."""
    async with trio.open_nursery() as nursery:
        for charger in chargers:
            nursery.start_soon(run_guarded, charger)
            await trio.sleep(min(0.05, _ALL_CONNECTED_S / len(chargers)))


async def run_guarded(charger: SimulatedChargePoint) -> None:
    """Run one charge point; an exception of it is its failure, and the others go on."""
    try:
        await charger.run()
    except BrokenPipeError:  # the reader of stdout closed it: that ends all
        raise
    except Exception as exc:
        log.exception("simulated charge point failed", charger=charger.charge_point_id)
        charger.failures.append(f"{charger.charge_point_id}: a fault of the simulation: {exc!r}")


def _charger(options: SimulateOptions, number: int, display: Report) -> SimulatedChargePoint:
    charge_point_id = f"SIM-{number:04}"
    outlet: Outlet = DC_60 if number % 3 == 0 else AC_22
    return SimulatedChargePoint(
        charge_point_id,
        websocket_opener(options.url, charge_point_id, options.tls),
        speed=options.speed,
        outlets=(outlet,) * options.connectors,
        sample_interval_s=options.sample_interval_s,
        sessions=options.sessions,
        id_tags=options.id_tags,
        password=options.password,
        connect_timeout_s=options.connect_timeout_s,
        reconnect_timeout_s=None if options.sessions is None else _RECONNECT_TIMEOUT_S,
        report=display,
    )


class _Reporting:
    """Passes events on to a function."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __enter__(self) -> Report:
        return self._report

    def __exit__(self, *_: object) -> None:
        pass


class _Lines(_Reporting):
    """One line for each event: JSON on stdout, or text on stderr."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(_write_json if as_json else _write_text)


class _Bar(_Reporting):
    """A progress bar of the finished sessions, on a terminal."""

    def __init__(self, options: SimulateOptions, console: Console) -> None:
        total = None if options.sessions is None else options.sessions * options.chargers
        self._connected: set[str] = set()
        self._open = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("sessions"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("connecting", total=total)
        super().__init__(self._take)

    def __enter__(self) -> Report:
        self._progress.start()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "connected":
                self._connected.add(event["charger"])
            case "disconnected":
                self._connected.discard(event["charger"])
            case "session_started":
                self._open += 1
            case "session_finished":
                self._open -= 1
                self._progress.advance(self._task)
            case "session_failed":
                self._progress.console.print(describe(event), highlight=False)
        state = f"{len(self._connected)} connected, {self._open} charging"
        self._progress.update(self._task, description=state)


def _display(options: SimulateOptions) -> _Reporting:
    if options.json_lines:
        return _Lines(as_json=True)
    console = Console(stderr=True)
    return _Bar(options, console) if console.is_terminal else _Lines(as_json=False)


def _write_json(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _write_text(event: dict[str, Any]) -> None:
    sys.stderr.write(describe(event) + "\n")


_DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "not_connected": lambda e: f"could not connect: {e['why']}",
    "disconnected": lambda e: f"disconnected: {e['why']}",
    "session_started": lambda e: (
        f"connector {e['connector']}: session {e['tx_id']} began, tag {e['id_tag']}"
    ),
    "session_finished": lambda e: (
        f"connector {e['connector']}: session {e['tx_id']} ended, "
        f"{e['energy_wh'] / 1000:.2f} kWh in {e['duration_s']:.0f} s, {e['reason']}"
    ),
    "session_failed": lambda e: f"connector {e['connector']}: {e['why']}",
}


def describe(event: dict[str, Any]) -> str:
    """An event as a line of text."""
    text = _DESCRIPTIONS.get(event["event"])
    return f"{event['charger']}: {event['event'] if text is None else text(event)}"
