"""What many a Python project builds: `websockets`, `ocpp`'s ChargePoint and aiomqtt on asyncio.

It answers the mix and publishes every event to MQTT with QoS 1; it keeps nothing and computes no
price.  Where the packages offer a faster way, it is taken: validation runs in the loop instead of
a thread, and 20 publishes are under way at a time.  Prints `ready ocpp=<host:port>`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import socket
from datetime import UTC, datetime

import aiomqtt
import ocpp.messages
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result
from ocpp.v16.enums import Action, AuthorizationStatus, RegistrationStatus
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

PUBLISHERS = 20
ACCEPTED = {"status": AuthorizationStatus.accepted}

_transaction_ids = itertools.count(1)


def now() -> str:
    return datetime.now(UTC).isoformat()


class CentralSystem(ChargePoint):
    """One charge point as the central system sees it."""

    def __init__(self, charge_point_id: str, connection, events: asyncio.Queue) -> None:
        super().__init__(charge_point_id, connection)
        self._events = events

    def _send(self, action: str, values: dict) -> None:
        payload = json.dumps({"at": now(), **values})
        self._events.put_nowait((f"events/{self.id}/{action}", payload))

    @on(Action.boot_notification)
    def on_boot(self, **values):
        self._send("BootNotification", values)
        return call_result.BootNotification(
            current_time=now(), interval=300, status=RegistrationStatus.accepted
        )

    @on(Action.authorize)
    def on_authorize(self, **_values):
        return call_result.Authorize(id_tag_info=ACCEPTED)

    @on(Action.heartbeat)
    def on_heartbeat(self):
        return call_result.Heartbeat(current_time=now())

    @on(Action.start_transaction)
    def on_start(self, **values):
        transaction_id = next(_transaction_ids)
        self._send("StartTransaction", {"transaction_id": transaction_id, **values})
        return call_result.StartTransaction(transaction_id=transaction_id, id_tag_info=ACCEPTED)

    @on(Action.status_notification)
    def on_status(self, **values):
        self._send("StatusNotification", values)
        return call_result.StatusNotification()

    @on(Action.meter_values)
    def on_meter(self, **values):
        self._send("MeterValues", values)
        return call_result.MeterValues()

    @on(Action.stop_transaction)
    def on_stop(self, **values):
        self._send("StopTransaction", values)
        return call_result.StopTransaction(id_tag_info=ACCEPTED)


async def publish(client: aiomqtt.Client, events: asyncio.Queue) -> None:
    while True:
        topic, payload = await events.get()
        await client.publish(topic, payload, qos=1, timeout=60)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mqtt-port", type=int, required=True)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    ocpp.messages.ASYNC_VALIDATION = False
    events: asyncio.Queue = asyncio.Queue()

    async def visit(connection: ServerConnection) -> None:
        charge_point_id = connection.request.path.rpartition("/")[2]
        try:
            await CentralSystem(charge_point_id, connection, events).start()
        except ConnectionClosed:
            return

    client = aiomqtt.Client(
        "127.0.0.1",
        options.mqtt_port,
        protocol=aiomqtt.ProtocolVersion.V5,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    client.pending_calls_threshold = PUBLISHERS + 1
    async with (
        client,
        asyncio.TaskGroup() as tasks,
        serve(visit, "127.0.0.1", 0, subprotocols=["ocpp1.6"]) as server,
    ):
        for _ in range(PUBLISHERS):
            tasks.create_task(publish(client, events))
        host, port = server.sockets[0].getsockname()
        print(f"ready ocpp={host}:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
