"""README and docs/ are held to the code: what they name exists, and what exists is named."""

from __future__ import annotations

import json
import re
import shlex
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from gateway.admin import metrics
from gateway.cli.arguments import parser
from gateway.config import load
from gateway.northbound import compat_nodered, telemetry_keys
from gateway.southbound.commands import CHARGE_POINT_METHODS, CONNECTOR_METHODS
from gateway.southbound.messages import CENTRAL_SYSTEM_ACTIONS
from gateway.tariffs.file import read_tariffs
from gateway.tariffs.policy import Policy

from .northbound.test_compat_nodered_frames import KEYS as KEYS_OF_THE_PROTOTYPE

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
}
READERS = {name for name in PAGES if re.fullmatch(r"docs/[a-z-]+\.md", name)}


def named(page: str) -> set[str]:
    """What a page names in backticks, word by word."""
    return set(re.findall(r"[\w.\-]+", " ".join(re.findall(r"`([^`\n]+)`", PAGES[page]))))


def first_column(page: str, heading: str) -> set[str]:
    """What stands in backticks in the first column of the tables below a heading."""
    body = PAGES[page].partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", body, re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", " ".join(cells)))


# --- telemetry, RPC, configuration, metrics, tariffs --------------------------------------------


@pytest.mark.parametrize(
    "table", ["CHARGE_POINT", "CHARGE_POINT_ATTRIBUTES", "CONNECTOR", "RECEIPT", "SESSION_LOG"]
)
def test_every_key_that_is_published_is_explained(table):
    assert getattr(telemetry_keys, table).keys() <= named("docs/telemetry.md")


@pytest.mark.parametrize("heading", ["Charger", "Connector", "Receipts"])
def test_every_key_that_is_explained_is_published(heading):
    tables = ("CHARGE_POINT", "CONNECTOR", "RECEIPT", "SESSION_LOG")
    published = {key for table in tables for key in getattr(telemetry_keys, table)}
    explained = first_column("docs/telemetry.md", heading)
    assert explained
    assert explained <= published


def test_every_method_is_named():
    assert named("docs/rpc.md") >= CENTRAL_SYSTEM_ACTIONS
    assert {*CONNECTOR_METHODS, *CHARGE_POINT_METHODS} <= named("docs/rpc.md")


def test_every_key_of_the_configuration_is_named():
    sections = [*load._SECTIONS.values(), *load._TABLES.values()]
    keys = {field.name for kind in sections for field in attrs.fields(kind)}
    assert keys <= named("docs/configuration.md")


def test_every_metric_is_named():
    source = Path(metrics.__file__).read_text()
    families = re.findall(
        r"_(gauge|counter|counted|histogram|labelled_gauge)\(\s*\"(\w+)\"", source
    )
    assert len(families) > 20
    names = {f"{name}_total" if kind.startswith("count") else name for kind, name in families}
    assert names == first_column("docs/operations.md", "Metrics") - {"process_*"}


def test_every_key_of_the_policy_is_named():
    keys = {field.name for field in attrs.fields(Policy) if field.init}
    assert keys <= first_column("docs/tariffs.md", "Policy")


def test_every_flag_that_billing_sets_is_explained():
    sources = "".join(path.read_text() for path in (ROOT / "gateway" / "billing").glob("*.py"))
    explained = first_column("docs/tariffs.md", "Flags")
    assert len(explained) > 30
    for flag in explained - {"defect_...", "energy_location_..."}:
        assert f'"{flag}"' in sources, flag


@pytest.mark.parametrize(
    "text", re.findall(r"```json\n(.*?)```", PAGES["docs/tariffs.md"], re.DOTALL)
)
def test_every_tariff_shown_is_taken_as_it_stands(text):
    _, faults = read_tariffs(json.loads(text, parse_float=Decimal))
    assert faults == ()


def test_every_key_of_the_prototype_has_its_place_on_the_page_for_those_who_come_from_it():
    keys = set(re.findall(r"`([^`\n]+)`", PAGES["docs/node-red.md"]))
    assert {*KEYS_OF_THE_PROTOTYPE, compat_nodered.METHOD} <= keys


# --- commands -----------------------------------------------------------------------------------


def test_every_command_is_named():
    (commands,) = [action for action in parser()._actions if isinstance(action.choices, dict)]
    assert set(commands.choices) <= named("docs/operations.md")


def shown_commands() -> list[tuple[str, str]]:
    """(page, arguments) of each line of a shell block that runs ocpp-gateway."""
    return [
        (page, arguments)
        for page, text in PAGES.items()
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for arguments in re.findall(
            r"^\s*(?:sudo )?[\w./-]*ocpp-gateway (?=[a-z])(.*)$",
            block.replace("\\\n", " "),
            re.MULTILINE,
        )
    ]


def test_commands_are_shown():
    assert len(shown_commands()) > 8


@pytest.mark.parametrize(("page", "arguments"), shown_commands())
def test_every_command_line_shown_is_understood(page, arguments):
    parser().parse_args(shlex.split(arguments, comments=True))


# --- promises -----------------------------------------------------------------------------------


def promises() -> list[str]:
    return re.findall(r"^\* .*(?:\n  .*)*", PAGES["docs/guarantees.md"], re.MULTILINE)


@pytest.mark.parametrize("promise", promises())
def test_each_promise_names_the_tests_that_prove_it(promise):
    tests = re.findall(r"`(tests/[^`]+)`", promise)
    assert tests
    for one in tests:
        file, _, test = one.partition("::")
        text = (ROOT / file).read_text()
        assert not test or re.search(rf"def {test}\(", text), one


def test_the_promises_are_there():
    assert len(promises()) >= 100


# --- pages --------------------------------------------------------------------------------------


def test_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 250


def test_every_page_is_in_the_index():
    linked = set(re.findall(r"\]\(([a-z-]+\.md)\)", PAGES["docs/index.md"]))
    assert {name.removeprefix("docs/") for name in READERS} - {"index.md"} == linked


def anchors(page: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(str(path.resolve().relative_to(ROOT))), target


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_is_named_exists(page):
    """`northbound/outbox.py` is one of gateway/, `tests/fakes.py` one of the project."""
    for name in re.findall(r"`(?:gateway/)?([\w/]+/\w+\.py)(?:::\w+)?`", PAGES[page]):
        assert any((ROOT / folder / name).exists() for folder in ("", "gateway")), name


def test_every_test_that_contributors_are_sent_to_exists():
    for name in re.findall(r"tests/[\w/.]+(?<![/.])", PAGES["CONTRIBUTING.md"]):
        assert (ROOT / name).exists(), name


def test_pictures_say_which_thingsboard_they_show():
    for page, text in PAGES.items():
        for picture in re.findall(r"\]\(([\w/]+\.png)\)", text):
            below = text[text.index(picture) :]
            assert (
                "ThingsBoard CE 4.2.1"
                in below.partition("\n\n")[0] + below.partition("\n\n")[2].partition("\n\n")[0]
            ), (page, picture)
