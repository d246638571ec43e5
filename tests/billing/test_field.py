"""Examples from the field: recorded frames of real kinds of fault, and what is right for them.

Other than the worked examples they say between which bounds the bill must lie, and whether a
person has to look.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.cli.replay import replay

FILE = Path(__file__).parent.parent / "data" / "field.json"


def examples():
    document = json.loads(FILE.read_text(), parse_float=Decimal)
    for example in document["vectors"]:
        yield pytest.param(document["default_policy"], example, id=example["id"])


@pytest.mark.parametrize(("policy", "example"), list(examples()))
def test_an_example_from_the_field_comes_out_right(policy, example):
    sessions = replay(example, default_policy=policy)["sessions"]
    assert len(sessions) == len(example["right"])
    for found, right in zip(sessions, example["right"], strict=True):
        least, most = map(Decimal, right["energy_wh"])
        assert least <= Decimal(found["energy_wh"]) <= most
        for name in ("transaction_id", "duration_s", "idle_s", "total_excl_vat"):
            if right.get(name) is not None:
                assert Decimal(found[name]) == Decimal(right[name]), name
        if right.get("needs_review") is not None:
            assert ("needs_review" in found["flags"]) == right["needs_review"]
