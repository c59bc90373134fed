"""Instructions per complete handshake: `python -m benchmarks.instructions [--handshakes N] [--dir DIR] [--json]`.

Both servers run under valgrind's callgrind, which counts every instruction outside the kernel and does not care how
busy the machine is; a run repeats to 1 %. It is fifty times slower than life: deadlines and queues mean nothing here.
The invariant: counting begins after the warm-up and ends before the servers do.
Must not live here: time (benchmarks.command).
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks import load, nginx, servers
from benchmarks.fleet import Device, Fleet
from benchmarks.servers import ROOT, Cores, Server

IN_FLIGHT = 8
SETTLE = 1.0
"""Seconds after a round for a server to close what the client has left."""


class Starter(Protocol):
    """Starts a server under a program that watches it."""

    def __call__(self, fleet: Fleet, cores: Cores, *, under: Sequence[str]) -> Server: ...


def _control(option: str, server: Server) -> None:
    subprocess.run(["callgrind_control", option, str(server.process.pid)], check=True, stdout=subprocess.DEVNULL,
                   timeout=60)


def count(starter: Starter, fleet: Fleet, warm: int, handshakes: int) -> float:
    """Instructions per handshake of one server."""
    place = fleet.place / "callgrind"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={place}/out.%p", "--quiet"]
    with servers.running(functools.partial(starter, under=under), fleet, Cores()) as server:
        _round(server, fleet.devices(0, warm))
        _control("--zero", server)
        _round(server, fleet.devices(warm, handshakes))
        _control("--dump", server)
        return _total(next(place.glob("out.*.1"))) / handshakes


def _round(server: Server, devices: list[Device]) -> None:
    load.run(server.address, devices, server.good, IN_FLIGHT)
    time.sleep(SETTLE)


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)$", dump.read_text(), re.MULTILINE)
    assert found is not None, f"{dump} holds no total"
    return int(found[1])


def main(words: Sequence[str]) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions",
                                     description="Count instructions per complete handshake.")
    parser.add_argument("--handshakes", type=int, default=200, metavar="N", help="counted of each server (200)")
    parser.add_argument("--warm", type=int, default=100, metavar="N", help="before the count (100)")
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "benchmarks", metavar="DIR",
                        help="where certificates are kept between runs (var/benchmarks)")
    parser.add_argument("--no-nginx", action="store_true", help="count the delegator alone")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args(words)
    fleet = Fleet(arguments.dir.resolve(), arguments.warm + arguments.handshakes)
    fleet.mint()
    fleet.register()
    starters: dict[str, Starter] = {"delegator": servers.start_delegator}
    if not arguments.no_nginx:
        starters |= {name: functools.partial(nginx.start, name) for name in nginx.ways()}
    counted = {name: count(one, fleet, arguments.warm, arguments.handshakes) for name, one in starters.items()}
    if arguments.json:
        print(json.dumps(counted))
    else:
        for name, number in counted.items():
            print(f"{name}: {number:,.0f} instructions per handshake, {counted['delegator'] / number:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
