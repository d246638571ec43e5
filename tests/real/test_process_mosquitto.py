"""The gateway as a process with a real Mosquitto in ThingsBoard's place, and somebody watching."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import attrs
import paho.mqtt.client as paho
import pytest
import trio

from .processes import DAY, Site, charger, gateway, mosquitto

pytestmark = pytest.mark.real_time

RPC = "v1/gateway/rpc"


@attrs.define(eq=False)
class Watcher:
    """Another MQTT client, in paho's own thread: all that passes, and orders of its own."""

    client: paho.Client
    received: list[tuple[str, dict]] = attrs.field(factory=list)
    changed: trio.Condition = attrs.field(factory=trio.Condition)

    async def take(self, messages) -> None:
        async for topic, payload in messages:
            async with self.changed:
                self.received.append((topic, json.loads(payload)))
                self.changed.notify_all()

    async def until(self, wanted, within: float = 20):
        """The first message that `wanted` gives something for, and that."""
        with trio.fail_after(within):
            async with self.changed:
                while True:
                    for topic, body in self.received:
                        if (found := wanted(topic, body)) is not None:
                            return found
                    await self.changed.wait()

    async def rpc(self, number: int, device: str, method: str, params=None):
        order = {"device": device, "data": {"id": number, "method": method, "params": params}}
        self.client.publish(RPC, json.dumps(order), qos=1)
        return await self.until(
            lambda topic, body: (
                body["data"]
                if (topic, body.get("device"), body.get("id")) == (RPC, device, number)
                else None
            )
        )

    def values(self, device: str, key: str) -> list:
        return [
            row["values"][key]
            for topic, body in self.received
            if topic == "v1/gateway/telemetry"
            for row in body.get(device, ())
            if key in row["values"]
        ]


@asynccontextmanager
async def watching(port):
    send, receive = trio.open_memory_channel(10_000)
    token = trio.lowlevel.current_trio_token()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    subscribed = trio.Event()

    def on_message(_client, _data, message):
        token.run_sync_soon(send.send_nowait, (message.topic, message.payload))

    client.on_message = on_message
    client.on_subscribe = lambda *_: token.run_sync_soon(subscribed.set)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        client.subscribe("#", qos=1)
        with trio.fail_after(10):
            await subscribed.wait()
        watcher = Watcher(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.take, receive)
            yield watcher
            nursery.cancel_scope.cancel()
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_whole_charge_over_a_plain_broker(tmp_path, protocol):
    site = Site(tmp_path)
    site.configure(token=None)
    text = site.config.read_text()
    site.config.write_text(text.replace("[storage]", f'protocol = "{protocol}"\n[storage]'))
    async with (
        mosquitto(tmp_path, site.mqtt),
        watching(site.mqtt) as watcher,
        gateway(site) as program,
        charger(site.url, "CP-1", tmp_path) as one,
    ):
        await one.boot()
        await one.status("Available", minutes_ago=40)
        announced = {"device": "CP-1/1", "type": "EV connector"}
        await watcher.until(lambda topic, body: True if body == announced else None)
        began = await watcher.rpc(0, "CP-1/1", "remoteStart", {"idTag": "APP"})
        assert began == {"status": "Accepted", "transactionId": 1}
        await watcher.until(
            lambda *_: True if 3250 in watcher.values("CP-1/1", "tx_energy_wh") else None
        )
        ended = await watcher.rpc(1, "CP-1/1", "remoteStop")
        assert ended["status"] == "Stopped"
        await watcher.until(
            lambda *_: True if watcher.values("ocpp-gateway sessions", "receipt") else None
        )
        (receipt,) = watcher.values("ocpp-gateway sessions", "receipt")
        assert (receipt["energy_wh"], receipt["total_incl_vat"]) == ("7777", "3.56")
        assert watcher.values("CP-1/1", "receipt") == [receipt]
        # our own answers come back to us on the same topic: nothing may come of them
        answers = [body for topic, body in watcher.received if topic == RPC and "id" in body]
        assert [body["id"] for body in answers] == [0, 1]
        assert await program.stop() == 0
        risk = "with MQTT 3.1.1 ThingsBoard acknowledges what it refuses: data can be lost unseen"
        assert (risk in program.complaint()) is (protocol == "3.1.1")
        await watcher.until(
            lambda *_: True if watcher.values("CP-1", "connected")[-1] is False else None
        )


async def test_a_broker_that_dies_and_comes_back_is_sent_all(tmp_path):
    site = Site(tmp_path)
    site.configure(token=None)
    async with gateway(site) as program, charger(site.url, "CP-1", tmp_path) as one:
        async with mosquitto(tmp_path, site.mqtt), watching(site.mqtt) as watcher:
            await one.boot()
            transaction_id = await one.start(0, f"{DAY}T10:00:00Z")
            await watcher.until(lambda *_: True if watcher.values("CP-1/1", "tx_active") else None)
        await one.stop(transaction_id, 5_000, f"{DAY}T11:00:00Z")
        async with mosquitto(tmp_path, site.mqtt), watching(site.mqtt) as watcher:
            await watcher.until(
                lambda *_: True if watcher.values("CP-1/1", "receipt") else None, within=40
            )
            (receipt,) = watcher.values("CP-1/1", "receipt")
            assert receipt["energy_wh"] == "5000"
            assert await program.stop() == 0
