"""What a mode is, and the few things that hostile peers of every layer do: hold, drip, pour.

The invariant: a mode says in one sentence what its peer does; whatever it does ends with its process.
Must not live here: the modes themselves (delegates, shells, relays, names, callers).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.fleet import Device

PAUSE = 0.05
"""Seconds between the bytes of a peer that drips."""
RECEIVE = 1 << 16


class Site(NamedTuple):
    """Where the attacker stands: its certificate as a server, the factory's anchor, whom it may call, and devices of
    its own (certificates with their keys beside them); `many` is a server's certificate with thousands of names,
    `large` and `largest` are of a hundred KiB and less, and nobody signed them."""

    chain: Path
    ca: Path
    address: tuple[str, int]
    ops: tuple[str, int]
    own: Sequence[Path]
    host_key: Path
    many: Path
    large: Path
    largest: Path


Act = Callable[[socket.socket, Site], None]
"""What is done with one connection; OSError ends it."""
SOURCE = "127.0.0.66"
"""Where attackers that call come from: another address than other customers' devices, which has a cap of its own."""


class _Calls:
    """What callers have asked of the server, see `asked`."""

    counter: Any = None


def asked(many: int = 1) -> None:
    """Count connections and requests that the server had to deal with."""
    if _Calls.counter is not None:
        with _Calls.counter.get_lock():
            _Calls.counter.value += many


def count_in(counter: Any) -> None:
    """Where an attacker's process counts."""
    _Calls.counter = counter


def called(address: tuple[str, int]) -> socket.socket:
    """A connection of the attacker's, counted."""
    sock = socket.create_connection(address, 5, source_address=(SOURCE, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asked()
    return sock


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to be hostile."""

    layer: str
    name: str
    does: str
    act: Act

    def __str__(self) -> str:
        return f"{self.layer}: {self.name}"


class Provoked(NamedTuple):
    """A call that a device makes so that the peer is called: who asks, and from which address."""

    device: Device
    source: str


def hold(sock: socket.socket) -> None:
    """Say nothing, and hear all."""
    while sock.recv(RECEIVE):
        pass


def drip(sock: socket.socket, data: bytes) -> None:
    """A byte now and then."""
    for one in data:
        sock.sendall(bytes([one]))
        time.sleep(PAUSE)
    hold(sock)


def pour(sock: socket.socket, parts: Iterable[bytes]) -> None:
    """Send without end, as fast as it is taken, and never read."""
    for part in parts:
        sock.sendall(part)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
