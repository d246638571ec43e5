"""No hard case is lost: a test names it by its id, or it is listed here with the reason why not.

The ids are those of docs/hard-cases.md, HC-01 to HC-150.  A test names an id in its
docstring, in its own name or in that of a parameter; this module reads that out of the sources.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
GROUPS = {
    "WebSocket handshake and identity": range(1, 30),
    "OCPP-J framing and JSON": range(30, 62),
    "call ordering": range(62, 71),
    "transactions and metering": range(71, 105),
    "remote commands": range(105, 120),
    "MQTT": range(120, 130),
    "process": range(130, 141),
    "load and dead peers": range(141, 151),
}
ALL = sorted(number for numbers in GROUPS.values() for number in numbers)

_SECURITY = "TLS profiles and AuthorizationKey in full are another issue's"
_SOAK = "runs for hours, or with charge points of other projects: `make soak`"
EXCLUDED = {
    18: _SECURITY,
    19: _SECURITY,
    20: _SECURITY,
    21: _SECURITY,
    22: _SECURITY,
    23: _SECURITY,
    146: _SOAK,
    147: _SOAK,
    148: _SOAK,
    149: _SOAK,
    150: _SOAK,
}

DECIDED_OTHERWISE = {
    1: "a charge point without a subprotocol is served, unless `require_subprotocol`",
    12: "an unknown charge point is served by default: `unknown_charge_points`",
    13: "slashes at the end and the query are ignored",
    28: "who never booted is served where unknown charge points are; `pending`: SecurityError",
    30: "a CALL that is cut short, or begins with a byte order mark, gets a FormationViolation",
    36: "a missing field is always OccurenceConstraintViolation, but for a vendor or an error code",
    37: "a number as text is read where a number is meant, and a number where text is",
    38: "an Authorize with a long tag is a CALLRESULT",
    39: "an unknown field is accepted and counted",
    42: "a message id that is null, a list or an object gets no answer",
    48: "a fifth element is let pass",
    50: "a binary frame closes with 1003",
    54: "a number that no float holds is no lie: 1e999 is kept as it is, and flagged",
    57: "of equal keys the last counts",
    76: "-1 and 0 are no transaction's by guess: the message is kept as an orphan",
    95: "basic format and a missing zone are read: there is one way to read them",
    97: "a connector 99 may exist: 0 and below are flagged",
    99: "reservations are kept by charge points: a reservationId is noted, not judged",
    114: "an answer that cannot be read is a CallError with the answer in its details",
    116: "local lists are the operator's to keep: versions and mismatches pass through",
    141: "every charge point is told the one `heartbeat_interval_s`; the storm spreads them",
}
"""What is tested, but for another outcome than the list proposes."""


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
def test_every_hard_case_is_named_by_a_test_or_left_out_for_a_reason(number):
    assert number in NAMED or number in EXCLUDED


def test_the_list_of_hard_cases_is_whole():
    assert list(range(1, 151)) == ALL
    assert set(NAMED) <= set(ALL)
    assert set(DECIDED_OTHERWISE) <= set(NAMED), "what is decided is tested too"
