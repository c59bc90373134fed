"""Metrics of several processes as one: counters and histograms added up, gauges by what they mean. Pure.

What a process counted that is no more stays in the sums, so that no counter goes back.
The invariant: a sample of the whole has the same name and labels as its parts.
Must not live here: what is counted (metrics, vitals), asking the processes (serving.workers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """One metric of one process: its samples as (name, labels, value)."""

    name: str
    words: str
    type: str
    samples: Sequence[tuple[str, Sequence[Sequence[str]], float]]


_ADDED = ("counter", "histogram")
_GAUGES: dict[str, Callable[[Iterable[float]], float]] = {
    "delegator_connections": sum,
    "delegator_connections_limit": sum,
    "delegator_notifications_waiting": max,  # each reads the same table
    "delegator_delegate_breaker": max,  # 1 for a state that any of them sees
    "delegator_certificate_not_after_timestamp_seconds": min,
    "delegator_unready": max,
    "delegator_serving": min,
    "delegator_reload_successful": min,
    "delegator_reload_last_success_timestamp_seconds": min,
    "delegator_settings_waiting_for_restart": max,
    "delegator_chore_last_run_timestamp_seconds": min,  # one worker that does not look for revocations is enough
    "delegator_chore_last_run_duration_seconds": max,
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_open_fds": sum,
    "process_max_fds": min,
    "process_start_time_seconds": min,
}
"""What is not here is the largest of the values."""
_COUNTERS: dict[str, Callable[[Iterable[float]], float]] = {"delegator_reloads": max}
"""Every process does each reload."""


def families(registry: CollectorRegistry) -> list[Family]:
    """What a registry holds now."""
    return [Family(one.name, one.documentation, one.type,
                   [(sample.name, sorted(sample.labels.items()), sample.value) for sample in one.samples])
            for one in registry.collect()]


def counted(said: Iterable[Family]) -> list[Family]:
    """What stays of a process that is no more: what it counted."""
    return [one for one in said if one.type in _ADDED]


def merged(all_of: Iterable[Iterable[Family]]) -> list[Family]:
    """The whole."""
    first: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, Labels], list[float]]] = {}
    for said in all_of:
        for family in said:
            first.setdefault(family.name, family)
            samples = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                samples.setdefault((name, tuple((key, text) for key, text in labels)), []).append(value)
    return [Family(name, one.words, one.type, [
        (sample, labels, _way(one, sample)(found)) for (sample, labels), found in values[name].items()])
        for name, one in first.items()]


def _way(family: Family, sample: str) -> Callable[[Iterable[float]], float]:
    if sample.endswith("_created"):
        return min
    if family.type in _ADDED:
        return _COUNTERS.get(family.name, sum)
    return _GAUGES.get(family.name, max)


def as_families(said: Iterable[Sequence[Any]]) -> list[Family]:
    """Out of JSON, where a tuple is a list."""
    return [Family(*one) for one in said]


class Whole(Collector):
    """Shows the last `families` in a registry."""

    def __init__(self) -> None:
        self.families: Sequence[Family] = ()

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for one in self.families:
            metric = Metric(one.name, one.words, one.type)
            for name, labels, value in one.samples:
                metric.add_sample(name, {pair[0]: pair[1] for pair in labels}, value)
            yield metric
