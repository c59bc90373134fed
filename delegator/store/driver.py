"""What a driver offers: to the rooms of the store to run their transactions and to read, to the Store all else.

The invariant: whoever is given a Running can do nothing else with the database.
Must not live here: drivers (store.engines.sqlite.driver, store.engines.postgres.driver), how rows of audit get into a
transaction (store.audit.ledger).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from delegator.clockwork.deadline import Within
from delegator.errors import DelegatorError
from delegator.store.transaction import Commits, Query, Row, Scope, Work

T = TypeVar("T")
OLD = 1.0
"""Seconds that whoever waits longest has waited, from which on no device joins the line any more."""
BRISK = 0.05
"""Seconds within which a line moves that is as it should be: a commit takes 5 to 20 ms."""


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


class Driver(Running, Protocol):
    """What a database engine must offer; the contract suite in tests/store says it in full. With
    `reads_beside` reading goes on where transactions wait. `era` is another number when another server is written to.
    `age` is that of their line, which `moves` as it should or does not; it `is_full` while no `request` more is let
    in. Transactions of one `turn` share a commit; with `together` none of them is undone by itself."""

    dialect: str
    commits: Commits
    reads_beside: bool

    @property
    def era(self) -> int: ...
    @property
    def chain(self) -> str: ...
    @property
    def turn(self) -> int: ...
    @property
    def together(self) -> bool: ...
    @property
    def heard(self) -> int | None: ...
    @property
    def age(self) -> float: ...
    @property
    def moves(self) -> bool: ...
    @property
    def is_full(self) -> bool: ...
    def request(self) -> Within: ...
    def crowded(self) -> DelegatorError: ...
    def listen(self, changed: Callable[[], None]) -> None: ...
    async def script(self, sql: str) -> None: ...
    async def close(self) -> None: ...

