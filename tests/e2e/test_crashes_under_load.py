"""SIGKILL while devices keep coming, again and again: no credential is lost, changed, or given to two devices
(R-once, R-durable; A3, A6, A8).

A kill proves that nothing is told before it is with the kernel; that it is on the disk then is what
tests/store/engines/sqlite/test_trouble.py and `synchronous=FULL` are for.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from delegator import config
from delegator.model import ClaimState

from ..cli.conftest import process
from ..postgres import Cluster
from ..thorough import THOROUGH
from .conftest import Reply, World

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
"""Python's ssl leaves its socket open when the server dies between connecting and the handshake (ENOTCONN, then a
reset, in SSLSocket._create), where no caller can close it; once in a few thousand calls."""

KILLS = 200 if THOROUGH else 20
"""`make proof` takes its time."""

NEW = 6
"""Devices that come for the first time between two kills, half of them hosted."""
CROWD = 4
ONCE_MORE = 4
"""Of those that were served before, so many ask again."""


@dataclass
class Crowd:
    """Devices that ask until the delegator dies, and every answer that they got."""

    world: World
    answers: dict[str, set[tuple[str | None, str | None]]] = field(default_factory=lambda: defaultdict(set))
    odd: list[str] = field(default_factory=list)

    def ask(self, tag: str) -> Reply | None:
        """None where the delegator died meanwhile."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            reply = self.world.ask(tag)
            if reply.status == 200:
                self.answers[tag].add(reply.credential)
            elif reply.fault != "TryLater":
                self.odd.append(f"{tag}: {reply.status} {reply.fault}")
            return reply
        return None

    def until_killed(self, tags: list[str], after: float) -> None:
        """All of them at once, over and over, for a while; then SIGKILL."""
        stop = threading.Event()

        def come(mine: list[str]) -> None:
            while not stop.is_set():
                for tag in mine:
                    self.ask(tag)
        threads = [threading.Thread(target=come, args=(tags[number::CROWD],)) for number in range(CROWD)]
        for one in threads:
            one.start()
        time.sleep(after)
        assert self.world.stop(signal.SIGKILL) == -9
        stop.set()
        for one in threads:
            one.join()

    def everybody(self, tags: list[str]) -> None:
        """In the end each is served; what a crash left busy is free within the time of a callback."""
        for tag in tags:
            until = time.monotonic() + 10
            while (reply := self.ask(tag)) is None or reply.status != 200:
                assert time.monotonic() < until, f"{tag} is not served: {reply}"
                time.sleep(0.2)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.counterpart("initdb"),
                                                                    pytest.mark.slow])])
def killed_world(request: pytest.FixtureRequest, make_world: Callable[..., World]) -> World:
    database = None
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        database = config.Store(url=cluster.url(cluster.database()), connections=4, timeout=2.0)
    return make_world("killed", database=database)


def nothing_lost_changed_or_shared(world: World, crowd: Crowd, tags: list[str]) -> None:
    assert crowd.odd == []
    assert {tag: len(found) for tag, found in crowd.answers.items() if len(found) != 1} == {}, "lost or changed"
    given = [next(iter(crowd.answers[tag])) for tag in tags]
    assert len(set(given)) == len(tags), "given to two devices"
    claims = world.store(lambda store: store.claims(most=100_000))
    assert sorted(claim.service_tag for claim in claims) == sorted(tags), "one claim each"
    assert {claim.state for claim in claims} == {ClaimState.ISSUED}
    kept = {claim.service_tag: claim.claim_id for claim in claims}
    for tag, answer in zip(tags, given, strict=True):
        if tag.startswith("OWN"):
            assert answer[1] == world.delegate.given[kept[tag]], "what its own delegate gave under its own claim"


def kill_again_and_again(world: World, kills: int) -> None:
    chance, crowd, tags = random.Random(4433), Crowd(world), []
    for number in range(kills):
        hosted, owned = ([f"{kind}{number:04}{one}" for one in range(NEW // 2)] for kind in ("HST", "OWN"))
        world.host(*hosted)
        world.own(*owned)
        for tag in hosted + owned:
            world.paths(tag)
        before = chance.sample(tags, min(ONCE_MORE, len(tags)))
        tags += hosted + owned
        world.start()
        crowd.until_killed(hosted + owned + before, chance.uniform(0.02, 0.5))
    world.start()
    crowd.everybody(tags)
    nothing_lost_changed_or_shared(world, crowd, tags)
    assert world.stop() == 0


def test_A3_many_kills_lose_nothing(killed_world: World) -> None:
    kill_again_and_again(killed_world, KILLS)


def test_R_kept_a_damaged_database_is_not_served_and_the_way_back_is_told(world: World) -> None:
    """A page in the middle of the file; what is not looked at would be missed only when a device needs it."""
    path = world.root / "delegator.db"
    world.host(*(f"DAMAGE{number:03}" for number in range(50)))
    content = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'devices'").fetchone()[0]
    content[(page - 1) * 4096:page * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    ended = process("--config", world.root / "delegator.toml", "serve", cwd=world.root)
    assert ended.returncode == 3
    assert "is damaged" in ended.stderr
    assert "delegator restore" in ended.stderr
    assert "Traceback" not in ended.stderr
