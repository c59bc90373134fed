"""T-C7: whoever takes all connections of one port takes them from nobody else: devices, operators, delegates, store."""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from .conftest import World
from .operating import p99

LIMIT = 640
"""Open files of the delegator, so that a thousand connections are more than it can hold."""
SOURCES = 10
ASKS = 60
MOST = 0.25


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started from here on may hold that many files open."""
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, preexec_fn=limit))


def silent(port: int, many: int) -> list[socket.socket]:
    """As many as the kernel lets through in a second: some stand in line, some are gone already."""
    socks = []
    for number in range(many):
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.0.0.{2 + number % SOURCES}", 0))
        sock.connect_ex(("127.0.0.1", port))
        socks.append(sock)
        if number % 50 == 0:
            time.sleep(0.02)
    return socks


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("crowded", ["operators", "devices", "both"])
def test_TC7_one_port_that_is_full_of_silence_is_not_felt_at_another(watched: World, crowded: str) -> None:
    world = watched
    tags = [f"QUICK{number:03}" for number in range(2 * ASKS)]
    world.host(*tags)
    world.own("ASKED001", "ASKED002")
    for tag in (*tags, "ASKED001", "ASKED002"):
        world.paths(tag)
    said = world.start()
    calm = p99(world, tags[:ASKS])
    assert world.ask("ASKED001").status == 200
    ports = {"operators": [said["ops"]], "devices": [world.port], "both": [said["ops"], world.port]}[crowded]
    crowd = [sock for port in ports for sock in silent(port, 2000)]
    try:
        taken = p99(world, tags[ASKS:])
        held = len(list(Path(f"/proc/{world.process.pid}/fd").iterdir())) if world.process else 0
        print(f"{crowded}: p99 {1000 * calm:.0f} ms without, {1000 * taken:.0f} ms with; {held} files of {LIMIT}")
        assert taken <= max(MOST, 1.5 * calm)
        assert held < LIMIT
        with urllib.request.urlopen(f"http://127.0.0.1:{said['ops']}/readyz", timeout=5) as answer:
            assert json.load(answer)["ready"] is True
        assert world.ask("ASKED002").status == 200, "its delegate is called all the same"
    finally:
        for sock in crowd:
            with contextlib.suppress(OSError):
                sock.close()
    warnings = [line for line in world.log.splitlines() if '"level":"error"' in line or '"level":"warning"' in line]
    assert len(warnings) <= 4, warnings
