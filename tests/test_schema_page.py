"""docs/schema.md and docs/schema-postgres.md show the tables as the engines have them now (A4)."""

from __future__ import annotations

from contextlib import closing

import pytest

from scripts import schema_page

from .postgres import Cluster


def test_A4_the_page_is_drawn_from_a_database_that_was_made_from_nothing() -> None:
    text = schema_page.PAGE.read_text(encoding="utf-8")
    assert schema_page.drawn(text) == text, "stale: run make docs"
    with pytest.raises(ValueError, match="no lines"):
        schema_page.drawn("# no place\n")


@pytest.mark.counterpart("initdb")
def test_A4_so_is_that_of_postgresql(postgres_quick: Cluster) -> None:
    text = schema_page.PAGE_OF_POSTGRES.read_text(encoding="utf-8")
    ask = schema_page.asking(postgres_quick, "template_delegator")
    assert schema_page.drawn_of_postgres(text, ask) == text, "stale: run make docs where PostgreSQL is installed"


def test_A4_every_table_says_what_it_holds_and_who_writes_it() -> None:
    with closing(schema_page.sqlite()) as connection:
        tables, views = (set(schema_page.names(connection, kind)) for kind in ("table", "view"))
        columns = {f"{table}.{row[1]}" for table in tables for row in connection.execute(f"PRAGMA table_info({table})")}
    of_postgres = {name for name in schema_page.HOLDS if name.startswith("import_")}
    assert set(schema_page.HOLDS) == tables | views | of_postgres
    assert set(schema_page.BY_VALUE) <= columns
    assert set(schema_page.BY_VALUE.values()) <= tables
    by = schema_page.writers()
    assert {table for table in tables if not by.get(table)} == set(), "nobody writes it"
