"""A transaction as a generator: it yields queries and is sent their rows. No driver, no await, no thread.

What the store means is written once, as plain generators over plain SQL with `$1` parameters; a driver runs them,
SQLite in its writing thread, PostgreSQL over its socket. Generators compose by `yield from`, and many of them
can share one commit.
The invariant: a transaction touches the world only through what it yields, so a driver may run it again.
Must not live here: SQL, drivers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

Value = str | int | bytes | None
Row = Sequence[Value]


class Query(msgspec.Struct, frozen=True):
    """One statement and its parameters, `$1` first."""

    sql: str
    parameters: tuple[Value, ...] = ()


class Rows(Query, frozen=True):
    """Rows for one table, written by the driver's quickest way: `sql` is the table with its columns, "devices
    (device_id, customer)", and `parameters` are the values of all rows, one row after the other."""


class Twin(Query, frozen=True):
    """One statement that engines word differently: `sql` is SQLite's, `postgres` PostgreSQL's. Both mean the same, or
    the second is stricter, where transactions run side by side."""

    postgres: str = ""


def in_postgres(query: Query) -> str:
    """As PostgreSQL is told it."""
    return query.postgres if type(query) is Twin else query.sql


T = TypeVar("T")
Transaction = Generator[Query, Sequence[Row], T]
Work = Callable[[], Transaction[T]]
"""Makes a transaction, as often as the driver has to run it: a generator cannot be run twice."""


class Counted(msgspec.Struct, frozen=True):
    """The name of a lock that many take together while its count is far below the limit, and one at a time once it is
    near. `question` finds the count; `near` decides from it, with all that may be added at the same moment."""

    name: str
    question: Query
    near: Callable[[int], bool]


Scope = Callable[[], Sequence[str | Counted]]
"""What a transaction must have to itself, by names of our own such as "tag/ABC1234": no two that share a name run at
the same time. No Scope at all means everything: it runs alone."""


def rows_alone() -> Sequence[str | Counted]:
    """The scope of a transaction whose statements guard themselves: each changes a row only as it finds it."""
    return ()


@dataclass(slots=True)
class Commits:
    """What a driver counts of its commits: those done, the transactions in them, those that failed."""

    done: int = 0
    transactions: int = 0
    failed: int = 0
