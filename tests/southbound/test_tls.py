"""TLS on real sockets: security profiles 2 and 3."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import open_websocket_url

from gateway.domain.events import ChargePointConnected
from gateway.southbound.tls import tls_context

from ..conftest import open_gateway
from .connections import HASH, PASSWORD, authorization, faults_of_ours, southbound_settings
from .raw_websocket import OCPP, Peer, request, until


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
    async with open_gateway(listener=listener, settings=southbound_settings(**how)) as gateway:
        yield gateway, plain.socket.getsockname()[1]


def client_tls(authority: trustme.CA, *, known: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if known:
        authority.issue_cert("charger@example.org").configure_cert(context)
    return context


@pytest.mark.real_time
async def test_tls_with_a_password_is_security_profile_2(authority, tmp_path):
    how = {"passwords": {"CP-1": HASH}, "security_profiles": {"CP-1": 2}}
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
            await until(lambda: gateway.thingsboard.attributes("CP-1").get("security_profile") == 2)


@pytest.mark.real_time
async def test_a_client_certificate_is_security_profile_3(authority, tmp_path):
    """HC-21: without one, or with another authority's, nobody comes in."""
    how = {"mutual": True, "security_profiles": {"CP-1": 3}}
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
    how = {"handshake_timeout_s": 0.5}
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
async def test_tls_below_1_2_is_refused(authority, tmp_path, quiet_logs):
    """HC-20; the operator sees why."""
    async with tls_gateway(authority, tmp_path) as (gateway, port):
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
        await until(lambda: gateway.running.connections.refused_handshakes["tls"] == 1, within=5)
    (told,) = [entry for entry in quiet_logs if entry["event"] == "no TLS handshake"]
    assert told["why"] == "UNSUPPORTED_PROTOCOL"
