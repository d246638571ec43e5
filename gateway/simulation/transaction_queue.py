"""The queue of transaction messages: each reaches the central system in order, after an outage too.

OCPP 1.6 §3.7: StartTransaction, StopTransaction and the MeterValues of a transaction are queued
and delivered in their order.  A message without a result is sent again, with the same payload and
a new message id.  After a CALLERROR it is tried TransactionMessageAttempts times.
"""

from __future__ import annotations

from collections import deque

import attrs
import structlog
import trio

from .configuration_keys import ConfigurationKeys
from .ocpp_connection import CallError, OcppConnection, Payload

log = structlog.get_logger()

_CAPACITY = 1_000  # messages; a full queue drops intermediate MeterValues, as §3.7 permits
NEVER_DELIVERED = -1  # the id after StartTransaction was given up (errata 3.18)


@attrs.define(eq=False, kw_only=True)
class Transaction:
    """The part of a transaction that its messages share.

    id: None until the central system gave one.
    id_tag_status: the idTagInfo status of StartTransaction's response, None for Accepted.
    """

    connector_id: int
    id_tag: str
    id: int | None = None
    id_tag_status: str | None = None


@attrs.define(eq=False)
class Message:
    """A queued message.

    attempts: how many CALLERRORs it got.
    released: set once it has a result, or while offline, when waiting for one is useless.
    """

    action: str
    payload: Payload
    transaction: Transaction
    attempts: int = 0
    released: trio.Event = attrs.field(factory=trio.Event)

    def request(self) -> Payload:
        """The payload; the transaction's id is known once the message is first in the queue."""
        if self.action == "StartTransaction":
            return self.payload
        tx_id = self.transaction.id
        return self.payload | {"transactionId": NEVER_DELIVERED if tx_id is None else tx_id}

    def read_response(self, response: Payload) -> None:
        """Read the transaction's id; raises CallError when StartTransaction's response has none."""
        if self.action != "StartTransaction":
            return
        tx_id, info = response.get("transactionId"), response.get("idTagInfo")
        if not isinstance(tx_id, int) or isinstance(tx_id, bool):
            raise CallError("StartTransaction: no transactionId in the response")
        status = info.get("status") if isinstance(info, dict) else None
        self.transaction.id = tx_id
        self.transaction.id_tag_status = None if status == "Accepted" else str(status)


class TransactionQueue:
    """Owns: the queued messages, and nothing of the connection."""

    def __init__(self, settings: ConfigurationKeys) -> None:
        self._settings = settings
        self._messages: deque[Message] = deque()
        self._changed = trio.Event()
        self._online = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, action: str, payload: Payload, transaction: Transaction) -> Message:
        message = Message(action, payload, transaction)
        if len(self._messages) >= _CAPACITY:
            self._thin_out()
        self._messages.append(message)
        if not self._online:
            message.released.set()
        self._notify()
        return message

    async def deliver(self, connection: OcppConnection) -> None:
        """Deliver over this connection until it is lost: then it raises ConnectionLost."""
        self._online = True
        try:
            while True:
                while not self._messages:
                    await self._changed.wait()
                await self._deliver_first(connection)
        finally:
            self._online = False
            for message in self._messages:
                message.released.set()

    async def wait_empty(self) -> None:
        while self._messages:
            await self._changed.wait()

    async def _deliver_first(self, connection: OcppConnection) -> None:
        message = self._messages[0]
        try:
            message.read_response(await connection.call(message.action, message.request()))
        except CallError as exc:
            message.released.set()
            message.attempts += 1
            if message.attempts < self._settings.number("TransactionMessageAttempts"):
                pause = self._settings.number("TransactionMessageRetryInterval")
                await trio.sleep(pause * message.attempts)
                return
            log.info("message given up", action=message.action, why=str(exc))
            if message.action == "StartTransaction":
                message.transaction.id = NEVER_DELIVERED
        # Not popleft: `_thin_out` may have replaced the deque meanwhile, though never its head.
        self._messages.remove(message)
        message.released.set()
        self._notify()

    def _thin_out(self) -> None:
        head, *rest = self._messages
        kept = [m for n, m in enumerate(rest) if n % 2 or m.action != "MeterValues"]
        self._messages = deque([head, *kept])

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
