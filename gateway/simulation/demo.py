"""`demo`: the gateway, a ThingsBoard double and simulated charge points, in one process.

The gateway is the real one and comes as an argument; it listens and connects on real sockets.  The
display shows only values that ThingsBoard received; every command goes through ThingsBoard's RPC.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio
from rich.console import Console, RenderableType
from rich.live import Live

from .car import AC_22, DC_60
from .charge_point import ID_TAGS, SimulatedChargePoint
from .live_table import LiveTable, receipt_table
from .simulate import run_guarded
from .thingsboard import RpcNoSession, RpcTimeout, StoredRow, ThingsBoard
from .websocket_client import websocket_opener

_ACCESS_TOKEN = "DEMO-GATEWAY"  # noqa: S105  of a double that ends with this process
_REMOTE_TAG = "DEMO-APP"
_REMOTE_CONNECTOR = "SIM-0001/2"  # no driver comes to it without the remote start
_REFRESH_S = 0.25
_STOPPING_S = 6.0  # before the end
_RPC_TIMEOUT_S = 20.0

TARIFFS: dict[str, Any] = {
    "tariffs": [
        {
            "country_code": "NL",
            "party_id": "DEM",
            "id": "DEMO",
            "currency": "EUR",
            "elements": [
                {
                    "price_components": [
                        {"type": "FLAT", "price": 0.50, "vat": 21.0, "step_size": 1},
                        {"type": "ENERGY", "price": 0.45, "vat": 21.0, "step_size": 1},
                        {"type": "PARKING_TIME", "price": 6.00, "vat": 21.0, "step_size": 1},
                    ]
                }
            ],
            "last_updated": "2026-01-01T00:00:00Z",
        }
    ],
    "assign": [{"default": True, "tariffs": ["DEMO"]}],
    "time_zone": "Europe/Amsterdam",
}
"""0.50 a start, 0.45 a kWh, 0.10 a minute of idle time; EUR without 21 % VAT."""


@attrs.frozen(kw_only=True)
class DemoOptions:
    """The options of `demo`.

    seconds: its length; the last of them are for stopping the open sessions.
    chargers: how many simulated charge points.
    json_lines: each row that ThingsBoard received as a line of JSON on stdout, in place of a
        display.
    speed: how much faster than the clock the cars' time passes.
    """

    seconds: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    chargers: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    json_lines: bool = False
    speed: float = attrs.field(default=90.0, validator=attrs.validators.gt(0))


class StartGateway(Protocol):
    """Starts the gateway in the nursery; returns the port on which it accepts chargers.

    mqtt_port: of ThingsBoard at 127.0.0.1; access_token: of the gateway's device there.
    folder: for its store, removed afterwards.
    tariffs: the content of a tariff file.
    """

    async def __call__(
        self,
        nursery: trio.Nursery,
        *,
        mqtt_port: int,
        access_token: str,
        folder: Path,
        tariffs: dict[str, Any],
    ) -> int: ...


async def demo(
    options: DemoOptions, start_gateway: StartGateway, *, thingsboard: ThingsBoard | None = None
) -> int:
    """Show what ThingsBoard receives until the time is over; returns the exit status.

    0 when sessions were charged, priced and published, or when SIGINT or SIGTERM ended it before; 1
    with a line on stderr when ThingsBoard received no finished session.
    thingsboard: the double to use, for tests; None makes one.
    """
    thingsboard = thingsboard or ThingsBoard(access_tokens=[_ACCESS_TOKEN], history=100)
    display = _display(options)
    with tempfile.TemporaryDirectory(prefix="ocpp-gateway-demo-") as folder:
        async with trio.open_nursery() as nursery:
            mqtt_port = await nursery.start(thingsboard.serve_tcp, "127.0.0.1", 0)
            rows = thingsboard.rows(100_000)
            ocpp_port = await start_gateway(
                nursery,
                mqtt_port=mqtt_port,
                access_token=_ACCESS_TOKEN,
                folder=Path(folder),
                tariffs=TARIFFS,
            )
            chargers = _chargers(options, ocpp_port)
            with trio.CancelScope() as running:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(display.follow, rows)
                    tasks.start_soon(_cancel_on_signal, running)
                    await _run_scenario(options, chargers, thingsboard, display)
                    tasks.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    display.finish()
    failures = [failure for charger in chargers for failure in charger.failures]
    if failures or not (display.table.receipts or running.cancelled_caught):
        why = failures[0] if failures else "ThingsBoard received no finished session"
        sys.stderr.write(f"demo: {why}\n")
        return 1
    return 0


def _chargers(options: DemoOptions, port: int) -> list[SimulatedChargePoint]:
    """Fast and slow chargers in turn; the first has a second connector for the remote start."""
    return [
        SimulatedChargePoint(
            f"SIM-{number:04}",
            websocket_opener(f"ws://127.0.0.1:{port}/ocpp", f"SIM-{number:04}"),
            speed=options.speed,
            outlets=(DC_60 if number % 2 else AC_22,) * (2 if number == 1 else 1),
            drivers=(1,),
            id_tags=ID_TAGS,
        )
        for number in range(1, options.chargers + 1)
    ]


async def _run_scenario(
    options: DemoOptions,
    chargers: list[SimulatedChargePoint],
    thingsboard: ThingsBoard,
    display: _Display,
) -> None:
    """Charge, then stop; if all went well, every session then has its receipt."""
    began = trio.current_time()
    ends_at = began + options.seconds
    stops_at = ends_at - min(_STOPPING_S, options.seconds / 3)
    async with trio.open_nursery() as cars:
        for charger in chargers:
            cars.start_soon(run_guarded, charger)
        with trio.move_on_at(stops_at):
            await thingsboard.wait_for(lambda thingsboard: _REMOTE_CONNECTOR in thingsboard.devices)
            await _send_rpc(
                thingsboard, display, _REMOTE_CONNECTOR, "remoteStart", {"idTag": _REMOTE_TAG}
            )
        await trio.sleep_until(stops_at)
        for charger in chargers:
            charger.stop_arrivals()
        with trio.move_on_at(ends_at):
            await _stop_all(chargers, thingsboard, display)
            await trio.sleep(2 * _REFRESH_S)  # so that the display shows it
        cars.cancel_scope.cancel()


async def _cancel_on_signal(running: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            running.cancel()


async def _stop_all(
    chargers: list[SimulatedChargePoint], thingsboard: ThingsBoard, display: _Display
) -> None:
    """Stop the open sessions, and those that begin meanwhile, until none is open."""
    stop_sent: set[str] = set()

    def is_changed(thingsboard: ThingsBoard) -> bool:
        charging = _charging(thingsboard)
        in_use = [c for charger in chargers for c in charger.connectors.values() if c.session]
        return bool(charging - stop_sent) or not (charging or in_use)

    async with trio.open_nursery() as stopping:
        while True:
            await thingsboard.wait_for(is_changed)
            if not (fresh := _charging(thingsboard) - stop_sent):
                break
            stop_sent |= fresh
            for name in fresh:
                stopping.start_soon(_send_rpc, thingsboard, display, name, "remoteStop", None)


def _charging(thingsboard: ThingsBoard) -> set[str]:
    return {
        name for name, device in thingsboard.devices.items() if device.value("tx_active") is True
    }


async def _send_rpc(
    thingsboard: ThingsBoard,
    display: _Display,
    device: str,
    method: str,
    params: dict[str, Any] | None,
) -> None:
    try:
        response = await thingsboard.rpc(device, method, params, timeout=_RPC_TIMEOUT_S)
    except (RpcTimeout, RpcNoSession) as exc:
        response = {"error": str(exc)}
    display.add_rpc(device, method, params, response)


class _Display:
    """Gets the rows that ThingsBoard received; the base class stores them and shows nothing."""

    def __init__(self) -> None:
        self.table = LiveTable()

    async def follow(self, rows: trio.MemoryReceiveChannel[StoredRow]) -> None:
        async for row in rows:
            if not row.is_attributes:
                self.add_row(row.device, row.ts, row.values)

    def add_row(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        return self.table.add_row(device, ts, values)

    def add_rpc(self, device: str, method: str, params: Any, response: Any) -> None:
        """An RPC was sent to a device and answered."""

    def finish(self) -> None:
        """No more rows will come."""


class _JsonLines(_Display):
    def add_row(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        row = {"device": device, "ts": ts, "values": dict(values)}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
        return super().add_row(device, ts, values)


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """The reader of stdout closed it; the caller handles that (rich would exit)."""
        raise BrokenPipeError


class _Lines(_Display):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def add_row(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        lines = super().add_row(device, ts, values)
        for line in lines:
            self._print_line(line)
        return lines

    def add_rpc(self, device: str, method: str, params: Any, response: Any) -> None:
        arguments = "" if params is None else f" {json.dumps(params)}"
        self._print_line(f"{device}: RPC {method}{arguments} was answered {json.dumps(response)}")

    def finish(self) -> None:
        for receipt in self.table.receipts:
            self._print(receipt_table(receipt))
        count = len(self.table.receipts)
        self._print_line(
            f"{count} session{'' if count == 1 else 's'}, each with a receipt.  For real chargers:"
        )
        self._print_line(
            "  ocpp-gateway run --config gateway.toml    chargers: ws://HOST:9000/ocpp/ID"
        )
        self._print_line("  README.md says how to configure ThingsBoard and tariffs")

    def _print_line(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _print(self, thing: RenderableType) -> None:
        self._console.print(thing)


class _Table(_Lines):
    async def follow(self, rows: trio.MemoryReceiveChannel[StoredRow]) -> None:
        # rich would refresh in a thread; this is a task
        with Live(self.table.table(), console=self._console, auto_refresh=False) as live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(super().follow, rows)
                while True:
                    live.update(self.table.table(), refresh=True)
                    await trio.sleep(_REFRESH_S)

    def add_row(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        self.table.add_row(device, ts, values)
        return []


def _display(options: DemoOptions) -> _Display:
    if options.json_lines:
        return _JsonLines()
    console = _Stdout()
    return _Table(console) if console.is_terminal else _Lines(console)
