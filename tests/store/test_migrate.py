"""Schema files: numbered, applied once, never changed afterwards, whole or not at all (DESIGN 8)."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import Customer
from delegator.store.migrate import SchemaFile, migrate, schema_files
from delegator.store.sqlite import open_sqlite
from delegator.store.transaction import Query

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


async def test_8_every_file_is_applied_once_and_recorded(driver):
    files = schema_files("sqlite")
    assert await migrate(driver) == len(files)
    assert await migrate(driver) == 0
    assert await rows(driver, "SELECT number, name, checksum FROM schema_files ORDER BY number") == [
        (file.number, file.name, file.checksum) for file in files]


def test_8_files_are_numbered_from_one_without_a_gap():
    assert [file.number for file in schema_files("sqlite")] == list(range(1, len(schema_files("sqlite")) + 1))
    assert schema_files("nothing") == []


async def test_8_opening_again_keeps_what_is_there(opening_sqlite):
    store = await opening_sqlite()
    await store.add_customer(Customer("acme", "Acme"))
    await store.close()
    store = await opening_sqlite()
    assert await store.customers() == [Customer("acme", "Acme")]


async def test_8_a_file_that_was_changed_after_use_is_refused(path, opening_sqlite):
    await (await opening_sqlite()).close()
    changed(path, "UPDATE schema_files SET checksum = 'another' WHERE number = 1")
    assert "0001_start was changed after use" in (await refused(opening_sqlite())).detail


async def test_8_a_database_of_a_newer_release_is_refused_and_left_alone(path, opening_sqlite):
    await (await opening_sqlite()).close()
    changed(path, "INSERT INTO schema_files VALUES (9999, '9999_future', 'x')")
    error = await refused(opening_sqlite())
    assert "schema 9999, newer than this program" in error.detail
    assert "newer release" in error.hint


async def test_8_an_older_database_is_brought_up_to_date_in_order_with_its_data(opening_sqlite, with_files):
    store = await opening_sqlite()
    await store.add_customer(Customer("acme", "Acme"))
    await store.close()
    with_files(SchemaFile(NEXT, "more", "CREATE TABLE more (x INTEGER) STRICT; INSERT INTO more VALUES (1);"),
               SchemaFile(NEXT + 1, "most", "ALTER TABLE more ADD COLUMN y INTEGER; UPDATE more SET y = 2;"))
    store = await opening_sqlite()
    assert await rows(store._driver, "SELECT x, y FROM more") == [(1, 2)]
    assert await store.customers() == [Customer("acme", "Acme")]


async def test_8_a_file_that_breaks_in_the_middle_leaves_nothing_of_itself(driver, with_files):
    await migrate(driver)
    with_files(SchemaFile(NEXT, "broken", "CREATE TABLE half (x INTEGER) STRICT; CREATE TABLE nonsense oops;"))
    assert "oops" in (await refused(migrate(driver))).detail
    assert await rows(driver, "SELECT name FROM sqlite_schema WHERE name = 'half'") == []
    assert await rows(driver, "SELECT max(number) FROM schema_files") == [(NEXT - 1,)]
    with_files(SchemaFile(NEXT, "mended", "CREATE TABLE half (x INTEGER) STRICT;"))
    assert await migrate(driver) == 1, "the connection goes on as before"


async def test_8_servers_that_start_at_the_same_moment_on_a_new_database_all_start(opening_sqlite):
    stores = await asyncio.gather(*(opening_sqlite() for _ in range(4)))
    await stores[0].add_customer(Customer("acme", "Acme"))
    assert [len((await store.tables()).customers) for store in stores] == [1] * 4
    assert await rows(stores[3]._driver, "SELECT number FROM revision") == [(2,)]


async def test_8_every_table_is_strict(driver):
    await migrate(driver)
    tables = await rows(driver, "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_files'")
    assert [name for name, sql in tables if "STRICT" not in sql] == []
