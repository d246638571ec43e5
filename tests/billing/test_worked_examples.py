"""Every worked example: recorded frames and a tariff give exactly the receipt that was worked
out by hand."""

from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest

from gateway.cli.replay import main, replay

FOLDER = Path(__file__).parent.parent / "data" / "billing"
FILES = sorted(FOLDER.glob("*.json"))


def examples():
    for path in FILES:
        document = json.loads(path.read_text(), parse_float=Decimal)
        for vector in document["vectors"]:
            yield pytest.param(document["default_policy"], vector, id=vector["id"])


@pytest.mark.parametrize(("policy", "example"), list(examples()))
def test_an_example_comes_out_as_it_was_worked_out(policy, example, tmp_path):
    path = tmp_path / "example.json"
    document = {"default_policy": policy, "vectors": [example]}
    path.write_text(json.dumps(document, default=float))
    out, err = StringIO(), StringIO()
    assert main([str(path)], out=out, err=err) == 0, err.getvalue()
    assert json.loads(out.getvalue()) == replay(example, default_policy=policy)
