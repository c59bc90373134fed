"""A soak: a delegator under 70 % of the load it can take, faults mixed in, sampled from outside, judged flat or not.

The invariants: a device that gets no good answer ends the run; whichever way the command ends, no process of its own
is left.
Must not live here: the load client (load), the faults (troubles).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import load, servers
from benchmarks.fleet import HOST, Device, Fleet
from benchmarks.servers import ROOT, Cores, Server
from benchmarks.troubles import Troubles
from delegator import config
from delegator.errors import DelegatorError
from delegator.model import Customer, Delegate, Registration, SoapCallback
from delegator.sealing import SealingKey, read_key_file
from delegator.store import open_named
from pki import PkiError, signals

LOAD = 0.7
SLICE = 0.5
"""Seconds of one portion of load: so many devices that they take 70 % of it, then a rest."""
IN_FLIGHT = 8
ABSENT = 20
"""Devices of a customer whose delegate is down."""
SAMPLES = 60
"""In a whole run; each with its own percentiles."""
GROWTH, ROOM = 1.05, 4096
"""Resident memory may grow by this factor or so many KiB from the middle third to the last one."""
DESCRIPTORS = 10
SLOWER = 1.5
"""p99 of the last third may be so many times that of the middle one; two runs of the same differ by as much."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One stretch of time: seconds since the start, KiB, open descriptors, milliseconds, devices answered."""

    at: float
    resident: int
    descriptors: int
    p50: float
    p99: float
    answered: int


class SoakFleet(Fleet):
    """A fleet whose last devices belong to a customer whose delegate nobody can reach."""

    def _settings(self) -> config.Settings:
        usual = super()._settings()
        return msgspec.structs.replace(usual, outbound=config.OutboundSettings(allow=("127.0.0.0/8",)),
                                       ops=config.OpsSettings(enabled=True, port=0),
                                       callbacks=msgspec.structs.replace(usual.callbacks, budget=2.0))

    async def _register(self) -> None:
        store = await open_named(self.settings.store, SealingKey(read_key_file(Path(self.settings.sealing.key_file))))
        try:
            await store.add_customer(Customer("absent", "Absent"), datetime.now(UTC))
            await store.add_delegate(Delegate("absent-server", "absent", SoapCallback("localhost", 1, "/", None,
                                                                                      "127.0.0.1")), datetime.now(UTC))
        finally:
            await store.close()
        await super()._register()

    def _registration(self, number: int) -> Registration:
        said = super()._registration(number)
        return said if number < self.size - ABSENT else msgspec.structs.replace(said, customer="absent")

    def absent(self) -> list[str]:
        return [str(self._registration(number).service_tag) for number in range(self.size - ABSENT, self.size)]


def main(words: Sequence[str]) -> int:
    """Run the command: 0 where everything stayed flat, 5 where something did not, 1 where it could not be measured."""
    arguments = _arguments(words)
    try:
        with signals.first(KeyboardInterrupt()):
            report = _soak(arguments)
    except KeyboardInterrupt:
        return 130
    except (load.LoadError, servers.ServerError, DelegatorError, PkiError, OSError) as error:
        _say(f"not flat, for it ended: {error}")
        return 1
    print(json.dumps(report) if arguments.json else "\n".join(_lines(report)))
    return 0 if report["flat"] else 5


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(
        "Keep a delegator at 70 percent of its load, with faults mixed in, and say whether it stays as it is."))
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_SECONDS", "900")),
                        help="how long (SOAK_SECONDS, else 900)")
    parser.add_argument("--devices", type=int, default=5000, metavar="N", help="that come again and again (5000)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "soak", metavar="DIR",
                        help="where certificates are kept between runs (var/soak)")
    return parser.parse_args(words)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _soak(arguments: argparse.Namespace) -> dict[str, object]:
    fleet = SoakFleet(arguments.dir.resolve(), arguments.devices + ABSENT)
    fleet.mint()
    fleet.register()
    devices, cores = fleet.devices(0, arguments.devices), Cores()
    with servers.running(servers.start_delegator, fleet, cores) as server:
        most = _most(server, devices)
        _say(f"it takes {most:.0f} handshakes a second at most; {LOAD:.0%} of that for {arguments.seconds:.0f} s")
        troubles = Troubles(fleet, server.address, server.process.pid, fleet.absent())
        troubles.start()
        try:
            samples = list(_run(server, devices, most, arguments.seconds))
        finally:
            troubles.stop()
    return _judged(samples, most, troubles)


def _most(server: Server, devices: Sequence[Device]) -> float:
    """Handshakes a second with nothing else going on; the first round only warms up."""
    part = devices[:min(1000, len(devices) // 2)]
    load.run(server.address, part, server.good, 16)
    return len(part) / load.run(server.address, part, server.good, 16).wall


def _run(server: Server, devices: Sequence[Device], most: float, seconds: float) -> Iterator[Sample]:
    start, coming = time.monotonic(), itertools.cycle(devices)
    portion = max(1, round(most * LOAD * SLICE))
    until = start
    for number in range(1, SAMPLES + 1):
        latencies: list[float] = []
        while time.monotonic() < start + seconds * number / SAMPLES or not latencies:
            latencies += load.run(server.address, list(itertools.islice(coming, portion)), server.good,
                                  IN_FLIGHT).latencies
            until = max(until + SLICE, time.monotonic())
            time.sleep(max(0.0, until - time.monotonic()))
        yield _sample(server, time.monotonic() - start, latencies)


def _sample(server: Server, at: float, latencies: list[float]) -> Sample:
    ordered = sorted(latencies)
    sample = Sample(at, server.resident(), _descriptors(server), 1000 * statistics.median(ordered),
                    1000 * ordered[int(len(ordered) * 0.99)], len(ordered))
    _say(f"{sample.at:5.0f} s  {sample.resident:7d} KiB  {sample.descriptors:4d} descriptors  "
         f"p50 {sample.p50:.1f} ms  p99 {sample.p99:.1f} ms  {sample.answered} answered")
    return sample


def _descriptors(server: Server) -> int:
    """As it counts them itself: nobody else may look into a process that cannot be dumped."""
    assert isinstance(server, servers.Delegator)
    with urllib.request.urlopen(f"http://{HOST}:{server.ops}/metrics", timeout=10) as answer:
        (line,) = (one for one in answer.read().splitlines() if one.startswith(b"process_open_fds "))
    return int(float(line.split()[1]))


def _judged(samples: Sequence[Sample], most: float, troubles: Troubles) -> dict[str, object]:
    """The last third beside the middle one; the first is warming up."""
    third = len(samples) // 3
    middle, last = samples[third:2 * third], samples[2 * third:]

    def both(name: str) -> tuple[float, float]:
        return (statistics.median(getattr(one, name) for one in middle),
                statistics.median(getattr(one, name) for one in last))
    resident, descriptors, p99 = both("resident"), both("descriptors"), both("p99")
    flat = {"resident": resident[1] <= max(resident[0] * GROWTH, resident[0] + ROOM),
            "descriptors": descriptors[1] <= descriptors[0] + DESCRIPTORS, "p99": p99[1] <= p99[0] * SLOWER,
            "troubles": not troubles.wrong}
    return {"flat": all(flat.values()), "judged": flat, "most_per_second": most, "seconds": samples[-1].at,
            "answered": sum(one.answered for one in samples), "resident_kib": resident, "descriptors": descriptors,
            "p50_ms": both("p50"), "p99_ms": p99, "troubles": dict(troubles.counts), "wrong": troubles.wrong[:10],
            "samples": [asdict(one) for one in samples]}


def _lines(report: dict[str, object]) -> Iterator[str]:
    yield ("flat" if report["flat"] else "NOT flat") + f": {report['judged']}"
    for name, value in report.items():
        if name not in ("flat", "judged", "samples"):
            yield f"{name:16} {value}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
