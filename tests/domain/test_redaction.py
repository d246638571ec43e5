"""What is shown of frames and words: all but secrets, and nothing that a terminal obeys."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.redaction import frame_without_secrets, is_secret, printable, without_secrets

SECRET = "hunter2hunter2"
NAMES = [
    "AuthorizationKey", "authorizationkey", "password", "Password", "wifi_passwd", "ApnPassword",
    "access_token", "accessToken", "WlanPSK", "apiKey", "BasicAuth", "client_secret", "SecurityKey",
]  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, "Authorization", "Cookie"])
def test_secrets_are_known_by_their_names(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["AuthorizationCacheEnabled", "AuthorizeRemoteTxRequests", "idTag", "parentIdTag", "key",
     "HeartbeatInterval", "charge_point", "author", "connectorId", "SendLocalListMaxLength"],
)  # fmt: skip
def test_what_only_resembles_them_is_shown(name):
    assert not is_secret(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "frame",
    [
        '[2,"1","ChangeConfiguration",{"key":"NAME","value":"SECRET"}]',
        '[2,"1","ChangeConfiguration",{"value":"SECRET","key":"NAME"}]',
        '[2,"1","ChangeConfiguration",{"key":"X","key":"NAME","key":"X","value":"SECRET"}]',
        '[2,"1","ChangeConfiguration",{"key":"NAME","value":"SECRET","value":"SECRET"}]',
        '[2,"1","ChangeConfiguration",{"key":"NAME","value":"SECRET"',
        '[2,"1","ChangeConfiguration",{"key":"NAME" "value" SECRET',
        '[3,"1",{"configurationKey":[{"key":"NAME","readonly":false,"value":"SECRET"}]}]',
        '[2,"1","DataTransfer",{"vendorId":"X","data":"NAME=SECRET"}]',
        r'[2,"1","DataTransfer",{"vendorId":"X","data":"{\"NAME\": \"SECRET\"}"}]',
        '[2,"1","DataTransfer",{"NAME":["SECRET"]}]',
    ],
)
def test_a_secret_is_not_shown_wherever_it_stands(name, frame):
    """HC-114"""
    shown = frame_without_secrets(frame.replace("NAME", name).replace("SECRET", SECRET))
    assert SECRET not in shown
    assert shown[:10] == frame[:10]
    assert "***" in shown


def test_a_name_in_disguise_hides_its_secret_too():
    disguised = r"\u0041uthorization\u004bey"
    whole = f'[2,"1","ChangeConfiguration",{{"key":"{disguised}","value":"{SECRET}"}}]'
    assert SECRET not in frame_without_secrets(whole)
    assert SECRET not in frame_without_secrets(whole[:-1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ftp://user:hunter2@host/x", "ftp://user:***@host/x"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("mqtts://:hunter2@host", "mqtts://:***@host"),
        ("password=hunter2&x=1", "password=***&x=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
         "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----"),
        ("http://host:8080/a?b=c", "http://host:8080/a?b=c"),
        ("wrong or missing password", "wrong or missing password"),
        ("401 wrong or missing password, from 1.2.3.4:5", "401 wrong or missing password, from"
         " 1.2.3.4:5"),
    ],
)  # fmt: skip
def test_words_are_shown_without_secrets(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "frame",
    ['[2, "1" ,"Heartbeat",{}]', '[2,"1","MeterValues",{"x":1.50,"x":2}]', "no JSON", "",
     '[3,"1",{"currentTime":"2026-01-01T00:00:00Z","interval":300,"status":"Accepted"}]'],
)  # fmt: skip
def test_a_frame_without_secrets_is_shown_as_it_came(frame):
    assert frame_without_secrets(frame) == frame


def test_the_other_keys_of_a_configuration_are_shown():
    keys = [{"key": "HeartbeatInterval", "value": "300"}, {"key": "AuthorizationKey"}]
    frame = json.dumps([3, "1", {"configurationKey": keys}])
    assert json.loads(frame_without_secrets(frame)) == json.loads(frame)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(json_values, st.sampled_from(NAMES), st.booleans(), st.integers(0, 400), st.data())
def test_no_frame_shows_the_secret_in_it_whole_or_cut(around, name, ascii_only, end, data):
    pair = data.draw(st.sampled_from([{"key": name, "value": SECRET}, {name: SECRET}]))
    frame = json.dumps([2, "1", around, [pair, around]], ensure_ascii=ascii_only)
    for text in (frame, frame[:end], "\x00" + frame, frame + "]"):
        assert SECRET not in frame_without_secrets(text)


@given(st.text())
def test_what_is_printed_is_one_line_that_no_terminal_obeys(text):
    """HC-140"""
    assert printable(text).isprintable()
    assert text != printable(text) or text.isprintable()
