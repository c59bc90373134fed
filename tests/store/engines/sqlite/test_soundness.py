"""A file is judged by what stands in it: what SQLite 3.40 reports falsely keeps nobody from starting, what is so does.

Reports are only false on SQLite 3.40.0 and 3.40.1; that a true one is believed is tried on every release.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import Policy
from delegator.store.engines.sqlite import backup, soundness
from delegator.store.engines.sqlite.rehearsal import rehearse_sqlite
from delegator.store.engines.sqlite.soundness import ENOUGH, require_sound, troubles
from delegator.store.migrate import MADE_FIRST, schema_files

from ....clock import today

FILES = schema_files("sqlite")
COLUMNS = "abc"
MANY = ENOUGH + 50
"""Approved tags, each of which is reported: more than SQLite tells of at once."""


def shapes() -> Iterator[str]:
    """Every table of three columns by its key and by what may be in the other columns, with a rowid and without."""
    for size in (1, 2, 3):
        for key in itertools.permutations(COLUMNS, size):
            others = [one for one in COLUMNS if one not in key]
            for kinds in itertools.product(("TEXT", "TEXT NOT NULL", "TEXT NOT NULL DEFAULT 'x'"), repeat=len(others)):
                kind = dict(zip(others, kinds, strict=True))
                for ending in ("", "STRICT", "WITHOUT ROWID", "STRICT, WITHOUT ROWID"):
                    columns = ", ".join(f"{one} {kind.get(one, 'TEXT NOT NULL')}" for one in COLUMNS)
                    yield f"({columns}, PRIMARY KEY ({', '.join(key)})) {ending}"


@pytest.mark.parametrize("check", ["quick_check", "integrity_check"])
def test_R_kept_no_sound_table_of_any_shape_is_taken_for_broken(check: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for number, shape in enumerate(shapes()):
            connection.execute(f"CREATE TABLE t{number} {shape}")
            connection.execute(f"INSERT INTO t{number} VALUES ('a1', 'b1', 'c1'), ('a2', 'b2', 'c2')")
        assert number > 200
        assert list(troubles(connection, check)) == []


@pytest.mark.parametrize("package", ["delegator.store", "delegator.delegate"])
def test_R_kept_tables_have_the_columns_of_their_key_first_and_in_its_order(package: str) -> None:
    """So SQLite stores them where there is no rowid, and so all its releases check them rightly."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(MADE_FIRST)
        for file in schema_files("sqlite", package):
            connection.executescript(file.sql)
        assert soundness.misread(connection) == {}
        tables = connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND wr").fetchall()
        assert tables
        for (table,) in tables:
            columns = connection.execute("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid", (table,)).fetchall()
            in_record = sorted(columns, key=lambda column: column[1] or len(columns) + 1)
            assert columns == in_record, table


# --- databases from before schema 10 ------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "delegator.db"


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def before(path: Path, opening_sqlite, as_of) -> Callable[[], Awaitable[None]]:
    """Makes a file of schema 9, with many approved tags."""
    async def made() -> None:
        with as_of(9):
            store = await opening_sqlite()
            await store.add_policy(Policy("rollout", approved_only=True), today())
            await store.approve("rollout", [f"TAG{number:04}" for number in range(MANY)], today())
            await store.close()
    return made


async def test_R_kept_a_database_with_approved_tags_from_before_is_started_and_has_them_all(
        path, before, opening_sqlite):
    await before()
    require_sound(path)
    assert (await rehearse_sqlite(path, None)).words == f"schema 9; a start brings it to {FILES[-1].number}, for good"
    backup.examine(path)
    store = await opening_sqlite()
    assert await store.approved("rollout") == [f"TAG{number:04}" for number in range(MANY)]
    await store.remove("policy", "rollout", today())
    assert await store.approved("rollout") == [], "they go with their policy, as before"


@pytest.mark.skipif(sqlite3.sqlite_version_info[:2] != (3, 40), reason="only SQLite 3.40 reports what is not so")
async def test_R_kept_sqlite_does_report_it_and_where_nobody_looked_it_up_it_would_be_refused(
        path, before, monkeypatch):
    await before()
    monkeypatch.setattr(soundness, "misread", lambda connection: {})
    with pytest.raises(DelegatorError, match=r"is damaged: NULL value in approvals\.policy"):
        require_sound(path)


def with_a_null(path: Path) -> None:
    """One that is really there, behind more false ones than SQLite tells of at once: written while the table was said
    to allow it."""
    strict = next(file.sql for file in FILES if file.number == 1)
    strict = strict[strict.index("CREATE TABLE approvals"):].split(";")[0]
    lenient = "CREATE TABLE approvals (service_tag TEXT PRIMARY KEY, policy TEXT) WITHOUT ROWID"
    for sql, statement in ((lenient, "UPDATE approvals SET policy = NULL WHERE service_tag = 'TAG0140'"),
                           (strict, "PRAGMA schema_version")):
        changed(path, "PRAGMA writable_schema = ON",
                f"UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 'approvals'")
        changed(path, statement)


def with_a_page_of_nonsense(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'audit'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096:page * 4096] = b"\xff" * 4096
    path.write_bytes(content)


@pytest.mark.parametrize(("harm", "words"), [
    (with_a_null, "NULL value in approvals.policy"), (with_a_page_of_nonsense, "")], ids=["null", "page"])
async def test_R_kept_what_is_really_broken_is_refused_by_start_check_and_backup(path, tmp_path, before, harm, words):
    await before()
    harm(path)
    said = []
    for look in (lambda: require_sound(path), lambda: asyncio.run(rehearse_sqlite(path, None)),
                 lambda: backup.make(path, tmp_path / "copy.db", lambda done, all_of: None),
                 lambda: backup.examine(path),
                 lambda: backup.restore(path, tmp_path / "new.db", None, replace=False, progress=lambda *_: None)):
        with pytest.raises(DelegatorError) as refused:
            await asyncio.to_thread(look)
        assert refused.value.kind is Kind.CONFIGURATION
        assert f"database {path} is damaged: {words}" in refused.value.detail
        assert refused.value.hint
        said.append(refused.value)
    assert said[0].detail == said[1].detail, "the check says what the start says"
    assert "no copy was made" in said[2].hint
    assert [one.name for one in tmp_path.iterdir() if not one.name.startswith("delegator.db")] == []


def test_R_kept_a_check_is_told_one_trouble_at_a_time_without_sqlites_headings(path: Path) -> None:
    changed(path, "CREATE TABLE t (a TEXT NOT NULL)", "INSERT INTO t VALUES ('one'), ('two'), ('three')")
    content = bytearray(path.read_bytes())
    content[4096 + 3:4096 + 5] = b"\x00\x02"  # its page says that it has one row less than it has
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection:
        found = list(troubles(connection, "integrity_check"))
    assert found
    assert not [line for line in found if "***" in line or "\n" in line]
