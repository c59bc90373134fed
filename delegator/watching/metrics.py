"""What is counted, in Prometheus' words: base units, few labels, never a service tag.

The table of metrics is this file. It is fed by trails, by the guard before delegates, and by the app for
certificates.
The invariant: a label takes its values from a small fixed set, or is a delegate's registered name; all delegates
that stand for a domain share one.
Must not live here: the port they are read at (ops).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from delegator import __version__
from delegator.domains import PREFIX, domain_of
from delegator.trail import Step, Trail
from delegator.watching.vitals import Vitals

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: from a hosted answer on a quiet machine to the moment a device gives up."""
_FIRST = Step.CLAIMED.order
"""Of the steps that are counted, the one that comes first."""
BREAKER_STATES = ("closed", "half-open", "open")


class Metrics:
    """All metrics of one process, in a registry of their own."""

    content_type: ClassVar[str] = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.first: Callable[[], None] = lambda: None
        """Called before anything is read: what has just finished is counted by then."""
        self.registry.register(_First(self))
        self._handshakes = _Counts(Counter(
            "delegator_handshakes", "Handshakes by outcome: Answered, a fault, or TlsRefused.",
            ("outcome",), registry=self.registry))
        self.duration = Histogram(
            "delegator_handshake_duration_seconds", "From the connection to the answer, callback included.",
            registry=self.registry, buckets=_BUCKETS)
        self._callbacks = _ByLabel(Histogram(
            "delegator_delegate_call_duration_seconds", "From the claim to the delegate's answer.",
            ("delegate",), registry=self.registry, buckets=_BUCKETS))
        self.breaker = Gauge(
            "delegator_delegate_breaker", "1 for the state a delegate's circuit breaker is in.",
            ("delegate", "state"), registry=self.registry)
        self._failures = _Counts(Counter(
            "delegator_delegate_failures", "Devices that asked and to which this delegate gave no credential.",
            ("delegate",), registry=self.registry))
        self.not_after = Gauge(
            "delegator_certificate_not_after_timestamp_seconds", "When a certificate or revocation list ends.",
            ("file",), registry=self.registry)
        self._claims = _Counts(Counter("delegator_claims", "Requests that came as far as a claim, by its outcome.",
                                        ("outcome",), registry=self.registry))
        self._refused = _Counts(Counter("delegator_tls_refused", "Connections that TLS refused, by reason.",
                                         ("reason",), registry=self.registry))
        self._second_claimants = _Counts(Counter(
            "delegator_second_claimants", "Requests for a tag that another holds, by the identity that was shown.",
            ("identity",), registry=self.registry))
        self._reloads = _Reloads(self.registry)
        self.chores = Chores(self.registry)
        self.vitals = Vitals(self.registry)
        ProcessCollector(registry=self.registry)
        Info("delegator_build", "What is running.", registry=self.registry).info(
            {"version": __version__, "python": platform.python_version(), "openssl": openssl_version()})

    def handshake(self, trail: Trail) -> None:
        """Count a finished trail."""
        facts = trail.facts
        self._handshakes.add(facts.get("outcome", "Unknown"))
        self.duration.observe(trail.milliseconds / 1000)
        claimed = None
        for mark in trail.marks:
            step = mark.step
            if step.order < _FIRST:
                continue
            if step is Step.CLAIMED:
                claimed = mark
                self._claims.add(mark.note)
            elif step is Step.PASSED_OVER:  # the next call begins now
                claimed = mark
            elif step is Step.CALLED_BACK and claimed is not None:
                seconds = (mark.at - claimed.at) / 1e9
                self._callbacks.of(_delegate(facts["delegate"])).observe(seconds)
        for delegate in trail.unanswered:
            self._failures.add(_delegate(delegate))
        if "refusal" in facts:
            self._refused.add(facts["refusal"])

    def second_claimant(self, identity: str) -> None:
        """Somebody asked, with an own or a shared certificate, for a tag that another holds."""
        self._second_claimants.add(identity)

    def breaker_changed(self, delegate: str, state: str) -> None:
        for one in BREAKER_STATES:
            self.breaker.labels(_delegate(delegate), one).set(one == state)

    def ends(self, ends: Mapping[str, datetime]) -> None:
        """When each file ends; one that is not named any more is not shown any more."""
        self.not_after.clear()
        for file, moment in ends.items():
            self.not_after.labels(file).set(moment.timestamp())

    def reloaded(self, at: datetime, waiting: int = 0) -> None:
        """Settings and files were read, `waiting` settings want a new start."""
        self._reloads.done(at, waiting)

    def reload_refused(self) -> None:
        self._reloads.refused()

    def settle(self) -> None:
        """All that is counted so far is shown by whatever is read next."""
        self.first()
        for counts in (self._handshakes, self._failures, self._claims, self._refused, self._second_claimants):
            counts.settle()

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


class _First(Collector):
    """Shows nothing; the registry asks it before all others, whoever reads it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        self._metrics.settle()
        return ()


class _Counts:
    """A counter with one label that is counted in a dictionary, by the loop's thread, until somebody reads: the
    library's own way, with a lock each, costs ten times as much (measured)."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._new: dict[str, int] = {}

    def add(self, label: str) -> None:
        self._new[label] = self._new.get(label, 0) + 1

    def settle(self) -> None:
        """Tell the counter."""
        new, self._new = self._new, {}
        for label, many in new.items():
            self._counter.labels(label).inc(many)


class _ByLabel:
    """A histogram with one label whose children are kept: a third of the cost of looking each up (measured)."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._children: dict[str, Histogram] = {}

    def of(self, label: str) -> Histogram:
        """The child with this label."""
        child = self._children.get(label)
        if child is None:
            child = self._children[label] = self._histogram.labels(label)
        return child


class _Reloads:
    """Whether the last reading of settings and files went well, and when one last did."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter("delegator_reloads", "Reloads of settings and files, by outcome.", ("outcome",),
                              registry=registry)
        self._good = Gauge("delegator_reload_successful", "1 if the last reload, or the start, went well.",
                           registry=registry)
        self._at = Gauge("delegator_reload_last_success_timestamp_seconds", "When settings and files last took "
                         "effect.", registry=registry)
        self._waiting = Gauge("delegator_settings_waiting_for_restart", "Changed settings that want a new start.",
                              registry=registry)
        for outcome in ("done", "refused"):
            self._count.labels(outcome)

    def done(self, at: datetime, waiting: int) -> None:
        if self._at._value.get():
            self._count.labels("done").inc()
        self._good.set(1)
        self._at.set(at.timestamp())
        self._waiting.set(waiting)

    def refused(self) -> None:
        self._count.labels("refused").inc()
        self._good.set(0)


class Chores:
    """Whether what the clock drives is being done. A chore is shown from when its rota begins: of several workers only
    the one that keeps house shows what is done once for all, and one that hangs the first time is missed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._at = Gauge("delegator_chore_last_run_timestamp_seconds",
                         "When a chore was last done, well or not; before that, when it was first to be done.",
                         ("chore",), registry=registry)
        self._took = Gauge("delegator_chore_last_run_duration_seconds", "How long that took.", ("chore",),
                           registry=registry)
        self._failed = Counter("delegator_chore_failures", "Times that a chore could not be done.", ("chore",),
                               registry=registry)

    def begun(self, name: str, at: datetime) -> None:
        self._at.labels(name).set(at.timestamp())

    def done(self, name: str, at: datetime, seconds: float, well: bool) -> None:
        self._at.labels(name).set(at.timestamp())
        self._took.labels(name).set(seconds)
        self._failed.labels(name).inc(0 if well else 1)


def openssl_version() -> str:
    """Of the library that devices are served with, which is not Python's own."""
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text()


def _delegate(name: str) -> str:
    """A delegate as a label: domains are without number, and strangers name them."""
    return name if domain_of(name) is None else PREFIX
