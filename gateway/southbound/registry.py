"""Who is connected.  At most one session per charge point: the newest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from .connection import ChargePointSession
from .errors import ChargePointGone

REPLACED = 1008
_MOST_REPLACEMENTS, _WITHIN = 5, 30.0  # seconds


class Registry:
    """Owns the map charge point id -> session, and nothing else does."""

    def __init__(self) -> None:
        self._seats: dict[str, ChargePointSession] = {}
        self._replaced: dict[str, deque[float]] = {}

    def session(self, charge_point_id: str) -> ChargePointSession:
        """Raises ChargePointGone."""
        try:
            return self._seats[charge_point_id]
        except KeyError:
            raise ChargePointGone(f"{charge_point_id} is not connected") from None

    def sessions(self) -> list[ChargePointSession]:
        return list(self._seats.values())

    def is_seated(self, session: ChargePointSession) -> bool:
        """Whether nobody has taken the session's place."""
        return self._seats.get(session.charge_point_id) is session

    def calm_in(self, charge_point_id: str) -> float:
        """Seconds until one more connection of a connected charge point is welcome; 0 for now.

        Two devices with one identity that both reconnect when they are replaced would take
        the place from each other for ever: after five times in 30 s, who holds it keeps it.
        A charge point that closed its connection, or lost it, and comes back replaces nobody,
        also while the last request of its old connection is still being answered.
        """
        times = self._replaced.get(charge_point_id)
        holder = self._seats.get(charge_point_id)
        if times is None or holder is None or not holder.is_open:
            return 0.0
        now = trio.current_time()
        while times and now - times[0] >= _WITHIN:
            times.popleft()
        if len(times) < _MOST_REPLACEMENTS:
            return 0.0
        return times[0] + _WITHIN - now

    @contextmanager
    def seated(self, session: ChargePointSession) -> Iterator[None]:
        """The session's place while the block runs, from now on and without waiting.

        An earlier session of the same charge point is told to leave: one that reconnects has
        given its old connection up.  What the earlier one does later cannot touch this one.
        """
        name = session.charge_point_id
        earlier = self._seats.get(name)
        self._seats[name] = session
        if earlier is not None:
            if earlier.is_open:
                self._replaced.setdefault(name, deque(maxlen=_MOST_REPLACEMENTS)).append(
                    trio.current_time()
                )
            earlier.leave(REPLACED, "replaced by a newer connection")
        try:
            yield
        finally:
            if self.is_seated(session):
                del self._seats[name]
                times = self._replaced.get(name)
                if times and trio.current_time() - times[-1] >= _WITHIN:
                    del self._replaced[name]
