"""The database of a running delegator deleted, moved, replaced or written over, devices asking all the while: told by
/readyz and the log within seconds, no credential from then on, back within five seconds where all is back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest
from msgspec.structs import replace

from delegator import config

from ..thorough import crossed
from .conftest import ROOT, Reply, World
from .operating import change, readyz, wait_for

NOTICED = 5.0
"""Seconds until it is told: a look each second, on a machine with other work."""


class Devices:
    """Some that ask one after the other, from one thread, and what each was told and when."""

    def __init__(self, world: World, tags: list[str]) -> None:
        self.answers: list[tuple[float, str, Reply]] = []
        self._world, self._tags = world, tags
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for number, tag in enumerate(self._tags * 20):
            if self._ended.wait(0.01):
                return
            del number
            began = time.monotonic()
            self.answers.append((began, tag, self._world.ask(tag)))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def asking(world: World, tags: list[str]) -> Iterator[Devices]:
    for tag in tags:
        world.device(tag)
    devices = Devices(world, tags)
    try:
        yield devices
    finally:
        devices.end()


def over(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


FAULTS: dict[str, Callable[[Path, Path], object]] = {
    "deleted": lambda path, old: path.unlink(),
    "moved": lambda path, old: path.rename(path.with_name("elsewhere")),
    "an older copy moved over it": lambda path, old: old.replace(path),
    "an older copy written over it": lambda path, old: over(old, path),
    "its log deleted": lambda path, old: path.with_name(f"{path.name}-wal").unlink(),
    "its folder moved": lambda path, old: path.parent.rename(path.parent.with_name("moved")),
}


@pytest.mark.parametrize(("fault", "workers"), crossed(list(FAULTS), (1, 2), 2))
def test_R_lasting_no_credential_is_given_that_will_not_last(watched: World, fault: str, workers: int) -> None:
    (watched.root / "data").mkdir()
    Path(watched.settings.store.path).rename(watched.root / "data/delegator.db")
    change(watched, (f'path = "{watched.settings.store.path}"', f'path = "{watched.root}/data/delegator.db"'))
    watched.settings = replace(watched.settings, store=config.Store(path=f"{watched.root}/data/delegator.db"))
    change(watched, ("workers = 1", f"workers = {workers}"))
    path, old = Path(watched.settings.store.path), watched.root / "old.db"
    tags = [f"LOST{number:04}" for number in range(60)]
    watched.host("KEPT001", *tags)
    said = watched.start()
    assert watched.ask("KEPT001").status == 200
    subprocess.run([sys.executable, "-m", "delegator", "--config", str(watched.root / "delegator.toml"), "backup",
                    str(old)], cwd=watched.root, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
                   capture_output=True)
    with asking(watched, tags) as devices:
        assert wait_for(lambda: len(devices.answers) > 15)
        FAULTS[fault](path, old)
        began = time.monotonic()
        assert wait_for(lambda: readyz(said["ops"])[0] == 503)
        noticed = time.monotonic()
        assert noticed - began < NOTICED
        time.sleep(0.5)
    assert {reply.fault for asked, _, reply in devices.answers if asked > noticed} == {"TryLater"}
    told = readyz(said["ops"])[1]["wrong"]["store"]
    assert "next: " in told, told
    assert f"database {path}" in watched.log
    assert "no credential is given" in watched.log


@pytest.mark.parametrize("workers", [1, 2])
def test_R_lasting_moved_away_and_back_it_is_served_within_five_seconds_and_nobody_is_told_otherwise(
        watched: World, workers: int) -> None:
    change(watched, ("workers = 1", f"workers = {workers}"))
    tags = [f"BACK{number:04}" for number in range(60)]
    watched.host(*tags)
    said = watched.start()
    path = Path(watched.settings.store.path)
    with asking(watched, tags) as devices:
        for _ in range(3):
            enough = len(devices.answers) + 15
            assert wait_for(lambda enough=enough: len(devices.answers) > enough)
            path.rename(path.with_name("elsewhere"))
            assert wait_for(lambda: readyz(said["ops"])[0] == 503)
            path.with_name("elsewhere").rename(path)
            back = time.monotonic()
            assert wait_for(lambda: readyz(said["ops"])[0] == 200)
            assert time.monotonic() - back < 5
    given: dict[str, set[object]] = {}
    for _, tag, reply in devices.answers:
        assert reply.status == 200 or reply.fault == "TryLater", reply
        if reply.status == 200:
            given.setdefault(tag, set()).add(reply.credential)
    watched.stop()
    watched.start()
    assert {tag: {watched.ask(tag).credential} for tag in given} == given


def test_R_lasting_a_deleted_database_is_brought_back_from_what_was_saved(watched: World) -> None:
    tags = [f"SAVE{number:04}" for number in range(20)]
    watched.host(*tags)
    said = watched.start()
    given = {tag: watched.ask(tag).credential for tag in tags}
    path = Path(watched.settings.store.path)
    path.unlink()
    assert wait_for(lambda: list(path.parent.glob(f"{path.name}.saved-*")))
    assert wait_for(lambda: readyz(said["ops"])[1].get("wrong", {}).get("store"))
    assert wait_for(lambda: "delegator restore" in watched.log)
    assert "delegator restore" not in readyz(said["ops"])[1]["wrong"]["store"], "commands are for operators alone"
    saved, = path.parent.glob(f"{path.name}.saved-*")
    watched.stop()
    subprocess.run([sys.executable, "-m", "delegator", "--config", str(watched.root / "delegator.toml"), "restore",
                    str(saved), "--replace"], cwd=watched.root, check=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    watched.start()
    assert {tag: watched.ask(tag).credential for tag in tags} == given


def test_R_lasting_a_restore_is_refused_while_it_is_served_and_nothing_changes(watched: World) -> None:
    watched.host("KEPT001", "KEPT002")
    said = watched.start()
    first = watched.ask("KEPT001").credential
    copy = watched.root / "copy.db"
    for words, code in ((["backup", str(copy)], 0), (["restore", str(copy), "--replace"], 6)):
        done = subprocess.run([sys.executable, "-m", "delegator", "--config", str(watched.root / "delegator.toml"),
                               *words], cwd=watched.root, check=False, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == code, done.stderr
    assert watched.ask("KEPT001").credential == first
    assert watched.ask("KEPT002").status == 200
    assert readyz(said["ops"])[0] == 200
    assert "no credential is given" not in watched.log


def test_R_lasting_an_index_of_the_log_that_is_cut_costs_nothing_that_was_promised(watched: World) -> None:
    """It may end the process, as SQLite has it mapped (SIGBUS); a start makes it anew from the log."""
    tags = [f"CUT{number:04}" for number in range(20)]
    watched.host("NEW0001", *tags)
    watched.start()
    given = {tag: watched.ask(tag).credential for tag in tags}
    os.truncate(Path(f"{watched.settings.store.path}-shm"), 0)
    with suppress(OSError, HTTPException):
        assert watched.ask("NEW0001").fault == "TryLater"
    watched.stop(signal.SIGKILL)
    watched.start()
    assert {tag: watched.ask(tag).credential for tag in tags} == given
