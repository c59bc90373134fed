"""`config check` says what `serve` will do, with a database that holds a row in every table, on each engine: A4, A8."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

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
    "newer": (statement("INSERT INTO schema_files (number, name, checksum) VALUES (9999, 'later', 'x')"),
              "newer than this program"),
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_a8_a_port_that_a_delegator_of_these_settings_has_is_in_order(
        request: pytest.FixtureRequest, make_world: Make, engine: str, workers: int) -> None:
    database = None
    if engine == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        database = config.Store(url=cluster.url(cluster.database()), connections=4)
    world = make_world("port", database=database, server={"port": free_port(), "workers": workers})
    assert checked(world) == (0, {"all together": "a delegator would start with it"})
    world.start()
    code, found = checked(world)
    assert (code, list(found)) == (0, ["all together"])
    assert re.fullmatch(r"delegator \(pid \d+\) serves with it already; a second one would be refused its port",
                        found["all together"])
    again = process("--config", world.root / "delegator.toml", "serve", cwd=world.root).stderr
    assert "Address already in use" in again
    assert re.search(r"  next: delegator \(pid \d+\) serves with these settings already", again)
    assert "another port" not in again
    assert world.stop() == 0


@pytest.mark.parametrize("section", ["server", "ops"])
def test_a8_a_port_that_another_program_has_is_told_with_who_and_in_the_words_of_serve(
        make_world: Make, section: str) -> None:
    port = free_port()
    world = make_world("taken")
    changed = replace(getattr(world.settings, section), port=port, **({"enabled": True} if section == "ops" else {}))
    (world.root / "delegator.toml").write_text(config.as_toml(replace(world.settings, **{section: changed})))
    script = (f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); print('up', flush=True); "
              "time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as held:
        assert held.stdout is not None
        held.stdout.readline()
        (code, found), said = checked(world), refused(world)
        held.kill()
    assert "Address already in use" in said
    what = {"server": "devices' port", "ops": "operators' port"}[section]
    row = f"{said.removeprefix(what + ': ')}: taken by {Path(sys.executable).name} (pid {held.pid})"
    assert (code, found) == (3, {what: row, "all together": said})
