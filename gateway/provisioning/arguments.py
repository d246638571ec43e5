"""The arguments of `ocpp-gateway thingsboard ...`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

ACTIONS: Mapping[str, str] = {
    "install": "profiles, rule chain, dashboards, gateway device: create or repair them",
    "check": "list what is missing or changed; exit 1 if there is something",
    "uninstall": "remove it; the devices of chargers stay",
}
EXPORT = "write it as files to import by hand"


def add_action(action: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of an action.  name: a key of ACTIONS."""
    action.set_defaults(action=name)
    action.add_argument("--url", required=True, help="like http://127.0.0.1:8080")
    action.add_argument("--username", help="user name of a tenant administrator")
    action.add_argument("--password", help="better in --password-file or the environment")
    action.add_argument("--password-file", metavar="FILE")
    action.add_argument("--api-key", help="in place of a user, from ThingsBoard 4.3 on")
    action.add_argument("--api-key-file", metavar="FILE")
    action.add_argument("--ca-cert", metavar="FILE", help="in place of the system's authorities")
    action.add_argument("--gateway-name", default="ocpp-gateway", help="(default %(default)s)")
    if name == "uninstall":
        action.set_defaults(token_file=None, viewer=False)
        return
    action.add_argument(
        "--token-file", type=Path, metavar="FILE", help="for the device's access token"
    )
    action.add_argument(
        "--viewer", action="store_true", help="also copies of the dashboards without RPC widgets"
    )


def add_export(action: argparse.ArgumentParser) -> None:
    action.add_argument("--to", type=Path, required=True, metavar="FOLDER")
