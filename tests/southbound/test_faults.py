"""Faults of trio-websocket, of frames and of peers stay with the connection they befall."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.domain.events import ChargePointConnected
from gateway.southbound.handlers import RequestHandlers

from ..conftest import open_gateway
from ..fakes import Refused
from .connections import (
    HALF_AN_ANSWER,
    UNASKED,
    connected,
    faults_of_ours,
    others,
    reasons,
    serves,
    southbound_settings,
)
from .raw_websocket import (
    BINARY,
    CLOSE,
    OCPP,
    PING,
    TEXT,
    call,
    dial,
    frame,
    opened,
    request,
    until,
)

# --- trio-websocket's faults stay with the connection they befall --------------------------------


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

    monkeypatch.setattr(RequestHandlers, "on_boot_notification", broken)
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
                patched.setattr(RequestHandlers, "_event_of", broken)
                with pytest.raises(ConnectionError):
                    await charger.ask(action)
        async with gateway.charger("CP-1") as charger:
            await charger.ask(action)


async def test_who_does_not_read_is_given_up_after_ten_seconds(gateway):
    """HC-143: its answer is half on the wire, can be neither finished nor followed by anything."""
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
            order = partial(gateway.thingsboard.rpc, "CP-1", "ClearCache")
            nursery.start_soon(order)
            await trio.sleep(4)
            assert not connected(gateway, "CP-1")


@pytest.mark.parametrize("until", ["stopped", "given up"])
async def test_half_a_frame_is_never_followed_by_another(until):
    """Here it is a ping; no Close may come behind its first byte."""
    async with (
        open_gateway(settings=UNASKED) as gateway,
        opened(gateway, "CP-1", clogged=True, room=1) as peer,
    ):
        await trio.sleep(33)
        if until == "stopped":
            gateway.stop.set()
        await trio.sleep(12)
        assert await peer.end() == bytes([0x80 | PING])


async def test_a_call_that_is_given_up_half_sent_ends_the_connection(gateway):
    """Its asker is cancelled, which the connection would outlive with half a frame on the wire."""
    async with others(gateway), opened(gateway, "CP-1", clogged=True) as peer:
        session = gateway.running.registry.connection("CP-1")
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
    settings = southbound_settings(passwords={"CP-2": "no hash of anything"})
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
        for _ in range(500):
            await stack.enter_async_context(dial(gateway))
        async with gateway.charger("CP-1") as charger:
            assert (await charger.boot())["status"] == "Accepted"


async def test_beyond_the_most_connections_nobody_is_let_in():
    async with open_gateway(settings=southbound_settings(max_connections=1)) as gateway:
        async with gateway.charger("CP-1") as charger:
            async with dial(gateway) as peer:
                assert await peer.end() == b""
            assert await serves(charger)
        await gateway.settled()
        async with gateway.charger("CP-2") as charger:
            assert await serves(charger)


# --- frames that cannot be served ----------------------------------------------------------------


async def test_a_binary_frame_is_answered_with_1003(gateway):
    """HC-50."""
    async with others(gateway), opened(gateway, "CP-1") as peer:
        await peer.send(frame(BINARY, b'[2,"m","Heartbeat",{}]'))
        assert await peer.close_code() == 1003


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"[2", fin=False) + frame(0, b"\xc3("), 1007),
        (frame(TEXT, "[\u00fc".encode()[:-1]), 1007),
        (frame(TEXT, b"[]", masked=False), 1002),
        (bytes([0xC1]) + frame(TEXT, b"[]")[1:], 1002),
        (frame(3, b"x"), 1002),
        (frame(11, b"x"), 1002),
        (frame(0, b"x"), 1002),
        (frame(TEXT, b"[", fin=False) + frame(TEXT, b"]"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (4_000).to_bytes(2, "big") + b"\xff"), 1007),
    ],
    ids=[
        "not utf-8",
        "not utf-8 in pieces",
        "half a character",
        "unmasked",
        "rsv1",
        "opcode 3",
        "opcode 11",
        "stray piece",
        "a message in a message",
        "long ping",
        "half a ping",
        "short close",
        "illegal close",
        "close that is no text",
    ],
)
async def test_a_frame_that_breaks_websocket_ends_its_connection_only(
    gateway, quiet_logs, data, code
):
    """HC-52, HC-53, HC-61; RFC 6455 section 7.4.1 has the codes."""
    async with others(gateway), opened(gateway, "CP-1") as peer:
        await peer.send(data + call("Heartbeat"))
        assert await peer.close_code() == code
        await peer.end()
        await gateway.settled()
        assert connected(gateway, "CP-1") is False
        assert gateway.thingsboard.latest("CP-1")["rejected_frames"] == 1
        assert reasons(gateway, "CP-1")[0].endswith(f"({code})")
    assert faults_of_ours(quiet_logs) == []


async def test_what_came_before_a_broken_frame_is_answered(gateway):
    async with opened(gateway, "CP-1") as peer:
        await peer.send(call("Heartbeat", "1"))
        assert (await peer.message())[1] == "1"
        await peer.send(frame(TEXT, b"\xff"))
        assert await peer.close_code() == 1007


async def test_garbage_behind_our_own_close_is_not_answered_twice(gateway, quiet_logs):
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(BINARY, b"x"))
        assert await peer.close_code() == 1003
        await peer.send(frame(TEXT, b"x" * 300_000))
        await peer.send(frame(TEXT, b"\xff"))
        assert await peer.end() == b""
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
    """HC-61."""
    async with opened(gateway, "CP-1") as peer:
        await peer.send(frame(CLOSE, payload))
        assert (await peer.frame())[0] == CLOSE
        assert await peer.end() == b""
        await gateway.settled()
        assert gateway.thingsboard.latest("CP-1")["disconnect_reason"] == told


async def test_a_connection_that_vanishes_is_told_as_lost(gateway):
    """HC-61: without a Close, as SAP's, vasyas's and VCP's charge points leave."""
    async with opened(gateway, "CP-1") as peer:
        await peer.stream.aclose()
        await gateway.settled()
        assert gateway.thingsboard.latest("CP-1")["disconnect_reason"] == "connection lost (1006)"
