"""docs/glossary.md is held to the code: its places exist, and its greps find what they promise."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "glossary.md").read_text("utf-8")
WORDS, _, QUESTIONS = PAGE.partition("## Ten questions")
ANSWERS = re.findall(r"^\| (.+\?) \| `(grep .+?)` \| `(.+?)` \|$", QUESTIONS, re.MULTILINE)
MANY = 3  # files, beyond which a grep answers nothing


def test_there_are_ten_questions():
    assert len(ANSWERS) == 10


@pytest.mark.parametrize(("question", "command", "place"), ANSWERS)
def test_one_grep_answers_each_question(question, command, place):
    done = subprocess.run(
        shlex.split(command), cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=10
    )
    lines = done.stdout.decode(errors="replace").splitlines()
    found = {line.partition(":")[0] for line in lines if not line.startswith("Binary")}
    assert place in found
    assert len(found) <= MANY, found


def test_every_word_has_a_place_that_exists():
    rows = re.findall(r"^\| (?!word|---)(.+?) \| .+ \| (.+) \|$", WORDS, re.MULTILINE)
    assert 25 <= len(rows) <= 45
    for word, places in rows:
        for place in re.findall(r"`(.+?)`", places):
            assert (ROOT / "gateway" / place).exists(), word
