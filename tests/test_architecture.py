"""Which package may import which: the layout of the code, as a test.

The first part of a module's name is its package.  A line for a single module beats that of its
package.  What a module imports of its own package needs no line, but must make no circle.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "gateway"

OUTSIDE = {"attrs", "msgspec", "structlog", "trio"}
MAY_IMPORT = {  # package or module -> what of ours and of outside it may name
    "__init__": set(),
    "__main__": {"cli"},
    "domain": {"attrs"},
    "tariffs": {"domain", "attrs"},
    "billing": {"domain", "tariffs", "attrs"},
    "journal": {"domain", *OUTSIDE},
    "observability": {"domain", *OUTSIDE},
    "offload": {"trio"},
    "bus": {"domain", "journal", "observability", "trio"},
    "accountant": {"attrs", "billing", "bus", "domain", "journal", "offload", "structlog", "trio"},
    "southbound": {"billing", "bus", "domain", "observability", "offload", *OUTSIDE, "argon2",
                   "jsonschema_rs", "ocpp", "outcome"},
    "southbound.server": {"bus", "domain", "observability", *OUTSIDE, "trio_websocket", "wsproto"},
    "southbound.websocket": {"trio", "trio_websocket", "wsproto"},
    "northbound": {"bus", "domain", "journal", "observability", *OUTSIDE},
    "northbound.mqtt": {"attrs", "aiomqtt", "paho", "trio", "trio_asyncio"},  # asyncio lives here
    "app": {"accountant", "attrs", "billing", "bus", "domain", "journal", "northbound",
            "observability", "southbound", "tariffs", "trio"},
    "admin": {"app", "attrs", "domain", "h11", "northbound", "observability", "prometheus_client",
              "structlog", "trio"},
    "config": {"attrs", "ocpp"},
    "config.tariffs": {"journal", "msgspec", "tariffs"},
    "service": {"admin", "app", "config", "domain", "journal", "northbound", "southbound",
                "tariffs", *OUTSIDE},
    "export": {"attrs", "billing", "domain", "tariffs"},
    "provisioning": {"attrs", "domain", "httpx2", "msgspec", "northbound"},  # of it: keys alone
    "simulation": {*OUTSIDE, "mqtt5", "ocpp", "rich", "trio_websocket", "wsproto"},
    "cli": {"accountant", "attrs", "billing", "bus", "config", "domain", "export", "h11", "journal",
            "msgspec", "observability", "provisioning", "service", "simulation", "southbound",
            "tariffs", "trio"},
}  # fmt: skip
WATCHED = {name.partition(".")[0] for names in MAY_IMPORT.values() for name in names} | {
    package.partition(".")[0] for package in MAY_IMPORT
}
NO_BLOCKING = {"asyncio", "threading", "socket", "time", "sqlite3", "random"}
PURE = ("domain", "billing", "tariffs")
MODULES = sorted(ROOT.rglob("*.py"))


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


NAMES = {dotted(path) for path in MODULES}


def modules_named(path: Path) -> set[str]:
    """The modules that a module imports: `domain.events` for one of ours, else the package."""
    package = list(path.relative_to(ROOT).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = str(node.module or "")
            if node.level:
                parts = package[: len(package) - node.level + 1]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            elif base.partition(".")[0] != "gateway":
                found.add(base.partition(".")[0])
                continue
            for alias in node.names:
                whole = f"{base}.{alias.name}".strip(".")
                found.add(whole if whole in NAMES else base or "__init__")
    return found - {""}


def imported(path: Path) -> set[str]:
    """What a module names: `domain` for a package of ours, `trio` for one from outside."""
    return {name.partition(".")[0] for name in modules_named(path)}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_imports_only_what_the_layout_allows(path):
    name = dotted(path)
    package = name.partition(".")[0]
    allowed = MAY_IMPORT.get(name, MAY_IMPORT[package]) | {package, "__init__"}
    assert imported(path) & (WATCHED | {"__init__"}) <= allowed
    if package in PURE:
        assert not imported(path) & NO_BLOCKING


def test_no_imports_run_in_a_circle():
    """Inside a package either; imports inside functions count too."""
    names = {dotted(path): modules_named(path) & NAMES for path in MODULES}
    while names:
        free = [name for name, needed in names.items() if not needed & (names.keys() - {name})]
        assert free, f"a circle among {sorted(names)}"
        for name in free:
            del names[name]


def test_the_installer_knows_of_northbound_its_keys_only():
    """It must run where no gateway does."""
    for path in (ROOT / "provisioning").rglob("*.py"):
        of_northbound = {name for name in modules_named(path) if name.startswith("northbound")}
        assert of_northbound <= {"northbound.telemetry_keys"}


@pytest.mark.parametrize(
    ("packages", "module"),
    [
        ({"aiomqtt", "asyncio", "paho", "trio_asyncio"}, "northbound.mqtt"),
        ({"argon2"}, "southbound.authentication"),
        ({"jsonschema_rs"}, "southbound.messages"),
        ({"sqlite3"}, None),
    ],
)
def test_a_foreign_package_is_known_in_one_module(packages, module):
    named = [dotted(path) for path in MODULES if imported(path) & packages]
    assert named == [module] or (module is None and all(n.startswith("journal.") for n in named))
