"""The floor plan, as a test: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "gateway"

OUTSIDE = {"attrs", "msgspec", "structlog", "trio"}
MAY_IMPORT = {  # room -> the rooms and outside packages it may name; the standard library is free
    "__init__": set(),
    "__main__": {"cli"},
    "domain": {"attrs"},
    "journal": {"domain", "histogram", "attrs", "msgspec", "trio"},
    "histogram": {"attrs"},
    "timeline": set(),
    "offload": {"trio"},
    "tap": {"domain", "attrs", "trio"},
    "bus": {"domain", "journal", "timeline", "trio"},
    "accountant": {"attrs", "bus", "domain", "journal", "offload", "structlog", "trio"},
    "southbound": {"bus", "domain", "histogram", "offload", "tap", *OUTSIDE, "argon2",
                   "jsonschema_rs", "ocpp", "outcome", "trio_websocket", "wsproto"},
    "northbound": {"bus", "domain", "journal", "tap", *OUTSIDE},
    "northbound.link": {"attrs", "aiomqtt", "paho", "trio", "trio_asyncio"},  # asyncio lives here
    "replay": {"attrs", "comparison", "domain", "southbound", "msgspec", "values"},
    "comparison": set(),
    "retention": {"accountant", "journal", "northbound", "structlog", "trio"},
    "app": {"accountant", "attrs", "bus", "domain", "journal", "northbound", "retention",
            "southbound", "tap", "trio"},
    "metrics": {"app", "attrs", "histogram", "prometheus_client"},
    "admin": {"app", "h11", "metrics", "northbound", "structlog", "tap", "trio"},
    "tail": {"domain", "h11", "trio", "values"},
    "config": {"attrs", "ocpp", "values"},
    "values": {"attrs"},
    "health": {"values"},
    "logs": {"domain", "structlog"},
    "service": {"admin", "app", "config", "domain", "journal", "northbound", "southbound",
                "values", *OUTSIDE},
    "export": {"attrs", "domain", "export"},
    "thingsboard": {"attrs", "domain", "httpx2", "msgspec", "northbound"},  # of it: keys alone
    "sessions": {"accountant", "bus", "config", "domain", "journal", "service"},
    "simulation": {"simulation", *OUTSIDE, "mqtt5", "ocpp", "rich", "trio_websocket",
                   "wsproto"},
    "demonstration": {"config", "logs", "service", "trio", "values"},
    "listing": {"config", "export", "journal", "sessions"},
    "cli": {"config", "demonstration", "export", "health", "journal", "listing", "logs", "replay",
            "service", "simulation", "southbound", "tail", "thingsboard", "trio", "values"},
}  # fmt: skip
WATCHED = {name.partition(".")[0] for names in MAY_IMPORT.values() for name in names} | {
    room.partition(".")[0] for room in MAY_IMPORT
}
NO_BLOCKING = {"asyncio", "threading", "socket", "time", "sqlite3", "random"}
MODULES = sorted(ROOT.rglob("*.py"))


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """What a module names: `domain` for a room of ours, `trio` for a package from outside."""
    package = list(path.relative_to(ROOT).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside, _, room = str(node.module).partition(".")
            found.add(room.partition(".")[0] if outside == "gateway" else outside)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            names = [*base, *str(node.module or node.names[0].name).split(".")]
            found.add(names[0])
    return found - {package[0] if package else "", "__version__"}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_room_imports_only_what_the_plan_allows(path):
    name = dotted(path)
    allowed = MAY_IMPORT.get(name)
    if allowed is None:
        allowed = MAY_IMPORT[name.partition(".")[0]]
    assert imported(path) & WATCHED <= allowed
    if name.startswith("domain"):
        assert not imported(path) & NO_BLOCKING


def test_the_installer_knows_of_the_north_door_its_keys_only():
    """It must run where no gateway does."""
    for path in (ROOT / "thingsboard").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and "northbound" in str(node.module):
                assert str(node.module).endswith("northbound.keys")


def test_asyncio_is_in_one_module_only():
    of_asyncio = {"aiomqtt", "asyncio", "paho", "trio_asyncio"}
    named = [dotted(path) for path in MODULES if imported(path) & of_asyncio]
    assert named == ["northbound.link"]
