"""The commands of `ocpp-gateway` and what each may be given."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from .. import __version__
from ..config.values import Address
from ..config.values import address as read_address
from ..provisioning.arguments import ACTIONS, EXPORT, add_action, add_export


def parser() -> argparse.ArgumentParser:
    """What it reads says by `command`, a key of `main.COMMANDS`, what is to be run."""
    whole = argparse.ArgumentParser(
        prog="ocpp-gateway", description="Connects OCPP 1.6J charge points to ThingsBoard."
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", "serve charge points until SIGTERM or SIGINT")
    _config(run)
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")

    check = _command(commands, "check", "check configuration and tariffs; exit 2 on a fault")
    _config(check)

    healthz = _command(
        commands, "healthz", "ask a running gateway for its health; exit 1 if it has none"
    )
    _config(healthz)
    healthz.add_argument("--ready", action="store_true", help="ask for /readyz: all that it says")

    demo = _command(commands, "demo", "gateway, ThingsBoard stand-in and cars in one process")
    demo.add_argument("--seconds", type=_positive, default=60.0, help="end after (default 60)")
    demo.add_argument("--chargers", type=_count, default=3, help="how many (default 3)")
    demo.add_argument("--speed", type=_positive, default=90.0, help="cars run so much faster")
    demo.add_argument("--json", action="store_true", help="one JSON object a line")

    simulate = _command(commands, "simulate", "simulated charge points, ids SIM-0001..")
    simulate.add_argument("--url", required=True, help="like ws://127.0.0.1:9000/ocpp")
    simulate.add_argument("--chargers", type=_count, default=1, help="how many (default 1)")
    simulate.add_argument("--sessions", type=_count, help="end after so many of each")
    simulate.add_argument("--speed", type=_positive, default=1.0, help="cars run so much faster")
    simulate.add_argument("--password", help="for HTTP Basic, the same for all")
    simulate.add_argument("--json", action="store_true", help="one JSON object a line")

    sessions = _command(commands, "sessions", "the sessions in the store")
    _config(sessions)
    sessions.add_argument("--open", action="store_true", help="those that have not ended")
    sessions.add_argument("--json", action="store_true", help="one receipt a line")
    sessions.add_argument(
        "--format", choices=("text", "json", "csv", "ocpi-cdr"), default="text",
        help="for people, programs, a spreadsheet, or OCPI 2.2.1 CDRs, one a line",
    )  # fmt: skip
    sessions.add_argument("--receipt", metavar="ID", help="only this one")
    sessions.add_argument(
        "--credit", metavar="RECEIPT",
        help="the Credit CDR that takes back the CDR of this receipt, or the CDR of this id",
    )  # fmt: skip
    sessions.add_argument(
        "--signed-xml", action="store_true", help="its signed meter values, as S.A.F.E. XML"
    )

    tail = _command(commands, "tail", "what charge points and gateway say to each other")
    _config(tail)
    tail.add_argument(
        "charge_points", nargs="*", metavar="CHARGE_POINT", help="ids, or like 'CP-*'; none for all"
    )
    tail.add_argument("--admin", type=_address, metavar="HOST:PORT", help="not as configured")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")

    replay = _command(commands, "replay", "price recorded frames without a network")
    replay.add_argument("files", nargs="+", metavar="FILE")

    _command(commands, "hash-password", "an argon2 hash for the configuration")

    board = commands.add_parser("thingsboard", help="what operators need inside ThingsBoard")
    _thingsboard(board.add_subparsers(metavar="ACTION", required=True))
    return whole


def _thingsboard(actions: Any) -> None:
    for name, what in ACTIONS.items():
        add_action(_command(actions, name, what, "thingsboard"), name)
    add_export(_command(actions, "export", EXPORT, "thingsboard export"))


def _command(
    commands: Any, name: str, what: str, command: str | None = None
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(command=command or name)
    return parser


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML; without it, defaults and environment"
    )


def _address(text: str) -> Address:
    try:
        return read_address(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 1e9:
            return value
    raise argparse.ArgumentTypeError("must be a number above 0")


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 < (value := int(text)) < 1_000_000:
            return value
    raise argparse.ArgumentTypeError("must be a whole number from 1 on")
