"""What must reach the central system about transactions, in order, however long it is away.

OCPP 1.6 §3.7: StartTransaction, StopTransaction and the MeterValues of a transaction are kept
and delivered in the order in which they arose.  One that was not answered is repeated, with the
same content and a new message id.  After a CALLERROR it is tried TransactionMessageAttempts times.
"""

from __future__ import annotations

from collections import deque

import attrs
import structlog
import trio

from .configuration_keys import ConfigurationKeys
from .ocpp_connection import CallRefused, OcppConnection, Payload

log = structlog.get_logger()

_ROOM = 1_000  # messages; beyond that intermediate MeterValues are thinned out, as §3.7 permits
NEVER_DELIVERED = -1  # the id of a transaction whose start was given up (errata 3.18)


@attrs.define(eq=False, kw_only=True)
class Transaction:
    """A transaction as its messages need it.

    id: None until the central system gave one.
    refusal: the idTagInfo status that it came with, None for Accepted.
    """

    connector_id: int
    id_tag: str
    id: int | None = None
    refusal: str | None = None


@attrs.define(eq=False)
class Message:
    """released: set once it was answered, or cannot be for now: nobody need wait for it."""

    action: str
    payload: Payload
    transaction: Transaction
    refusals: int = 0
    released: trio.Event = attrs.field(factory=trio.Event)

    def content(self) -> Payload:
        """The payload; the transaction's id is known by the time it is the message's turn."""
        if self.action == "StartTransaction":
            return self.payload
        tx_id = self.transaction.id
        return self.payload | {"transactionId": NEVER_DELIVERED if tx_id is None else tx_id}

    def take_answer(self, answer: Payload) -> None:
        """Raises CallRefused when a start was answered without an id."""
        if self.action != "StartTransaction":
            return
        tx_id, info = answer.get("transactionId"), answer.get("idTagInfo")
        if not isinstance(tx_id, int) or isinstance(tx_id, bool):
            raise CallRefused("StartTransaction: no transactionId in the answer")
        status = info.get("status") if isinstance(info, dict) else None
        self.transaction.id = tx_id
        self.transaction.refusal = None if status == "Accepted" else str(status)


class TransactionQueue:
    """Owns: the messages that wait, and nothing of the connection."""

    def __init__(self, settings: ConfigurationKeys) -> None:
        self._settings = settings
        self._messages: deque[Message] = deque()
        self._changed = trio.Event()
        self._online = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, action: str, payload: Payload, transaction: Transaction) -> Message:
        message = Message(action, payload, transaction)
        if len(self._messages) >= _ROOM:
            self._thin_out()
        self._messages.append(message)
        if not self._online:
            message.released.set()
        self._notify()
        return message

    async def deliver(self, line: OcppConnection) -> None:
        """Deliver over this line while it lasts; ends by raising ConnectionGone."""
        self._online = True
        try:
            while True:
                while not self._messages:
                    await self._changed.wait()
                await self._deliver_first(line)
        finally:
            self._online = False
            for message in self._messages:
                message.released.set()

    async def wait_empty(self) -> None:
        while self._messages:
            await self._changed.wait()

    async def _deliver_first(self, line: OcppConnection) -> None:
        message = self._messages[0]
        try:
            message.take_answer(await line.call(message.action, message.content()))
        except CallRefused as exc:
            message.released.set()
            message.refusals += 1
            if message.refusals < self._settings.number("TransactionMessageAttempts"):
                pause = self._settings.number("TransactionMessageRetryInterval")
                await trio.sleep(pause * message.refusals)
                return
            log.info("message given up", action=message.action, why=str(exc))
            if message.action == "StartTransaction":
                message.transaction.id = NEVER_DELIVERED
        # not popleft: the deque may have been thinned out meanwhile, but its head never is
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
