"""A transaction that only reads, run outside of any: each statement by itself, on whatever connection reads.

The invariant: nothing is written; what two of its statements say may be of two moments.
Must not live here: statements, drivers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from delegator.store.transaction import Query, Row, Transaction

T = TypeVar("T")


async def look(read: Callable[[Query], Awaitable[Sequence[Row]]], work: Transaction[T]) -> T:
    """Run a transaction that only reads, outside of any."""
    rows: Sequence[Row] | None = None
    try:
        while True:
            rows = await read(next(work) if rows is None else work.send(rows))
    except StopIteration as end:
        value: T = end.value
        return value
