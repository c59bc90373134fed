"""What is too much, and how a run is told: a table, JSON, a place in docs/security.md.

The invariant: a limit is judged on its own, and a result that breaks one says which.
Must not live here: measuring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.isolation.layers import LAYERS, MODES
from benchmarks.isolation.window import Result
from benchmarks.servers import ROOT

PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- from a run: make isolation ARGS=--write -->\n", "<!-- end of isolation -->\n"
MODES_BEGIN = "<!-- from benchmarks/isolation: make isolation ARGS=--draw -->\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """Milliseconds, times the control, seconds after the budget, KiB."""

    p99: float = 250.0
    dearer: float = 1.5
    late: float = 1.0
    grown: int = 32 * 1024


LIMITS = Limits()
GENEROUS = Limits(p99=5000.0, dearer=4.0, late=3.0)
"""For a machine on which other things run, such as that of the tests."""


def dearer(one: Result) -> float:
    """How many times as much CPU a handshake takes as in the control."""
    return one.attack.each / one.control.each if one.control.each else 0.0


def late(one: Result) -> float:
    """Seconds after its budget that the longest call ended."""
    return 0.0 if one.budget is None else max(0.0, one.attack.longest - one.budget)


def crowded(one: Result, limits: Limits) -> float:
    """Where the control itself is past the limit the machine has no room, and what counts is whether the mode makes it
    worse: its p99 then. Zero on a machine that can be measured on."""
    return limits.dearer * one.control.p99 if one.control.p99 > limits.p99 else 0.0


def broken(one: Result, limits: Limits = LIMITS) -> list[str]:
    """The limits that a result breaks, in words."""
    found = {f"p99 {one.attack.p99:.0f} ms": one.attack.p99 > max(limits.p99, crowded(one, limits)),
             f"CPU {dearer(one):.2f} times": dearer(one) > limits.dearer,
             f"{sum(one.attack.failed.values())} failed": bool(one.attack.failed) or not one.attack.answered,
             f"{late(one):.1f} s past the budget": late(one) > limits.late,
             f"{one.attack.grown / 1024:.0f} MiB more": one.attack.grown > limits.grown}
    return [words for words, is_so in found.items() if is_so]


def better(one: Result, other: Result) -> Result:
    """Of two tries the one that breaks fewer limits: what breaks one each time is not the machine's mood."""
    return min(one, other, key=lambda each: (len(broken(each)), dearer(each)))


def lines(results: Sequence[Result], limits: Limits = LIMITS) -> Iterator[str]:
    """The table."""
    yield (f"{'mode':38} {'loop':8} {'at once':>7} {'p50':>6} {'p99':>6} {'control':>7} {'CPU':>6} {'times':>6} "
           f"{'late':>5} {'MiB':>5} {'calls':>6}")
    for one in results:
        attack, wrong = one.attack, broken(one, limits)
        yield (f"{one.layer + ': ' + one.name:38} {one.loop:8} {one.lanes:7} {attack.p50:6.1f} {attack.p99:6.0f} "
               f"{one.control.p99:7.0f} {attack.each:6.2f} {dearer(one):6.2f} {late(one):5.1f} "
               f"{attack.grown / 1024:5.1f} {attack.calls:6}" + (f"  BROKEN: {', '.join(wrong)}" if wrong else ""))


def told(results: Sequence[Result]) -> dict[str, Any]:
    """Everything as plain data."""
    return {"modes": len({(one.layer, one.name) for one in results}), "results": [one.data() for one in results],
            "broken": {f"{one.layer}: {one.name}, {one.lanes} at once, {one.loop}": broken(one)
                       for one in results if broken(one)}}


def page(results: Sequence[Result], when: str) -> str:
    """Markdown: a row for each layer, the worst of its modes in each figure."""
    count = len({(one.layer, one.name) for one in results})
    rows = [f"{when}, {count} modes, each with 1 and with 16 calls at a time, on asyncio's loop and on uvloop; the "
            "worst of each layer. Whatever broke a limit is named below the table.", "",
            "| layer | modes | others' p99, ms | CPU a handshake, times the control | past the budget, s | "
            "memory, MiB | failed |", "|---|---|---|---|---|---|---|"]
    for name in LAYERS:
        of = [one for one in results if one.layer == name]
        if of:
            rows.append(f"| {name} | {len({one.name for one in of})} | {max(one.attack.p99 for one in of):.0f} | "
                        f"{max(map(dearer, of)):.2f} | {max(map(late, of)):.1f} | "
                        f"{max(one.attack.grown for one in of) / 1024:.1f} | "
                        f"{sum(sum(one.attack.failed.values()) for one in of)} |")
    bad = [f"- {one.layer}, {one.name}, {one.lanes} at once, {one.loop}: {', '.join(broken(one))}" for one in results
           if broken(one)]
    return "\n".join([*rows, "", *(bad or ["Nothing broke a limit."])])


def written(results: Sequence[Result], when: str, path: Path = PAGE) -> None:
    """Put a run into the page. Raises ValueError where it has no place for it."""
    text = _put(path.read_text(encoding="utf-8"), BEGIN, page(results, when))
    path.write_text(drawn(text), encoding="utf-8")


def catalogue() -> str:
    """Markdown: what each mode does, and the quick tests of its layer."""
    rows = ["| layer | who | modes | the law without a clock |", "|---|---|---|---|"]
    for layer in LAYERS.values():
        modes = "; ".join(f"*{one.name}*: {one.does}" for one in MODES if one.layer == layer.name)
        rows.append(f"| {layer.name} | {layer.plays} | {modes} | {', '.join(f'`{law}`' for law in layer.laws)} |")
    return "\n".join(rows)


def drawn(text: str) -> str:
    """A page with the catalogue made anew. Raises ValueError when it has no place for it."""
    return _put(text, MODES_BEGIN, catalogue())


def _put(text: str, begin: str, what: str) -> str:
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{PAGE} has no lines {begin.strip()!a} and {END.strip()!a}")
    return f"{before}{begin}\n{what}\n\n{END}{after}"
