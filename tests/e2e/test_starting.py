"""`config check` says what `serve` will do, with a database that holds a row in every table, on each engine: A4, A8."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from delegator import config
from delegator.sealing import create_key_file
from delegator.store.transaction import Query

from ..cli.conftest import process
from ..postgres import Cluster
from ..store.conftest import _ask, _at
from ..store.filling import Filling, fill
from .conftest import World

Make = Callable[..., World]
ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.counterpart("initdb"))]


@pytest.fixture(params=ENGINES)
def filled(request: pytest.FixtureRequest, make_world: Make) -> World:
    database = None
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        database = config.Store(url=cluster.url(cluster.database()), connections=4)
    world = make_world("filled", database=database)
    world.store(lambda store: fill(Filling(store, _ask, _at)))
    return world


def checked(world: World) -> tuple[int, dict[str, str]]:
    """How `config check` ends, and what it finds not to be in order, with what it says of all of it together."""
    done = process("--config", world.root / "delegator.toml", "config", "check", "--json", cwd=world.root)
    findings = json.loads(done.stdout)["findings"]
    assert findings[-1]["what"] == "all together"
    return done.returncode, {one["what"]: one["detail"] for one in findings
                             if not one["ok"] or one["what"] == "all together"}


def refused(world: World) -> str:
    """The words with which `serve` ends at once."""
    done = process("--config", world.root / "delegator.toml", "serve", cwd=world.root)
    assert done.returncode not in (0, None)
    words = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "  next: " in done.stderr
    return words.removeprefix("error: ")


def statement(sql: str) -> Callable[[World], object]:
    async def done(store) -> None:
        def work():
            yield Query(sql)
        await store._driver.driver.run(work)
    return lambda world: world.store(done)


def torn(world: World) -> None:
    path = Path(world.settings.store.path)
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'claims_live'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096:page * 4096] = b"\xff" * 4096
    path.write_bytes(content)


def with_another_key(world: World) -> None:
    Path(world.settings.sealing.key_file).unlink()
    create_key_file(Path(world.settings.sealing.key_file))


HARMS: dict[str, tuple[Callable[[World], object], str]] = {
    "newer": (statement("INSERT INTO schema_files VALUES (9999, 'later', 'x')"), "newer than this program"),
    "another key": (with_another_key, "unknown key"),
}


def test_a8_with_a_row_in_every_table_it_is_stopped_and_started_and_the_check_says_so_each_time(filled: World) -> None:
    for _ in range(2):
        assert checked(filled) == (0, {"all together": "a delegator would start with it"})
        filled.start()
        assert checked(filled) == (0, {"all together": "a delegator would start with it"}), "while it runs"
        assert filled.stop() == 0


@pytest.mark.parametrize("harm", HARMS)
def test_a8_what_serve_refuses_the_check_refused_in_the_same_words(filled: World, harm: str) -> None:
    do, words = HARMS[harm]
    do(filled)
    code, found = checked(filled)
    said = refused(filled)
    assert words in said
    assert code == 3
    assert found == {"database": said, "all together": said}


@pytest.mark.parametrize("workers", [1, 2])
def test_a8_a_file_that_is_damaged_is_refused_by_both_however_many_serve_and_is_not_written_to(
        make_world: Make, workers: int) -> None:
    world = make_world("torn", server={"workers": workers})
    world.store(lambda store: fill(Filling(store, _ask, _at)))
    torn(world)
    before = Path(world.settings.store.path).read_bytes()
    code, found = checked(world)
    said = refused(world)
    assert said.startswith(f"database {world.settings.store.path} is damaged: ")
    assert (code, found) == (3, {"database": said, "all together": said})
    assert Path(world.settings.store.path).read_bytes() == before
    copied = process("--config", world.root / "delegator.toml", "backup", "copy.db", cwd=world.root)
    assert copied.returncode == 3
    assert "no copy was made" in copied.stderr
    assert not (world.root / "copy.db").exists()
