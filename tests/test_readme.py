"""README is held to the code: what is promised there exists, and what exists is there."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from gateway import config
from gateway.cli import _parser
from gateway.domain.tariff_file import read_tariffs
from gateway.northbound import keys
from gateway.southbound.frames import CENTRAL_SYSTEM_ACTIONS
from gateway.southbound.orders import CONNECTOR_METHODS

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
NAMED = set(re.findall(r"[\w.\-]+", " ".join(re.findall(r"`([^`\n]+)`", README))))


@pytest.mark.parametrize(
    "table", ["CHARGE_POINT", "CHARGE_POINT_ATTRIBUTES", "CONNECTOR", "RECEIPT", "SESSION_LOG"]
)
def test_every_key_that_is_published_is_explained(table):
    assert getattr(keys, table).keys() <= NAMED


def test_every_method_is_named():
    assert CENTRAL_SYSTEM_ACTIONS <= NAMED
    assert set(CONNECTOR_METHODS) <= NAMED


def test_every_key_of_the_configuration_is_named():
    sections = [*config._SECTIONS.values(), *config._TABLES.values()]
    assert {field.name for kind in sections for field in attrs.fields(kind)} <= NAMED


def test_every_command_is_named():
    (commands,) = [action for action in _parser()._actions if isinstance(action.choices, dict)]
    assert set(commands.choices) <= NAMED


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", README, re.DOTALL))
def test_every_tariff_shown_is_taken_as_it_stands(text):
    _, faults = read_tariffs(json.loads(text, parse_float=Decimal))
    assert faults == ()
