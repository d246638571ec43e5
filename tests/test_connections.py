"""Connections of charge points: who comes in, who is taken for gone, and that one's fault is
never another's."""

from __future__ import annotations

import base64
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked
from trio_websocket import open_websocket_url

from gateway.app import Settings
from gateway.domain.events import (
    ChargePointBooted,
    ChargePointConnected,
    ChargePointDisconnected,
    ConnectorStatusChanged,
    FramesRejected,
    MeterSampled,
    TransactionStarted,
)
from gateway.journal import JournalError
from gateway.journal.memory import MemoryJournal
from gateway.southbound.credentials import hash_password
from gateway.southbound.desk import Desk, Rules
from gateway.southbound.door import DoorSettings, tls_context

from .conftest import Gateway, open_gateway
from .doors import FakeCharger, Refused
from .southbound.wire import (
    BINARY,
    CLOSE,
    OCPP,
    PING,
    PONG,
    TEXT,
    Peer,
    call,
    dial,
    frame,
    opened,
    request,
    until,
)

HALF_AN_ANSWER = b'\x81\x32[3,"m"'  # what a clogged stream has room for


def door(**settings: Any) -> Settings:
    return Settings(door=DoorSettings(**settings))


def connected(gateway: Gateway, charge_point_id: str) -> Any:
    return gateway.house.bus.fleet.about(charge_point_id).get("connected")


def reasons(gateway: Gateway, charge_point_id: str) -> list[str]:
    """Why it was told to have left, each time."""
    return [
        event.reason
        for event in gateway.events(ChargePointDisconnected)
        if event.charge_point_id == charge_point_id
    ]


def faults_of_ours(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in logs if entry["log_level"] in ("warning", "error", "critical")]


async def serves(charger: FakeCharger) -> bool:
    return "currentTime" in await charger.ask("Heartbeat")


@asynccontextmanager
async def others(gateway: Gateway):
    """A charge point that has nothing to do with what happens in the block, and serves on."""
    async with gateway.charger("OTHER") as other:
        await other.boot()
        yield other
        assert await serves(other)
        assert reasons(gateway, "OTHER") == []


# --- trio-websocket's faults stay with the connection they befall ---------------------------------


async def test_a_ping_after_our_close_ends_that_connection_only(gateway, quiet_logs):
    """python-trio/trio-websocket#184: its reader raises, and would take the whole server along."""
    async with others(gateway), opened(gateway, "CP-1") as peer:
        await peer.send(frame(BINARY, b"x"))
        assert (await peer.frame())[0] == CLOSE
        await peer.send(frame(PING, b"late"))
        assert await peer.end() == b""
        await gateway.settled()
    assert len(reasons(gateway, "CP-1")) == 1
    assert faults_of_ours(quiet_logs) == []
    assert any("protocol fault" in entry["event"] for entry in quiet_logs)


async def test_a_bug_of_ours_is_an_internal_error_to_that_charge_point_only(
    gateway, monkeypatch, quiet_logs
):
    async def broken(self, request):
        raise LookupError("a bug")

    monkeypatch.setattr(Desk, "_boot", broken)
    async with gateway.charger("OTHER") as other, gateway.charger("CP-1") as charger:
        with pytest.raises(Refused) as caught:
            await charger.boot()
        assert caught.value.code == "InternalError"
        assert "bug" not in str(caught.value)
        assert await serves(charger)
        assert await serves(other)
    assert [entry["event"] for entry in faults_of_ours(quiet_logs)] == ["request not answered"]


@pytest.mark.parametrize("action", ["StartTransaction", "StopTransaction", "MeterValues"])
async def test_a_bug_in_a_transaction_message_ends_the_connection_without_an_answer(
    gateway, monkeypatch, action
):
    """A charge point drops what is refused for good, but repeats what was not answered."""

    def broken(self, request):
        raise LookupError("a bug")

    async with others(gateway):
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
            with monkeypatch.context() as patched:
                patched.setattr(Desk, "_fact", broken)
                with pytest.raises(ConnectionError):
                    await charger.ask(action)
        async with gateway.charger("CP-1") as charger:
            await charger.ask(action)


async def test_who_does_not_read_is_given_up_after_ten_seconds(gateway):
    """The answer is half on the wire: it can be neither finished nor followed by anything."""
    async with others(gateway), opened(gateway, "CP-1", clogged=True) as peer:
        await peer.send(call("Heartbeat"))
        before = trio.current_time()
        await trio.sleep(9)
        assert connected(gateway, "CP-1")
        await until(lambda: not connected(gateway, "CP-1"))
        assert trio.current_time() - before < 13
        assert await peer.end() == HALF_AN_ANSWER


async def test_who_does_not_read_is_given_up_also_when_more_is_to_be_sent(gateway):
    """Senders wait in turn; a later one must not make the wait look young."""
    async with others(gateway), opened(gateway, "CP-1", clogged=True) as peer:
        await peer.send(call("Heartbeat"))
        await trio.sleep(9)
        async with trio.open_nursery() as nursery:
            order = partial(gateway.board.rpc, "CP-1", "ClearCache")
            nursery.start_soon(order)
            await trio.sleep(4)
            assert not connected(gateway, "CP-1")


@pytest.mark.parametrize("until", ["stopped", "given up"])
async def test_half_a_frame_is_never_followed_by_another(gateway, until):
    """Here it is a ping; no Close may come behind its first byte."""
    async with opened(gateway, "CP-1", clogged=True, room=1) as peer:
        await trio.sleep(33)
        if until == "stopped":
            gateway.stop.set()
        await trio.sleep(12)
        assert await peer.end() == bytes([0x80 | PING])


async def test_a_call_that_is_given_up_half_sent_ends_the_connection(gateway):
    """Its asker is cancelled, which the connection would outlive with half a frame on the wire."""
    async with others(gateway), opened(gateway, "CP-1", clogged=True) as peer:
        session = gateway.house.registry.session("CP-1")
        with trio.move_on_after(1):
            await session.call("ClearCache", {})
        assert await peer.end() == b'\x81\x18[2,"g1'
        await gateway.settled()
        assert len(reasons(gateway, "CP-1")) == 1


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ocpp/CP-2", (OCPP,), 401),
        ("/ocpp", (OCPP,), 404),
        ("/ocpp/CP-1", ("Sec-WebSocket-Protocol: ocpp2.0.1",), 400),
    ],
)
async def test_a_refused_handshake_ends_the_stream_at_once(path, headers, status):
    settings = door(passwords={"CP-2": "no hash of anything"})
    async with open_gateway(settings=settings) as gateway, dial(gateway) as peer:
        before = trio.current_time()
        response = await peer.upgrade(path, *headers)
        assert response.status == status
        assert response.headers["connection"] == "close"
        assert response.body
        assert await peer.end() == b""
        assert trio.current_time() == before
        assert gateway.events(ChargePointConnected) == []


@pytest.mark.parametrize(
    "said", [b"", b"GET /ocpp/CP-1 HTT", request("/ocpp/CP-1", OCPP)[:-2]], ids=len
)
async def test_who_does_not_finish_a_handshake_is_gone_within_ten_seconds(gateway, said):
    """HC-24: also when one byte comes every half second."""
    async with others(gateway), dial(gateway) as peer, trio.open_nursery() as nursery:

        async def trickle() -> None:
            await peer.send(said)
            while True:
                await trio.sleep(0.5)
                await peer.send(b"x")

        if said:
            nursery.start_soon(trickle)
        with trio.fail_after(10.1):
            assert await peer.end() == b""
        nursery.cancel_scope.cancel()


async def test_who_leaves_before_the_handshake_leaves_nothing_behind(gateway, quiet_logs):
    async with others(gateway):
        tasks = trio.lowlevel.current_statistics().tasks_living
        for said in (b"", b"GET / HT", request("/ocpp/CP-1", OCPP)):
            async with dial(gateway) as peer:
                if said:
                    await peer.send(said)
            await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert faults_of_ours(quiet_logs) == []


WRONG_HTTP = {
    "no upgrade": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "post": b"POST /ocpp/CP-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
    "http 1.0": request("/ocpp/CP-1", OCPP).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    "nothing but zeros": bytes(1_000),
    "a long path": request("/ocpp/" + "x" * 80_000, OCPP),
    "an old version": request("/ocpp/CP-1").replace(b"Version: 13", b"Version: 8"),
    "a host that is no text": request("/ocpp/CP-1", OCPP).replace(b"gateway", b"\xff\xfe"),
    "a subprotocol that is no text": request("/ocpp/CP-1", "Sec-WebSocket-Protocol: \xff"),
    "a path that is no text": request("/ocpp/\xff", OCPP),
    "no key": b"\r\n".join(
        line for line in request("/ocpp/CP-1").split(b"\r\n") if b"-Key" not in line
    ),
    "two keys": request("/ocpp/CP-1", "Sec-WebSocket-Key: x", "Sec-WebSocket-Key: y"),
    "two hosts": request("/ocpp/CP-1", "Host: another"),
}


@pytest.mark.parametrize("said", WRONG_HTTP.values(), ids=WRONG_HTTP)
async def test_wrong_http_is_refused_or_closed_and_is_no_fault_of_ours(gateway, quiet_logs, said):
    """HC-25; HC-22 for TLS spoken to the plain port."""
    async with others(gateway), dial(gateway) as peer:
        await peer.send(said)
        with trio.move_on_after(10.1) as waited:
            answer = await peer.end()
        if waited.cancelled_caught:  # it was good enough
            assert said in (WRONG_HTTP["two keys"], WRONG_HTTP["http 1.0"])
        else:
            assert answer[:10] in (b"", b"HTTP/1.1 4"), answer
        if said is WRONG_HTTP["an old version"]:
            assert answer.startswith(b"HTTP/1.1 426")
            assert b"sec-websocket-version: 13" in answer.lower()
    assert faults_of_ours(quiet_logs) == []


async def test_a_call_right_behind_the_upgrade_does_no_harm(gateway, quiet_logs):
    """HC-27: RFC 6455 4.1 forbids it, so it may go unheard."""
    async with others(gateway), dial(gateway) as peer:
        await peer.send(request("/ocpp/CP-1", OCPP) + call("Heartbeat", "early"))
        assert (await peer.response()).status == 101
        await peer.send(call("Heartbeat", "now"))
        while (await peer.message())[1] != "now":
            pass
    assert faults_of_ours(quiet_logs) == []


async def test_many_who_say_nothing_do_not_keep_others_out(gateway):
    """HC-24."""
    async with AsyncExitStack() as stack:
        for _ in range(200):
            await stack.enter_async_context(dial(gateway))
        async with gateway.charger("CP-1") as charger:
            assert (await charger.boot())["status"] == "Accepted"


async def test_beyond_the_most_connections_nobody_is_let_in():
    async with open_gateway(settings=door(most_connections=1)) as gateway:
        async with gateway.charger("CP-1") as charger:
            async with dial(gateway) as peer:
                assert await peer.end() == b""
            assert await serves(charger)
        await gateway.settled()
        async with gateway.charger("CP-2") as charger:
            assert await serves(charger)


# --- signs of life --------------------------------------------------------------------------------


async def silent_for(gateway: Gateway, charge_point_id: str) -> float:
    """Seconds until it is told that the charge point is gone."""
    return await until(lambda: not connected(gateway, charge_point_id))


async def test_a_ping_that_nobody_answers_ends_the_connection(gateway):
    """30 s until the ping, 60 s for an answer; ThingsBoard hears of it."""
    async with others(gateway), opened(gateway, "CP-1") as peer:
        quiet = await silent_for(gateway, "CP-1")
        assert 90 <= quiet < 94
        assert await peer.frame() == (PING, b"")
        assert (await peer.frame())[0] == CLOSE
        await gateway.settled()
        assert gateway.board.values("CP-1", "connected") == [True, False]
        assert gateway.board.latest("CP-1")["disconnect_reason"] == "no sign of life"


async def test_silence_counts_from_the_last_frame_whatever_came_before_the_first():
    """A charge point that reconnects may say nothing until its next Heartbeat (OCPP-J 5.4).

    The upgrade takes time: what follows it is younger than the request.
    """
    async with open_gateway() as gateway, dial(gateway, clogged=True) as peer:
        await peer.send(request("/ocpp/CP-1", OCPP))
        await trio.sleep(1)
        assert (await peer.response()).status == 101
        before = trio.current_time()
        assert await peer.frame() == (PING, b"")
        assert 29 <= trio.current_time() - before < 32


async def test_three_heartbeats_of_silence_end_the_connection():
    """Here they are shorter than the wait for a pong: 3 x 10 s."""
    settings = door(rules=Rules(heartbeat_interval=10))
    async with open_gateway(settings=settings) as gateway, opened(gateway, "CP-1"):
        assert 30 <= await silent_for(gateway, "CP-1") < 34


@pytest.mark.parametrize(
    "sign",
    [
        frame(PONG),
        frame(PONG, b"another"),
        frame(PING),
        frame(TEXT, b"garbage"),
        frame(TEXT, b"a piece", fin=False),
    ],
    ids=["pong", "unasked pong", "ping", "text", "a first fragment"],
)
async def test_any_whole_frame_is_life(gateway, sign):
    async with opened(gateway, "CP-1") as peer:
        await trio.sleep(80)
        await peer.send(sign)
        await trio.sleep(80)
        assert connected(gateway, "CP-1")


async def test_a_charge_point_that_answers_pings_may_say_nothing_else(gateway):
    """Until 3 heartbeat intervals are over, pongs keep it: a pong is a frame as any other."""
    async with gateway.charger("CP-1") as charger:
        await trio.sleep(3_000)
        assert connected(gateway, "CP-1")
        assert await serves(charger)


async def test_a_frame_that_trickles_in_is_no_life(gateway):
    """One byte every 5 s, and no pong."""
    data = call("BootNotification", chargePointVendor="slow", chargePointModel="x" * 20)
    async with opened(gateway, "CP-1") as peer, trio.open_nursery() as nursery:

        async def trickle() -> None:
            for index in range(len(data)):
                await trio.sleep(5)
                await peer.send(data[index : index + 1])

        nursery.start_soon(trickle)
        assert await silent_for(gateway, "CP-1") < 94
        nursery.cancel_scope.cancel()


async def test_pings_are_answered_also_between_the_pieces_of_a_message(gateway):
    """HC-51."""
    text = b'[2,"m","Heartbeat",{}]'
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(TEXT, text[:5], fin=False))
        await peer.send(frame(PING, b"there?"))
        assert await peer.frame() == (PONG, b"there?")
        await peer.send(frame(0, text[5:9], fin=False) + frame(0, text[9:]))
        assert (await peer.message())[:2] == [3, "m"]


# --- frames that cannot be served -----------------------------------------------------------------


async def test_a_binary_frame_is_answered_with_1003(gateway):
    """HC-50."""
    async with others(gateway), opened(gateway, "CP-1") as peer:
        await peer.send(frame(BINARY, b'[2,"m","Heartbeat",{}]'))
        assert await peer.close_code() == 1003


@pytest.mark.parametrize("pieces", [1, 5])
async def test_a_message_above_the_limit_ends_its_connection_only(gateway, pieces):
    """HC-49, HC-51: also in fragments, and before the last of them has come."""
    piece = b"x" * (262_145 // pieces + 1)
    async with others(gateway), opened(gateway, "CP-1") as peer:
        await peer.send(frame(TEXT, piece, fin=False))
        for _ in range(pieces - 1):
            await peer.send(frame(0, piece, fin=False))
        assert await peer.close_code() == 1009
        assert await peer.end() == b""
        await gateway.settled()
        assert "Exceeded" in gateway.board.latest("CP-1")["disconnect_reason"]


async def test_a_long_message_below_the_limit_is_served(gateway):
    """HC-49: a StopTransaction with 1 500 readings."""
    reading = {"timestamp": "2026-01-01T00:00:00Z", "sampledValue": [{"value": "1"}]}
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(0)
        await charger.stop(tx, 1, transactionData=[reading] * 1_500)


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"[]", masked=False),
        bytes([0xC1]) + frame(TEXT, b"[]")[1:],
        frame(3, b"x"),
        frame(11, b"x"),
        frame(0, b"x"),
        frame(PING, b"x" * 126),
        frame(CLOSE, b"\x03"),
        frame(CLOSE, (1005).to_bytes(2, "big")),
        frame(CLOSE, (4_000).to_bytes(2, "big") + b"\xff"),
    ],
    ids=[
        "not utf-8",
        "unmasked",
        "rsv1",
        "opcode 3",
        "opcode 11",
        "stray piece",
        "long ping",
        "short close",
        "illegal close",
        "close that is no text",
    ],
)
async def test_a_frame_that_breaks_websocket_ends_its_connection_only(gateway, quiet_logs, data):
    """HC-52, HC-53, HC-61."""
    async with others(gateway), opened(gateway, "CP-1") as peer:
        await peer.send(data)
        assert await peer.close_code() in (None, 1002, 1005, 1007, 4_000)
        await peer.end()
        await gateway.settled()
        assert connected(gateway, "CP-1") is False
    assert faults_of_ours(quiet_logs) == []


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"", "closed by the charge point (1005)"),
        ((1000).to_bytes(2, "big"), "closed by the charge point (1000)"),
        ((1001).to_bytes(2, "big") + b"reboot", "reboot (1001)"),
        ((4_000).to_bytes(2, "big") + "ü".encode(), "ü (4000)"),
    ],
)
async def test_a_close_is_answered_and_its_reason_told(gateway, payload, told):
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(CLOSE, payload))
        assert (await peer.frame())[0] == CLOSE
        assert await peer.end() == b""
        await gateway.settled()
        assert gateway.board.latest("CP-1")["disconnect_reason"] == told


async def test_a_connection_that_vanishes_is_told_as_lost(gateway):
    async with opened(gateway, "CP-1") as peer:
        await peer.stream.aclose()
        await gateway.settled()
        assert gateway.board.latest("CP-1")["disconnect_reason"] == "connection lost (1006)"


# --- which protocol, and who ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "chosen"),
    [
        ((), None),
        ((OCPP,), "ocpp1.6"),
        (("Sec-WebSocket-Protocol: ocpp0.1, ocpp1.6",), "ocpp1.6"),
        (("Sec-WebSocket-Protocol: ocpp2.1,ocpp2.0.1 ,ocpp1.6",), "ocpp1.6"),
        (("Sec-WebSocket-Protocol: ocpp1.5", "Sec-WebSocket-Protocol:   ocpp1.6  "), "ocpp1.6"),
    ],
    ids=["HC-01 none", "one", "HC-03", "HC-05 list", "HC-05 lines"],
)
async def test_ocpp_1_6_is_chosen_among_what_is_offered(gateway, headers, chosen):
    async with dial(gateway) as peer:
        response = await peer.upgrade("/ocpp/CP-1", *headers)
        assert response.status == 101
        assert response.headers.get("sec-websocket-protocol") == chosen
        assert "sec-websocket-extensions" not in response.headers
        await peer.send(call("Heartbeat"))
        assert (await peer.message())[0] == 3


@pytest.mark.parametrize("offer", ["ocpp0.1", "ocpp2.0.1", "ocpp2.1, ocpp2.0.1", "OCPP1.6"])
async def test_a_charge_point_without_ocpp_1_6_is_refused_before_the_upgrade(
    gateway, quiet_logs, offer
):
    """HC-02, HC-04, HC-06; the operator sees what was offered."""
    async with dial(gateway) as peer:
        assert (await peer.upgrade("/ocpp/CP-1", f"Sec-WebSocket-Protocol: {offer}")).status == 400
    assert any(offer.split(",")[0] in str(entry.get("why")) for entry in quiet_logs)


async def test_a_subprotocol_may_be_required():
    async with open_gateway(settings=door(require_subprotocol=True)) as gateway:
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-1")).status == 400
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)


async def test_permessage_deflate_is_declined(gateway):
    """HC-26."""
    async with dial(gateway) as peer:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        response = await peer.upgrade("/ocpp/CP-1", OCPP, offer)
        assert (response.status, response.headers.get("sec-websocket-extensions")) == (101, None)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/ocpp/RDAM%20123", "RDAM 123"), ("/ocpp/CP-1/", "CP-1"), ("/x/y/CP-1?z=/", "CP-1")],
)
async def test_the_charge_point_goes_by_the_end_of_its_path(gateway, path, name):
    async with gateway.charger(name, path=path) as charger:
        await charger.boot()
    assert {event.charge_point_id for event in gateway.events(ChargePointBooted)} == {name}


@pytest.mark.parametrize("path", ["/", "/CP-1", "/ocpp/A%2FB", "/ocpp/%2e%2e", "/ocpp/%zz"])
async def test_a_path_without_a_charge_point_id_is_not_found(gateway, path):
    async with dial(gateway) as peer:
        assert (await peer.upgrade(path, OCPP)).status == 404
    assert gateway.house.bus.fleet.charge_points() == []


async def test_unknown_charge_points_may_be_rejected():
    """HC-12: and they leave no device behind."""
    settings = door(reject_unknown=True, known=frozenset({"CP-1"}))
    async with open_gateway(settings=settings) as gateway:
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-2", OCPP)).status == 404
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)
        assert gateway.house.bus.fleet.charge_points() == ["CP-1"]


async def test_unknown_charge_points_may_have_to_wait_for_approval():
    settings = door(rules=Rules(pending=True, heartbeat_interval=60), known=frozenset({"CP-1"}))
    async with open_gateway(settings=settings) as gateway:
        async with gateway.charger("CP-1") as known:
            assert (await known.boot())["status"] == "Accepted"
        async with gateway.charger("CP-2") as charger:
            for action, payload in [
                ("Heartbeat", {}),
                ("Authorize", {"idTag": "TAG"}),
                ("DataTransfer", {"vendorId": "x"}),
            ]:
                with pytest.raises(Refused) as caught:
                    await charger.ask(action, **payload)
                assert caught.value.code == "SecurityError"
            with pytest.raises(Refused):
                await charger.status("Available")
            answer = await charger.boot()
            assert (answer["status"], answer["interval"]) == ("Pending", 60)
            tx = await charger.start(0)
            await charger.sample(tx, "5")
            await charger.stop(tx, 10)
            with pytest.raises(Refused):
                await charger.ask("Heartbeat")
        assert tx > 0
        assert len(gateway.events(MeterSampled)) == 1
        assert gateway.events(ConnectorStatusChanged) == []


async def test_without_a_boot_a_charge_point_is_served_all_the_same(gateway):
    """HC-28: one that reconnects need not boot."""
    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        assert await serves(charger)


# --- passwords ------------------------------------------------------------------------------------

PASSWORD = "correct horse"
HASH = hash_password(PASSWORD)


def authorization(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (authorization("CP:1", PASSWORD), 101),
        (authorization("CP:1", "wrong"), 401),
        (authorization("CP:1", ""), 401),
        (authorization("CP-2", PASSWORD), 401),
        (authorization("CP", "1:" + PASSWORD), 101),
        ("Authorization: Basic !!!", 401),
        ("Authorization: Bearer x", 401),
        ("Authorization: Basic " + "QUJD" * 1_800, 401),
        ("X-Nothing: at all", 401),
    ],
    ids=[
        "right",
        "wrong",
        "empty",
        "HC-17",
        "a colon in the id",
        "HC-16",
        "bearer",
        "7 kB",
        "none",
    ],
)
async def test_who_has_a_password_must_show_it(header, status):
    """`CP` with `1:…` is, on the wire, the very same as `CP:1` with `…`."""
    settings = door(passwords={"CP:1": HASH})
    async with open_gateway(settings=settings) as gateway:
        async with dial(gateway) as peer:
            response = await peer.upgrade("/ocpp/CP:1", OCPP, header)
            assert response.status == status
            if status == 401:
                assert response.headers["www-authenticate"].startswith("Basic ")
                assert PASSWORD.encode() not in response.body
                assert await peer.end() == b""
            else:
                await until(lambda: gateway.events(ChargePointConnected))
                assert gateway.events(ChargePointConnected)[0].security_profile == 1
        async with gateway.charger("CP-2") as charger:
            assert await serves(charger)
            assert gateway.events(ChargePointConnected)[-1].security_profile == 0


@pytest.mark.real_time
async def test_a_password_that_was_right_is_known_again_without_the_slow_hash(monkeypatch):
    """A fleet of thousands that reconnects must not wait for thousands of argon2 hashes."""
    settings = door(passwords={"CP-1": HASH})
    async with open_gateway(settings=settings) as gateway:
        async with dial(gateway) as peer:
            right = authorization("CP-1", PASSWORD)
            assert (await peer.upgrade("/ocpp/CP-1", OCPP, right)).status == 101
        hashed = []
        monkeypatch.setattr(
            "gateway.southbound.credentials.PasswordBook._verify",
            lambda self, stored, password: hashed.append(password) or False,
        )
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-1", OCPP, right)).status == 101
        assert hashed == []
        async with dial(gateway) as peer:
            wrong = authorization("CP-1", "wrong")
            assert (await peer.upgrade("/ocpp/CP-1", OCPP, wrong)).status == 401
        assert hashed == [b"wrong"]


async def test_a_charge_point_may_not_connect_with_less_security_than_it_must():
    """HC-19, OCPP security A00.FR.002."""
    async with open_gateway(settings=door(profiles={"CP-1": 2})) as gateway:
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-1", OCPP)).status == 403
        async with gateway.charger("CP-2") as charger:
            assert await serves(charger)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def tls_gateway(authority: trustme.CA, tmp_path: Any, *, mutual: bool = False, **how: Any):
    """(gateway, its port): the real gateway behind real TLS."""
    cert, key, ca = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    context = tls_context(cert, key, ca if mutual else None)
    listener = trio.SSLListener(plain, context, https_compatible=True)
    async with open_gateway(listener=listener, settings=door(**how)) as gateway:
        yield gateway, plain.socket.getsockname()[1]


def client_tls(authority: trustme.CA, *, known: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if known:
        authority.issue_cert("charger@example.org").configure_cert(context)
    return context


@pytest.mark.real_time
async def test_tls_with_a_password_is_security_profile_2(authority, tmp_path):
    how = {"passwords": {"CP-1": HASH}, "profiles": {"CP-1": 2}}
    async with tls_gateway(authority, tmp_path, **how) as (gateway, port):
        name, _, value = authorization("CP-1", PASSWORD).partition(": ")
        async with open_websocket_url(
            f"wss://localhost:{port}/ocpp/CP-1",
            ssl_context=client_tls(authority),
            subprotocols=["ocpp1.6"],
            extra_headers=[(name.encode(), value.encode())],
        ) as socket:
            await socket.send_message('[2,"m","Heartbeat",{}]')
            assert (await socket.get_message()).startswith('[3,"m"')
            (event,) = gateway.events(ChargePointConnected)
            assert event.security_profile == 2
            assert event.remote_address.startswith("127.0.0.1:")
            await until(lambda: gateway.board.attributes("CP-1").get("security_profile") == 2)


@pytest.mark.real_time
async def test_a_client_certificate_is_security_profile_3(authority, tmp_path):
    """HC-21: without one, or with another authority's, nobody comes in."""
    how = {"mutual": True, "profiles": {"CP-1": 3}}
    async with tls_gateway(authority, tmp_path, **how) as (gateway, port):
        url = f"wss://localhost:{port}/ocpp/CP-1"
        async with open_websocket_url(
            url, ssl_context=client_tls(authority, known=True), subprotocols=["ocpp1.6"]
        ) as socket:
            await socket.send_message('[2,"m","Heartbeat",{}]')
            assert (await socket.get_message()).startswith('[3,"m"')
        (event,) = gateway.events(ChargePointConnected)
        assert event.security_profile == 3
        stranger = client_tls(authority)
        trustme.CA().issue_cert("charger@example.org").configure_cert(stranger)
        for context in (client_tls(authority), stranger):
            stream = trio.SSLStream(
                await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="localhost"
            )
            with pytest.raises((trio.BrokenResourceError, EOFError)), trio.fail_after(5):
                await Peer(stream).upgrade("/ocpp/CP-1", OCPP)
            await trio.aclose_forcefully(stream)
        assert len(gateway.events(ChargePointConnected)) == 1


@pytest.mark.real_time
async def test_what_is_not_tls_is_dropped_by_the_tls_port(authority, tmp_path, quiet_logs):
    """HC-22: plain HTTP, garbage, and a ClientHello that nothing follows."""
    how = {"handshake_timeout": 0.5}
    async with tls_gateway(authority, tmp_path, **how) as (_, port):
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        for said in (request("/ocpp/CP-1", OCPP), bytes(100), hello, b""):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                if said:
                    await stream.send_all(said)
                with trio.fail_after(5):
                    assert b"HTTP" not in await Peer(stream).end()
        async with open_websocket_url(
            f"wss://localhost:{port}/ocpp/CP-1",
            ssl_context=client_tls(authority),
            subprotocols=["ocpp1.6"],
        ) as socket:
            await socket.send_message('[2,"m","Heartbeat",{}]')
            assert (await socket.get_message()).startswith('[3,"m"')
    assert faults_of_ours(quiet_logs) == []


@pytest.mark.real_time
async def test_tls_below_1_2_is_refused(authority, tmp_path):
    """HC-20."""
    async with tls_gateway(authority, tmp_path) as (_, port):
        old = client_tls(authority)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        stream = trio.SSLStream(
            await trio.open_tcp_stream("localhost", port), old, server_hostname="localhost"
        )
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)


# --- the newest connection ------------------------------------------------------------------------


async def test_the_newest_connection_is_served_at_once_while_the_old_one_hangs(gateway):
    """HC-14: the old one answers nothing, not even our Close, and its end touches nobody."""
    async with opened(gateway, "CP-1") as old:
        before = trio.current_time()
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
            assert trio.current_time() == before
            assert await old.close_code() == 1008
            await old.send(call("StatusNotification", connectorId=9, status="Faulted",
                                errorCode="NoError"))  # fmt: skip
            await trio.sleep(20)
            assert await old.end() == b""
            assert await serves(charger)
            assert gateway.events(ConnectorStatusChanged) == []
            assert reasons(gateway, "CP-1") == []
            assert gateway.board.values("CP-1", "connected") == [True, True]
        await gateway.settled()
        assert gateway.board.latest("CP-1")["connected"] is False


async def test_the_newest_connection_is_served_while_the_old_one_does_not_read(gateway):
    """The old one is stuck in an answer; what it is waited for is its own affair."""
    async with opened(gateway, "CP-1", clogged=True) as old:
        await old.send(call("Heartbeat"))
        async with gateway.charger("CP-1") as charger:
            before = trio.current_time()
            assert await serves(charger)
            assert trio.current_time() == before
            await trio.sleep(15)
            assert await old.end() == HALF_AN_ANSWER
            assert await serves(charger)
            assert reasons(gateway, "CP-1") == []


@pytest.mark.parametrize("clogged", [False, True])
async def test_an_order_under_way_on_a_replaced_connection_fails_at_once(gateway, clogged):
    """HC-109: it was sent to the old one, so it is not sent to the new one as well."""
    async with opened(gateway, "CP-1", clogged=clogged) as old, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def order(method: str, **params: Any) -> None:
            answers.append(await gateway.board.rpc("CP-1", method, params))

        nursery.start_soon(partial(order, "Reset", type="Soft"))
        await gateway.settled()
        nursery.start_soon(order, "ClearCache")  # it waits for its turn
        await gateway.settled()
        if clogged:  # the call is delivered, then an answer sticks
            assert (await old.message())[2] == "Reset"
            await old.send(call("Heartbeat"))
            await gateway.settled()
        before = trio.current_time()
        async with gateway.charger("CP-1") as charger:
            await gateway.settled()
            assert [answer["error"]["code"] for answer in answers] == ["NotConnected"] * 2
            assert trio.current_time() - before < 1
            assert charger.calls.statistics().current_buffer_used == 0


async def test_two_devices_with_one_identity_do_not_chase_each_other_for_ever(gateway):
    """HC-15: the sixth replacement within 30 s is refused, until it is calm again."""
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(opened(gateway, "CP-1"))
            await trio.sleep(1)
        async with dial(gateway) as peer:
            response = await peer.upgrade("/ocpp/CP-1", OCPP)
            assert response.status == 503
            pause = int(response.headers["retry-after"])
            assert 20 < pause <= 30
            assert await peer.end() == b""
        assert connected(gateway, "CP-1")
        async with gateway.charger("CP-2") as other:  # it is nobody else's trouble
            assert await serves(other)
        await trio.sleep(pause)
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)


async def test_a_seat_that_was_fought_for_is_free_once_it_is_left(gateway):
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(opened(gateway, "CP-1"))
    await gateway.settled()
    assert connected(gateway, "CP-1") is False
    async with gateway.charger("CP-1") as charger:
        assert await serves(charger)


async def test_who_comes_back_to_an_empty_seat_is_never_refused(gateway):
    """A charge point that loses its connection often is not two charge points."""
    for _ in range(20):
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)


# --- the stop -------------------------------------------------------------------------------------


class SlowJournal(MemoryJournal):
    """Its appends wait while `held`; `fails` makes them raise."""

    def __init__(self) -> None:
        super().__init__()
        self.held = trio.Event()
        self.held.set()
        self.fails = False

    async def append(self, *events: Any, bookmark: Any = None) -> Any:
        await self.held.wait()
        if self.fails:
            raise JournalError("the disk is full")
        return await super().append(*events, bookmark=bookmark)


async def test_a_stop_takes_leave_of_everybody(gateway):
    async with gateway.charger("CP-1") as one, gateway.charger("CP-2") as two:
        before = trio.current_time()
        gateway.stop.set()
        await one.closed.wait()
        await two.closed.wait()
        assert trio.current_time() == before
        assert (one.close_code, two.close_code) == (1001, 1001)
    await gateway.settled()
    assert gateway.board.latest("CP-1")["connected"] is False
    assert gateway.board.latest("CP-2")["connected"] is False


async def test_a_stop_waits_for_the_answer_under_way():
    async with open_gateway(journal=SlowJournal()) as gateway, opened(gateway, "CP-1") as peer:
        await gateway.settled()
        gateway.journal.held = trio.Event()
        await peer.send(call("StartTransaction", "1", connectorId=1, idTag="A", meterStart=0,
                             timestamp="2026-01-01T00:00:00Z"))  # fmt: skip
        await peer.send(call("Heartbeat", "2"))
        await gateway.settled()
        gateway.stop.set()
        await trio.sleep(1)
        gateway.journal.held.set()
        kind, unique_id, payload = await peer.message()
        assert (kind, unique_id, payload["transactionId"]) == (3, "1", 1)
        assert await peer.close_code() == 1001


async def test_a_stop_fails_the_orders_that_are_under_way(gateway):
    async with opened(gateway, "CP-1"), trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def order() -> None:
            answers.append(await gateway.board.rpc("CP-1", "ClearCache"))

        nursery.start_soon(order)
        await gateway.settled()
        gateway.stop.set()
        await trio.sleep(1)
        assert [answer["error"]["code"] for answer in answers] == ["NotConnected"]


@pytest.mark.parametrize("clogged", [False, True])
async def test_who_does_not_answer_our_close_does_not_hold_the_stop(clogged):
    """5 s for the goodbye, and 10 s of grace for all."""
    gateway = Gateway()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run)
        async with opened(gateway, "CP-1", clogged=clogged) as peer:
            await peer.send(call("Heartbeat"))
            await gateway.settled()
            gateway.stop.set()
            await until(lambda: not nursery.child_tasks, within=10.1)
    assert reasons(gateway, "CP-1") == ["the gateway is stopping"]


async def test_who_has_said_nothing_yet_does_not_hold_the_stop(quiet_logs):
    """A load balancer's probe is no reason to wait."""
    gateway = Gateway()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run)
        async with dial(gateway) as peer:
            await gateway.settled()
            before = trio.current_time()
            gateway.stop.set()
            assert await peer.end() == b""
            assert trio.current_time() == before
    assert faults_of_ours(quiet_logs) == []


async def test_who_comes_in_while_the_gateway_stops_is_sent_away_at_once():
    """The upgrade is under way when the stop comes; its answer is read a second later."""
    async with open_gateway() as gateway, dial(gateway, clogged=True) as peer:
        await peer.send(request("/ocpp/CP-1", OCPP))
        await gateway.settled()
        gateway.stop.set()
        await trio.sleep(1)
        assert (await peer.response()).status == 101
        before = trio.current_time()
        assert await peer.close_code() == 1001
        assert trio.current_time() == before


# --- durable first, then answer -------------------------------------------------------------------

BOOT = call("BootNotification", chargePointVendor="v", chargePointModel="m")
START = call("StartTransaction", connectorId=1, idTag="A", meterStart=0,
             timestamp="2026-01-01T00:00:00Z")  # fmt: skip
DURABLE = {
    "BootNotification": BOOT,
    "StartTransaction": START,
    "StopTransaction": call("StopTransaction", transactionId=1, meterStop=0,
                            timestamp="2026-01-01T00:00:00Z"),
    "MeterValues": call("MeterValues", connectorId=1, meterValue=[]),
    "StatusNotification": call("StatusNotification", connectorId=1, status="Available",
                               errorCode="NoError"),
    "DataTransfer": call("DataTransfer", vendorId="x"),
    "FirmwareStatusNotification": call("FirmwareStatusNotification", status="Idle"),
    "SecurityEventNotification": call("SecurityEventNotification", type="x",
                                      timestamp="2026-01-01T00:00:00Z"),
}  # fmt: skip


@pytest.mark.parametrize("message", DURABLE.values(), ids=DURABLE)
async def test_no_answer_before_what_was_said_is_durable(message):
    """And no charge point waits for another's."""
    async with (
        open_gateway(journal=SlowJournal()) as gateway,
        opened(gateway, "CP-1") as peer,
        gateway.charger("OTHER") as other,
    ):
        await gateway.settled()
        gateway.journal.held = trio.Event()
        await peer.send(message)
        with trio.move_on_after(5) as waited:
            await peer.message()
        assert waited.cancelled_caught
        assert await serves(other)
        gateway.journal.held.set()
        assert (await peer.message())[:2] == [3, "m"]


async def test_a_heartbeat_and_an_authorize_wait_for_no_disk():
    async with (
        open_gateway(journal=SlowJournal()) as gateway,
        gateway.charger("CP-1") as charger,
    ):
        await gateway.settled()
        gateway.journal.held = trio.Event()
        before = trio.current_time()
        assert await serves(charger)
        assert (await charger.ask("Authorize", idTag="A"))["idTagInfo"]["status"] == "Accepted"
        assert trio.current_time() == before
        gateway.journal.held.set()


@pytest.mark.parametrize("message", DURABLE.values(), ids=DURABLE)
async def test_when_the_store_fails_the_house_falls_and_nothing_was_promised(message):
    gateway = Gateway(journal=SlowJournal())
    said = b""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run)
            async with opened(gateway, "CP-1") as peer:
                await gateway.settled()
                gateway.journal.fails = True
                await peer.send(message)
                with trio.CancelScope(shield=True), trio.fail_after(30):
                    said = await peer.end()
    assert caught.value.split(JournalError)[1] is None
    assert b"[3" not in said
    assert b"[4" not in said


# --- the records ----------------------------------------------------------------------------------


async def test_an_offence_is_counted_but_not_told_each_time(gateway):
    """One event in 10 s, with the sum, for a charge point that sends nothing but garbage."""
    async with gateway.charger("CP-1") as charger:
        for _ in range(50):
            await charger.send("garbage")
        await charger.ask("Heartbeat")
        assert [event.total for event in gateway.events(FramesRejected)] == [1]
        await trio.sleep(11)
        await charger.send("garbage")
        await charger.ask("Heartbeat")
        assert [event.total for event in gateway.events(FramesRejected)] == [1, 51]
        assert gateway.house.south.rejected["FormationViolation"] == 51


async def test_a_start_retried_on_a_new_connection_is_the_same_transaction(gateway):
    """HC-71: the answer was lost with the connection, twice."""
    answers = []
    for _ in range(3):
        async with opened(gateway, "CP-1") as peer:
            await peer.send(START)
            answers.append((await peer.message())[2]["transactionId"])
    assert len(set(answers)) == 1
    assert [event.repeated for event in gateway.events(TransactionStarted)] == [False, True, True]
