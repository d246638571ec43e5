"""One MQTT connection.  The only module of the house that knows asyncio.

A link is opened, used and thrown away: after any fault there is a new loop, a new client and
a new connection, for none of the three can be trusted after a broker's death.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiomqtt
import attrs
import trio_asyncio
from paho.mqtt.client import error_string
from trio_asyncio import aio_as_trio

CONNECT_TIMEOUT = 10.0  # seconds for CONNACK and SUBACK
PUBACK_TIMEOUT = 20.0  # seconds; ThingsBoard takes 10 to refuse a bad device name
KEEP_ALIVE = 30  # seconds between pings on an idle link
IN_FLIGHT = 50  # publishes without a PUBACK; ThingsBoard closes beyond 100
REFUSED = 0x80  # a PUBACK reason code from here on (MQTT 5 §3.4.2.1)


class LinkLost(Exception):
    """There is no MQTT connection (any more).  The text says why."""


@attrs.frozen
class Publication:
    topic: str
    payload: bytes


@attrs.frozen
class Message:
    topic: str
    payload: bytes


class Link(Protocol):
    async def publish(self, publications: Sequence[Publication]) -> list[int]:
        """Publish in order with QoS 1; the reason code of each PUBACK.

        Below `REFUSED` it is delivered.  Raises LinkLost when one gets no PUBACK.
        """

    def messages(self) -> AsyncGenerator[Message, None]:
        """What comes on the subscribed topics.  Raises LinkLost when the connection ends."""


@attrs.frozen(kw_only=True)
class Broker:
    """Where ThingsBoard listens.  protocol: "5" or "3.1.1"."""

    host: str
    port: int = 1883
    access_token: str | None = attrs.field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    client_id: str | None = None
    protocol: str = "5"


class _Client(aiomqtt.Client):
    """aiomqtt's client, which also tells what a PUBACK said.

    aiomqtt 2.5 throws the reason code away, and with it ThingsBoard's refusals; so this
    replaces its `publish` by one that keeps a future for each packet id.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pubacks: dict[int, asyncio.Future[int]] = {}

    async def publish_all(self, publications: Sequence[Publication]) -> list[int]:
        window = asyncio.Semaphore(IN_FLIGHT)
        waiting = []
        try:
            for publication in publications:
                await window.acquire()
                puback = self._start(publication)
                puback.add_done_callback(lambda _: window.release())
                waiting.append(puback)
                if lost := self._lost():
                    raise lost
            return await asyncio.wait_for(asyncio.gather(*waiting), PUBACK_TIMEOUT)
        finally:
            for puback in waiting:
                puback.cancel()

    def _start(self, publication: Publication) -> asyncio.Future[int]:
        info = self._client.publish(publication.topic, publication.payload, qos=1)
        if info.rc != 0:
            raise aiomqtt.MqttError(f"could not publish: {error_string(info.rc)}")
        puback: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pubacks[info.mid] = puback
        return puback

    def _lost(self) -> BaseException | None:
        return self._disconnected.exception() if self._disconnected.done() else None

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any = None
    ) -> None:
        puback = self._pubacks.pop(mid, None)
        if puback is not None and not puback.done():
            puback.set_result(int(reason_code.value))


class _AioLink:
    def __init__(self, client: _Client) -> None:
        self._client = client

    async def publish(self, publications: Sequence[Publication]) -> list[int]:
        try:
            return list(await aio_as_trio(self._client.publish_all)(publications))
        except TimeoutError:
            raise LinkLost(
                f"no PUBACK within {PUBACK_TIMEOUT:g} s; if this is ThingsBoard, is the device of"
                " this access token marked as a gateway?"
            ) from None
        except aiomqtt.MqttError as exc:
            raise LinkLost(str(exc)) from exc

    async def messages(self) -> AsyncGenerator[Message, None]:
        try:
            async for message in aio_as_trio(self._client.messages):
                payload = message.payload
                yield Message(str(message.topic), payload if isinstance(payload, bytes) else b"")
        except aiomqtt.MqttError as exc:
            raise LinkLost(str(exc)) from exc


@asynccontextmanager
async def open_link(broker: Broker, topics: Sequence[str]) -> AsyncIterator[Link]:
    """Connect (Clean Start) and subscribe.  Raises LinkLost, alone or in an ExceptionGroup.

    What paho and trio-asyncio raise when a broker dies under them (EBADF out of the loop's
    own tasks) comes out of here as it is: the caller guards each attempt as a whole.
    """
    version = aiomqtt.ProtocolVersion.V5 if broker.protocol == "5" else aiomqtt.ProtocolVersion.V311
    clean: dict[str, Any] = (
        {"clean_start": True} if broker.protocol == "5" else {"clean_session": True}
    )
    async with trio_asyncio.open_loop():
        client = _Client(
            broker.host,
            broker.port,
            username=broker.access_token,
            identifier=broker.client_id,
            protocol=version,
            tls_context=broker.tls,
            keepalive=KEEP_ALIVE,
            timeout=CONNECT_TIMEOUT,
            max_inflight_messages=IN_FLIGHT,
            # Without it each publish waits for the peer's delayed ACK: 44 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            **clean,
        )
        try:
            async with aio_as_trio(client):
                if topics:
                    await aio_as_trio(client.subscribe)([(topic, 1) for topic in topics])
                yield _AioLink(client)
        except aiomqtt.MqttError as exc:
            raise LinkLost(str(exc)) from exc
