"""What is read when somebody scrapes, and costs a handshake nothing: connections, commits, notifications, readiness.

A reading is taken by `watching` (that may wait for the store) and shown by a collector (that may not).
The invariant: a label takes its values from a small fixed set.
Must not live here: what is counted as it happens (metrics), the port (ops).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at everything. `told` counts notifications by (kind, outcome), `unready` says what is wrong by part,
    0 or 1; `serving` is 0 when devices are told so, see serving."""

    connections: Mapping[str, int] = field(default_factory=dict)
    most_connections: int = 0
    turned_away: int = 0
    commits: int = 0
    transactions: int = 0
    failed_commits: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)
    told: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unready: Mapping[str, int] = field(default_factory=dict)
    serving: int = 1


class Vitals(Collector):
    """Shows the last reading in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reading = Reading()
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        read = self.reading
        yield _gauges("delegator_connections", "Open connections by phase.", "phase", read.connections)
        yield GaugeMetricFamily("delegator_connections_limit", "Connections at most, [limits] connections.",
                                value=read.most_connections)
        yield _counter("delegator_connections_turned_away", "Connections closed at once: there were too many.",
                       read.turned_away)
        yield _counter("delegator_store_commits", "Commits that reached the disk.", read.commits)
        yield _counter("delegator_store_transactions", "Transactions in them: the group size is their ratio.",
                       read.transactions)
        yield _counter("delegator_store_failed_commits", "Commits that failed; nothing of them remains.",
                       read.failed_commits)
        yield _gauges("delegator_notifications_waiting", "Notifications still to be sent, counted up to 10,000.",
                      "kind", read.waiting)
        told = CounterMetricFamily("delegator_notifications", "Tries to tell somebody, by how they ended.",
                                   labels=("kind", "outcome"))
        for labels, count in read.told.items():
            told.add_metric(labels, count)
        yield told
        yield _gauges("delegator_unready", "1 for what keeps devices from being served, see /readyz.", "part",
                      read.unready)
        yield GaugeMetricFamily("delegator_serving", "0 while most devices of the last minute were not served.",
                                value=read.serving)


def _counter(name: str, words: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(name, words, value=value)


def _gauges(name: str, words: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=(label,))
    for one, value in values.items():
        family.add_metric((one,), value)
    return family
