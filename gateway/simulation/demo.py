"""A newcomer's first minute: gateway, a stand-in for ThingsBoard and cars, in one process.

The gateway is the real one and comes as an argument; both its sides are real sockets.  Nothing is
shown here but what ThingsBoard received, and nothing is asked of a charger but through
ThingsBoard's RPC.
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
from .charger import ID_TAGS, SimulatedCharger
from .demo_view import Board, receipt_table
from .simulate import run_guarded
from .thingsboard import RpcNoSession, RpcTimeout, StoredRow, ThingsBoard
from .websocket_client import dialer

_ACCESS_TOKEN = "DEMO-GATEWAY"  # noqa: S105  of a stand-in that ends with this process
_REMOTE_TAG = "DEMO-APP"
_REMOTE_CONNECTOR = "SIM-0001/2"  # no driver comes to it by himself
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
"""0.50 a start, 0.45 a kWh, 0.10 a minute of a full car's standing; EUR without 21 % VAT."""


@attrs.frozen(kw_only=True)
class DemoOptions:
    """What `demo` was asked for.

    seconds: after these it ends; the last of them are for stopping what still charges.
    chargers: how many simulated charge points.
    json_lines: one JSON object a line on stdout instead of a display: what ThingsBoard received.
    speed: how much faster the cars live than the clock.
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
    options: DemoOptions, start_gateway: StartGateway, *, board: ThingsBoard | None = None
) -> int:
    """Show what ThingsBoard is told until the time is over; returns the exit status.

    0 when sessions were charged, priced and published, or when SIGINT or SIGTERM ended it before; 1
    with a line on stderr when ThingsBoard received no finished session.
    board: the stand-in to use, for tests; None makes one.
    """
    board = board or ThingsBoard(access_tokens=[_ACCESS_TOKEN], history=100)
    show = _display(options)
    with tempfile.TemporaryDirectory(prefix="ocpp-gateway-demo-") as folder:
        async with trio.open_nursery() as nursery:
            mqtt_port = await nursery.start(board.serve_tcp, "127.0.0.1", 0)
            rows = board.rows(100_000)
            ocpp_port = await start_gateway(
                nursery,
                mqtt_port=mqtt_port,
                access_token=_ACCESS_TOKEN,
                folder=Path(folder),
                tariffs=TARIFFS,
            )
            chargers = _chargers(options, ocpp_port)
            with trio.CancelScope() as playing:
                async with trio.open_nursery() as watching:
                    watching.start_soon(show.follow, rows)
                    watching.start_soon(_end_on_signal, playing)
                    await _play(options, chargers, board, show)
                    watching.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    show.finish()
    failures = [failure for charger in chargers for failure in charger.failures]
    if failures or not (show.board.receipts or playing.cancelled_caught):
        why = failures[0] if failures else "ThingsBoard was told of no finished session"
        sys.stderr.write(f"demo: {why}\n")
        return 1
    return 0


def _chargers(options: DemoOptions, port: int) -> list[SimulatedCharger]:
    """Fast and slow ones by turns; the first has a second connector for the remote start."""
    return [
        SimulatedCharger(
            f"SIM-{number:04}",
            dialer(f"ws://127.0.0.1:{port}/ocpp", f"SIM-{number:04}"),
            speed=options.speed,
            outlets=(DC_60 if number % 2 else AC_22,) * (2 if number == 1 else 1),
            drivers=(1,),
            id_tags=ID_TAGS,
        )
        for number in range(1, options.chargers + 1)
    ]


async def _play(
    options: DemoOptions, chargers: list[SimulatedCharger], board: ThingsBoard, show: _Display
) -> None:
    """The minute itself; afterwards every session that began has its receipt, if all went well."""
    began = trio.current_time()
    ends_at = began + options.seconds
    closes_at = ends_at - min(_STOPPING_S, options.seconds / 3)
    async with trio.open_nursery() as cars:
        for charger in chargers:
            cars.start_soon(run_guarded, charger)
        with trio.move_on_at(closes_at):
            await board.wait_for(lambda board: _REMOTE_CONNECTOR in board.devices)
            await _order(board, show, _REMOTE_CONNECTOR, "remoteStart", {"idTag": _REMOTE_TAG})
        await trio.sleep_until(closes_at)
        for charger in chargers:
            charger.close_site()
        with trio.move_on_at(ends_at):
            await _stop_all(chargers, board, show)
            await trio.sleep(2 * _REFRESH_S)  # to be seen
        cars.cancel_scope.cancel()


async def _end_on_signal(playing: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            playing.cancel()


async def _stop_all(chargers: list[SimulatedCharger], board: ThingsBoard, show: _Display) -> None:
    """Stop what charges, and what begins to meanwhile, until nothing does."""
    ordered: set[str] = set()

    def settled(board: ThingsBoard) -> bool:
        charging = _charging(board)
        in_use = [c for charger in chargers for c in charger.connectors.values() if c.session]
        return bool(charging - ordered) or not (charging or in_use)

    async with trio.open_nursery() as stopping:
        while True:
            await board.wait_for(settled)
            if not (fresh := _charging(board) - ordered):
                break
            ordered |= fresh
            for name in fresh:
                stopping.start_soon(_order, board, show, name, "remoteStop", None)


def _charging(board: ThingsBoard) -> set[str]:
    return {name for name, device in board.devices.items() if device.value("tx_active") is True}


async def _order(
    board: ThingsBoard, show: _Display, device: str, method: str, params: dict[str, Any] | None
) -> None:
    try:
        answer = await board.rpc(device, method, params, timeout=_RPC_TIMEOUT_S)
    except (RpcTimeout, RpcNoSession) as exc:
        answer = {"error": str(exc)}
    show.order(device, method, params, answer)


class _Display:
    """Takes what ThingsBoard received; the base class keeps it and shows nothing."""

    def __init__(self) -> None:
        self.board = Board()

    async def follow(self, rows: trio.MemoryReceiveChannel[StoredRow]) -> None:
        async for row in rows:
            if not row.is_attributes:
                self.take(row.device, row.ts, row.values)

    def take(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        return self.board.take(device, ts, values)

    def order(self, device: str, method: str, params: Any, answer: Any) -> None:
        """An RPC was sent to a device and answered."""

    def finish(self) -> None:
        """Nothing more will come."""


class _JsonLines(_Display):
    def take(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        row = {"device": device, "ts": ts, "values": dict(values)}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
        return super().take(device, ts, values)


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """The reader of stdout has left; the caller handles that (rich would exit)."""
        raise BrokenPipeError


class _Lines(_Display):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def take(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        lines = super().take(device, ts, values)
        for line in lines:
            self._say(line)
        return lines

    def order(self, device: str, method: str, params: Any, answer: Any) -> None:
        arguments = "" if params is None else f" {json.dumps(params)}"
        self._say(f"{device}: RPC {method}{arguments} was answered {json.dumps(answer)}")

    def finish(self) -> None:
        for receipt in self.board.receipts:
            self._print(receipt_table(receipt))
        count = len(self.board.receipts)
        self._say(f"{count} session{'' if count == 1 else 's'}, told with receipts.  For real:")
        self._say("  ocpp-gateway run --config gateway.toml    chargers: ws://HOST:9000/ocpp/ID")
        self._say("  README.md tells how to give it a ThingsBoard and tariffs")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _print(self, thing: RenderableType) -> None:
        self._console.print(thing)


class _Table(_Lines):
    async def follow(self, rows: trio.MemoryReceiveChannel[StoredRow]) -> None:
        # rich's own refreshing is a thread; ours is a task
        with Live(self.board.table(), console=self._console, auto_refresh=False) as live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(super().follow, rows)
                while True:
                    live.update(self.board.table(), refresh=True)
                    await trio.sleep(_REFRESH_S)

    def take(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        self.board.take(device, ts, values)
        return []


def _display(options: DemoOptions) -> _Display:
    if options.json_lines:
        return _JsonLines()
    console = _Stdout()
    return _Table(console) if console.is_terminal else _Lines(console)
