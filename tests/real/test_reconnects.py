"""Charge points that leave and come back at once: foreign clients, a real disk."""

from __future__ import annotations

import json
import socket
import struct
from itertools import pairwise

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..southbound.raw_websocket import OCPP, TEXT, frame, request
from .processes import Site, charger, eventually, gateway
from .test_process import open_thingsboard, value

pytestmark = pytest.mark.real_time

TIMES = 20
BOOT = json.dumps(
    [2, "1", "BootNotification", {"chargePointVendor": "Quick", "chargePointModel": "One"}]
)


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


def politely(site: Site) -> None:
    with connect(f"{site.url}/CP-1", subprotocols=["ocpp1.6"], proxy=None) as charger:
        charger.send(BOOT)
        assert json.loads(charger.recv())[0] == 3


def at_once(site: Site) -> None:
    with connect(f"{site.url}/CP-1", subprotocols=["ocpp1.6"], proxy=None):
        pass


def by_hand(site: Site) -> socket.socket:
    """A charge point that is let in and has sent five requests; it reads no answer."""
    charger = socket.create_connection(("127.0.0.1", site.ocpp), timeout=10)
    charger.sendall(request("/ocpp/CP-1", OCPP))
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += charger.recv(4_096)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    charger.sendall(frame(TEXT, BOOT.encode()) * 5)
    return charger


def in_mid_request(site: Site) -> None:
    by_hand(site).close()


def half_open(site: Site) -> None:
    """Its end of the stream is closed, and it is not waited for."""
    charger = by_hand(site)
    charger.shutdown(socket.SHUT_WR)
    kept.append(charger)


def by_reset(site: Site) -> None:
    charger = by_hand(site)
    # To linger for no time at all is to reset the connection.
    charger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    charger.close()


kept: list[socket.socket] = []


@pytest.mark.parametrize("leave", [politely, at_once, in_mid_request, half_open, by_reset])
async def test_who_leaves_and_comes_back_at_once_is_never_refused(site, leave):
    async with open_thingsboard(site) as thingsboard, gateway(site):
        for _ in range(TIMES):  # a refusal raises InvalidStatus, or is no 101
            await trio.to_thread.run_sync(leave, site)
        async with charger(site.url, "CP-1", site.folder) as one:
            await one.boot()
            await eventually(lambda: value(thingsboard, "CP-1", "connected") is True)
            kinds = "'ChargePointConnected', 'ChargePointDisconnected'"
            kinds_stored = site.rows(f"SELECT kind FROM entry WHERE kind IN ({kinds}) ORDER BY seq")
            assert kinds_stored[-1][0] == "ChargePointConnected"
            assert [kind for (kind,) in kinds_stored].count("ChargePointConnected") == TIMES + 1
            for (before,), (after,) in pairwise(kinds_stored):
                assert "ChargePointConnected" in (before, after)
        for one in kept:
            one.close()
        kept.clear()
        await eventually(lambda: value(thingsboard, "CP-1", "connected") is False)


async def test_a_real_client_is_shown_why_its_message_is_not_taken(site):
    """It sends on while we close; the reason reaches it all the same."""

    def send_too_much() -> tuple[int, str]:
        with connect(f"{site.url}/CP-1", subprotocols=["ocpp1.6"], proxy=None) as charger:
            try:
                charger.send(json.dumps([2, "1", "DataTransfer", {"vendorId": "x" * 3_000_000}]))
                while True:
                    charger.recv(timeout=10)
            except ConnectionClosed:
                return charger.protocol.close_code, charger.protocol.close_reason

    async with gateway(site):
        code, why = await trio.to_thread.run_sync(send_too_much)
    assert code == 1009
    assert why == "Exceeded maximum message size: 262144 bytes for a DataTransfer"
