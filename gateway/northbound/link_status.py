"""The state of the connection to ThingsBoard, logged once per problem and not with every attempt.

Laws:
1. A reason is logged when it differs from the one before, or when a link has held in between.
2. After a problem, a link counts as up once it has held for a while: two gateways that throw each
   other out, or a device that is no gateway, get a connection at every attempt and lose it again.
3. `why` stands as long as the problem does, so that a probe may ask for it at any time.
"""

from __future__ import annotations

import structlog

from .statistics import DeliveryStatistics

log = structlog.get_logger(__name__)


class LinkStatus:
    """Owns: `connected` and `why` of the statistics."""

    def __init__(self, statistics: DeliveryStatistics) -> None:
        self._statistics = statistics
        self._logged_problem = ""  # the problem that was logged, until a connection has held

    def link_up(self) -> None:
        self._statistics.connected = True
        if self._logged_problem:
            log.debug("link up", after=self._logged_problem)
        else:
            self._log_up()

    def link_holds(self) -> None:
        """It has lasted longer than one that comes to nothing."""
        if self._logged_problem:
            self._log_up()

    def link_down(self, why: str) -> None:
        """why: in an operator's words, and what is to be done where there is anything."""
        self._statistics.connected, self._statistics.why = False, why
        if why == self._logged_problem:
            log.debug("link lost again", why=why)
        else:
            log.warning("link lost", why=why)
            self._logged_problem = why

    def link_ended(self) -> None:
        """By our own will."""
        self._statistics.connected, self._statistics.why = False, "the gateway stops"

    def _log_up(self) -> None:
        log.info("link up")
        self._logged_problem = self._statistics.why = ""
