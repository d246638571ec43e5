"""The command line: `ocpp-gateway COMMAND`.

Exit status: 0 fine, 1 a fault while working, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from ..config.load import ConfigError, Fault, load, load_with_faults
from ..domain.exceptions import first_cause
from .arguments import parser

if sys.version_info >= (3, 14):
    sys.exit("ocpp-gateway needs Python 3.11 to 3.13: trio-asyncio cannot be imported on 3.14 yet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        status = COMMANDS[arguments.command](arguments)
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
    """The reader of what we print has left, which is no fault."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


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
    print(f"ocpp-gateway: {first_cause(known)}", file=sys.stderr)
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

    # A fault in the configuration says nothing of the health of a gateway that runs.
    config, _ = load_with_faults(arguments.config, os.environ)
    healthy, answer = ask_health(config.admin.listen, "/readyz" if arguments.ready else "/healthz")
    print(answer, file=sys.stdout if healthy else sys.stderr)
    return 0 if healthy else 1


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


def _sessions(arguments: argparse.Namespace) -> int:
    from .listing import sessions

    return sessions(arguments)


def _visit_thingsboard(arguments: argparse.Namespace) -> int:
    from .provisioning import visit_thingsboard

    return visit_thingsboard(arguments)


def _export_thingsboard(arguments: argparse.Namespace) -> int:
    from .provisioning import export_thingsboard

    return export_thingsboard(arguments)


# Commands import what they need when they run: a health check must not load the whole gateway.
COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "check": _check,
    "healthz": _healthz,
    "demo": _demo,
    "simulate": _simulate,
    "sessions": _sessions,
    "tail": _tail,
    "replay": _replay,
    "hash-password": _hash_password,
    "thingsboard": _visit_thingsboard,
    "thingsboard export": _export_thingsboard,
}
