"""One MQTT connection.  The only module that knows asyncio.

A link is opened, used and thrown away: after any fault there is a new loop, a new client and
a new connection, for none of the three can be trusted after a broker's death.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

import aiomqtt
import attrs
import trio
import trio_asyncio
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.client import error_string
from paho.mqtt.reasoncodes import ReasonCode
from trio_asyncio import aio_as_trio

from ..config.model import Thingsboard
from ..domain.exceptions import first_cause
from .reason_codes import NO_PUBACK, connack_reason, disconnect_reason

CONNECT_TIMEOUT = 10.0  # seconds for CONNACK and SUBACK
PUBACK_TIMEOUT = 20.0  # seconds; ThingsBoard takes 10 to refuse a bad device name
KEEP_ALIVE = 30  # seconds between pings on an idle link
IN_FLIGHT = 50  # publishes without a PUBACK; ThingsBoard closes beyond 100


class LinkLost(Exception):
    """There is no MQTT connection (any more).  The text is the reason, for operators."""


@attrs.frozen
class Publication:
    topic: str
    payload: bytes


@attrs.frozen
class Message:
    topic: str
    payload: bytes


@attrs.define(eq=False)
class Delivery:
    """A message on its way.  code: reason code of its PUBACK; None while there is none."""

    code: int | None = None
    acknowledged: trio.Event = attrs.field(factory=trio.Event)


class Sender(Protocol):
    async def send(self, publication: Publication) -> Delivery:
        """Send with QoS 1, in the order of the calls; waits while too many are on their way.

        Raises LinkLost.
        """


class Link(Sender, Protocol):
    def messages(self) -> AsyncGenerator[Message, None]:
        """What comes on the subscribed topics.  Raises LinkLost when the connection ends."""


async def wait_acknowledged(deliveries: Sequence[Delivery]) -> bool:
    """Whether all were in good time; returns as soon as they are."""
    with trio.move_on_after(PUBACK_TIMEOUT):
        for delivery in deliveries:
            if delivery.code is None:  # else it need not cost a round of the schedule
                await delivery.acknowledged.wait()
        return True
    return False


async def puback_codes(deliveries: Sequence[Delivery]) -> list[int]:
    """The reason code of each PUBACK, once all have come.  Raises LinkLost if one does not."""
    if not await wait_acknowledged(deliveries):
        raise no_puback()
    return [delivery.code for delivery in deliveries if delivery.code is not None]


def no_puback() -> LinkLost:
    return LinkLost(NO_PUBACK.format(seconds=PUBACK_TIMEOUT))


async def publish(link: Sender, publications: Iterable[Publication]) -> list[int]:
    """Send all and wait for all; the reason code of each PUBACK.  Raises LinkLost."""
    return await puback_codes([await link.send(publication) for publication in publications])


@attrs.frozen(kw_only=True)
class Broker:
    """Where ThingsBoard listens.  protocol: "5" or "3.1.1"."""

    host: str
    port: int = 1883
    access_token: str | None = attrs.field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    client_id: str | None = None
    protocol: str = "5"

    @classmethod
    def of(cls, board: Thingsboard) -> Broker:
        """Raises OSError, ssl.SSLError for a ca_cert that is none."""
        return cls(
            host=board.host,
            port=board.port,
            access_token=board.access_token,
            tls=ssl.create_default_context(cafile=board.ca_cert) if board.tls else None,
            protocol=board.protocol,
        )


class _Client(aiomqtt.Client):
    """aiomqtt's client, which also keeps the reason code of each PUBACK.

    aiomqtt 2.5 throws the reason code away, and with it ThingsBoard's refusals; and its own
    `publish` crosses from Trio to asyncio and back, each time through the whole schedule.  So
    `_AioLink` gives a message to paho itself, whose `publish` is no coroutine, and this class
    notes the PUBACK where paho reports it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deliveries: dict[int, Delivery] = {}  # that have no PUBACK yet, by packet id
        self.room = trio.Semaphore(IN_FLIGHT)
        self.paho = self._client

    def why(self, exc: BaseException) -> str:
        """What ended the connection, where it has ended, else `exc`; as text for operators.

        A send fails first, but only the task that reads learns the reason from the server.
        """
        if self._disconnected.done() and not self._disconnected.cancelled():
            exc = self._disconnected.exception() or exc
        if isinstance(exc, aiomqtt.MqttCodeError) and isinstance(exc.rc, ReasonCode):
            reason = connack_reason if isinstance(exc, MqttConnectError) else disconnect_reason
            return reason(int(exc.rc.value), str(exc.rc))
        return str(exc)

    def ignore_end(self) -> None:
        """Fetch the reason of the end once, for asyncio logs exceptions that are never fetched."""
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()

    def _on_disconnect(self, *args: Any, **kwargs: Any) -> None:
        super()._on_disconnect(*args, **kwargs)
        if not self._connected.done():  # no CONNACK, or one that paho keeps to itself (3.1.1: 1, 2)
            self._connected.set_exception(MqttConnectError(args[3]))
        for subscribing in self._pending_subscribes.values():  # no SUBACK comes any more
            if not subscribing.done():
                subscribing.set_exception(aiomqtt.MqttError("the connection ended"))

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any = None
    ) -> None:
        # Old servers acknowledge more than once; the first time counts.
        delivery = self.deliveries.pop(mid, None)
        if delivery is not None:
            delivery.code = int(reason_code.value)
            delivery.acknowledged.set()
            self.room.release()


class _AioLink:
    def __init__(self, client: _Client) -> None:
        self._client = client

    async def send(self, publication: Publication) -> Delivery:
        with trio.move_on_after(PUBACK_TIMEOUT):
            try:
                self._client.room.acquire_nowait()
            except trio.WouldBlock:  # only then is a round of the schedule well spent
                await self._client.room.acquire()
            try:
                info = self._client.paho.publish(publication.topic, publication.payload, qos=1)
                if info.rc != 0:
                    raise aiomqtt.MqttError(f"could not publish: {error_string(info.rc)}")
            except (aiomqtt.MqttError, OSError) as exc:
                raise LinkLost(self._client.why(exc)) from exc
            delivery = self._client.deliveries[info.mid] = Delivery()
            return delivery
        raise no_puback()

    async def messages(self) -> AsyncGenerator[Message, None]:
        try:
            async with aclosing(aiter(aio_as_trio(self._client.messages))) as messages:
                async for message in messages:
                    if message.retain:
                        # A plain broker sends a retained message to every new link, however old it
                        # is; ThingsBoard keeps none.  A command must not be carried out again.
                        continue
                    payload = message.payload
                    known = payload if isinstance(payload, bytes) else b""
                    yield Message(str(message.topic), known)  # noqa: ASYNC119  read under aclosing
        except aiomqtt.MqttError as exc:
            raise LinkLost(self._client.why(exc)) from exc


@asynccontextmanager
async def open_link(broker: Broker, topics: Sequence[str]) -> AsyncIterator[Link]:
    """Connect (Clean Start) and subscribe.  Raises LinkLost, alone or in an ExceptionGroup.

    What else paho and trio-asyncio raise when a broker dies under them comes out of here as it
    is: the caller guards each attempt as a whole.
    """
    client: _Client | None = None
    try:
        async with trio_asyncio.open_loop():
            client = _client(broker)
            async with aio_as_trio(client):
                if topics:
                    await aio_as_trio(client.subscribe)([(topic, 1) for topic in topics])
                yield _AioLink(client)
    except* (aiomqtt.MqttError, OSError) as group:
        # OSError: EBADF, out of the loop's own tasks, where paho has closed the socket already.
        raise LinkLost(_reason_of(group, client)) from group
    finally:
        if client is not None:
            client.ignore_end()


def _reason_of(group: BaseExceptionGroup[BaseException], client: _Client | None) -> str:
    cause = first_cause(group)
    return str(cause) if client is None else client.why(cause)


def _client(broker: Broker) -> _Client:
    version = aiomqtt.ProtocolVersion.V5 if broker.protocol == "5" else aiomqtt.ProtocolVersion.V311
    clean: dict[str, Any] = (
        {"clean_start": True} if broker.protocol == "5" else {"clean_session": True}
    )
    return _Client(
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
