"""What a second process costs: `python -m benchmarks.scaling`, explained in docs/performance.md.

Delegators of one and of two workers, each with a database of its own, take turns; told is the CPU of all their
processes for a complete handshake, and the ratio of rounds that ran one after the other. With `--rate` as many devices
a second arrive for each worker, so that workers are compared that are equally busy, on all cores there are.
The invariants: every process that was started here is ended here; every device was answered, or the run ends.
Must not live here: the account of CPU (servers).
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

from benchmarks import arriving, load, servers
from benchmarks.fleet import Device, Fleet
from benchmarks.servers import ROOT, Cores, Server

WARM_UP = 200


def main() -> int:
    """Measure the tree this file lies in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--handshakes", type=int, default=400, help="per round (400)")
    parser.add_argument("--rounds", type=int, default=7, help="of each (7)")
    parser.add_argument("--in-flight", type=int, default=32, help="(32)")
    parser.add_argument("--rate", type=float, help="devices a second for each worker, instead of so many in flight")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var/benchmarks", help="(var/benchmarks)")
    said = parser.parse_args()
    costs, rates = _measured(said)
    report = {f"{name}, us": _spread(each) for name, each in costs.items()} | {
        f"{name}, a second": _spread(each) for name, each in rates.items()} | {
        "two ÷ one": _spread([two / one for two, one in zip(costs["two"], costs["one"], strict=True)]),
        "load average": round(os.getloadavg()[0], 1)}
    print(json.dumps(report) if said.json else "\n".join(f"{name}: {value}" for name, value in report.items()))
    return 0


def _measured(said: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    most = said.handshakes * (2 if said.rate else 1)
    first = Fleet(said.dir.resolve(), WARM_UP + most * said.rounds)
    first.mint()
    fleets = {name: first.beside(f"scaling-{name}", server=replace(first.settings.server, workers=workers))
              for workers, name in enumerate(("one", "two"), 1)}
    for fleet in fleets.values():
        fleet.register()
    costs: dict[str, list[float]] = {name: [] for name in fleets}
    rates: dict[str, list[float]] = {name: [] for name in fleets}
    with ExitStack() as stack:
        started = {name: stack.enter_context(servers.running(servers.start_delegator, fleet,
                                                             Cores(pinned=not said.rate)))
                   for name, fleet in fleets.items()}
        for server in started.values():
            load.run(server.address, first.devices(0, WARM_UP), server.good, said.in_flight)
        for number in range(said.rounds):
            devices = first.devices(WARM_UP + number * most, most)
            for name in random.sample(sorted(started), 2):
                some = devices[:said.handshakes] if name == "one" else devices
                before, began = started[name].usage().cpu, time.monotonic()
                _ask(started[name], some, said.in_flight, said.rate and said.rate * len(some) / said.handshakes)
                rates[name].append(len(some) / (time.monotonic() - began))
                time.sleep(0.1)
                costs[name].append(1e6 * (started[name].usage().cpu - before) / len(some))
    return costs, rates


def _ask(server: Server, devices: list[Device], in_flight: int, rate: float | None) -> None:
    if rate is None:
        load.run(server.address, devices, server.good, in_flight)
        return
    seen = arriving.run(server.address, devices, server.good, rate)
    if seen.outcomes[arriving.ANSWERED] < len(devices):
        raise load.LoadError(f"not all were answered: {dict(seen.outcomes)}; ask for less with --rate")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


if __name__ == "__main__":
    sys.exit(main())
