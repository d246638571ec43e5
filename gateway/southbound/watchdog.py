"""The watchdog: it finds connections that are silent, and peers that do not read what is sent.

Once a second it looks at each connection.  The first row that holds decides:

| what it sees                                                        | what it does            |
|---------------------------------------------------------------------|-------------------------|
| a send has been under way for more than `SEND_TIMEOUT`              | ABORT: no close frame   |
| no frame came for `silence_s` seconds                               | GONE: close             |
| the last ping is older than `PONG_TIMEOUT`, and no frame came since | GONE: close             |
| neither frame nor ping for `ping_interval_s` seconds                | PING                    |

Any whole frame is a sign of life, not the pong alone.  One task looks at all connections: a
deadline for every send and every pong would cost more than the sending.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from .connection import NORMAL, ChargePointConnection

SEND_TIMEOUT = 10.0  # seconds until a peer that does not read is given up
PONG_TIMEOUT = 60.0  # seconds without a frame after a ping
_PERIOD = 1.0  # seconds between two looks


class Need(enum.Enum):
    """What a connection needs."""

    PING = "a sign of life: ask for one"
    GONE = "its end: the charge point gives no sign of life"
    ABORT = "its end without a close frame, which the peer would not read either"


def check(
    now: float,
    *,
    last_frame_at: float,
    pinged_at: float,
    sending_since: float | None,
    silence_s: float,
    ping_interval_s: float,
) -> Need | None:
    """What a connection needs now; None for nothing.

    All times are Trio's.  last_frame_at: the end of the peer's newest whole frame.  pinged_at: our
    newest ping, -inf before the first.  sending_since: since when a send has been under way; None
    where none is.  silence_s, ping_interval_s: seconds, see the table above.
    """
    if sending_since is not None and now - sending_since > SEND_TIMEOUT:
        return Need.ABORT
    pong_is_due = pinged_at > last_frame_at
    if now - last_frame_at > silence_s or (pong_is_due and now - pinged_at > PONG_TIMEOUT):
        return Need.GONE
    if not pong_is_due and now - max(pinged_at, last_frame_at) >= ping_interval_s:
        return Need.PING
    return None


class Watchdog:
    """Owns: the connections that it watches, those that were replaced among them."""

    def __init__(self, *, silence_s: float, ping_interval_s: float) -> None:
        self._silence_s = silence_s
        self._ping_interval_s = ping_interval_s
        self._connections: set[ChargePointConnection] = set()

    @contextmanager
    def watching(self, connection: ChargePointConnection) -> Iterator[None]:
        """Watch a connection while the block runs."""
        self._connections.add(connection)
        try:
            yield
        finally:
            self._connections.discard(connection)

    async def run(self) -> None:
        """Look at every connection once a second, until cancelled."""
        while True:
            await trio.sleep(_PERIOD)
            now = trio.current_time()
            for connection in list(self._connections):
                need = check(
                    now,
                    last_frame_at=connection.last_frame_at,
                    pinged_at=connection.pinged_at,
                    sending_since=connection.sending_since,
                    silence_s=self._silence_s,
                    ping_interval_s=self._ping_interval_s,
                )
                match need:  # in tasks of the connection: neither may hold up the watchdog
                    case Need.PING:
                        connection.tasks.start_soon(connection.ping)
                    case Need.GONE:
                        connection.end(NORMAL, "no sign of life")
                    case Need.ABORT:
                        connection.tasks.start_soon(connection.abort)
