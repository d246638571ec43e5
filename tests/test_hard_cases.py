"""docs/hard-cases.md is whole, and each case on it has a test, or says that it is not done.

The ids are HC-01 to HC-150.  A test names an id in its docstring, in its own name or in that of a
parameter; this module reads that out of the sources.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "hard-cases.md").read_text("utf-8")
CASES = {
    int(number): (situation, right)
    for number, situation, right in re.findall(
        r"^\| HC-(\d+) \| (.+?) \| (.+) \| .*\|$", PAGE, re.MULTILINE
    )
}
GROUPS = {
    "WebSocket handshake and identity": range(1, 30),
    "OCPP-J framing and JSON": range(30, 62),
    "Call ordering": range(62, 71),
    "Transactions and metering": range(71, 105),
    "Remote commands": range(105, 120),
    "MQTT": range(120, 130),
    "Process": range(130, 141),
    "Load and dead peers": range(141, 151),
}
ALL = sorted(number for numbers in GROUPS.values() for number in numbers)
NOT_DONE = "not done: "


def named() -> dict[int, list[str]]:
    """id -> the modules that name it in a text: comments do not count."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        if path == Path(__file__):
            continue
        texts = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
                texts.append(node.name)
        ids = {int(n) for text in texts for n in re.findall(r"(?:HC-|_hc_)(\d+)", text)}
        for number in sorted(ids):
            found[number].append(str(path.relative_to(TESTS)))
    return found


NAMED = named()


@pytest.mark.parametrize("number", ALL, ids=[f"HC-{number:02}" for number in ALL])
def test_every_hard_case_is_named_by_a_test_or_says_that_it_is_not_done(number):
    _, right = CASES[number]
    assert (number in NAMED) is not right.startswith(NOT_DONE)


def test_the_list_of_hard_cases_is_whole():
    assert list(range(1, 151)) == ALL == list(CASES)
    assert set(NAMED) <= set(ALL)
    assert [number for number, (_, right) in CASES.items() if right.startswith(NOT_DONE)] == [23]


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_of_hard_cases_has_its_chapter(group):
    chapter = PAGE.partition(f"## {group}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| HC-(\d+) ", chapter, re.MULTILINE)
    assert [int(row) for row in rows] == list(GROUPS[group])
