"""What is counted, in Prometheus' words: base units, few labels, never a service tag.

The table of metrics is this file. It is fed by trails (observe), by the guard before delegates, and by the app for
certificates.
The invariant: a label takes its values from a small fixed set, or is a delegate's registered name; all delegates
that stand for a domain share one.
Must not live here: the port they are read at (ops).
"""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from delegator.domains import PREFIX, domain_of
from delegator.trail import Step, Trail

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: from a hosted answer on a quiet machine to the moment a device gives up."""
BREAKER_STATES = ("closed", "half-open", "open")


class Metrics:
    """All metrics of one process, in a registry of their own."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.handshakes = Counter(
            "delegator_handshakes", "Handshakes by outcome: Answered, a fault, or TlsRefused.",
            ("outcome",), registry=self.registry)
        self._counters: dict[str, Counter] = {}
        self.duration = Histogram(
            "delegator_handshake_duration_seconds", "From the connection to the answer, callback included.",
            registry=self.registry, buckets=_BUCKETS)
        self.callback_duration = Histogram(
            "delegator_delegate_call_duration_seconds", "From the claim to the delegate's answer.",
            ("delegate",), registry=self.registry, buckets=_BUCKETS)
        self.breaker = Gauge(
            "delegator_delegate_breaker", "1 for the state a delegate's circuit breaker is in.",
            ("delegate", "state"), registry=self.registry)
        self.not_after = Gauge(
            "delegator_certificate_not_after_timestamp_seconds", "When a certificate or revocation list ends.",
            ("file",), registry=self.registry)

    def handshake(self, trail: Trail) -> None:
        """Count a finished trail."""
        outcome = trail.facts.get("outcome", "Unknown")
        counter = self._counters.get(outcome)
        if counter is None:
            counter = self._counters[outcome] = self.handshakes.labels(outcome)
        counter.inc()
        self.duration.observe(trail.milliseconds / 1000)
        at = {mark.step: mark.at for mark in trail.marks}
        if Step.CALLED_BACK in at and Step.CLAIMED in at:
            seconds = (at[Step.CALLED_BACK] - at[Step.CLAIMED]) / 1e9
            self.callback_duration.labels(_delegate(trail.facts["delegate"])).observe(seconds)

    def breaker_changed(self, delegate: str, state: str) -> None:
        for one in BREAKER_STATES:
            self.breaker.labels(_delegate(delegate), one).set(one == state)

    def ends(self, file: str, moment: datetime) -> None:
        self.not_after.labels(file).set(moment.timestamp())

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


def _delegate(name: str) -> str:
    """A delegate as a label: domains are without number, and strangers name them."""
    return name if domain_of(name) is None else PREFIX
