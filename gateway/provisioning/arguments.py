"""What `ocpp-gateway thingsboard ...` may be given."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

VISITS: Mapping[str, str] = {
    "install": "profiles, rule chain, dashboards, gateway device: create or repair them",
    "check": "say what of it is missing or changed; exit 1 when something is",
    "uninstall": "take it away again; the devices of chargers stay",
}
EXPORT = "files for those who import by hand"


def add_visit(action: argparse.ArgumentParser, name: str) -> None:
    """name: of VISITS; all of them are given the same, as far as it means something."""
    action.set_defaults(action=name)
    action.add_argument("--url", required=True, help="like http://127.0.0.1:8080")
    action.add_argument("--username", help="a tenant administrator")
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
        "--viewer", action="store_true", help="also copies of the dashboards without orders"
    )


def add_export(action: argparse.ArgumentParser) -> None:
    action.add_argument("--to", type=Path, required=True, metavar="FOLDER")
