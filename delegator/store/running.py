"""What a driver offers to the rooms of the store: to run their transactions and to read.

The invariant: whoever is given one can do nothing else with the database.
Must not live here: drivers (store.sqlite, store.postgres), how rows of audit get into a transaction (store.audit).
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from delegator.store.transaction import Query, Row, Scope, Work

T = TypeVar("T")


class Running(Protocol):
    """A driver as a room of the store sees it. `shared` says that its database serves many at once, where no
    transaction waits for another that does not concern it."""

    shared: bool

    async def run(self, work: Work[T], scope: Scope | None = None, *, repeatable: bool = False) -> T:
        """Run a transaction to its durable end. Raises what it raises, or DelegatorError."""
        ...

    async def read(self, query: Query) -> list[Row]:
        """Rows of one read outside any transaction. Raises DelegatorError."""
        ...
