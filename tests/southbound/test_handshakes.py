"""Who is let in, and how who is not is told."""

from __future__ import annotations

import pytest
import trio

from gateway.domain.events import (
    ChargePointBooted,
    ChargePointConnected,
    ConnectorStatusChanged,
    MeterSampled,
)
from gateway.southbound.handlers import HandlerSettings

from ..conftest import open_gateway
from ..fakes import Refused
from .connections import HASH, PASSWORD, authorization, serves, southbound_settings
from .raw_websocket import OCPP, call, dial, request, until

# --- which protocol, and who ---------------------------------------------------------------------


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
        response = await peer.upgrade("/ocpp/CP-1", f"Sec-WebSocket-Protocol: {offer}")
    assert response.status == 400
    assert response.body == f"this is a central system for ocpp1.6, not for {offer}".encode()
    assert any(str(entry.get("why")).endswith(f"not for {offer}") for entry in quiet_logs)


async def test_a_subprotocol_may_be_required():
    async with open_gateway(settings=southbound_settings(require_subprotocol=True)) as gateway:
        async with dial(gateway) as peer:
            response = await peer.upgrade("/ocpp/CP-1")
            assert response.status == 400
            assert b"names no subprotocol" in response.body
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)


@pytest.mark.parametrize("header", ["Sec-WebSocket-Protocol: ", "Sec-WebSocket-Protocol: ,"])
async def test_an_empty_list_of_subprotocols_names_none(gateway, header):
    """As one who sends no such header, it is served; only where one is required, it is not."""
    async with dial(gateway) as peer:
        response = await peer.upgrade("/ocpp/CP-1", header)
        assert (response.status, response.headers.get("sec-websocket-protocol")) == (101, None)
    async with (
        open_gateway(settings=southbound_settings(require_subprotocol=True)) as strict,
        dial(strict) as peer,
    ):
        response = await peer.upgrade("/ocpp/CP-1", header)
        assert response.status == 400
        assert b"names no subprotocol" in response.body


async def test_permessage_deflate_is_declined(gateway):
    """HC-26."""
    async with dial(gateway) as peer:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        response = await peer.upgrade("/ocpp/CP-1", OCPP, offer)
        assert (response.status, response.headers.get("sec-websocket-extensions")) == (101, None)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/ocpp/RDAM%20123", "RDAM 123"),
        ("/ocpp/CP-1/", "CP-1"),
        ("/x/y/CP-1?z=/", "CP-1"),
        ("/DOOR1", "DOOR1"),
        ("//DOOR1", "DOOR1"),
        ("///DOOR1", "DOOR1"),
        ("/ocpp//DOOR1", "DOOR1"),
        ("/ocpp/DOOR1//", "DOOR1"),
        ("//ocpp//DOOR1//?x", "DOOR1"),
    ],
)
async def test_the_charge_point_goes_by_the_end_of_its_path(gateway, path, name):
    """The empty segments are those of field frame FRM-68."""
    async with gateway.charger(name, path=path) as charger:
        await charger.boot()
    assert {event.charge_point_id for event in gateway.events(ChargePointBooted)} == {name}


@pytest.mark.parametrize("path", ["/ocpp/gw", "//gw%20sessions/"])
async def test_no_charge_point_has_the_name_of_a_device_of_the_gateways_own(quiet_logs, path):
    """Its telemetry would be mixed with the receipts of all."""
    own = frozenset({"gw", "gw sessions"})
    async with open_gateway(settings=southbound_settings(own_devices=own)) as gateway:
        async with dial(gateway) as peer:
            assert (await peer.upgrade(path, OCPP)).status == 404
        async with gateway.charger("gw-1") as charger:
            assert await serves(charger)
    assert any(
        "own device" in str(entry.get("why")) and entry["log_level"] == "warning"
        for entry in quiet_logs
    )


NO_ID = ["/", "/ocpp", "//ocpp//", "/ocpp/A%2FB", "/ocpp/%2e%2e", "/ocpp/%zz", "/ocpp/a+b?x=y"]


@pytest.mark.parametrize("path", NO_ID)
async def test_a_path_without_a_charge_point_id_is_not_found(gateway, quiet_logs, path):
    """Neither the charger's installer nor the operator is left to guess what it asks for."""
    async with dial(gateway) as peer:
        response = await peer.upgrade(path, OCPP)
    assert response.status == 404
    assert b"ws://HOST:PORT/ocpp/<charge point id>" in response.body
    assert gateway.running.bus.fleet.charge_points() == []
    (told,) = [entry for entry in quiet_logs if entry["log_level"] == "warning"]
    assert (told["event"], told["path"]) == ("handshake refused", path)
    assert "ws://HOST:PORT/ocpp/<charge point id>" in told["why"]


async def test_what_a_charge_point_without_an_id_asks_for_is_told_once_an_hour(gateway, quiet_logs):
    """It tries again every few seconds; and who invents paths does not fill the log."""

    async def knock(path: str) -> None:
        async with dial(gateway) as peer:
            assert (await peer.upgrade(path, OCPP)).status == 404

    def warnings() -> list[str]:
        return [entry["path"] for entry in quiet_logs if entry["log_level"] == "warning"]

    for _ in range(3):
        await knock("/ocpp")
        await knock("/")
    assert warnings() == ["/ocpp", "/"]
    await trio.sleep(3_601)
    await knock("/ocpp")
    assert warnings() == ["/ocpp", "/", "/ocpp"]
    for number in range(200):
        await knock(f"/ocpp/+{number}")
    assert len(warnings()) == 102


async def test_unknown_charge_points_may_be_rejected():
    """HC-12: and they leave no device behind."""
    settings = southbound_settings(
        reject_unknown_charge_points=True, known_charge_points=frozenset({"CP-1"})
    )
    async with open_gateway(settings=settings) as gateway:
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-2", OCPP)).status == 404
        async with gateway.charger("CP-1") as charger:
            assert await serves(charger)
        assert gateway.running.bus.fleet.charge_points() == ["CP-1"]


async def test_unknown_charge_points_may_have_to_wait_for_approval():
    settings = southbound_settings(
        handlers=HandlerSettings(pending_unknown=True, heartbeat_interval_s=60),
        known_charge_points=frozenset({"CP-1"}),
    )
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


# --- passwords -----------------------------------------------------------------------------------


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
    settings = southbound_settings(passwords={"CP:1": HASH})
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
    settings = southbound_settings(passwords={"CP-1": HASH})
    async with open_gateway(settings=settings) as gateway:
        async with dial(gateway) as peer:
            right = authorization("CP-1", PASSWORD)
            assert (await peer.upgrade("/ocpp/CP-1", OCPP, right)).status == 101
        hashed = []
        monkeypatch.setattr(
            "gateway.southbound.authentication.PasswordVerifier._verify",
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
    async with open_gateway(settings=southbound_settings(security_profiles={"CP-1": 2})) as gateway:
        async with dial(gateway) as peer:
            assert (await peer.upgrade("/ocpp/CP-1", OCPP)).status == 403
        async with gateway.charger("CP-2") as charger:
            assert await serves(charger)


# --- what is no WebSocket -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "Connection: Upgrade"),
        (b"GET /ocpp/CP-1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", "Upgrade"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", "Connection: Upgrade"),
        (b"POST /ocpp/CP-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", "GET"),
        (b"hello\r\n\r\n", "Bad HTTP"),
        (request("/ocpp/CP-1").replace(b"Version: 13", b"Version: 8"), "Version"),
        (request("/ocpp/CP-1").replace(b"gateway", b"\xff\xfe"), "no text"),
    ],
)
async def test_plain_http_is_told_what_this_port_is(gateway, quiet_logs, said, why):
    """A browser, a health check, or a charge point that was given the wrong kind of URL."""
    async with dial(gateway) as peer:
        await peer.send(said)
        response = await peer.response()
        assert response.status == (426 if why == "Version" else 400)
        assert response.headers["content-type"].startswith("text/plain")
        assert response.headers["connection"] == "close"
        body = response.body.decode()
        assert "OCPP 1.6J over WebSocket" in body
        assert "ws://HOST:PORT/ocpp/<charge point id>" in body
        assert why in body
        assert await peer.end() == b""
    assert [entry for entry in quiet_logs if entry["log_level"] == "error"] == []


async def test_the_answer_to_head_has_no_body(gateway, quiet_logs):
    async with dial(gateway) as peer:
        await peer.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = (await peer.end()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert body == b""
    assert [entry for entry in quiet_logs if entry["log_level"] == "error"] == []
