"""Logs: a line an event, whatever somebody made us log, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.observability.logs import configure, hide_and_cut

from ..real.processes import Site, gateway, http
from ..southbound.connections import HASH


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lines(monkeypatch, quiet_logs):
    """Configures logs anew; gives what was written, line by line."""
    before = logging.root.handlers[:], logging.root.level

    def use(stderr, level="info"):
        monkeypatch.setattr(sys, "stderr", stderr)
        configure(level)
        return lambda: stderr.getvalue().splitlines()

    yield use
    logging.root.handlers[:], level = before
    logging.root.setLevel(level)
    structlog.reset_defaults()


def one(lines):
    (line,) = lines()
    return json.loads(line)


def test_where_nobody_watches_a_line_is_one_json_object(lines):
    written = lines(io.StringIO())
    structlog.get_logger().warning("link lost", why="no route", pause_s=1.5)
    logged = one(written)
    assert logged.pop("timestamp").endswith("Z")
    assert logged == {"event": "link lost", "level": "warning", "why": "no route", "pause_s": 1.5}


def test_less_than_was_asked_for_is_not_written(lines):
    written = lines(io.StringIO(), "warning")
    structlog.get_logger().info("ready")
    structlog.get_logger().warning("link lost")
    assert one(written)["event"] == "link lost"


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_a_credential_is_not_written_wherever_it_stands(lines, stderr):
    written = lines(stderr())
    log = structlog.get_logger()
    log.warning("a", password="hunter2", access_token="hunter2", Authorization="hunter2")
    log.warning("b", headers={"Authorization": "Basic hunter2"}, inner=[{"pwd": "hunter2"}])
    log.warning(
        "c", why="token=hunter2, mqtt://me:hunter2@host", x=("Authorization: Basic hunter2",)
    )
    password = "hunter2"
    try:
        raise ValueError(f"password={password}")
    except ValueError:
        log.exception("d")
    logging.getLogger("paho").error("password: %s", password)
    text = "\n".join(written())
    assert "hunter2" not in text
    assert text.count("***") >= 8
    assert "ValueError" in text


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_what_a_peer_sent_stays_in_its_line_and_is_cut(lines, stderr):
    """HC-140"""
    written = lines(stderr())
    evil = "CP\n2026-01-01 [error] \x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2028" + "x" * 1_000_000
    structlog.get_logger().warning("handshake refused", path=evil, evil={evil: [evil]})
    (line,) = written()
    assert len(line) < 5_000
    for control in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "\u2028"):
        assert control not in line
    assert "[error]" in line


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_no_line_of_a_traceback_passes_for_another_event(lines, stderr):
    """HC-140"""
    written = lines(stderr())
    try:
        raise ValueError("\n2026-01-01 [error] evil\r\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("connection dropped")
    first, *rest = written()
    assert "connection dropped" in first
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b[2J" not in "".join(rest)
    assert "ValueError" in "".join([first, *rest])


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=9), anything, max_size=3))
def test_whatever_is_logged_can_be_written(values):
    event = {f"k{key}": value for key, value in values.items()} | {"event": "x"}
    logged = hide_and_cut(None, "info", event)
    assert "\n" not in json.dumps(logged)


@pytest.mark.parametrize(
    ("level", "written_as"), [(logging.ERROR, "error"), (logging.WARNING, "warning")]
)
def test_what_libraries_warn_of_is_in_our_log(lines, level, written_as):
    written = lines(io.StringIO())
    logging.getLogger("asyncio").log(level, "%s was never\nretrieved", "Task")
    logged = one(written)
    assert (logged["event"], logged["level"]) == ("a library complains", written_as)
    assert logged["library"] == "asyncio"
    assert logged["said"] == r"Task was never\nretrieved"


def test_what_libraries_chat_about_is_not(lines):
    written = lines(io.StringIO(), "debug")
    logging.getLogger("trio-websocket").info("connected")
    logging.getLogger("mqtt").debug("Sending CONNECT (u1, p1)")
    assert written() == []


def test_a_library_that_mistakes_its_arguments_is_logged_all_the_same(lines):
    written = lines(io.StringIO())
    logging.getLogger("asyncio").warning("%d tasks", "many")
    assert one(written)["said"] == "%d tasks"


@pytest.mark.real_time
async def test_a_gateway_writes_json_alone_and_none_of_its_credentials(tmp_path):
    """The token of ThingsBoard, a charge point's password and its hash."""
    site = Site(tmp_path)
    more = f'[charge_points."CP-1"]\npassword_hash = "{HASH}"\n'
    site.configure(token="0123456789TOKEN", more=more)
    upgrade = (
        "GET /ocpp/CP-1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        "Authorization: Basic Q1AtMTp3cm9uZyBob3JzZQ==\r\n\r\n"  # CP-1:wrong horse
    )
    async with gateway(site) as served:
        assert (await http(site.ocpp, upgrade.encode()))[0] == 401
        assert await served.stop() == 0
    written = served.complaint()
    logged = [json.loads(line) for line in written.splitlines()]
    assert {"ready", "link lost", "handshake refused", "stopping", "stopped"} <= {
        item["event"] for item in logged
    }
    for secret in ("0123456789TOKEN", "wrong horse", "Q1AtMTp3cm9uZyBob3JzZQ", HASH[-20:]):
        assert secret not in written
