"""docs/walks.md is held to what real messages pass."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .walks import Step, as_tree, depth

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "walks.md").read_text("utf-8")
WALKS = {
    name: re.findall(r"^\d+\. (⇢ )?`([^`]+)` `([^`]+)`", body, re.MULTILINE)
    for name, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE)
}
"""Journey -> (handed over, file, function) of each line."""

ACCEPTED = "southbound/server.py _Server._guard_connection"
APPEND = "journal/group_commit.py GroupCommitJournal.append"
PUBLISH = "northbound/publisher.py _Publisher.run"
SEND = "northbound/mqtt.py _AioLink.send"
MAX_DEPTH_TO_JOURNAL = 8  # seven, and the journal's own
MAX_DEPTH_TO_MQTT = 6


@pytest.fixture(scope="module")
def journeys() -> dict[str, list[Step]]:
    """What a process of its own records: no thread of another test is in it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.walks", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return {
        name: [Step(function, [tuple(stack) for stack in stacks]) for function, stacks in steps]
        for name, steps in json.loads(done.stdout).items()
    }


def differences(walk: list[tuple[str, str, str]], steps: list[Step]) -> list[str]:
    """What a walk of the page says that was not recorded, in words."""
    recorded = {step.function: step for step in steps}
    above: list[str] = []
    found = []
    for number, (handed_over, file, name) in enumerate(walk, 1):
        function = f"{file} {name}"
        if function not in recorded:
            found.append(f"{number}. {function} is not called")
        elif not handed_over and above:
            if not any(set(above) & set(stack) for stack in recorded[function].stacks):
                found.append(f"{number}. {function} is not called below a line before it: ⇢")
        elif handed_over and above and any(above[-1] in s for s in recorded[function].stacks):
            found.append(f"{number}. {function} is called below the line before it: no ⇢")
        above = [function] if handed_over else [*above, function]
    return found


@pytest.mark.parametrize("name", WALKS)
def test_a_real_message_walks_as_the_page_says(journeys, name):
    steps = journeys[name]
    assert not (found := differences(WALKS[name], steps)), "\n".join(
        [*found, "", "recorded (`python -m tests.walks`):", as_tree(steps)]
    )


def test_there_are_three_walks_of_at_most_a_dozen_lines(journeys):
    assert WALKS.keys() == journeys.keys()
    assert all(3 <= len(walk) <= 12 for walk in WALKS.values())


def test_the_way_down_is_short(journeys):
    """From an accepted connection to the journal, and from the publisher's task to MQTT."""
    steps = journeys["MeterValues to MQTT"]
    assert depth(steps, ACCEPTED, APPEND) <= MAX_DEPTH_TO_JOURNAL
    assert depth(steps, PUBLISH, SEND) <= MAX_DEPTH_TO_MQTT
