"""What a second worker costs apart from its crowd: `python -m benchmarks.crowds`, explained in docs/performance.md.

Two workers on one core have half as many devices in flight each as one has, and a worker that has fewer is dearer for
each: it sleeps and wakes more often, and fewer share a commit. So one worker is asked with K and with half as many,
two with K and with twice as many, in random order; told is each one's CPU beside that of one worker with K.
The invariants: every process that was started here is ended here; every device was answered, or the run ends.
Must not live here: the account of CPU (servers), what happens at a given rate (scaling).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from benchmarks import load, servers
from benchmarks.fleet import Fleet
from benchmarks.servers import ROOT, Cores

WARM_UP, SETTLE = 200, 0.15


def main() -> int:
    """Measure the tree this file lies in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowds", description=__doc__.partition("\n")[0])
    parser.add_argument("--handshakes", type=int, default=300, help="per round (300)")
    parser.add_argument("--rounds", type=int, default=9, help="of each (9)")
    parser.add_argument("--in-flight", type=int, default=16, help="K (16)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var/benchmarks", help="(var/benchmarks)")
    said = parser.parse_args()
    crowds = [(workers, many) for workers, many in (
        (1, said.in_flight), (1, said.in_flight // 2), (2, said.in_flight), (2, 2 * said.in_flight))]
    found = _measured(said, crowds)
    report: dict[str, object] = {}
    for (workers, many), costs in found.items():
        name = f"{workers} worker{'s' * (workers > 1)}, {many} in flight"
        report[f"{name}, us"] = _spread(costs, ".0f")
        ratios = [cost / one for cost, one in zip(costs, found[crowds[0]], strict=True)]
        report[f"{name} ÷ first"] = _spread(ratios, ".2f")
    report["load average"] = round(os.getloadavg()[0], 1)
    print(json.dumps(report) if said.json else "\n".join(f"{name}: {value}" for name, value in report.items()))
    return 0


def _measured(said: argparse.Namespace, crowds: list[tuple[int, int]]) -> dict[tuple[int, int], list[float]]:
    """Microseconds for a handshake, by workers and devices in flight, a round each."""
    first = Fleet(said.dir.resolve(), WARM_UP + said.handshakes * said.rounds)
    first.mint()
    fleets = {crowd: first.beside(f"crowd-{crowd[0]}-{crowd[1]}",
                                  server=replace(first.settings.server, workers=crowd[0])) for crowd in crowds}
    costs: dict[tuple[int, int], list[float]] = {crowd: [] for crowd in crowds}
    with ExitStack() as stack:
        started = {}
        for crowd, fleet in fleets.items():
            fleet.register()
            started[crowd] = stack.enter_context(servers.running(servers.start_delegator, fleet, Cores()))
            load.run(started[crowd].address, first.devices(0, WARM_UP), started[crowd].good, crowd[1])
        for number in range(said.rounds):
            devices = first.devices(WARM_UP + number * said.handshakes, said.handshakes)
            for crowd in random.sample(crowds, len(crowds)):
                before = started[crowd].usage().cpu
                load.run(started[crowd].address, devices, started[crowd].good, crowd[1])
                time.sleep(SETTLE)
                costs[crowd].append(1e6 * (started[crowd].usage().cpu - before) / len(devices))
    return costs


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    sys.exit(main())
