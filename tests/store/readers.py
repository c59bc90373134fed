"""The role that customers read by, made as deploy/postgres/reader.sql makes it, and connections that use it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from ..postgres import Cluster, run

READER = Path(__file__).parents[2] / "deploy/postgres/reader.sql"


def psql(cluster: Cluster, database: str, text: str, user: str = "postgres") -> None:
    """What an administrator does with a file: all of it in one go."""
    run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--host", cluster.socket, "--port", cluster.port,
        f"--username={user}", "--dbname", database, "--command", text)


def make_reader(cluster: Cluster, database: str) -> None:
    psql(cluster, database, READER.read_text(encoding="utf-8"))
    cluster.sql("ALTER ROLE delegator_reader LOGIN")


@contextlib.asynccontextmanager
async def reading(cluster: Cluster, database: str, customer: str | None,
                  user: str = "delegator_reader") -> AsyncIterator[Any]:
    connection = await asyncpg.connect(cluster.url(database, user))
    try:
        if customer is not None:
            await connection.execute("SELECT set_config('delegator.customer', $1, false)", customer)
        yield connection
    finally:
        await connection.close()


async def readable(connection: Any) -> dict[str, list[str]]:
    """Every table and view with the columns that this user may read, by whatever grant."""
    rows = await connection.fetch(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_attribute a ON a.attrelid = c.oid WHERE n.nspname = 'public' AND c.relkind = ANY ('{r,p,v,m,f}') "
        "AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(c.oid, a.attnum, 'SELECT') "
        "ORDER BY c.relname, a.attnum")
    found: dict[str, list[str]] = {}
    for table, column in rows:
        found.setdefault(str(table), []).append(f'"{column}"')
    return found
