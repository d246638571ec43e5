"""A bare trio-websocket server: every frame gets the same reply, unread.

No JSON, no validation, no MQTT: what is left is what the WebSocket layer itself costs, so the
gateway's speed can be given as a share of it.  Prints `ready ocpp=<host:port>`.
"""

from __future__ import annotations

import trio
import trio_websocket

# Any charger's state allows this one: the load generator looks for nothing but a transactionId.
REPLY = '[3,"0",{"transactionId":1,"idTagInfo":{"status":"Accepted"}}]'


async def serve(request: trio_websocket.WebSocketRequest) -> None:
    socket = await request.accept(subprotocol="ocpp1.6")
    try:
        while True:
            await socket.get_message()
            await socket.send_message(REPLY)
    except trio_websocket.ConnectionClosed:
        return


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
        print(f"ready ocpp=127.0.0.1:{server.port}", flush=True)


if __name__ == "__main__":
    trio.run(main)
