"""How it takes a crowd: `python -m benchmarks.overload`, explained in docs/performance.md.

Each round finds the capacity (a closed loop), then lets devices arrive at 70 % of it, in a burst of 1 000 at once, and
at three times of it. Goodput is answers a second while they arrive, as a share of the capacity of the same round.
The invariant: every process that was started here is ended here.
Must not live here: who arrives how (arriving).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks import arriving, load, servers
from benchmarks.fleet import Fleet
from benchmarks.servers import ROOT
from delegator import config

IN_FLIGHT = 32
SECONDS = 6.0
"""Of arrivals, after as many that only fill the line: what counts is how it goes on."""


def main() -> int:
    """Measure the tree this file lies in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--devices", type=int, default=3000, help="that arrive in turn (3000)")
    parser.add_argument("--burst", type=int, default=1000, help="devices at once (1000)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each arrival (6)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the delegator (1)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var/benchmarks", help="(var/benchmarks)")
    said = parser.parse_args()
    rounds = _measured(said)
    if said.json:
        print(json.dumps(rounds))
    else:
        for kind in rounds[0]:
            values = [one[kind] for one in rounds]
            print(f"{kind}: " + (_spread(values) if isinstance(values[0], float) else json.dumps(values)))
    return 0


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _measured(said: argparse.Namespace) -> list[dict[str, Any]]:
    fleet = Fleet(said.dir.resolve(), said.devices)
    fleet.mint()
    fleet.register()
    fleet.settings = replace(  # all come from one address here
        fleet.settings, server=replace(fleet.settings.server, workers=said.workers),
        limits=replace(fleet.settings.limits, connections_per_source=20_000))
    fleet.settings_file.write_text(config.as_toml(fleet.settings), encoding="utf-8")
    devices = itertools.cycle(fleet.devices(0, said.devices))
    with servers.running(servers.start_delegator, fleet, servers.Cores()) as server:
        return [_round(server, devices, said) for _ in range(said.rounds)]


def _round(server: Any, devices: Any, said: argparse.Namespace) -> dict[str, Any]:
    def some(count: float) -> list[Any]:
        return list(itertools.islice(devices, round(count)))

    def arrive(rate: float | None, count: float) -> Any:
        seen = arriving.run(server.address, some(count), server.good, rate)
        time.sleep(1)
        return seen
    closed = load.run(server.address, some(600), server.good, IN_FLIGHT)
    capacity = 600 / closed.wall
    calm = arrive(0.7 * capacity, 0.7 * capacity * said.seconds)
    burst = arrive(None, said.burst)
    flood = arrive(3 * capacity, 3 * capacity * said.seconds)
    told = {"capacity, a second": round(capacity, 1), **_latency("70 %", calm), **_latency("burst", burst),
            **_latency("three times", flood)}
    again = load.run(server.address, some(600), server.good, IN_FLIGHT)
    told["capacity afterwards, a second"] = round(600 / again.wall, 1)
    # Who arrived at the end is answered a little later: answers belong to the time until the line was empty.
    lasted = flood.wall + max(0.0, max(flood.latencies, default=0.0))
    told["three times, goodput ÷ capacity"] = round(
        flood.outcomes[arriving.ANSWERED] / lasted / ((600 / again.wall + capacity) / 2), 3)
    return told | {"load average": round(os.getloadavg()[0], 1)}


def _latency(name: str, seen: Any) -> dict[str, Any]:
    ordered = sorted(seen.latencies) or [float("nan")]
    late = sorted(seen.late)
    return {f"{name}, p50 ms": round(1000 * ordered[len(ordered) // 2], 1),
            f"{name}, p99 ms": round(1000 * ordered[int(len(ordered) * 0.99)], 1),
            f"{name}, outcomes": dict(seen.outcomes), f"{name}, client late p99 ms": round(
                1000 * late[int(len(late) * 0.99)], 1)}


if __name__ == "__main__":
    sys.exit(main())
