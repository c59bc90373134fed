"""Metrics of several processes as one (A10): sums that never go back, gauges by what they mean."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from delegator.watching import merging
from delegator.watching.merging import Family, Whole, counted, families, merged


def a_process(answered: int, seconds: list[float], resident: int = 10, ready: int = 1) -> list[Family]:
    registry = CollectorRegistry()
    Counter("delegator_handshakes", "Words.", ("outcome",), registry=registry).labels("Answered").inc(answered)
    Counter("delegator_reloads", "Words.", ("outcome",), registry=registry).labels("done").inc(3)
    histogram = Histogram("delegator_handshake_duration_seconds", "Words.", registry=registry, buckets=(0.1, 1.0))
    for each in seconds:
        histogram.observe(each)
    Gauge("process_resident_memory_bytes", "Words.", registry=registry).set(resident)
    Gauge("delegator_reload_successful", "Words.", registry=registry).set(ready)
    Gauge("delegator_certificate_not_after_timestamp_seconds", "Words.", ("file",), registry=registry).labels(
        "server").set(1000 + resident)
    return families(registry)


def samples(all_of: list[Family]) -> dict[str, float]:
    """As /metrics shows them."""
    registry, whole = CollectorRegistry(), Whole()
    whole.families = all_of
    registry.register(whole)
    lines = [line.rpartition(" ") for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def test_counters_and_histograms_are_added_up() -> None:
    whole = samples(merged([a_process(2, [0.05, 0.5]), a_process(5, [0.5, 5.0])]))
    assert whole['delegator_handshakes_total{outcome="Answered"}'] == 7
    assert whole['delegator_handshake_duration_seconds_bucket{le="0.1"}'] == 1
    assert whole['delegator_handshake_duration_seconds_bucket{le="1.0"}'] == 3
    assert whole['delegator_handshake_duration_seconds_bucket{le="+Inf"}'] == 4
    assert whole["delegator_handshake_duration_seconds_sum"] == 6.05


def test_a_gauge_is_what_it_means() -> None:
    whole = samples(merged([a_process(0, [], resident=10), a_process(0, [], resident=30, ready=0)]))
    assert whole["process_resident_memory_bytes"] == 40
    assert whole["delegator_reload_successful"] == 0, "as bad as the worst"
    assert whole['delegator_certificate_not_after_timestamp_seconds{file="server"}'] == 1010, "the first that ends"


def test_a_chore_that_one_worker_does_not_do_any_more_is_seen() -> None:
    from delegator.watching.metrics import Chores

    def worker(at: int, seconds: float, well: bool) -> list[Family]:
        chores = Chores(registry := CollectorRegistry())
        chores.done("revocations", datetime.fromtimestamp(at, UTC), seconds, well)
        return families(registry)
    whole = samples(merged([worker(2000, 0.5, False), worker(1000, 0.1, True)]))
    assert whole['delegator_chore_last_run_timestamp_seconds{chore="revocations"}'] == 1000, "longest ago"
    assert whole['delegator_chore_last_run_duration_seconds{chore="revocations"}'] == 0.5
    assert whole['delegator_chore_failures_total{chore="revocations"}'] == 1


def test_what_all_do_together_counts_once() -> None:
    assert samples(merged([a_process(0, []), a_process(0, [])]))['delegator_reloads_total{outcome="done"}'] == 3


def test_of_a_process_that_is_no_more_the_counts_stay() -> None:
    departed = merged([counted(a_process(5, [0.5])), counted(a_process(1, []))])
    whole = samples(merged([a_process(2, []), departed]))
    assert whole['delegator_handshakes_total{outcome="Answered"}'] == 8
    assert whole["delegator_handshake_duration_seconds_count"] == 1
    assert whole["process_resident_memory_bytes"] == 10


def test_every_gauge_of_ours_has_a_meaning_or_is_the_largest() -> None:
    """One that is exported and not in the table is thought about here."""
    from delegator.watching.metrics import Metrics

    gauges = {family.name for family in families(Metrics().registry) if family.type == "gauge"}
    assert gauges - set(merging._GAUGES) <= {"delegator_build", "delegator_build_info"}
