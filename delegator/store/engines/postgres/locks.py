"""A transaction's Scope as PostgreSQL's advisory locks, taken in one step with its beginning.

Taken alone: everything, or names. Shared: everything by whoever names something, and names that are counted and far
from what limits them. Locks are taken in one order by all, so nobody waits for each other in a ring.
The invariant: two transactions that must not meet want one lock, and at least one of them wants it alone.
Must not live here: connections, transactions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from delegator.store.transaction import Counted, Scope

EVERYTHING = 0x64656C6567617465
"""The lock that a transaction shares, or has alone when it says nothing of its scope."""
MIGRATING = EVERYTHING + 1


class Near(Exception):
    """The number of a name that was shared is near its limit: the transaction must have that name alone."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Needs(msgspec.Struct, frozen=True):
    """Names to have alone, None for everything, and names to share."""

    names: frozenset[str] | None
    counted: tuple[Counted, ...] = ()

    def alone_with(self, near: Iterable[str]) -> Needs:
        """The same, with names alone that were shared, as far as they are among these."""
        alone = (self.names or frozenset()) | {one.name for one in self.counted}.intersection(near)
        return Needs(alone, tuple(one for one in self.counted if one.name not in alone))

    @property
    def begin(self) -> str:
        """Statements that begin and take all of it. Later ones see what whoever had it before has committed: at READ
        COMMITTED each looks at the time it begins."""
        if self.names is None:
            return f"BEGIN; SELECT pg_advisory_xact_lock({EVERYTHING})"
        return "; ".join(["BEGIN", f"SELECT pg_advisory_xact_lock_shared({EVERYTHING})",
                          *(f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({key})"
                            for key, shared in self.locks)])

    @property
    def locks(self) -> list[tuple[int, bool]]:
        """The locks of names, in order, and whether each is shared."""
        return sorted([(_key(name), False) for name in self.names or ()]
                      + [(_key(one.name), True) for one in self.counted])


def needs_of(scope: Scope | None) -> Needs:
    if scope is None:
        return Needs(None)
    said = scope()
    names = frozenset(one for one in said if isinstance(one, str))
    return Needs(names, tuple(one for one in said if isinstance(one, Counted) and one.name not in names))


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
