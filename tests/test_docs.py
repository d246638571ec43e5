"""README is held to the code: what is promised there exists, and what exists is there."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from gateway.cli.arguments import parser
from gateway.config import load
from gateway.northbound import compat_nodered, telemetry_keys
from gateway.southbound.commands import CHARGE_POINT_METHODS, CONNECTOR_METHODS
from gateway.southbound.messages import CENTRAL_SYSTEM_ACTIONS
from gateway.tariffs.file import read_tariffs

from .northbound.test_compat_nodered_frames import KEYS as KEYS_OF_THE_PROTOTYPE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
NAMED = set(re.findall(r"[\w.\-]+", " ".join(re.findall(r"`([^`\n]+)`", README))))


@pytest.mark.parametrize(
    "table", ["CHARGE_POINT", "CHARGE_POINT_ATTRIBUTES", "CONNECTOR", "RECEIPT", "SESSION_LOG"]
)
def test_every_key_that_is_published_is_explained(table):
    assert getattr(telemetry_keys, table).keys() <= NAMED


def test_every_method_is_named():
    assert CENTRAL_SYSTEM_ACTIONS <= NAMED
    assert {*CONNECTOR_METHODS, *CHARGE_POINT_METHODS} <= NAMED


def test_every_key_of_the_configuration_is_named():
    sections = [*load._SECTIONS.values(), *load._TABLES.values()]
    assert {field.name for kind in sections for field in attrs.fields(kind)} <= NAMED


def test_every_command_is_named():
    (commands,) = [action for action in parser()._actions if isinstance(action.choices, dict)]
    assert set(commands.choices) <= NAMED


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", README, re.DOTALL))
def test_every_tariff_shown_is_taken_as_it_stands(text):
    _, faults = read_tariffs(json.loads(text, parse_float=Decimal))
    assert faults == ()


def promises() -> list[str]:
    chapter = README.partition("## What is promised when things fail\n")[2].partition("\n## ")[0]
    return re.findall(r"^\* .*(?:\n  .*)*", chapter, re.MULTILINE)


@pytest.mark.parametrize("promise", promises())
def test_each_promise_names_the_tests_that_prove_it(promise):
    named = re.findall(r"`(tests/[^`]+)`", promise)
    assert named
    for one in named:
        file, _, test = one.partition("::")
        text = (ROOT / file).read_text()
        assert not test or re.search(rf"def {test}\(", text), one


def test_the_chapter_of_promises_is_there():
    assert len(promises()) > 50


def test_every_key_of_the_prototype_has_its_place_in_the_chapter_for_those_who_come_from_it():
    chapter = README.partition("## From the Node-RED prototype")[2].partition("\n## ")[0]
    assert {*KEYS_OF_THE_PROTOTYPE, compat_nodered.METHOD} <= set(
        re.findall(r"`([^`\n]+)`", chapter)
    )
