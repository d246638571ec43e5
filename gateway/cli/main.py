"""The command line.  With `listing`, the only module that prints.

Exit status: 0 fine, 1 a fault while working, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from .. import __version__
from ..config.load import ConfigError, Fault, load, load_with_faults
from ..config.values import Address
from ..config.values import address as read_address

if sys.version_info >= (3, 14):
    sys.exit("ocpp-gateway needs Python 3.11 to 3.13: trio-asyncio cannot be imported on 3.14 yet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status = int(arguments.command(arguments))
        sys.stdout.flush()  # here, where a reader that has left is no fault
    except ConfigError as exc:
        _print_faults(exc.faults)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `ocpp-gateway sessions | head`
        return _stdout_closed()
    except BaseExceptionGroup as group:  # `ocpp-gateway demo --json | head`
        if group.split(BrokenPipeError)[1] is not None:
            raise
        return _stdout_closed()
    return status


def _stdout_closed() -> int:
    """Who reads what we print has left, which is no fault."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ocpp-gateway", description="Connects OCPP 1.6J charge points to ThingsBoard."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", _run, "serve charge points until SIGTERM or SIGINT")
    _config(run)
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")

    check = _command(
        commands, "check", _check, "judge configuration and tariffs; exit 2 on a fault"
    )
    _config(check)

    healthz = _command(
        commands, "healthz", _healthz, "ask a running gateway for its health; exit 1 if it has none"
    )
    _config(healthz)
    healthz.add_argument("--ready", action="store_true", help="ask for /readyz: all that it says")

    demo = _command(
        commands, "demo", _demo, "gateway, ThingsBoard stand-in and cars in one process"
    )
    demo.add_argument("--seconds", type=_positive, default=60.0, help="end after (default 60)")
    demo.add_argument("--chargers", type=_count, default=3, help="how many (default 3)")
    demo.add_argument("--speed", type=_positive, default=90.0, help="cars run so much faster")
    demo.add_argument("--json", action="store_true", help="one JSON object a line")

    simulate = _command(commands, "simulate", _simulate, "simulated charge points, ids SIM-0001..")
    simulate.add_argument("--url", required=True, help="like ws://127.0.0.1:9000/ocpp")
    simulate.add_argument("--chargers", type=_count, default=1, help="how many (default 1)")
    simulate.add_argument("--sessions", type=_count, help="end after so many of each")
    simulate.add_argument("--speed", type=_positive, default=1.0, help="cars run so much faster")
    simulate.add_argument("--password", help="for HTTP Basic, the same for all")
    simulate.add_argument("--json", action="store_true", help="one JSON object a line")

    sessions = _command(commands, "sessions", _sessions, "the sessions in the store")
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

    tail = _command(commands, "tail", _tail, "what charge points and gateway say to each other")
    _config(tail)
    tail.add_argument(
        "charge_points", nargs="*", metavar="CHARGE_POINT", help="ids, or like 'CP-*'; none for all"
    )
    tail.add_argument("--admin", type=_address, metavar="HOST:PORT", help="not as configured")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")

    replay = _command(commands, "replay", _replay, "price recorded frames without a network")
    replay.add_argument("files", nargs="+", metavar="FILE")

    _command(commands, "hash-password", _hash_password, "an argon2 hash for the configuration")

    board = commands.add_parser("thingsboard", help="what operators need inside ThingsBoard")
    _thingsboard(board.add_subparsers(metavar="ACTION", required=True))
    return parser


def _thingsboard(actions: Any) -> None:
    from ..provisioning.arguments import ACTIONS, EXPORT, add_action, add_export

    for name, what in ACTIONS.items():
        add_action(_command(actions, name, _visit_thingsboard, what), name)
    add_export(_command(actions, "export", _export_thingsboard, EXPORT))


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], what: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(command=run)
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


def _print_faults(faults: Sequence[Fault]) -> None:
    for fault in faults:
        warning = "" if fault.fatal else "warning: "
        print(f"{fault.where}: {warning}{fault.what}", file=sys.stderr)


# --- the commands --------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    from ..journal import JournalError
    from ..observability.logs import configure
    from ..service import serve

    configure(arguments.log_level)
    config, warnings = load(arguments.config, os.environ)
    _print_faults(warnings)

    def ready(line: str) -> None:
        print(line, flush=True)

    try:
        trio.run(serve, config, ready)
    except BaseExceptionGroup as group:
        return _status_of_crash(group)
    except (JournalError, OSError) as exc:
        print(f"ocpp-gateway: {exc}", file=sys.stderr)
        return 1
    return 0


def _status_of_crash(group: BaseExceptionGroup[BaseException]) -> int:
    """Print why the gateway crashed: one line where the cause lies outside."""
    from ..journal import JournalError

    known, rest = group.split((JournalError, OSError))
    if rest is not None and rest.split(KeyboardInterrupt)[1] is not None:
        raise group
    if known is None:
        return 130
    first: BaseException = known
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    print(f"ocpp-gateway: {first}", file=sys.stderr)
    return 1


def _check(arguments: argparse.Namespace) -> int:
    from ..config.tariffs import load_tariff_book
    from ..export.party import party_of, says_anything

    config, faults = load_with_faults(arguments.config, os.environ)
    try:
        faults += load_tariff_book(config)[1]
    except ConfigError as exc:
        faults += exc.faults
    if says_anything(config.party):
        try:
            party_of(config.party)
        except ValueError as exc:
            faults.append(Fault(f"{arguments.config}: party", str(exc)))
    _print_faults(faults)
    if any(fault.fatal for fault in faults):
        return 2
    print("configuration and tariffs are fine")
    return 0


def _healthz(arguments: argparse.Namespace) -> int:
    from .healthz import ask_health

    config, _ = load_with_faults(
        arguments.config, os.environ
    )  # a fault elsewhere says nothing of its health
    well, answer = ask_health(config.admin.listen, "/readyz" if arguments.ready else "/healthz")
    print(answer, file=sys.stdout if well else sys.stderr)
    return 0 if well else 1


def _demo(arguments: argparse.Namespace) -> int:
    from ..simulation.demo import DemoOptions, demo
    from .demo_gateway import start_gateway

    options = DemoOptions(
        seconds=arguments.seconds,
        chargers=arguments.chargers,
        json_lines=arguments.json,
        speed=arguments.speed,
    )
    return trio.run(demo, options, start_gateway)


def _simulate(arguments: argparse.Namespace) -> int:
    from ..observability.logs import configure
    from ..simulation.simulate import SimulateOptions, simulate

    configure("error")
    try:
        options = SimulateOptions(
            url=arguments.url,
            chargers=arguments.chargers,
            sessions=arguments.sessions,
            speed=arguments.speed,
            password=arguments.password,
            json_lines=arguments.json,
        )
    except ValueError as exc:
        print(f"--url: {exc}", file=sys.stderr)
        return 2
    return trio.run(simulate, options)


def _replay(arguments: argparse.Namespace) -> int:
    from .replay import main as replay

    return replay(arguments.files)


def _tail(arguments: argparse.Namespace) -> int:
    from .tail import TailError, as_text, tail

    admin = arguments.admin or load(arguments.config, os.environ)[0].admin.listen
    if admin.port == 0:
        print("[admin] listen names no port: say by --admin what `run` showed", file=sys.stderr)
        return 2

    def show(frame: dict[str, Any]) -> None:
        print(json.dumps(frame) if arguments.json else as_text(frame), flush=True)

    try:
        trio.run(tail, admin, arguments.charge_points, show)
    except TailError as exc:
        print(f"ocpp-gateway: {exc}", file=sys.stderr)
    return 1


def _hash_password(_: argparse.Namespace) -> int:
    from ..southbound.authentication import hash_password

    typed = sys.stdin.isatty()
    password = getpass.getpass() if typed else sys.stdin.readline().rstrip("\r\n")
    if not password:
        print("no password: type one, or send it on standard input", file=sys.stderr)
        return 2
    print(hash_password(password))
    return 0


def _visit_thingsboard(arguments: argparse.Namespace) -> int:
    from ..provisioning import installer
    from ..provisioning.errors import ThingsboardError, UsageError
    from ..provisioning.login import choose
    from ..provisioning.rest import open_rest
    from ..provisioning.token_file import TokenFile

    file = arguments.token_file
    options = installer.Options(
        gateway_name=arguments.gateway_name,
        token_file=None if file is None else TokenFile(file),
        viewer=arguments.viewer,
    )
    action = getattr(installer, arguments.action)
    faults = 0
    try:
        ask = getpass.getpass if sys.stdin.isatty() else None
        login = choose(vars(arguments), os.environ, ask)
        with open_rest(arguments.url, login, ca_cert=arguments.ca_cert) as rest:
            for step in action(rest, options):
                print(step, flush=True)
                faults += step.is_fault
    except ThingsboardError as exc:
        print(f"ocpp-gateway: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, UsageError) else 1
    if faults:
        print(f"{faults} of these to repair: `thingsboard install` does it", file=sys.stderr)
    return 1 if faults else 0


def _export_thingsboard(arguments: argparse.Namespace) -> int:
    from ..provisioning.errors import ThingsboardError
    from ..provisioning.export import write

    try:
        for path in write(arguments.to):
            print(path)
    except ThingsboardError as exc:
        print(f"ocpp-gateway: {exc}", file=sys.stderr)
        return 1
    return 0


def _sessions(arguments: argparse.Namespace) -> int:
    from .listing import sessions

    return sessions(arguments)
