"""One mode against one server: a window under attack, and then its control.

The invariant: both are measured in the same way, by the same program; the control has as many calls, and a burner has
as much CPU as the attacker had.
Must not live here: what is too much (judged).
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.isolation.attacker import PACE, Attacker, Part, burning, playing
from benchmarks.isolation.callers import FIRST
from benchmarks.isolation.devices import Coming, Order, Seen
from benchmarks.isolation.layers import Kind
from benchmarks.isolation.modes import Mode, Provoked
from benchmarks.isolation.stage import BUDGET, Served, Stage, cpu_of

RATE = 40.0
"""Other customers' devices a second."""
REST = 0.25
"""Seconds that a lane rests between two devices, so that what is measured is a hostile peer and not a crowd."""
MOST = 16 / REST
"""Calls a second that a control makes at most, as an attack makes at most with calls that end at once."""
SETTLE, IDLE, LONGEST = 0.1, 0.3, 5.0
"""Seconds between two looks at how busy the server still is, the share of a core that counts as idle, and seconds until
it is taken as it is: what one window left must not be the next one's."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one stretch of time. Milliseconds, seconds of CPU, KiB; `calls` are the attacker's, `burnt` its CPU a second,
    `longest` the longest call that a device waited for."""

    answered: int
    failed: dict[str, int]
    p50: float
    p99: float
    calls: int
    cpu: float
    each: float
    burnt: float
    longest: float
    grown: int
    told: dict[str, int]


@dataclass(frozen=True, slots=True)
class Result:
    """A mode, with one number of calls at a time, on one loop."""

    layer: str
    name: str
    lanes: int
    loop: str
    attack: Figures
    control: Figures
    budget: float | None

    def data(self) -> dict[str, Any]:
        return asdict(self)


def of_data(data: dict[str, Any]) -> Result:
    return Result(**{**data, "attack": Figures(**data["attack"]), "control": Figures(**data["control"])})


def warm(stage: Stage, served: Served, seconds: float) -> None:
    """Everything that is loaded at its first use is loaded, and the peer was called."""
    _stretch(stage, served, Part(stage.layer.well, 2), stage.well(4, 2), REST, seconds)


def measured(stage: Stage, served: Served, mode: Mode, lanes: int, window: int, seconds: float, loop: str) -> Result:
    """The mode, then its control for two thirds of the time."""
    attack = _stretch(stage, served, Part(mode.act, lanes), stage.hostile(window, lanes), REST, seconds)
    settled(served)
    calm = seconds * 2 / 3
    calls = max(1, round(min(attack.calls / seconds, MOST) * calm))
    provoked = stage.well(calls, lanes, window)
    rest = calm / max(1, max(map(len, provoked), default=1))
    part = Part(stage.layer.well, lanes, max(PACE, lanes * calm / calls))
    with burning(attack.burnt):
        control = _stretch(stage, served, part, provoked, rest, calm)
    settled(served)
    budget = {Kind.DELEGATE: BUDGET, Kind.NAMES: BUDGET, Kind.TOLD: 0.0}.get(stage.layer.kind)
    return Result(mode.layer, mode.name, lanes, loop, attack, control, budget)


def settled(served: Served) -> None:
    """Wait until the server has nothing left to do."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        before = served.cpu()
        time.sleep(SETTLE)
        if served.cpu() - before <= IDLE * SETTLE:
            return


def _stretch(stage: Stage, served: Served, part: Part, lanes: Sequence[Sequence[Provoked]], rest: float,
             seconds: float) -> Figures:
    order = Order(served.address, seconds, RATE, stage.victims(int(RATE * seconds)), lanes, rest,
                  first=FIRST if stage.layer.name == "proxy" else b"")
    where = served.ops if stage.layer.name == "ops" else served.address
    site = stage.site(served.address, served.ops)
    before, cpu, began = served.resident(), served.cpu(), time.monotonic()
    with playing(stage.layer.kind.value, part, stage.ports, where, site) as attacker:
        coming = Coming(order)
        try:
            seen, most = _watched(coming, served)
        finally:
            coming.stop()
        wall = time.monotonic() - began
        if stage.layer.kind is Kind.TOLD:
            settled(served)  # who was answered is told afterwards
        return _figures(seen, attacker, served.cpu() - cpu, wall, most - before)


def _watched(coming: Coming, served: Served) -> tuple[Seen, int]:
    """What the devices saw, and the most that the server held meanwhile."""
    most = 0
    while True:
        seen = coming.seen()
        most = max(most, served.resident())
        if seen is not None:
            return seen, most


def _figures(seen: Seen, attacker: Attacker, cpu: float, wall: float, grown: int) -> Figures:
    took = sorted(seen.latencies)
    calls = attacker.calls or len(seen.provoked)
    burnt = cpu_of(attacker.pid) / wall
    return Figures(len(took), dict(Counter(seen.failed)), 1000 * statistics.median(took) if took else 0.0,
                   1000 * took[int(len(took) * 0.99)] if took else 0.0, calls, cpu,
                   1000 * cpu / max(1, len(took) + calls), burnt, max(seen.provoked, default=0.0), grown,
                   dict(Counter(seen.told)))
