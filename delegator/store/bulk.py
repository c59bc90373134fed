"""Many values in one statement, with few texts of statements to keep: lengths are powers of two.

The invariant: a text is made once for each length, so that engines find it prepared.
Must not live here: what is written or looked for.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from delegator.store.transaction import Query, Transaction, Value

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


def insert(into: str, width: int, rows: Sequence[tuple[Value, ...]]) -> Transaction[None]:
    """Rows into a table with its columns, "devices (device_id, customer)", in as few statements as can be."""
    at = 0
    while at < len(rows):
        count = min(TOGETHER, 1 << (len(rows) - at).bit_length() - 1)
        yield Query(_inserting(into, count, width), tuple(itertools.chain.from_iterable(rows[at:at + count])))
        at += count


@functools.cache
def _inserting(into: str, count: int, width: int) -> str:
    return f"INSERT INTO {into} VALUES " + ", ".join(f"({places(width, 1 + width * row)})" for row in range(count))
