"""How large a message may be, found out while it comes in, and what the large ones may cost.

Whatever is larger than `max_message_bytes` ends its connection before it is whole, but for a
StopTransaction: its transactionData grows with the session, it cannot be sent in parts, and a
charge point repeats it until it is answered, with its whole queue behind it (OCPP 1.6 §4.10).
That one is taken up to 4 MiB.  A message of OCPP-J says what it is within its first bytes,
`[2,"id","StopTransaction",`, so nobody is trusted with more than they are looked at for.

The memory of all connections together is bounded as well: above the limit, a message needs one of
a few places until it is answered.  Who waits for one is not read meanwhile, so TCP holds it back.
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
MAX_LARGE = 16  # messages above the limit that are received, decoded or answered at a time
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
    """One connection's messages, from the first byte to the answer of each.

    max_message_bytes: bytes that any message may have.  places: shared by all connections.
    """

    def __init__(self, max_message_bytes: int, places: trio.Semaphore) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_stop_bytes = max(max_message_bytes, STOP_TRANSACTION_BYTES)
        self._places = places
        self._held = 0
        self._size = 0
        self._head = ""
        self._large = self._placed = False  # the message under way
        self._whole: deque[bool] = deque()  # whether each that nobody has taken yet has a place
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
            self._whole.append(self._placed)
            self._size, self._head, self._large, self._placed = 0, "", False, False
        return None

    async def wait_for_room(self) -> None:
        """Wait until more of the message under way may be received."""
        if self._large and not self._placed:
            await self._places.acquire()
            self._held += 1
            self._placed = True

    def take(self) -> None:
        """The next whole message is taken, to be answered."""
        self._taken = self._whole.popleft() if self._whole else False

    def answered(self) -> None:
        """What was taken last needs no memory any more."""
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
            self._places.release()
