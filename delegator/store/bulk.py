"""Many values at once. Where they stand in statements, there are few texts of those: lengths are powers of two.

The invariant: a text is made once for each length, so that engines find it prepared.
Must not live here: what is written or looked for.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence

from delegator.store.transaction import Query, Rows, Transaction, Value

TOGETHER = 256
"""Rows in one statement at most: past that a row costs no less, and 2 048 parameters are far from any limit."""


@functools.cache
def places(count: int, first: int = 1) -> str:
    """`$1, $2, ...` for a list in a statement."""
    return ", ".join(f"${number}" for number in range(first, first + count))


def listed(values: Sequence[Value], first: int = 1) -> tuple[str, tuple[Value, ...]]:
    """Places and parameters for a list to look in. The last value fills it up to a power of two."""
    count = 1 << max(len(values) - 1, 0).bit_length()
    return places(count, first), (*values, *[values[-1]] * (count - len(values)))


def insert(into: str, rows: Sequence[tuple[Value, ...]]) -> Transaction[None]:
    """Rows into a table with its columns, "devices (device_id, customer)"."""
    if rows:
        yield Rows(into, tuple(itertools.chain.from_iterable(rows)))


def split(rows: Rows) -> tuple[str, list[str], Iterator[tuple[Value, ...]]]:
    """The table, its columns, and row after row."""
    table, _, columns = rows.sql.rstrip(")").partition(" (")
    names = columns.split(", ")
    return table, names, zip(*[iter(rows.parameters)] * len(names), strict=True)


def statements(rows: Rows) -> Iterator[Query]:
    """The same in as few statements as can be."""
    width, values, at = rows.sql.count(",") + 1, rows.parameters, 0
    while at < len(values):
        count = min(TOGETHER, 1 << ((len(values) - at) // width).bit_length() - 1)
        yield Query(_inserting(rows.sql, count, width), values[at:at + count * width])
        at += count * width


@functools.cache
def _inserting(into: str, count: int, width: int) -> str:
    return f"INSERT INTO {into} VALUES " + ", ".join(f"({places(width, 1 + width * row)})" for row in range(count))
