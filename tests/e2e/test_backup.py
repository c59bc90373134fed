"""A copy of a delegator's database made under load, and a delegator that serves on from it. A3, A10."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from delegator.model import Registration

from ..cli.conftest import process
from ..clock import today
from .conftest import World

DEVICES = 120
OTHERS = 5_000
"""Registered besides, so that the copy has some size."""


class Coming(threading.Thread):
    """Devices that ask one after the other; what each was given, and how long the slowest waited, in seconds."""

    def __init__(self, world: World, tags: list[str]) -> None:
        super().__init__()
        self.world, self.tags = world, tags
        self.given: dict[str, tuple[str | None, str | None]] = {}
        self.slowest = 0.0
        self.stopped = False

    def run(self) -> None:
        for tag in self.tags:
            if self.stopped:
                return
            began = time.monotonic()
            try:
                self.given[tag] = self.world.ask(tag).credential
            except OSError:
                return  # the delegator was killed
            self.slowest = max(self.slowest, time.monotonic() - began)

    def until(self, number: int) -> dict[str, tuple[str | None, str | None]]:
        end = time.monotonic() + 60
        while len(self.given) < number and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.given) >= number
        return dict(self.given)


def test_a10_what_was_answered_before_the_copy_began_is_in_it_and_served_again(world: World, tmp_path: Path) -> None:
    tags = [f"LOAD{number:04}" for number in range(DEVICES)]
    world.host(*tags)
    world.store(lambda store: store.add_devices((
        Registration("globex", f"OTHER{number:05}") for number in range(OTHERS)), today()))
    for tag in tags:
        world.paths(tag)
    world.start()
    coming = Coming(world, tags)
    coming.start()
    before = coming.until(30)
    copy, settings = tmp_path / "copy.db", world.root / "delegator.toml"
    made = process("--config", settings, "backup", copy, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    during = coming.until(len(coming.given) + 10)
    assert coming.slowest < 2.0, "no device waits for the copy"
    world.stop(signal.SIGKILL)
    coming.stopped = True
    coming.join(30)

    refused = process("--config", settings, "restore", copy, cwd=tmp_path)
    assert refused.returncode == 6, "there is a database, and nobody said to replace it"
    done = process("--config", settings, "restore", copy, "--replace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    world.start()
    assert {tag: world.ask(tag).credential for tag in before} == before
    after = set(during) - set(before)
    assert after, "devices that came while it was copied"
    kept = {claim.service_tag for claim in world.store(lambda store: store.claims())}
    assert kept >= set(before)


def test_a_running_delegator_is_not_replaced(world: World, tmp_path: Path) -> None:
    world.host("INUSE01")
    world.start()
    first = world.ask("INUSE01")
    copy, settings = tmp_path / "copy.db", world.root / "delegator.toml"
    assert process("--config", settings, "backup", copy, cwd=tmp_path).returncode == 0
    refused = process("--config", settings, "restore", copy, "--replace", cwd=tmp_path)
    assert refused.returncode == 6
    assert "is in use" in refused.stderr
    assert "systemctl stop" in refused.stderr
    assert world.ask("INUSE01").body == first.body
    world.stop()
    assert process("--config", settings, "restore", copy, "--replace", cwd=tmp_path).returncode == 0
    world.start()
    assert world.ask("INUSE01").body == first.body
