"""The handshake limiter: connections whose handshake is not finished yet.

Its law: an address has a bounded number of such connections.  One more ends the oldest that has
sent no request yet, since a charge point sends it at once.  So peers that send nothing, or one byte
at a time, cannot keep out others, not even from their own address: a whole fleet may come back from
behind one router, and its passwords take a while to be checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class HandshakeLimiter:
    """Owns: the cancel scope of each handshake that is under way, by address, oldest first.

    max_handshakes_per_address: handshakes that an address may have under way.  handshake_timeout_s:
    seconds for each of the two steps, the request and its response.
    """

    def __init__(self, max_handshakes_per_address: int, handshake_timeout_s: float) -> None:
        self._max_handshakes_per_address = max_handshakes_per_address
        self._handshake_timeout_s = handshake_timeout_s
        self._by_address: dict[str, dict[trio.CancelScope, None]] = {}
        self._silent: set[trio.CancelScope] = set()

    @contextmanager
    def handshake(self, address: str) -> Iterator[trio.CancelScope]:
        """The scope of one handshake: cancelled when it takes too long, or must make room."""
        here = self._by_address.setdefault(address, {})
        if len(here) >= self._max_handshakes_per_address:
            oldest = next((scope for scope in here if scope in self._silent), next(iter(here)))
            del here[oldest]
            oldest.cancel()
        with trio.move_on_after(self._handshake_timeout_s) as scope:
            here[scope] = None
            self._silent.add(scope)
            try:
                yield scope
            finally:
                self._silent.discard(scope)
                here.pop(scope, None)
                if not here and self._by_address.get(address) is here:
                    del self._by_address[address]

    def request_received(self, scope: trio.CancelScope) -> None:
        """The request has come; the response has a time limit of its own."""
        self._silent.discard(scope)
        scope.deadline = trio.current_time() + self._handshake_timeout_s

    def cancel_silent(self) -> None:
        """Cancel the handshakes that have no request yet."""
        for scope in self._silent:
            scope.cancel()
