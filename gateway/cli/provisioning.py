"""`ocpp-gateway thingsboard ...`: what operators need inside ThingsBoard."""

from __future__ import annotations

import argparse
import getpass
import os
import sys

from ..provisioning import installer
from ..provisioning.errors import ThingsboardError, UsageError
from ..provisioning.export import write
from ..provisioning.login import choose
from ..provisioning.rest import open_rest
from ..provisioning.token_file import TokenFile


def visit_thingsboard(arguments: argparse.Namespace) -> int:
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


def export_thingsboard(arguments: argparse.Namespace) -> int:
    try:
        for path in write(arguments.to):
            print(path)
    except ThingsboardError as exc:
        print(f"ocpp-gateway: {exc}", file=sys.stderr)
        return 1
    return 0
