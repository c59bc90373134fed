"""From rounds to numbers, and from numbers to words. Pure.

The invariant: a number is never shown without its spread and the count behind it; a ratio is taken within a pair of
rounds that ran one after the other, never between medians of the whole run.
Must not live here: processes, sockets, files.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

TARGET = 1.0
"""The goal for the delegator's CPU per handshake as a multiple of what nginx without tickets takes."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one server. Times in seconds; `waited` is the longest any thread was ready and had no core,
    `commits` counts where the server keeps something."""

    latencies: list[float]
    wall: float
    cpu: float
    client_cpu: float
    waited: float = 0.0
    commits: int | None = None

    @property
    def handshakes(self) -> int:
        return len(self.latencies)

    @property
    def kept(self) -> float:
        """Seconds without its core. A thread also waits for another of the same server, while that is busy."""
        return min(self.waited, max(0.0, self.wall - self.cpu))


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the middle and the most of a number over rounds."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        return cls(min(numbers), statistics.median(numbers), max(numbers))

    def text(self, form: str = ".0f") -> str:
        return f"{self.median:{form}} ({self.min:{form}} to {self.max:{form}})"


@dataclass(frozen=True, slots=True)
class Figures:
    """What is told of one server. `busy` is its CPU over wall time and `kept_waiting` the share of time in which it
    was ready and something else had its core; together below 0.9, the client was the limit and not the server."""

    cpu_us: Spread
    per_second: Spread
    busy: Spread
    kept_waiting: Spread
    client_cpu_us: Spread
    p50_ms: float
    p99_ms: float
    resident_kib: tuple[int, int]
    handshakes_per_commit: Spread | None


def figures(rounds: Sequence[Round], resident: tuple[int, int]) -> Figures:
    """All rounds of one server as numbers; latencies are pooled."""
    latencies = sorted(1e3 * one for each in rounds for one in each.latencies)
    grouped = [each.handshakes / each.commits for each in rounds if each.commits]
    return Figures(
        Spread.of([1e6 * each.cpu / each.handshakes for each in rounds]),
        Spread.of([each.handshakes / each.wall for each in rounds]),
        Spread.of([each.cpu / each.wall for each in rounds]),
        Spread.of([each.kept / each.wall for each in rounds]),
        Spread.of([1e6 * each.client_cpu / each.handshakes for each in rounds]),
        latencies[len(latencies) // 2], latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)],
        resident, Spread.of(grouped) if grouped else None)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One server's CPU per handshake over another's, round by round. In `steadied` each is first divided by the
    client's CPU in the same round: a slow moment of the machine strikes both and cancels out."""

    plain: Spread
    steadied: Spread


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> Ratio:
    """Round i against round i."""
    pairs = list(zip(ours, theirs, strict=True))
    return Ratio(Spread.of([us.cpu / them.cpu for us, them in pairs]),
                 Spread.of([us.cpu / us.client_cpu * them.client_cpu / them.cpu for us, them in pairs]))


@dataclass(frozen=True, slots=True)
class Level:
    """All servers with so many handshakes in flight; `ratios` are each one's to the reference."""

    in_flight: int
    figures: dict[str, Figures]
    ratios: dict[str, Ratio]
    remarks: list[str]

    def lines(self) -> list[str]:
        return [f"{self.in_flight} in flight", *_table([_HEAD, *(self._row(name) for name in self.figures)]),
                *self.remarks, ""]

    def _row(self, name: str) -> tuple[str, ...]:
        numbers, ratio = self.figures[name], self.ratios.get(name)
        grouped = numbers.handshakes_per_commit
        return (name, numbers.cpu_us.text(), "" if ratio is None else ratio.plain.text(".2f"),
                "" if ratio is None else f"{ratio.steadied.median:.2f}", numbers.per_second.text(),
                f"{numbers.p50_ms:.0f} / {numbers.p99_ms:.0f}", "" if grouped is None else f"{grouped.median:.1f}",
                f"{numbers.resident_kib[1] / 1024:.0f}", f"{numbers.client_cpu_us.median:.0f}")


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run. `machine` says on what it was, `servers` what each is; `others` are the cores that somebody
    else used meanwhile, and `refused` says why there are no ratios, "" where there are."""

    handshakes: int
    rounds: int
    machine: dict[str, str]
    others: float
    refused: str
    servers: dict[str, str]
    reference: str
    levels: list[Level]
    remarks: list[str]

    def as_data(self) -> dict[str, object]:
        """For a script."""
        return asdict(self) | {"target": TARGET}

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{name}: {words}" for name, words in self.machine.items()]
        said += [f"others used {self.others:.2f} of a core meanwhile", "",
                 f"{self.rounds} rounds of {self.handshakes} new full handshakes (TLS 1.3, ECDSA P-256 on both sides, "
                 "X25519) at each level; medians over rounds (least to most)", ""]
        for level in self.levels:
            said += level.lines()
        said += [self.refused] if self.refused else [
            f"ratio: CPU over that of {self.reference} in the round beside it; the delegator's goal against nginx "
            f"without tickets is {TARGET}", "steadied: both divided by the client's CPU first"]
        return [*said, "", *(f"{name}: {words}" for name, words in self.servers.items()), "", *self.remarks]


_HEAD = ("server", "CPU us a handshake", "ratio", "steadied", "a second", "p50 / p99 ms", "to a commit", "MiB",
         "client us")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be, the first to the left."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in
                                                  zip(row[1:], widths[1:], strict=True))]).rstrip() for row in rows]
