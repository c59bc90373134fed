"""The small tables as one consistent copy, kept until the database has another revision.

The invariant: a copy is handed out only when the revision was the same before and after it was read, and is the
database's at this moment.
Must not live here: SQL, what the tables mean, telling of changes (store.engines.postgres.notices).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from msgspec.structs import force_setattr

from delegator.clockwork.deadline import deadline
from delegator.errors import DelegatorError, Kind
from delegator.model import Customer, Policy
from delegator.routing import Directory


class Tables(msgspec.Struct, frozen=True):
    """One copy. `lists` says whether any policy has a list of approved tags, which follows from the policies."""

    revision: int
    customers: dict[str, Customer]
    policies: dict[str, Policy]
    directory: Directory
    lists: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "lists", any(one.approved_only for one in self.policies.values()))


class Hearing(Protocol):
    """What a driver must offer."""

    @property
    def heard(self) -> int | None: ...


class Copies:
    """Keeps the newest copy. `revision` asks for the database's, `read` reads the tables."""

    def __init__(self, driver: Hearing, revision: Callable[[], Awaitable[int]],
                 read: Callable[[int], Awaitable[Tables]]) -> None:
        self._driver, self._revision, self._read = driver, revision, read
        self._tables: Tables | None = None
        self._heard: int | None = None
        self._reading = asyncio.Lock()
        self._failures = 0
        self._failure: DelegatorError | None = None

    def of(self, revision: int) -> Tables | None:
        """The copy, if it is of this revision; the caller has just read that number together with something else."""
        return self._tables if self._tables is not None and self._tables.revision == revision else None

    async def newest(self) -> Tables:
        """The tables, as fresh as this moment. Raises DelegatorError."""
        heard, kept = self._driver.heard, self._tables
        if kept is not None:
            if heard is not None and heard == self._heard:
                return kept
            if kept.revision == await self._revision():
                if self._tables is kept:
                    self._heard = heard
                return kept
        return await self._in_turn()

    async def _in_turn(self) -> Tables:
        """One task reads, and all who waited for it take its copy unless a change was heard of meanwhile. If that task
        fails they fail with it: otherwise each in the line would wait for a failure of its own."""
        failures = self._failures
        try:
            async with asyncio.timeout_at(deadline()):
                await self._reading.acquire()
        except TimeoutError:
            raise DelegatorError(Kind.TRY_LATER, "the small tables are still being read for somebody else",
                                 hint="the log says why the database is slow") from None
        try:
            if self._failure is not None and self._failures != failures:
                raise self._failure
            heard = self._driver.heard
            if self._tables is not None and heard is not None and heard == self._heard:
                return self._tables
            return await self._read_anew(heard)
        except DelegatorError as error:
            if error is not self._failure:
                self._failures, self._failure = self._failures + 1, error
            raise
        finally:
            self._reading.release()

    async def _read_anew(self, heard: int | None) -> Tables:
        found, revision = self._tables, await self._revision()
        while found is None or found.revision != revision:
            found = await self._read(revision)
            revision = await self._revision()  # a change meanwhile would leave parts of two revisions
        self._tables, self._heard, self._failure = found, heard, None
        return found
