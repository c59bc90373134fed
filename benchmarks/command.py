"""The command of `handshakes`: set up, warm up, run rounds of all servers in random order at each level, report.

The invariants: no ratio is stated of a busy machine; everything happens on the loopback address and is bounded in time
and count; whichever way the command ends, Ctrl-C and SIGTERM too, no process of its own is left.
Must not live here: how a number is worked out (figures), how a server is started (servers), what is busy (machine).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import random
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace
from OpenSSL import SSL

from benchmarks import figures, load, machine, nginx, servers
from benchmarks.fleet import Device, Fleet
from benchmarks.servers import ROOT, Cores, Server
from delegator import config
from delegator.errors import DelegatorError
from pki import PkiError, signals
from tests import postgres

TWO, SHARED = "delegator, 2 workers", "delegator, PostgreSQL"
REFERENCES = (nginx.LEAN, nginx.BARE)
"""What others are compared with, the first that is there."""
WARM_UP = 200
"""Handshakes of a warm-up round at most: pages touched, caches filled, statements prepared."""
SETTLE = 0.05
"""Seconds after a round for a server to close what the client has left."""
LEVELS = (1, 4, 16, 64)
"""Handshakes in flight: a lone device, a few, a busy hour, a crowd. Idle moments between them make each dearer."""
MOST = 200_000
"""Devices in all rounds: two files each on disk, and a minute to mint each 100 000."""
SATURATED = 0.9
"""A server that is busy or kept from its core for less of the time waits for the client."""
DISTURBED = 0.05
"""Share of the time without its core from which on the machine is not the server's own."""


def _unloadable(library: str) -> str:
    """What the dynamic linker has against it, which then goes on without; "" where it takes it."""
    return subprocess.run(["/bin/true"], env={"LD_PRELOAD": library}, capture_output=True, text=True,
                          check=False).stderr.strip()


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="handshakes.py", description=(
        "Measure what a complete handshake costs the delegator, in its several ways, beside nginx answering a static "
        "page and beside the same work written with other frameworks."))
    parser.add_argument("--handshakes", type=_count, default=500, metavar="N", help="per round and server (500)")
    parser.add_argument("--rounds", type=_count, default=7, metavar="R", help="of each server (7)")
    parser.add_argument("--in-flight", type=_count, nargs="+", default=LEVELS, metavar="K",
                        help="handshakes at a time, one level after the other (1 4 16 64)")
    parser.add_argument("--anyway", action="store_true", help="measure on a busy machine too, without ratios")
    parser.add_argument("--preload", default="", metavar="LIBRARY",
                        help="an allocator for the delegator alone, such as libmimalloc.so.2")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "benchmarks", metavar="DIR",
                        help="where certificates are kept between runs (var/benchmarks)")
    parser.add_argument("--alone", action="store_true", help="the delegator with one worker and nobody else")
    arguments = parser.parse_args(words)
    if arguments.preload and (why := _unloadable(arguments.preload)):
        parser.error(f"--preload: {why}")
    if arguments.handshakes * arguments.rounds * len(arguments.in_flight) > MOST:
        parser.error(f"more than {MOST} handshakes")
    return arguments


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main(words: Sequence[str]) -> int:
    """Run the command; its exit code."""
    arguments = _arguments(words)
    busy = machine.refusal(machine.look())
    if busy and not arguments.anyway:
        _say(f"not measured: {busy}; or measure without ratios: --anyway")
        return machine.BUSY
    try:
        with signals.first(KeyboardInterrupt()):
            report = _measure(arguments)
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except (load.LoadError, servers.ServerError, DelegatorError, PkiError, OSError) as error:
        _say(f"not measured: {error}")
        return 1
    print(json.dumps(report.as_data()) if arguments.json else "\n".join(report.lines()))
    if report.refused:
        _say(report.refused)
    return machine.BUSY if report.refused else 0


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _measure(arguments: argparse.Namespace) -> figures.Report:
    warm = min(WARM_UP, arguments.handshakes)
    each = warm + arguments.handshakes * arguments.rounds
    fleet = Fleet(arguments.dir.resolve(), each * len(arguments.in_flight))
    _say(f"setting up {fleet.size} devices in {fleet.place}")
    fleet.mint()
    fleet.register()
    cores = Cores()
    kin: list[int] = []
    with ExitStack() as stack:
        started = [stack.enter_context(servers.running(starter, one, cores))
                   for starter, one in ([(_ours(arguments), fleet)] if arguments.alone else
                                        _contenders(_ours(arguments), fleet, stack, kin))]
        return _Bench(arguments, fleet, started, cores, kin).run(warm)


def _ours(arguments: argparse.Namespace) -> Callable[..., Server]:
    return functools.partial(servers.start_delegator, preload=arguments.preload)


def _contenders(ours: Callable[..., Server], fleet: Fleet, stack: ExitStack,
                kin: list[int]) -> Iterator[tuple[Callable[[Fleet, Cores], Server], Fleet]]:
    """All that this machine has, each with a database of its own that knows the same devices; `kin` is told the
    database server's process, which is nobody else's."""
    yield ours, fleet
    two = fleet.beside("two-workers", server=replace(fleet.settings.server, workers=2))
    two.register()
    yield functools.partial(ours, name=TWO), two
    if shutil.which("initdb", path=f"{postgres.programs()}:{os.environ['PATH']}"):
        cluster = stack.enter_context(postgres.running_cluster())
        cluster.with_schema()
        kin.append(int((cluster.data / "postmaster.pid").read_text().split()[0]))
        shared = fleet.beside("postgresql", store=config.Store(url=cluster.url(cluster.database())))
        shared.register()
        yield functools.partial(ours, name=SHARED), shared
    for name in nginx.ways():
        yield functools.partial(nginx.start, name), fleet
    for way in servers.others():
        yield functools.partial(servers.start_other, way), fleet


class _Bench:
    """A run over servers that stand."""

    def __init__(self, arguments: argparse.Namespace, fleet: Fleet, started: list[Server], cores: Cores,
                 kin: Sequence[int] = ()) -> None:
        self._arguments, self._fleet, self._servers, self._cores = arguments, fleet, started, cores
        self._kin = kin

    def run(self, warm: int) -> figures.Report:
        """Each level: the warm-up, then all rounds."""
        loads, before = machine.loads(), machine.now(self._kin)
        levels = [_Level(self, number, in_flight).run(warm) for number, in_flight in
                  enumerate(self._arguments.in_flight)]
        taken = machine.others(before, machine.now(self._kin))
        return self._report(levels, loads, taken)

    def round(self, server: Server, devices: list[Device], in_flight: int) -> figures.Round:
        commits, before = server.commits(), server.usage()
        seen = load.run(server.address, devices, server.good, in_flight)
        time.sleep(SETTLE)
        used, after = server.usage(), server.commits()
        made = None if commits is None or after is None else after - commits
        return figures.Round(seen.latencies, seen.wall, used.cpu - before.cpu, seen.cpu,
                             used.waited - before.waited, made)

    def _report(self, levels: list[Levelled], loads: str, taken: float) -> figures.Report:
        refused = machine.refusal(taken) or ""
        names = [server.name for server in self._servers]
        reference = next(name for name in (*REFERENCES, "delegator") if name in names)
        told = [figures.Level(
            level.in_flight, level.figures,
            {} if refused else {name: figures.ratio(done, level.rounds[reference])
                                for name, done in level.rounds.items() if name != reference},
            _remarks(level.figures)) for level in levels]
        return figures.Report(
            self._arguments.handshakes, self._arguments.rounds,
            {"interpreter": machine.interpreter(), "allocator": self._arguments.preload or machine.preloaded(),
             "load average": f"{loads} at the start, {machine.loads()} at the end"}, round(taken, 3), refused,
            {name: _described(name, self._fleet.place) for name in names}, reference, told, self._remarks(names))

    def _remarks(self, names: list[str]) -> list[str]:
        said = [f"server on core {self._cores.server}, client on core {self._cores.client}" if self._cores.apart
                else "server and client on one core"]
        absent = [name for name in (SHARED, *nginx.TICKETS, *servers.OTHERS.values()) if name not in names]
        if absent:
            why = "as asked" if self._arguments.alone else "not installed"
            said.append(f"{', '.join(absent)}: not measured, {why}")
        return said

    def devices(self, first: int, count: int) -> list[Device]:
        return self._fleet.devices(first, count)

    @property
    def servers(self) -> list[Server]:
        return self._servers

    @property
    def size(self) -> tuple[int, int]:
        """Rounds, and handshakes of each."""
        return self._arguments.rounds, self._arguments.handshakes


class Levelled(NamedTuple):
    """What a level gave."""

    in_flight: int
    rounds: dict[str, list[figures.Round]]
    figures: dict[str, figures.Figures]


class _Level:
    """All rounds with so many in flight, by devices of its own."""

    def __init__(self, bench: _Bench, number: int, in_flight: int) -> None:
        self._bench, self._number, self._in_flight = bench, number, in_flight
        self._rounds: dict[str, list[figures.Round]] = {server.name: [] for server in bench.servers}

    def run(self, warm: int) -> Levelled:
        rounds, handshakes = self._bench.size
        first = self._number * (warm + rounds * handshakes)
        devices = self._bench.devices(first, warm)
        for server in self._bench.servers:
            self._bench.round(server, devices, self._in_flight)
        before = {server.name: server.resident() for server in self._bench.servers}
        for number in range(rounds):
            self._pair(number, first + warm + number * handshakes)
        told = {server.name: figures.figures(self._rounds[server.name], (before[server.name], server.resident()))
                for server in self._bench.servers}
        return Levelled(self._in_flight, self._rounds, told)

    def _pair(self, number: int, first: int) -> None:
        """One round of each server in random order; the same devices go to all."""
        rounds, handshakes = self._bench.size
        devices = self._bench.devices(first, handshakes)
        for server in random.sample(self._bench.servers, len(self._bench.servers)):
            done = self._bench.round(server, devices, self._in_flight)
            self._rounds[server.name].append(done)
            _say(f"round {number + 1} of {rounds}, {self._in_flight} in flight, {server.name}: "
                 f"{1e6 * done.cpu / done.handshakes:.0f} us of CPU per handshake")


def _remarks(told: dict[str, figures.Figures]) -> list[str]:
    """What a reader must know of a level before believing it."""
    said = []
    for name, numbers in told.items():
        kept, busy = numbers.kept_waiting.median, numbers.busy.median
        if kept > DISTURBED:
            said.append(f"{name} was kept from its core {kept:.0%} of the time: cold caches make everything dearer")
        if busy + kept < SATURATED:
            said.append(f"{name} was not saturated: the client was the limit, and idle moments make CPU dearer")
    return said


def _described(name: str, place: Path) -> str:
    if name in nginx.TICKETS:
        return nginx.described(place, name)
    if name in servers.OTHERS.values():
        return f"{ssl.OPENSSL_VERSION}, Python's ssl as it ships, lxml, a commit each with synchronous=FULL"
    openssl = " ".join(SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode().split()[:2])
    kept = "PostgreSQL, whose own CPU is not in it" if name == SHARED else "synchronous=FULL"
    return f"this tree, {openssl}, Python {platform.python_version()}, hosted credential, claim committed, {kept}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
