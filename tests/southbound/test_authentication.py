"""Who a handshake says it comes from."""

from __future__ import annotations

import base64

import pytest

from gateway.southbound.authentication import identity_of, password_of


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("/ocpp/CP-1", "CP-1"),
        ("/ocpp/CP-1/", "CP-1"),
        ("/ocpp/CP-1?token=x", "CP-1"),
        ("/ocpp/CP-1/?a=/b/c", "CP-1"),
        ("/a/b/c/CP-1", "CP-1"),
        ("/steve/websocket/CentralSystemService/CP-1", "CP-1"),
        ("/ocpp/cp-1", "cp-1"),
        ("/ocpp/RDAM%20123", "RDAM 123"),
        ("/ocpp/NL*ABC*E1", "NL*ABC*E1"),
        ("/ocpp/NL%2aABC", "NL*ABC"),
        ("/ocpp/a_b.c:d@e=f-g", "a_b.c:d@e=f-g"),
        ("/ocpp/%41%42", "AB"),
        ("/ocpp/" + "x" * 48, "x" * 48),
        ("/CP-1", "CP-1"),
        ("//CP-1", "CP-1"),
        ("///CP-1", "CP-1"),
        ("/ocpp//CP-1", "CP-1"),
        ("/ocpp/CP-1//", "CP-1"),
        ("//ocpp///CP-1//?a=//b", "CP-1"),
        ("/anything/else/CP-1", "CP-1"),
        ("/%43P-1//", "CP-1"),
        ("/ocpp/ocpp", "ocpp"),
        ("/ocpp1.6", "ocpp1.6"),
        ("/ws/ocpp", "ocpp"),
        ("ws://gateway:9000/ocpp/CP-1", "CP-1"),
        ("http://gateway/CP-1", "CP-1"),
    ],
)
def test_the_last_segment_that_is_not_empty_is_the_charge_point(path, identity):
    """HC-07, HC-10, HC-13; also with slashes where a base URL and an id were put together."""
    assert identity_of(path) == identity


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/ocpp",
        "/ocpp/",
        "//",
        "//ocpp",
        "/ocpp//",
        "/OCPP",
        "/%6Fcpp/",
        "/ocpp?CP-1",
        "ws://gateway:9000",
        "ws://gateway:9000/ocpp",
        "ocpp/CP-1",
        "/ocpp/../../etc/passwd",
        "/ocpp/..",
        "/ocpp/.",
        "/./CP",
        "/ocpp/%2e%2e",
        "/ocpp/%2E",
        "/%2e%2e/CP",
        "/ocpp/%20",
        "/ocpp/%20%20/",
        "/ocpp/%20CP-1",
        "/ocpp/CP-1%20",
        "/ocpp/A%2FB",
        "/ocpp/A%00B",
        "/ocpp/A%0AB",
        "/ocpp/CP%0D",
        "/ocpp/%2B%23",
        "/ocpp/CP%",
        "/ocpp/%",
        "/ocpp/%zz",
        "/ocpp/%FF%FE",
        "/ocpp/%F0%9F%98%80",
        "/ocpp/A+B",
        "/ocpp/CP#1",
        "/ocpp/" + "x" * 49,
        "/ocpp/" + "x" * 100_000,
        "/ocpp/CP\N{LATIN SMALL LETTER E WITH ACUTE}",
        "/CP-1/%20",
        "?/ocpp/CP-1",
        "*",
    ],
    ids=lambda path: path[:30] or "empty",
)
def test_any_other_path_names_nobody(path):
    """HC-08, HC-09, HC-10, HC-11."""
    assert identity_of(path) is None


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    ("header", "password"),
    [
        (basic(b"CP:1:pa:ss"), b"pa:ss"),
        (basic(b"CP:1:"), b""),
        (basic(b"CP:1:\xff\x00:\xfe"), b"\xff\x00:\xfe"),
        (b"basic  " + base64.b64encode(b"CP:1:x"), b"x"),
    ],
)
def test_the_password_begins_where_the_identity_ends(header, password):
    """An identity may hold colons, and so may a password (HC-18)."""
    assert password_of(header, "CP:1") == password


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Basic",
        b"Basic !!!",
        b"Basic Q1A6MTp",
        b"Bearer x",
        b"Digest " + base64.b64encode(b"CP:1:x"),
        basic(b"CP:2:x"),
        basic(b"CP:1"),
        basic(b"cp:1:x"),
        basic(b"x:CP:1:x"),
        b"Basic \xff\xfe",
    ],
)
def test_what_is_no_basic_password_of_this_charge_point_is_none(header):
    """HC-16, HC-17."""
    assert password_of(header, "CP:1") is None
