"""The attacker: a process of its own that plays one mode, as many connections of it as are asked for or made.

It is forked from the run's process, so it takes no time to start and what it has cost is its own.
The invariant: it ends with its parent, whatever its threads do.
Must not live here: the modes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.isolation.modes import RECEIVE, Act, Site, called, count_in

PACE = 0.1
"""Seconds between two connections of one caller, so that what is measured is a hostile peer and not a crowd."""
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Part:
    """What is played: an act, `lanes` callers at a time where it calls, and seconds between their connections."""

    act: Any
    lanes: int
    pace: float = PACE


@dataclass(frozen=True, slots=True)
class Ports:
    """Sockets that listen for a whole run: what calls is handed on to whoever plays."""

    tcp: socket.socket
    udp: socket.socket

    @property
    def number(self) -> int:
        return int(self.tcp.getsockname()[1])

    def emptied(self) -> None:
        """Nobody of the window before is in line any more."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.tcp.accept()[0].close()
        with contextlib.suppress(BlockingIOError):
            while True:
                self.udp.recv(1)


def ports() -> Ports:
    """A number that is free for both."""
    while True:
        tcp, udp = socket.create_server(("127.0.0.1", 0), backlog=512), socket.socket(type=socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            udp.bind(tcp.getsockname())
            tcp.setblocking(False)
            udp.setblocking(False)
            return Ports(tcp, udp)
        tcp.close()
        udp.close()


def _one(act: Act, sock: socket.socket, site: Site) -> None:
    with sock, contextlib.suppress(OSError, EOFError, ValueError, KeyError):
        act(sock, site)


def _accepting(part: Part, ports: Ports, site: Site) -> None:
    while True:
        sock, _ = ports.tcp.accept()
        threading.Thread(target=_one, args=(part.act, sock, site), daemon=True).start()


def _calling(part: Part, address: tuple[str, int], site: Site) -> None:
    while True:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            _one(part.act, called(address), site)
        time.sleep(max(0.001, began + part.pace - time.monotonic()))


def _naming(part: Part, ports: Ports) -> None:
    def answer(question: bytes, peer: Any) -> None:
        with contextlib.suppress(OSError, IndexError):
            for reply in part.act(question, "udp"):
                ports.udp.sendto(reply, peer)
    while True:
        threading.Thread(target=answer, args=ports.udp.recvfrom(RECEIVE), daemon=True).start()


def _naming_by_tcp(act: Callable[[bytes, str], Iterator[bytes]]) -> Act:
    def one(sock: socket.socket, site: Site) -> None:
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
            more = sock.recv(RECEIVE)
            if not more:
                return
            data += more
        replies = act(data[2:], "tcp")
        for reply in replies:
            sock.sendall(len(reply).to_bytes(2) + reply if reply else b"\x0f")
    return one


def _played(kind: str, part: Part, ports: Ports, address: tuple[str, int], site: Site, count: Any) -> None:
    """The process."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    count_in(count)
    ports.emptied()
    ports.tcp.setblocking(True)
    ports.udp.setblocking(True)
    works: list[Callable[[], None]]
    if kind == "calls":
        works = [lambda: _calling(part, address, site)] * part.lanes
    elif kind == "names":
        works = [lambda: _naming(part, ports),
                 lambda: _accepting(Part(_naming_by_tcp(part.act), 1), ports, site)]
    else:
        works = [lambda: _accepting(part, ports, site)]
    for work in works:
        threading.Thread(target=work, daemon=True).start()
    while os.getppid() == parent:
        time.sleep(0.2)


class Attacker:
    """A process that plays."""

    def __init__(self, process: Any, count: Any) -> None:
        self._process, self._count = process, count

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def calls(self) -> int:
        """Connections and requests that it made, where it is who calls."""
        return int(self._count.value)


@contextmanager
def playing(kind: str, part: Part, ports: Ports, address: tuple[str, int], site: Site) -> Iterator[Attacker]:
    """An attacker for the length of a `with` block; it is killed at the end."""
    count = FORK.Value("q", 0)
    process = FORK.Process(target=_played, args=(kind, part, ports, address, site, count), daemon=True)
    process.start()
    try:
        yield Attacker(process, count)
    finally:
        process.kill()
        process.join()
        ports.tcp.setblocking(False)
        ports.udp.setblocking(False)


def burn(share: float) -> None:
    """Use that much of one core, in slices of 10 ms, until killed."""
    parent, began = os.getppid(), time.monotonic()
    while os.getppid() == parent:
        wanted = share * (time.monotonic() - began)
        if time.process_time() >= wanted:
            time.sleep(0.005)


@contextmanager
def burning(share: float) -> Iterator[None]:
    """A program outside the delegator that uses as much CPU as an attacker did."""
    if share < 0.01:
        yield
        return
    process = FORK.Process(target=burn, args=(min(share, 1.0),), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
