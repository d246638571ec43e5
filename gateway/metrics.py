"""What every room tells of itself -> Prometheus text.  Pulled: there are no counters here."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .app import House

_PREFIX = "ocpp_gateway_"


@attrs.frozen(eq=False)
class _Collector(Collector):
    house: House

    def collect(self) -> Iterator[Metric]:
        journal = self.house.bus.journal.statistics()
        north, south = self.house.north, self.house.south
        yield _gauge("connected_charge_points", "Charge points whose WebSocket is open",
                     len(self.house.registry.sessions()))  # fmt: skip
        yield _gauge("known_charge_points", "Charge points ever seen",
                     len(list(self.house.bus.fleet.charge_points())))  # fmt: skip
        yield _gauge("open_transactions", "Transactions without a receipt",
                     len(self.house.ledger.open_transactions()))  # fmt: skip
        yield _counted("requests", "Requests answered", "action", south.requests)
        yield _counted("rejected_frames", "Frames that broke the protocol", "code", south.rejected)
        yield _counted("calls", "Calls sent to charge points", "action", south.calls)
        yield _counter(
            "bent_requests", "Requests that broke their schema but were read", south.bent
        )
        yield _counter(
            "throttled_frames",
            "Frames of charge points that sent too much and were made to wait",
            south.throttled,
        )
        yield _counter(
            "unfinished_handshakes",
            "Connections that ended before their handshake did",
            south.unfinished,
        )
        yield _counted(
            "tariff_reloads",
            "Times that the tariff file was read again",
            "outcome",
            attrs.asdict(self.house.reloads),
        )
        yield _counter("journal_entries", "Events made durable", journal.entries)
        yield _counter("journal_commits", "Commits that made them so", journal.commits)
        yield _counter("journal_commit_seconds", "Spent in commits", journal.commit_seconds)
        yield _gauge("journal_waiting", "Appends not durable yet", journal.waiting)
        yield _gauge("north_connected", "1 while there is an MQTT connection", int(north.connected))
        yield _counter("north_published", "PUBLISH packets acknowledged", north.published)
        yield _counter("north_refused", "PUBLISH packets refused", north.refused)
        yield _counter("north_set_aside", "Entries that ThingsBoard would not take", north.aside)
        yield _gauge("north_lag_entries", "Entries not told yet",
                     north.told.behind(journal.last_seq))  # fmt: skip


def render(house: House) -> bytes:
    """The text that a Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(house))
    return generate_latest(registry)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, what, value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, what, value)


def _counted(name: str, what: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, what, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
