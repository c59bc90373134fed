"""Two releases on one database: the one before goes on, and starts again, on the schema of the newer one (A10; 0021).

The one before is the wheel of the commit that brought schema 11, from which on this is promised; it is built once, from
the history of this repository. The newer one is this tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delegator import config
from delegator.model import Policy
from delegator.store import migrate
from delegator.store.migrate import schema_files

from ..clock import today
from ..postgres import Cluster
from .conftest import World
from .releases import release_with
from .test_postgres import Devices

PROMISED_SINCE = "delegator/store/schema/0011_oldest.postgres.sql"
NEWEST = schema_files("sqlite")[-1].number
Make = Callable[..., World]


@pytest.fixture(scope="session")
def before() -> Path:
    return release_with(PROMISED_SINCE)


@pytest.fixture
def older(make_world: Make, before: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Makes a world whose delegator is of that release, on a database that nothing newer has touched."""
    known = schema_files
    newest = max(int(path.name[:4]) for path in (before / "delegator/store/schema").glob("*.sqlite.sql"))

    def made(database: config.Store | None, *tags: str) -> World:
        with monkeypatch.context() as then:
            then.setattr(migrate, "schema_files", lambda *said: [one for one in known(*said) if one.number <= newest])
            world = make_world("older", database=database)
            world.host(*tags)
        world.tree = before
        return world
    return made


def command(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    """By that world's own release."""
    return subprocess.run([sys.executable, "-m", "delegator", "--config", str(world.root / "delegator.toml"), *words],
                          capture_output=True, text=True, cwd=world.tree, check=False, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(world.tree)})


def schema_of(world: World) -> str:
    return next(line for line in command(world, "config", "check").stdout.splitlines() if "schema" in line)


@pytest.mark.counterpart("initdb")
def test_A10_two_releases_serve_side_by_side_and_the_older_one_starts_again(
        make_world: Make, older: Callable[..., World], postgres: Cluster) -> None:
    """While devices ask: none of them notices that the schema becomes a newer one."""
    database = postgres.database(template="template0")
    tags = [f"SIDE{number:03}" for number in range(40)]
    old = older(config.Store(url=postgres.url(database), connections=4), *tags)
    for tag in tags:
        old.device(tag)
    old.start()
    at = "SELECT max(number) FROM schema_files"
    assert int(postgres.sql(at, database)) < NEWEST

    devices = Devices((old, old), tags[:30])
    new = make_world("newer", beside=old)
    new.start()
    assert int(postgres.sql(at, database)) == NEWEST
    time.sleep(0.5)
    devices.end()
    assert {reply.status for _, reply in devices.answers} == {200}

    given = {tag: new.ask(tag).credential for tag in tags[:5]}
    assert {tag: old.ask(tag).credential for tag in tags[:5]} == given, "what one gave the other gives again"
    claim = old.ask(tags[0]).text("ClaimId")
    assert new.confirm(tags[0], claim).status == 200
    assert old.ask(tags[0]).fault == "NotEntitled"

    assert old.stop() == 0
    old.start()
    assert f"schema {NEWEST}, of a newer release" in schema_of(old)
    assert command(old, "customers", "list").returncode == 0
    _one_limit_for_both(old, new)
    assert command(new, "audit", "verify").returncode == 0, "both wrote to it"


def _one_limit_for_both(old: World, new: World) -> None:
    tags = [f"RACE{number:03}" for number in range(16)]
    new.store(lambda store: store.add_policy(Policy("default", max_devices=5), today(), replace=True))
    new.own(*tags)
    for tag in tags:
        new.device(tag)
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda numbered: (old, new)[numbered[0] % 2].ask(numbered[1]), enumerate(tags)))
    assert sum(answer.status == 200 for answer in answers) == 5


def test_A10_on_the_embedded_database_the_release_before_can_be_started_again(
        make_world: Make, older: Callable[..., World]) -> None:
    old = older(None, "BACK001", "BACK002")
    old.start()
    first = old.ask("BACK001").credential
    old.stop()
    new = make_world("newer", beside=old)
    new.start()
    assert new.ask("BACK001").credential == first
    second = new.ask("BACK002").credential
    new.stop()
    assert f"schema {NEWEST}" in schema_of(new)
    old.start()
    assert (old.ask("BACK001").credential, old.ask("BACK002").credential) == (first, second)
