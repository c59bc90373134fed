"""A transaction as a generator: it yields queries and is sent their rows. No driver, no await, no thread.

What the store means is written once, as plain generators over plain SQL with `$1` parameters; a driver runs them,
SQLite in its writing thread, PostgreSQL over its socket. Generators compose by `yield from`, and many of them
can share one commit.
The invariant: a transaction touches the world only through what it yields, so a driver may run it again.
Must not live here: SQL, drivers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeVar

Value = str | int | bytes | None
Row = Sequence[Value]


class Query(NamedTuple):
    """One statement and its parameters, `$1` first."""

    sql: str
    parameters: tuple[Value, ...] = ()


T = TypeVar("T")
Transaction = Generator[Query, Sequence[Row], T]
