"""What a complete handshake costs on either database: `python -m benchmarks.databases --url URL`.

Two delegators run, one on each, and take turns in random order. URL names an empty database on this machine, whose
server's own CPU is told too. The figures in docs/scale.md come from here.
The invariant: a database that is not empty is left alone.
Must not live here: load, the account of CPU (servers).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import load, servers
from benchmarks.fleet import CUSTOMER, Fleet
from benchmarks.servers import ROOT
from delegator import config
from delegator.model import Customer, Policy
from delegator.serving.parts import open_settings_store

WARM_UP = 100


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.databases", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="an empty PostgreSQL database, on this machine")
    parser.add_argument("--handshakes", type=int, default=300, metavar="N", help="per round and server (300)")
    parser.add_argument("--rounds", type=int, default=7, metavar="R", help="of each server (7)")
    parser.add_argument("--in-flight", type=int, default=16, metavar="K", help="handshakes at a time (16)")
    parser.add_argument("--limited", action="store_true", help="the customer's policy limits its devices")
    parser.add_argument("--dir", type=Path, default=ROOT / "var/benchmarks", help="certificates are kept there")
    return parser.parse_args(words)


def fleets(arguments: argparse.Namespace, size: int) -> dict[str, Any]:
    """The same devices, registered in both databases."""
    embedded = Fleet(arguments.dir, size)
    embedded.mint()
    shared = embedded.beside("delegator-postgres", store=config.Store(url=arguments.url))
    for one in (shared, embedded):
        one.register()
        if arguments.limited:
            asyncio.run(_limit(one.settings))
    return {"embedded": embedded, "PostgreSQL": shared}


async def _limit(settings: Any) -> None:
    """A limit that is counted and never reached."""
    store = await open_settings_store(settings)
    await store.add_policy(Policy("limited", max_devices=10**6), datetime.now(UTC))
    await store.add_customer(Customer(CUSTOMER, "Acme", policy="limited"), datetime.now(UTC), replace=True)
    await store.close()


class DatabaseServer:
    """The CPU of the server that a URL leads to: of its backends that are ours, and of those that write its files."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._clock = os.sysconf("SC_CLK_TCK")

    def pids(self) -> list[int]:
        import asyncpg

        async def ask() -> list[int]:
            connection = await asyncpg.connect(self._url)
            rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'delegator' "
                                          "OR backend_type IN ('walwriter', 'background writer', 'checkpointer')")
            await connection.close()
            return [row[0] for row in rows]
        return asyncio.run(ask())

    def cpu(self, pids: Sequence[int]) -> float:
        """Seconds so far, in clock ticks: good enough for rounds of a second."""
        seconds = 0.0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) / self._clock
        return seconds


async def _must_be_empty(url: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    found = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
    await connection.close()
    if found:
        sys.exit(f"{url.partition('?')[0]} is not empty: make a new database for this")


@contextmanager
def servers_of(known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    started: dict[str, Any] = {}
    try:
        for name, fleet in known.items():
            started[name] = servers.start_delegator(fleet, servers.Cores())
        yield started
    finally:
        for server in started.values():
            servers.end(server.process)


def measure(arguments: argparse.Namespace) -> dict[str, list[tuple[float, float, float]]]:
    """By server and what its devices ask for, a round each: microseconds of its CPU and of the database server's for a
    handshake, handshakes a second. A device that asks `again` gets the same answer, which is what a retry costs."""
    asyncio.run(_must_be_empty(arguments.url))
    size = WARM_UP + arguments.handshakes * arguments.rounds
    known, database = fleets(arguments, size), DatabaseServer(arguments.url)
    found: dict[str, list[tuple[float, float, float]]] = {}
    with servers_of(known) as started:
        for server in started.values():
            _round(server, known["embedded"].devices(0, WARM_UP), arguments.in_flight, lambda: 0.0)
        pids = database.pids()
        for number in range(arguments.rounds):
            devices = known["embedded"].devices(WARM_UP + number * arguments.handshakes, arguments.handshakes)
            for name in random.sample(sorted(started), len(started)):
                for what in ("first", "again"):
                    found.setdefault(f"{name}, {what}", []).append(_round(
                        started[name], devices, arguments.in_flight, lambda: database.cpu(pids)))
    return found


def _round(server: Any, devices: Sequence[Any], in_flight: int,
           its_cpu: Callable[[], float]) -> tuple[float, float, float]:
    before, its_before, began = server.usage().cpu, its_cpu(), time.monotonic()
    load.run(server.address, devices, server.good, in_flight)
    took, each = time.monotonic() - began, 1e6 / len(devices)
    return (server.usage().cpu - before) * each, (its_cpu() - its_before) * each, len(devices) / took


def main() -> int:
    arguments = _arguments(sys.argv[1:])
    found = measure(arguments)
    columns = ("delegator, us", "database server, us", "handshakes per second")
    print(f"{'median (least to most)':<22}" + "".join(f"{column:>26}" for column in columns))
    for name, rounds in sorted(found.items()):
        print(f"{name:<22}" + "".join(f"{_spread([one[place] for one in rounds]):>26}" for place in range(3)))
    return 0


def _spread(numbers: Sequence[float]) -> str:
    return f"{statistics.median(numbers):.0f} ({min(numbers):.0f} to {max(numbers):.0f})"


if __name__ == "__main__":
    sys.exit(main())
