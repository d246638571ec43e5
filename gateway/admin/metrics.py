"""/metrics: the statistics of every part of the gateway as Prometheus text.

They are read at each scrape: there are no counters here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .. import __version__
from ..app import RunningGateway
from ..domain.histogram import Histogram

_NAMESPACE = "ocpp_gateway"
_PREFIX = _NAMESPACE + "_"


@attrs.frozen(eq=False)
class _Collector(Collector):
    running: RunningGateway

    def collect(self) -> Iterator[Metric]:
        yield _labelled_gauge("build_info", "1, with the version", {"version": __version__})
        yield from self._charge_points()
        yield from self._messages()
        yield from self._accounting()
        yield from self._journal()
        yield from self._delivery()

    def _charge_points(self) -> Iterator[Metric]:
        running = self.running
        yield _gauge("connected_charge_points", "Charge points whose WebSocket is open",
                     len(running.registry.connections()))  # fmt: skip
        yield _gauge("known_charge_points", "Charge points ever seen",
                     len(list(running.bus.fleet.charge_points())))  # fmt: skip
        yield _gauge("traced_charge_points", "Charge points traced for ThingsBoard",
                     running.frame_tap.count_traces())  # fmt: skip
        yield _counted("handshakes_refused", "Connections that were not let in",
                       ("reason",), _one_label(running.connections.refused_handshakes))  # fmt: skip
        yield _counter(
            "unfinished_handshakes",
            "Connections that ended before their handshake did",
            running.connections.unfinished_handshakes,
        )

    def _messages(self) -> Iterator[Metric]:
        south = self.running.connections
        how = ("action", "outcome")
        yield _counted("requests", "Requests of charge points", how, south.requests)
        yield _histogram("request_seconds", "From a request's arrival to its answer",
                         south.request_seconds)  # fmt: skip
        yield _counted("calls", "Calls to charge points", how, south.calls)
        yield _histogram("call_seconds", "From a call to the charge point's answer",
                         south.call_seconds)  # fmt: skip
        yield _counted("rejected_frames", "Frames that broke the protocol",
                       ("code",), _one_label(south.rejected_frames))  # fmt: skip
        yield _counter("bent_requests", "Requests and answers that broke a schema but were read",
                       south.deviating_requests)  # fmt: skip
        yield _counter(
            "throttled_frames",
            "Frames of charge points that sent too much and were made to wait",
            south.throttled_frames,
        )

    def _accounting(self) -> Iterator[Metric]:
        counts = self.running.accounting
        yield _gauge("open_transactions", "Transactions without a receipt",
                     len(self.running.ledger.open_transactions()))  # fmt: skip
        yield _counted(
            "receipts", "Receipts and corrections written", ("needs_review",),
            {("true",): counts.needs_review, ("false",): counts.receipts - counts.needs_review},
        )  # fmt: skip
        yield _counter("orphan_messages", "Messages that belong to no transaction", counts.orphans)
        yield _counter("events_not_accounted", "Events that a bug kept out of the ledger",
                       counts.not_accounted)  # fmt: skip
        yield _counted("tariff_reloads", "Times that the tariff file was read again",
                       ("outcome",), _one_label(attrs.asdict(self.running.reloads)))  # fmt: skip

    def _journal(self) -> Iterator[Metric]:
        journal = self.running.bus.journal.statistics()
        yield _gauge("journal_failed", "1 once nothing can be written any more",
                     int(journal.failure is not None))  # fmt: skip
        yield _counter("journal_entries", "Events made durable", journal.entries)
        yield _counter("journal_commits", "Commits that made them so", journal.commits)
        yield _histogram("journal_commit_entries", "Events in a commit", journal.commit_entries)
        yield _histogram("journal_commit_seconds", "Time of a commit", journal.commit_seconds)
        yield _gauge("journal_commit_under_way_seconds", "What the commit under way has taken",
                     journal.writing_s)  # fmt: skip
        yield _gauge("journal_waiting", "Appends not durable yet", journal.waiting)

    def _delivery(self) -> Iterator[Metric]:
        delivery = self.running.delivery
        entries, seconds = self.running.lag()
        yield _gauge(
            "north_connected", "1 while there is an MQTT connection", int(delivery.connected)
        )
        yield _counted(
            "north_publishes", "PUBLISH packets with telemetry and attributes", ("result",),
            {("delivered",): delivery.published - delivery.refused, ("refused",): delivery.refused},
        )  # fmt: skip
        yield _counter(
            "north_set_aside", "Entries that ThingsBoard would not take", delivery.dead_letters
        )
        yield _gauge("north_lag_entries", "Entries not acknowledged yet", entries)
        yield _gauge("north_lag_seconds", "Since the oldest of them came", seconds)


def render(running: RunningGateway) -> bytes:
    """The text that a Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(running))
    ProcessCollector(namespace=_NAMESPACE, registry=registry)  # memory, CPU, files: from /proc
    return generate_latest(registry)


def _one_label(values: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(word,): value for word, value in values.items()}


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, what, value)


def _labelled_gauge(name: str, what: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, what, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, what, value)


def _counted(
    name: str, what: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, what, labels=labels)
    for words, value in values.items():
        family.add_metric(words, value)
    return family


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(
        _PREFIX + name, what, buckets=histogram.cumulative(), sum_value=histogram.total
    )
