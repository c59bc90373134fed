"""Schema files: numbered, applied once, never changed afterwards, whole or not at all (R-migrated)."""

from __future__ import annotations

import asyncio
import importlib
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import Customer
from delegator.store.engines.sqlite.driver import open_sqlite
from delegator.store.engines.sqlite.rehearsal import rehearse_sqlite
from delegator.store.migrate import SchemaFile, bring_up_to_date, files_in, schema_files
from delegator.store.transaction import Query

from ..clock import today

NEXT = schema_files("sqlite")[-1].number + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "delegator.db"


@pytest.fixture
async def driver(path):
    driver = await open_sqlite(path)
    yield driver
    await driver.close()


@pytest.fixture
def with_files(monkeypatch):
    """Pretend that a later release has further schema files."""
    def replaced(*more: SchemaFile) -> None:
        known = [*schema_files("sqlite"), *more]
        monkeypatch.setattr(importlib.import_module("delegator.store.migrate"), "schema_files", lambda *_: known)
    return replaced


async def rows(driver, sql: str) -> list[tuple]:
    return [tuple(row) for row in await driver.read(Query(sql))]


async def refused(work) -> DelegatorError:
    with pytest.raises(DelegatorError) as refusal:
        await work
    assert refusal.value.kind is Kind.CONFIGURATION
    return refusal.value


def changed(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def test_R_migrated_every_file_is_applied_once_and_recorded(driver):
    files = schema_files("sqlite")
    assert await bring_up_to_date(driver) == len(files)
    assert await bring_up_to_date(driver) == 0
    assert await rows(driver, "SELECT number, name, checksum FROM schema_files ORDER BY number") == [
        (file.number, file.name, file.checksum) for file in files]


def test_R_migrated_files_are_numbered_from_one_without_a_gap():
    assert [file.number for file in schema_files("sqlite")] == list(range(1, len(schema_files("sqlite")) + 1))
    assert schema_files("nothing") == []


@pytest.mark.parametrize("stray", ["0003_more.sql", "0003_more.mysql.sql", "3_more.sqlite.sql", "0003_more.sqlite.sql~",
                                   "0002_twice.sqlite.sql", "notes.txt"])
def test_R_migrated_a_file_that_would_be_skipped_is_refused(tmp_path, stray):
    """A common file for all dialects is one: it would be applied to none, and nobody would be told."""
    for name in ("0001_start.sqlite.sql", "0001_start.postgres.sql", "0002_more.sqlite.sql"):
        (tmp_path / name).write_text("SELECT 1;")
    assert [file.name for file in files_in(tmp_path, "sqlite")] == ["0001_start", "0002_more"]
    (tmp_path / stray).write_text("SELECT 1;")
    with pytest.raises(DelegatorError) as refusal:
        files_in(tmp_path, "sqlite")
    assert refusal.value.kind is Kind.CONFIGURATION
    assert stray in refusal.value.detail


def test_R_migrated_each_file_has_one_of_the_same_name_for_the_other_engine():
    assert [file.name for file in schema_files("sqlite")] == [file.name for file in schema_files("postgres")]


async def test_R_migrated_opening_again_keeps_what_is_there(opening_sqlite):
    store = await opening_sqlite()
    await store.add_customer(Customer("acme", "Acme"), today())
    await store.close()
    store = await opening_sqlite()
    assert await store.customers() == [Customer("acme", "Acme")]


async def test_R_migrated_a_file_that_was_changed_after_use_is_refused(path, opening_sqlite):
    await (await opening_sqlite()).close()
    changed(path, "UPDATE schema_files SET checksum = 'another' WHERE number = 1")
    assert "0001_start was changed after use" in (await refused(opening_sqlite())).detail


async def test_R_migrated_a_database_of_a_newer_release_is_refused_and_left_alone(path, opening_sqlite):
    await (await opening_sqlite()).close()
    changed(path, "INSERT INTO schema_files (number, name, checksum) VALUES (9999, '9999_future', 'x')")
    error = await refused(opening_sqlite())
    assert "schema 9999, newer than this program" in error.detail
    assert "newer release" in error.hint


@pytest.mark.parametrize(("oldest", "taken"), [(NEXT - 1, True), (1, True), (NEXT, False), (None, False)])
async def test_R_migrated_a_database_of_a_newer_release_is_taken_where_all_its_files_say_so(
        path, opening_sqlite, oldest, taken):
    store = await opening_sqlite()
    await store.add_customer(Customer("acme", "Acme"), today())
    await store.close()
    for number, said in ((NEXT, NEXT - 1), (NEXT + 1, oldest)):
        changed(path, f"INSERT INTO schema_files VALUES ({number}, 'later', 'x', {said or 'NULL'})")
    if not taken:
        assert f"schema {NEXT + 1}, newer than this program" in (await refused(opening_sqlite())).detail
        return
    assert await (await opening_sqlite()).customers() == [Customer("acme", "Acme")]
    assert (await rehearse_sqlite(path, None)).words == (
        f"schema {NEXT + 1}, of a newer release; this one knows {NEXT - 1} and works beside it")


async def test_R_migrated_what_a_file_says_of_programs_is_kept_with_it(driver, with_files):
    said = f"-- Programs from schema {NEXT - 1} on work with this.\n"
    with_files(SchemaFile(NEXT, "more", f"{said}CREATE TABLE a (x INT);"),
               SchemaFile(NEXT + 1, "most", "CREATE TABLE b (x INT);"))
    await bring_up_to_date(driver)
    assert await rows(driver, f"SELECT oldest FROM schema_files WHERE number >= {NEXT} ORDER BY number") == [
        (NEXT - 1,), (None,)]


ADDS = re.compile(
    r"CREATE (TABLE|INDEX|VIEW|OR REPLACE VIEW|POLICY|FUNCTION|OR REPLACE FUNCTION) .*|INSERT INTO .*"
    r"|ALTER TABLE \w+ ADD COLUMN .*|ALTER TABLE \w+ ENABLE ROW LEVEL SECURITY|ALTER VIEW \w+ SET .*|DROP POLICY .*"
    r"|DO \$\$ (?!.*\b(ALTER|DROP|UPDATE|DELETE|INSERT|CREATE)\b).*",
    re.DOTALL)
"""What may be done to a database on which programs of the release before still run: they find all that they know. A new
column must have a default or take NULL, as they do not fill it."""
BREAKS: dict[str, str] = {}
"""Files for programs that know them and for no others, and why. Before a delegator of such a release is started, all
others must be stopped; the release's notes say so."""


@pytest.mark.parametrize("file", [file for dialect in ("sqlite", "postgres") for file in schema_files(dialect)
                                  if file.number > 10], ids=lambda file: file.name)
def test_R_migrated_a_file_only_adds_and_says_that_the_release_before_works_with_it(file):
    if file.name in BREAKS:
        assert file.oldest == file.number
        return
    assert file.oldest is not None, "no line that says which programs work with it"
    assert 11 <= file.oldest <= max(11, file.number - 1)
    own = re.findall(r"CREATE TABLE (\w+)", file.sql)
    for statement in statements_of(file.sql):
        held = re.match(r"CREATE (?:UNIQUE INDEX|TRIGGER) .*? ON (\w+)", statement, re.DOTALL)
        assert ADDS.fullmatch(statement) or (held and held[1] in own), statement
        added = re.fullmatch(r"ALTER TABLE \w+ ADD COLUMN (.*)", statement, re.DOTALL)
        assert added is None or "NOT NULL" not in added[1] or "DEFAULT" in added[1], statement


def statements_of(sql: str) -> list[str]:
    """Without comments; what stands between $$ and $$ is one with the words around it."""
    bare = re.sub(r"--[^\n]*", "", sql)
    kept = re.sub(r"\$\$.*?\$\$|\bBEGIN\b.*?\bEND\b", lambda found: found[0].replace(";", ","), bare, flags=re.DOTALL)
    return [one.strip() for one in kept.split(";") if one.strip()]


@pytest.mark.parametrize("statement", [
    "DROP TABLE claims", "ALTER TABLE claims DROP COLUMN peer", "ALTER TABLE claims RENAME TO c", "DELETE FROM claims",
    "ALTER TABLE claims ADD CHECK (attempt > 0)", "CREATE UNIQUE INDEX one ON claims (peer)", "UPDATE claims SET a = 1",
    "CREATE TRIGGER one BEFORE UPDATE ON claims FOR EACH ROW EXECUTE FUNCTION two()",
    "ALTER TABLE devices ALTER COLUMN customer SET NOT NULL"])
def test_R_migrated_what_takes_something_away_is_no_addition(statement):
    assert not ADDS.fullmatch(statement)


async def test_R_migrated_an_older_database_is_brought_up_to_date_in_order_with_its_data(opening_sqlite, with_files):
    store = await opening_sqlite()
    await store.add_customer(Customer("acme", "Acme"), today())
    await store.close()
    with_files(SchemaFile(NEXT, "more", "CREATE TABLE more (x INTEGER) STRICT; INSERT INTO more VALUES (1);"),
               SchemaFile(NEXT + 1, "most", "ALTER TABLE more ADD COLUMN y INTEGER; UPDATE more SET y = 2;"))
    store = await opening_sqlite()
    assert await rows(store._driver, "SELECT x, y FROM more") == [(1, 2)]
    assert await store.customers() == [Customer("acme", "Acme")]


async def test_R_migrated_a_file_that_breaks_in_the_middle_leaves_nothing_of_itself(driver, with_files):
    await bring_up_to_date(driver)
    with_files(SchemaFile(NEXT, "broken", "CREATE TABLE half (x INTEGER) STRICT; CREATE TABLE nonsense oops;"))
    assert "oops" in (await refused(bring_up_to_date(driver))).detail
    assert await rows(driver, "SELECT name FROM sqlite_schema WHERE name = 'half'") == []
    assert await rows(driver, "SELECT max(number) FROM schema_files") == [(NEXT - 1,)]
    with_files(SchemaFile(NEXT, "mended", "CREATE TABLE half (x INTEGER) STRICT;"))
    assert await bring_up_to_date(driver) == 1, "the connection goes on as before"


async def test_R_migrated_servers_that_start_at_the_same_moment_on_a_new_database_all_start(opening_sqlite):
    stores = await asyncio.gather(*(opening_sqlite() for _ in range(4)))
    await stores[0].add_customer(Customer("acme", "Acme"), today())
    assert [len((await store.tables()).customers) for store in stores] == [1] * 4
    assert await rows(stores[3]._driver, "SELECT number FROM revision") == [(2,)]


async def test_R_migrated_every_table_is_strict(driver):
    await bring_up_to_date(driver)
    tables = await rows(driver, "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_files'")
    assert [name for name, sql in tables if "STRICT" not in sql] == []
