"""The registry of connections: at most one per charge point, the newest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from .connection import ChargePointConnection
from .errors import ChargePointGone

REPLACED = 1008
_MAX_REPLACEMENTS, _WITHIN = 5, 30.0  # seconds


class Registry:
    """Owns the map charge point id -> connection, and nothing else does."""

    def __init__(self) -> None:
        self._connections: dict[str, ChargePointConnection] = {}
        self._replaced: dict[str, deque[float]] = {}

    def connection(self, charge_point_id: str) -> ChargePointConnection:
        """Raises ChargePointGone."""
        try:
            return self._connections[charge_point_id]
        except KeyError:
            raise ChargePointGone(f"{charge_point_id} is not connected") from None

    def connections(self) -> list[ChargePointConnection]:
        return list(self._connections.values())

    def is_current(self, connection: ChargePointConnection) -> bool:
        """Whether no newer connection has replaced it."""
        return self._connections.get(connection.charge_point_id) is connection

    def retry_after_s(self, charge_point_id: str) -> float:
        """Seconds until a new connection may replace the charge point's present one; 0: at once.

        Two devices with one id that both reconnect when they are replaced would replace each other
        for ever: after five replacements in 30 s, the present connection stays.  A charge point
        that closed its connection, or lost it, and comes back replaces none, also while the last
        request of its old connection is still being handled.
        """
        times = self._replaced.get(charge_point_id)
        holder = self._connections.get(charge_point_id)
        if times is None or holder is None or not holder.is_open:
            return 0.0
        now = trio.current_time()
        while times and now - times[0] >= _WITHIN:
            times.popleft()
        if len(times) < _MAX_REPLACEMENTS:
            return 0.0
        return times[0] + _WITHIN - now

    @contextmanager
    def registered(self, connection: ChargePointConnection) -> Iterator[None]:
        """Register a connection while the block runs, from now on and without waiting.

        An earlier connection of the same charge point is ended: one that reconnects has
        given its old connection up.  What the earlier connection does later cannot affect this one.
        """
        name = connection.charge_point_id
        earlier = self._connections.get(name)
        self._connections[name] = connection
        if earlier is not None:
            if earlier.is_open:
                self._replaced.setdefault(name, deque(maxlen=_MAX_REPLACEMENTS)).append(
                    trio.current_time()
                )
            earlier.end(REPLACED, "replaced by a newer connection")
        try:
            yield
        finally:
            if self.is_current(connection):
                del self._connections[name]
                times = self._replaced.get(name)
                if times and trio.current_time() - times[-1] >= _WITHIN:
                    del self._replaced[name]
