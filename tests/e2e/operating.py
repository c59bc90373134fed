"""An operator's hands and eyes in tests: settings changed, signals sent, log, metrics and readiness read, a service
manager played."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conftest import World

ROOT = Path(__file__).parents[2]
WITHIN = 10.0
"""Seconds that are waited for what must come."""


def change(world: World, *pairs: tuple[str, str]) -> None:
    """Change lines of the settings, as an operator does."""
    path = world.root / "delegator.toml"
    text = path.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)


def wait_for(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it holds, or at last."""
    until = time.monotonic() + WITHIN
    while True:
        found = condition()
        if found or time.monotonic() > until:
            return found
        time.sleep(0.02)


def lines(world: World, words: str) -> list[dict[str, Any]]:
    """Lines of its log that hold these words."""
    found = [json.loads(line) for line in world.log.splitlines() if line.startswith("{")]
    return [line for line in found if words in line["event"]]


def hang_up(world: World) -> str:
    """SIGHUP, and wait for what is said of it."""
    before = len(lines(world, "reload"))
    assert world.process is not None
    world.process.send_signal(signal.SIGHUP)
    assert wait_for(lambda: len(lines(world, "reload")) > before), world.log
    return str(lines(world, "reload")[before]["event"])


def metrics(port: int) -> dict[str, float]:
    """Every sample of /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^([^#\n].*) (\S+)$", text, re.MULTILINE)}


def readyz(port: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class Heard:
    """What a service manager hears, in order."""

    def __init__(self, path: Path) -> None:
        self.path, self.said = path, []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    said: list[dict[str, str]]

    def _listen(self) -> None:
        while (data := self._socket.recv(4096)) != b"end":
            self.said.append(dict(line.split("=", 1) for line in data.decode().splitlines()))

    def first(self, key: str) -> dict[str, str]:
        found = wait_for(lambda: [one for one in self.said if key in one])
        assert found, self.said
        return dict(found[0])

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", str(self.path))
        self._thread.join()
        self._socket.close()


def start_with(world: World, sock: socket.socket) -> None:
    """As systemd does: the socket at 3, LISTEN_PID the child's own."""
    script = (f"import os; os.dup2({sock.fileno()}, 3); os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='devices', "
              "LISTEN_PID=str(os.getpid())); os.execv(os.sys.executable, [os.sys.executable, '-m', 'delegator', "
              f"'--config', '{world.root}/delegator.toml', 'serve', '--json'])")
    world._log = (world.root / "log").open("a")
    world.process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=world._log,
                                     text=True, pass_fds=(sock.fileno(),),
                                     env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert world.process.stdout is not None
    line = world.process.stdout.readline()
    assert line, world.log
    world.port = json.loads(line)["port"]


def p99(world: World, tags: list[str]) -> float:
    """Seconds that the slowest hundredth of these devices waits, asked one after the other; all are answered."""
    taken = []
    for tag in tags:
        begin = time.perf_counter()
        assert world.ask(tag).status == 200
        taken.append(time.perf_counter() - begin)
    return statistics.quantiles(taken, n=100)[98]
