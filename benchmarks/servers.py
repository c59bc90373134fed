"""The servers under load: started, watched through /proc, ended. Only processes started here are ever touched.

CPU is the kernel's own account of every thread (nanoseconds of schedstat; clock ticks where there is none), so what
a server does in a writing thread counts. What the kernel's threads do for it, such as the disk's journal, does not.
The invariant: leaving the `with` block of a server ends its processes, whatever happened inside.
Must not live here: load, statistics.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet import HOST, PATTERN, Device, Fleet

ROOT = Path(__file__).resolve().parents[1]
START = 20.0
"""Seconds a server may take until it listens."""
_TICK = os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """A server that does not start, or ended early."""


class Usage(NamedTuple):
    """Seconds of CPU of all threads, and seconds the thread that waited most was ready but had no core."""

    cpu: float
    waited: float


class Cores:
    """Server on one core and client on the other, where there are two; or all cores for all."""

    def __init__(self, *, pinned: bool = True) -> None:
        usable = sorted(os.sched_getaffinity(0))
        self.client, self.server = usable[0], usable[-1]
        self.apart = pinned and len(usable) > 1

    @contextmanager
    def for_server(self) -> Iterator[None]:
        """Processes started inside are pinned; this process is the client again afterwards."""
        if self.apart:
            os.sched_setaffinity(0, {self.server})
        try:
            yield
        finally:
            if self.apart:
                os.sched_setaffinity(0, {self.client})


class Server:
    """A started server: its address, and what /proc says about it and its children."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], address: tuple[str, int]) -> None:
        self.name, self.process, self.address = name, process, address

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def usage(self) -> Usage:
        """What all threads have used so far."""
        if self.process.poll() is not None:
            raise ServerError(f"{self.name} ended with code {self.process.returncode}")
        tasks = [_usage(task) for pid in self._pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        return Usage(sum(one.cpu for one in tasks), max(one.waited for one in tasks))

    def resident(self) -> int:
        """Resident memory in KiB."""
        texts = (Path(f"/proc/{pid}/status").read_text() for pid in self._pids())
        return sum(int(found[1]) for text in texts if (found := re.search(r"VmRSS:\s+(\d+)", text)))

    def commits(self) -> int | None:
        """Transactions on disk so far, where the server keeps any."""
        return None

    def good(self, device: Device, body: bytes) -> bool:
        """Whether this is the right answer to a device: a credential made for this very one."""
        return f"<Password>{PATTERN.format(tag=device.tag, random='')}".encode() in body


class Delegator(Server):
    """The product, started by its own command line."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], address: tuple[str, int],
                 database: Path | None) -> None:
        """`database` is the embedded one's file, None where there is another."""
        super().__init__(name, process, address)
        self._shared = None if database is None else database.with_name(database.name + "-shm")
        self.ops: int | None = None
        """The operators' port, where the settings switch it on."""

    def commits(self) -> int | None:
        """The commit counter in the header of SQLite's WAL index (iChange, sqlite.org/walformat.html section 2.1)."""
        if self._shared is None:
            return None
        with self._shared.open("rb") as file:
            return int.from_bytes(file.read(12)[8:], sys.byteorder)


def _usage(task: Path) -> Usage:
    try:
        cpu, waited = (int(each) / 1e9 for each in (task / "schedstat").read_text().split()[:2])
    except FileNotFoundError:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        cpu, waited = (int(fields[11]) + int(fields[12])) / _TICK, 0.0
    return Usage(cpu, waited)


def start_delegator(fleet: Fleet, cores: Cores, under: Sequence[str] = (), name: str = "delegator",
                    preload: str = "") -> Server:
    """`delegator serve` as shipped, its log in a file; `under` is a program that watches it, `preload` a library that
    it alone is started with. Raises ServerError."""
    command = [*under, sys.executable, "-m", "delegator", "--config", str(fleet.settings_file), "serve", "--json"]
    log = fleet.settings_file.with_suffix(".log")
    with_it = {"LD_PRELOAD": preload} if preload else {}
    with log.open("wb") as words, cores.for_server():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, start_new_session=True,
                                   env=os.environ | {"PYTHONPATH": str(ROOT)} | with_it)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline() or b"null")
        if not ready:
            raise ServerError(f"the delegator did not start, see {log}")
        embedded = None if fleet.settings.store.url else fleet.database
        delegator = Delegator(name, process, (HOST, ready["port"]), embedded)
        delegator.ops = ready["ops"]
        return delegator
    except BaseException:
        end(process)
        raise


OTHERS = {"starlette": "uvicorn + Starlette", "aiohttp": "aiohttp"}
"""What the ways of `others` are called here."""


def others() -> list[str]:
    """The ways whose packages are installed (extra `bench`)."""
    return [way for way in OTHERS if importlib.util.find_spec(way)]


def start_other(way: str, fleet: Fleet, cores: Cores) -> Server:
    """The same work written with another framework, with a database of its own. Raises ServerError."""
    place = fleet.place / way
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    shutil.copy(fleet.certificate, place / "server.crt")
    shutil.copy(fleet.certificate.with_suffix(".key"), place / "server.key")
    shutil.copy(fleet.pki.ca_path, place / "ca.crt")
    shutil.copy(fleet.pki.crl_path, place / "list.pem")
    (place / "tags").write_text("\n".join(fleet.tags()), encoding="utf-8")
    with (place / "log").open("wb") as words, cores.for_server():
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.others", way, str(place)], cwd=ROOT,
                                   stdout=subprocess.PIPE, stderr=words, start_new_session=True)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline() or b"null")
        if not ready:
            raise ServerError(f"{OTHERS[way]} did not start, see {place / 'log'}")
        address = (HOST, int(ready["port"]))
        wait_for(process, address, place / "log")
    except BaseException:
        end(process)
        raise
    return Server(OTHERS[way], process, address)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


def wait_for(process: subprocess.Popen[bytes], address: tuple[str, int], log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise ServerError(f"it did not start, see {log}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then make it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def running(starter: Callable[[Fleet, Cores], Server], fleet: Fleet, cores: Cores) -> Iterator[Server]:
    """A server for the length of a `with` block."""
    server = starter(fleet, cores)
    try:
        yield server
    finally:
        end(server.process)
