"""How large a message may be, checked while it comes in, and how many large ones at a time.

A message larger than `max_message_bytes` ends its connection before it is whole.  A StopTransaction
is the exception and may have 4 MiB: its transactionData grows with the charging session, it cannot
be sent in parts, and a charge point repeats it until it gets a response, with its whole queue
behind it (OCPP 1.6 §4.10).  A message of OCPP-J names its action within its first bytes,
`[2,"id","StopTransaction",`, so the exception is known before the rest is received.

The memory of all connections together is bounded as well: from `max_message_bytes` on, a message
takes one of `MAX_LARGE` permits until it got its response.  A connection that waits for a permit is
not read meanwhile, so TCP holds the peer back.
"""

from __future__ import annotations

import re
from collections import deque
from functools import partial

import attrs
import trio

from ..offload import offload
from .messages import CallError, CallResult, Request, decode

STOP_TRANSACTION_BYTES = 4 * 2**20
MAX_LARGE = 16  # messages above the limit that are received, decoded or handled at a time
LONG_TO_READ = 32_768  # characters beyond which a message is decoded outside of the event loop
_HEAD = 512  # characters: a message id has at most 36, or six times as many where all are escaped
_ACTION = re.compile(r'\s*\[\s*2\s*,\s*(?:"(?:[^"\\]|\\.)*"|[^\s",]+)\s*,\s*"([A-Za-z]{1,60})"\s*,')


def action_of(head: str) -> str | None:
    """The action of a CALL, as far as its beginning tells."""
    found = _ACTION.match(head)
    return found[1] if found else None


async def decode_any(text: str, *, lenient: bool = True) -> Request | CallResult | CallError:
    """A message, however long it is.  Raises FrameError."""
    if len(text) <= LONG_TO_READ:
        return decode(text, lenient=lenient)
    message = await offload(partial(decode, text, lenient=lenient))
    return attrs.evolve(message, long=True) if isinstance(message, Request) else message


class Incoming:
    """One connection's messages, from the first byte of each to its response.

    max_message_bytes: bytes that any message may have.  large_messages: the permits, which all
        connections share.
    """

    def __init__(self, max_message_bytes: int, large_messages: trio.Semaphore) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_stop_bytes = max(max_message_bytes, STOP_TRANSACTION_BYTES)
        self._large_messages = large_messages
        self._held = 0
        self._size = 0
        self._head = ""
        self._large = self._has_permit = False  # the message under way
        self._whole: deque[bool] = (
            deque()
        )  # whether each message that is not taken yet has a permit
        self._taken = False

    def add(self, data: str | bytes | bytearray, *, finished: bool) -> str | None:
        """Count a piece of a message; returns why the message cannot be taken, None if it can."""
        if isinstance(data, str):
            self._size += len(data) if data.isascii() else len(data.encode())
            if len(self._head) < _HEAD:
                self._head += data[: _HEAD - len(self._head)]
        else:
            self._size += len(data)
        if self._size > self._max_message_bytes:
            action = action_of(self._head)
            stop = action == "StopTransaction"
            if not stop or self._size > self._max_stop_bytes:
                limit = self._max_stop_bytes if stop else self._max_message_bytes
                what = f" for a {action}" if action else ""
                return f"Exceeded maximum message size: {limit} bytes{what}"
            self._large = True
        if finished:
            self._whole.append(self._has_permit)
            self._size, self._head, self._large, self._has_permit = 0, "", False, False
        return None

    async def wait_for_room(self) -> None:
        """Wait until more of the message under way may be received: a large one needs a permit."""
        if self._large and not self._has_permit:
            await self._large_messages.acquire()
            self._held += 1
            self._has_permit = True

    def take(self) -> None:
        """The next whole message is taken, to be handled."""
        self._taken = self._whole.popleft() if self._whole else False

    def handled(self) -> None:
        """The message that was taken last got its response: it needs no memory any more."""
        if self._taken:
            self._taken = False
            self._release()

    def close(self) -> None:
        """The connection is read no more."""
        while self._held:
            self._release()

    def _release(self) -> None:
        if self._held:
            self._held -= 1
            self._large_messages.release()
