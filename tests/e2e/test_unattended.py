"""A delegator on a terminal where nobody sits: an encrypted key is an error at once, at the start and at a reload, and
holds up neither revocations, nor the next reload, nor the end. B.

The terminal is the process's own: whoever wants to ask a person opens it, whatever standard input is.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pki import Folder
from pki.revocation import Reason

from .conftest import ROOT, World
from .operating import change, wait_for
from .test_reload import own_factory as own_factory

pytestmark = pytest.mark.counterpart("openssl")


class Terminal:
    """A terminal that is somebody's own, and what was written to it."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()

    def own(self) -> None:
        os.setsid()
        fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)

    @property
    def said(self) -> bytes:
        found = b""
        while select.select([self.ours], [], [], 0)[0]:
            try:
                found += os.read(self.ours, 65536)
            except OSError:
                break
        return found


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.ours)
    os.close(made.theirs)


def encrypted(key: Path) -> bytes:
    return subprocess.run(["openssl", "pkcs8", "-topk8", "-in", key, "-passout", "pass:abc"], capture_output=True,
                          check=True).stdout


def put(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def start(world: World, terminal: Terminal, words: tuple[str, ...] = ("serve", "--json")) -> subprocess.Popen[str]:
    world._log = (world.root / "log").open("a")
    return subprocess.Popen([sys.executable, "-m", "delegator", "--config", str(world.root / "delegator.toml"), *words],
                            stdin=terminal.theirs, stdout=subprocess.PIPE, stderr=world._log, text=True,
                            preexec_fn=terminal.own, env={**os.environ, "PYTHONPATH": str(ROOT)})


def refused(world: World, tag: str) -> bool:
    try:
        return world.ask(tag).status != 200
    except OSError:
        return True


SPOIL: dict[str, Callable[[Path, bytes], None]] = {
    "encrypted": lambda path, good: put(path, encrypted(path)),
    "a pipe that nobody writes to": lambda path, good: as_pipe(path),
    "cut off": lambda path, good: put(path, good[:-20])}


@pytest.mark.parametrize(("how", "workers"), [(how, 1) for how in SPOIL] + [("encrypted", 2)])
def test_b_a_key_that_is_not_in_order_holds_up_nothing(world: World, own_factory: Folder, terminal: Terminal,
                                                       how: str, workers: int) -> None:
    world.host("UNATT01", "UNATT02")
    change(world, ("workers = 1", f"workers = {workers}"))
    world.process = start(world, terminal)
    assert world.process.stdout is not None
    world.port = json.loads(world.process.stdout.readline())["port"]
    assert world.ask("UNATT01").status == 200
    key = own_factory.certificate_path("delegator-server", "delegator").with_suffix(".key")
    good = key.read_bytes()
    SPOIL[how](key, good)
    assert wait_for(lambda: "reload refused" in world.log), "noticed without a signal"
    assert str(key) in world.log
    own_factory.revoke([world.device("UNATT01").serial], Reason.KEY_COMPROMISE, own_factory.authority())
    assert wait_for(lambda: refused(world, "UNATT01")), "the revocation counts while the key is not in order"
    assert world.ask("UNATT02").status == 200
    put(key, good)
    assert wait_for(lambda: "were reloaded" in world.log), "the next reload is not held up"
    assert refused(world, "UNATT01")
    SPOIL[how](key, good)
    began = time.monotonic()
    assert world.stop() == 0
    assert time.monotonic() - began < 10
    assert terminal.said == b"", "nobody was asked"


@pytest.mark.parametrize("words", [("serve",), ("config", "check")])
def test_b_at_the_start_it_is_said_at_once_what_to_do(world: World, own_factory: Folder, terminal: Terminal,
                                                      words: tuple[str, ...]) -> None:
    key = own_factory.certificate_path("delegator-server", "delegator").with_suffix(".key")
    put(key, encrypted(key))
    process = start(world, terminal, words)
    out, _ = process.communicate(timeout=30)
    world._log.close()
    world.process = None
    assert process.returncode == 3
    assert "is encrypted with a pass phrase, and nobody is there to type it" in out + world.log
    assert f"openssl pkey -in {key} -out NEW" in out + world.log
    assert terminal.said == b"", "nobody was asked"
