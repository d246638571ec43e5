"""Which package may import which: the layout of the code, as a test.

The first part of a module's name is its package.  A line for a single module beats that of its
package.  What a module imports of its own package needs no line, but must make no circle.
Imports inside functions and for type checking count too.
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
    "domain": {"attrs", "msgspec"},
    "tariffs": {"domain", "attrs"},
    "billing": {"domain", "tariffs", "attrs"},
    "journal": {"domain", *OUTSIDE},
    "observability": {"domain", *OUTSIDE},
    "offload": {"trio"},
    "bus": {"domain", "journal", "observability", "trio"},
    "accountant": {"attrs", "billing", "bus", "domain", "journal", "offload", "structlog", "trio"},
    "southbound": {"billing", "bus", "config", "domain", "observability", "offload", *OUTSIDE,
                   "argon2", "jsonschema_rs", "ocpp", "outcome"},
    "southbound.websocket": {"trio", "trio_websocket", "wsproto"},
    "northbound": {"bus", "config", "domain", "journal", "observability", *OUTSIDE},
    "northbound.mqtt": {"attrs", "aiomqtt", "config", "domain", "paho", "trio", "trio_asyncio"},
    "app": {"accountant", "attrs", "billing", "bus", "config", "domain", "journal", "northbound",
            "observability", "southbound", "tariffs", "trio"},
    "admin": {"app", "attrs", "domain", "h11", "northbound", "observability", "prometheus_client",
              "structlog", "trio"},
    "config": {"attrs", "ocpp"},
    "config.tariffs": {"domain", "tariffs"},
    "signals": {"app", "config", "structlog", "trio"},
    "service": {"admin", "app", "config", "journal", "northbound", "signals", "southbound",
                "structlog", "trio"},
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
INPUT_OUTPUT = {  # of the standard library: also clocks and chance, which make a result not repeat
    "asyncio", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys",
    "tempfile", "threading", "time", "urllib",
}  # fmt: skip
PURE = ("domain", "billing", "tariffs")
MAX_LINES = 400
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


@pytest.mark.parametrize(
    "path", [path for path in MODULES if dotted(path).startswith(PURE)], ids=dotted
)
def test_facts_bills_and_tariffs_know_no_input_or_output(path):
    assert not imported(path) & (INPUT_OUTPUT | {"trio", "structlog"})
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    assert not [
        name for name in calls if isinstance(name, ast.Name) and name.id in ("open", "print")
    ]
    assert not [
        name
        for name in calls
        if isinstance(name, ast.Attribute) and name.attr in ("now", "utcnow", "today")
    ]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_has_at_most_400_lines(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES


def test_packages_build_their_settings_from_the_configuration_as_values_alone():
    """Not from the file or its reader: a test makes settings without either."""
    for package in ("southbound", "northbound"):
        for path in (ROOT / package).rglob("*.py"):
            of_config = {name for name in modules_named(path) if name.startswith("config")}
            assert of_config <= {"config.model", "config.values"}


def test_only_tests_have_a_journal_in_memory():
    assert "journal.memory" not in NAMES


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
    ("foreign", "module"),
    [
        ({"aiomqtt", "asyncio", "paho", "trio_asyncio"}, "northbound.mqtt"),
        ({"trio_websocket", "wsproto"}, "southbound.websocket"),
        ({"argon2"}, "southbound.authentication"),
        ({"jsonschema_rs"}, "southbound.messages"),
    ],
)
def test_a_foreign_package_is_known_in_one_module(foreign, module):
    """Simulated charge points, which share nothing with the gateway, aside."""
    named = {dotted(path) for path in MODULES if imported(path) & foreign}
    assert {name for name in named if not name.startswith("simulation.")} == {module}


def test_only_the_journal_knows_sqlite():
    named = [dotted(path) for path in MODULES if "sqlite3" in imported(path)]
    assert named
    assert all(name.startswith("journal.") for name in named)
