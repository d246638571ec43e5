"""The entities that install creates, as files to import by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from . import rule_chain
from .device_profiles import DESCRIPTIONS, profile
from .errors import ThingsboardError
from .installer import all_dashboards


def files() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, content), in the order in which to import them."""
    expected = rule_chain.body({}, {"nodes": [], "connections": []})
    del expected["ruleChainId"]
    yield (
        "1-rule-chain-ocpp-gateway.json",
        {
            "ruleChain": {
                "name": rule_chain.NAME,
                "type": "CORE",
                "firstRuleNodeId": None,
                "root": False,
                "debugMode": False,
                "configuration": None,
                "additionalInfo": {"description": rule_chain.DESCRIPTION},
            },
            "metadata": expected,
        },
    )
    for name in DESCRIPTIONS:
        yield f"2-device-profile-{_slug(name)}.json", profile(name)
    for dashboard in all_dashboards(viewer=True):
        yield f"3-dashboard-{_slug(dashboard['title'])}.json", dashboard


def write(folder: Path) -> Iterator[Path]:
    """Write each file, then yield its path.  Raises ThingsboardError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files():
            path = folder / name
            path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
            yield path
    except OSError as exc:
        raise ThingsboardError(f"{folder}: cannot be written: {exc.strerror}") from exc


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
