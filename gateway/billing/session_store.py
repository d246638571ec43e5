"""The sessions that the ledger keeps: the open ones, and the last closed one of each connector.

An older one that is asked for again is adopted from the journal, one at a time: so memory is
bounded by the number of connectors, and not by the number of sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from .session import Session

Connector: TypeAlias = "tuple[str, int]"
"""Charge point id and connector id."""


class SessionStore:
    """Sessions by transaction id and by connector."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._open: dict[Connector, int] = {}
        self._connectors: dict[str, set[int]] = {}  # that had an open transaction
        self._closed: dict[Connector, list[int]] = {}  # more than one only while restoring
        self._adopted: int | None = None  # the one older transaction that was adopted last

    def get(self, transaction_id: int) -> Session | None:
        return self._sessions.get(transaction_id)

    def of_charge_point(self, transaction_id: int | None, charge_point_id: str) -> Session | None:
        """The transaction with this id; None where it is another charge point's."""
        session = None if transaction_id is None else self._sessions.get(transaction_id)
        if session is None or session.opening.charge_point_id != charge_point_id:
            return None
        return session

    def open_sessions(self) -> Iterator[Session]:
        return (self._sessions[transaction_id] for transaction_id in self._open.values())

    def open_on(self, connector: Connector) -> Session | None:
        transaction_id = self._open.get(connector)
        return None if transaction_id is None else self._sessions[transaction_id]

    def open_at(self, charge_point_id: str) -> list[Session]:
        """The open sessions of a charge point."""
        connectors = self._connectors.get(charge_point_id, ())
        found = (self.open_on((charge_point_id, connector_id)) for connector_id in connectors)
        return [session for session in found if session is not None]

    def last_closed(self, connector: Connector) -> Session | None:
        closed = self._closed.get(connector)
        return self._sessions[closed[-1]] if closed else None

    def keep(self, session: Session) -> bool:
        """Put the newest version of a session in place of the one before.

        Returns whether it was open until now and is closed by this.
        """
        transaction_id, connector = session.opening.transaction_id, session.connector
        self._sessions[transaction_id] = session
        if not session.closed:
            self._open[connector] = transaction_id
            self._connectors.setdefault(connector[0], set()).add(connector[1])
            return False
        if self._open.get(connector) != transaction_id:
            return False
        del self._open[connector]
        self._closed.setdefault(connector, []).append(transaction_id)
        return True

    def replace(self, session: Session) -> None:
        """Keep the same session with more of it computed."""
        self._sessions[session.opening.transaction_id] = session

    def forget_older(self, connector: Connector) -> None:
        """Keep only the newest of a connector's closed sessions, and the adopted one."""
        closed = self._closed.get(connector, [])
        for transaction_id in closed[:-1]:
            if transaction_id != self._adopted:
                del self._sessions[transaction_id]
        del closed[:-1]

    def adopt(self, session: Session) -> None:
        """Keep a closed session that is not here, in place of the one adopted before."""
        transaction_id = session.opening.transaction_id
        if transaction_id not in self._sessions:
            self._forget_adopted()
            self._sessions[transaction_id] = session
            self._adopted = transaction_id

    def _forget_adopted(self) -> None:
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            session = self._sessions[adopted]
            if adopted != self._open.get(session.connector) and adopted not in self._closed.get(
                session.connector, ()
            ):
                del self._sessions[adopted]
