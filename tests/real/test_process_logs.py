"""What a charger sends forges no line of the log and fills no disk (HC-140)."""

from __future__ import annotations

import base64
import json

import pytest
import trio

from .processes import Site, gateway
from .retrying_charger import open_socket
from .test_process_faults import password_of

pytestmark = pytest.mark.real_time

FORGED = 'x\r\n{"event": "forged"}\x1b[31m'
HUGE = "A" * 100_000


async def test_what_a_charger_sends_forges_no_line_fills_no_disk_and_tells_no_password(tmp_path):
    """HC-140: in its path, its ids, its actions and its texts; 3 MB of them."""
    site = Site(tmp_path)
    site.configure(more=password_of("CP-2", "open-sesame"))
    frames = [
        [2, FORGED, FORGED, {}],
        [2, HUGE, HUGE, {}],
        [2, "1", "BootNotification", {"chargePointVendor": FORGED, "chargePointModel": HUGE}],
        [2, "2", "DataTransfer", {"vendorId": FORGED, "data": HUGE}],
        [2, "3", "StartTransaction", {"idTag": FORGED, "timestamp": HUGE}],
        [2, "4", "SecurityEventNotification", {"type": FORGED, "techInfo": HUGE}],
        [3, FORGED, HUGE],
        [4, HUGE, FORGED, FORGED, {}],
        FORGED + HUGE,
    ]
    async with gateway(site) as program:
        async with open_socket(site.ocpp, "CP-1") as socket, trio.open_nursery() as nursery:
            nursery.start_soon(hear_out, socket)
            for frame in frames * 3:
                await socket.send_message(json.dumps(frame))
            await socket.send_message('[2,"end","Heartbeat",{}]')
        for path in ("a%0D%0Ab%1b[31m", "b" * 7_000):
            await ask(site.ocpp, path, "open-sesame")
        await ask(site.ocpp, "CP-2", "wrong-sesame")
        assert await program.stop() == 0
    lines = program.complaint().splitlines()
    logged = [json.loads(line) for line in lines]
    assert "frame rejected" in {line["event"] for line in logged}
    assert "handshake refused" in {line["event"] for line in logged}
    assert all(line["event"] != "forged" for line in logged)
    assert max(map(len, lines)) < 3_000
    assert len(program.complaint()) < 50_000
    assert "\x1b" not in program.complaint()
    assert "sesame" not in program.complaint()


async def hear_out(socket):
    while json.loads(await socket.get_message())[1] != "end":
        pass


async def ask(port, path, password):
    """A handshake with a password that is going to be refused."""
    word = base64.b64encode(f"CP-2:{password}".encode()).decode()
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(
            f"GET /ocpp/{path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nAuthorization: Basic {word}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 4")
