"""How values are read and typed, held to what ThingsBoard's own parser gave for the same text."""

from pathlib import Path

import pytest

from gateway.simulation.thingsboard.gson import JsonSyntaxError, Number, parse
from gateway.simulation.thingsboard.store import fault_of_key
from gateway.simulation.thingsboard.values import long_of, store_value

VECTORS = Path(__file__).parent.parent / "data" / "thingsboard-values.tsv"
LINES = [tuple(line.split("\t=> ")) for line in VECTORS.read_text().splitlines() if "\t=> " in line]
VALUES = [(text, told) for text, told in LINES if told.startswith("{k=")]
PARSED = [(text.removeprefix("PARSE "), told) for text, told in LINES if text.startswith("PARSE")]
STAMPS = [(text.removeprefix("TS "), told) for text, told in LINES if text.startswith("TS ")]


def java(value) -> str:
    """A stored value as the vectors write it."""
    match value:
        case None:
            return "DROPPED(null)"
        case bool():
            return f"BOOLEAN {str(value).lower()}"
        case int():
            return f"LONG {value}"
        case float():
            return f"DOUBLE {value!r}"
        case str():
            return f'STRING "{value}"'
    return "JSON"


@pytest.mark.parametrize(("text", "told"), VALUES)
def test_a_value_is_stored_with_the_type_that_thingsboard_gives_it(text, told):
    value, _ = parse(b'{"k":' + text.encode() + b"}")
    stored, _ = store_value(value["k"])
    expected = told.removeprefix("{k=").removesuffix("}").replace("1.0E-7", "1e-07")
    if expected.startswith("JSON"):
        assert stored == parse(text.encode())[0]
    else:
        assert java(stored) == expected


@pytest.mark.parametrize(("text", "told"), PARSED)
def test_text_is_taken_or_refused_as_by_the_lenient_parser(text, told):
    if told.startswith("EXC"):
        with pytest.raises(JsonSyntaxError):
            parse(text.encode())
    else:
        value, _ = parse(text.encode())
        assert value == parse(told.split(" ", 1)[1].encode())[0]


@pytest.mark.parametrize(("text", "told"), STAMPS)
def test_ts_is_read_as_a_long(text, told):
    value = parse(text.encode())[0]
    if told.startswith("EXC"):
        with pytest.raises(ValueError, match="not a number"):
            long_of(value)
    else:
        assert long_of(value) == int(told)


def test_the_vectors_are_all_there():
    assert (len(VALUES), len(PARSED), len(STAMPS)) == (45, 19, 12)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1,,2]", [1, None, 2]),
        ("[,]", [None, None]),
        ("[nan]", ["nan"]),
        ("{a=>TRUE /* yes */; 'b':null # no\n}", {"a": True, "b": None}),
        (r"""{"a":"x\u0041\n\q", b:{}}""" + " ", {"a": "xA\nq", "b": {}}),
        ("{x:[],}".replace(",", ""), {"x": []}),
        ("{a:1.50}", {"a": Number("1.50")}),
    ],
)
def test_what_only_a_lenient_parser_takes_is_marked(text, value):
    assert parse(text.encode()) == (value, False)


@pytest.mark.parametrize(
    "text", ["{a", "{:1}", "[1 2]", '"', r'{a:"\u00"}', "[" * 5_000, "{a:" * 2_000]
)
def test_what_no_parser_takes_is_refused(text):
    with pytest.raises(JsonSyntaxError):
        parse(text.encode())


def test_bytes_that_are_no_utf8_are_replaced_as_java_does():
    assert parse(b'["\xff"]') == (["\ufffd"], False)


@pytest.mark.parametrize(
    ("value", "assertion", "severity"),
    [
        (Number("1.1234567"), "J6a", "WARN"),
        (Number("0.30000000000000004"), "J6", "FAIL"),
        (Number("1e20000"), "J6", "FAIL"),
        ("0123", "J6b", "WARN"),
        ("NaN", "J6d", "FAIL"),
        (None, "J6e", "WARN"),
        (2**63, "J6f", "FAIL"),
    ],
)
def test_a_value_that_operators_would_see_wrong_is_complained_of(value, assertion, severity):
    _, complaint = store_value(value)
    assert (complaint.assertion, complaint.severity) == (assertion, severity)


@pytest.mark.parametrize(
    "value", [Number("1.25"), 7, True, "Charging", "'0123", "1F", {"a": "007"}, []]
)
def test_an_ordinary_value_is_not_complained_of(value):
    assert store_value(value)[1] is None


def test_text_inside_json_is_not_cast_and_numbers_there_are_numbers():
    value = parse(b'{"tag":"007","kwh":[1.50,{"n":null}]}')[0]
    assert store_value(value)[0] == {"tag": "007", "kwh": [1.5, {"n": None}]}


def test_a_number_too_large_for_gson_is_no_ts():
    with pytest.raises(ValueError, match="too large"):
        long_of(Number("1e20000"))


@pytest.mark.parametrize(
    ("key", "assertion"),
    [
        ("power_w", None),
        ("Charge Box Id", "J9"),
        ("a.b", "J9"),
        ("x" * 65, "J9"),
        ("x" * 256, "J8"),
        (" ", "J8"),
        ("<b>", "J8"),
        ("{{x}}", "J8"),
        ("ts", "J7"),
        ("metadata", "J7"),
    ],
)
def test_key_names_are_judged(key, assertion):
    fault = fault_of_key(key)
    assert (fault and fault.assertion) == assertion
