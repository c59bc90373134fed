"""Thousands of peers that are slow at one stage, and devices beside them that are served as before (T-C6, T-C7)."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from delegator import config
from delegator.net import ebb

from .conftest import World
from .operating import p99

MANY = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1000)
SOURCES = 10
"""Addresses they come from, so that no cap of one source is reached: this is about all of them together."""
ASKS = 100
MOST = 0.25
"""Seconds of p99, or half as much again as without them where the machine is slower than that."""
MEMORY = 32
"""MiB that may be left of a crowd once it is gone."""
STAGES: dict[str, tuple[bool, bytes]] = {
    "silent": (False, b""), "in the handshake": (False, b"\x16\x03\x01\x02\x00\x01\x00"), "idle": (True, b""),
    "in the head": (True, b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "),
    "in the body": (True, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n<s:Envelope")}
"""Whether they have shown a certificate, and what they said before they stopped."""


def held_open(world: World, stage: str) -> Iterator[socket.socket]:
    """Connections that stay at a stage, each as slow as it may be."""
    shakes, said = STAGES[stage]
    context = world.tls(*world.paths("SLOWPEER"))
    for number in range(MANY):
        if number % 50 == 0:
            time.sleep(0.02)  # all at once would be an overload, which turns some away
        raw = socket.create_connection(("127.0.0.1", world.port), 30,
                                       source_address=(f"127.0.0.{2 + number % SOURCES}", 0))
        peer = context.wrap_socket(raw, server_hostname="localhost") if shakes else raw
        peer.sendall(said)
        yield peer


def descriptors(world: World) -> int:
    assert world.process is not None
    return len(list(Path(f"/proc/{world.process.pid}/fd").iterdir()))


def resident(world: World) -> int:
    """Memory in MiB."""
    assert world.process is not None
    status = Path(f"/proc/{world.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


@pytest.mark.parametrize("stage", list(STAGES))
def test_TC6_thousands_of_slow_peers_cost_devices_nothing_and_leave_nothing(
        make_world: Callable[[str], World], stage: str) -> None:
    world = make_world("slow")
    settings = replace(world.settings, limits=config.Limits(handshake=20, request=300, idle=300))
    (world.root / "delegator.toml").write_text(config.as_toml(settings))
    tags = [f"QUICK{number:03}" for number in range(2 * ASKS)]
    world.host(*tags)
    for tag in tags:
        world.paths(tag)
    world.start()
    calm, before, memory = p99(world, tags[:ASKS]), descriptors(world), resident(world)
    slow = []
    try:
        for peer in held_open(world, stage):
            slow.append(peer)
        until = time.monotonic() + 15
        while descriptors(world) - before < MANY * 0.95 and time.monotonic() < until:
            time.sleep(0.05)
        assert descriptors(world) - before >= MANY * 0.95, "they are all there"
        crowded = p99(world, tags[ASKS:])
        print(f"{stage}: {len(slow)} slow peers; p99 {1000 * calm:.0f} ms without, {1000 * crowded:.0f} ms with them")
        assert crowded <= max(MOST, 1.5 * calm)
        if STAGES[stage][0]:
            for peer in slow:
                peer.close()
        until = time.monotonic() + 60  # the others are let go by the deadline of the handshake
        while descriptors(world) > before + 2 and time.monotonic() < until:
            time.sleep(0.2)
        assert descriptors(world) <= before + 2, "every descriptor is back"
        until = time.monotonic() + 2 * ebb.APART
        while resident(world) > memory + MEMORY and time.monotonic() < until:
            time.sleep(0.2)
        print(f"{stage}: {memory} MiB before, {resident(world)} MiB once they are gone")
        assert resident(world) <= memory + MEMORY, "and so is the memory"
    finally:
        for peer in slow:
            with contextlib.suppress(OSError, ssl.SSLError):
                peer.close()
