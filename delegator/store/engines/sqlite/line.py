"""The line before SQLite's one writing connection: who came when, and who will not wait any longer.

The invariants: who has given up before its transaction began is never run; who gives up while it is on its way to the
disk is told to try later, and finds what became of it by asking again.
Must not live here: begin, statements, commit (driver).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from delegator.errors import DelegatorError
from delegator.store.engines.oldness import Oldness
from delegator.store.transaction import Work

T = TypeVar("T")
SWEEP = 0.1
"""Seconds between two looks at who gives up: no timer is made for a handshake, and nobody waits longer than that."""


class Asked(NamedTuple):
    """A transaction in line since then, by the loop's clock. `until` is its request's deadline; None where it is no
    device's, and has all the time that a commit takes."""

    work: Work[Any]
    future: asyncio.Future[Any]
    since: float
    until: float | None


class Line:
    """See the module. `late` makes the error for one that gives up."""

    def __init__(self, late: Callable[[], DelegatorError]) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = late
        self._waiting: list[Asked] = []
        self._inside: list[Asked] = []
        self._held_since: float | None = None
        self._oldness = Oldness(self._first)
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def age(self) -> float:
        """Seconds since whoever is first came, or since somebody else has the database to himself."""
        return self._oldness.age

    def _first(self) -> float | None:
        if self._held_since is not None:
            return self._held_since
        some = self._inside or self._waiting
        return some[0].since if some else None

    def join(self, work: Work[T], until: float | None) -> asyncio.Future[T]:
        """A place in line, and its outcome. Raises what `late` makes where the deadline has passed already."""
        now = self._loop.time()
        if until is not None and until <= now:
            raise self._late()
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(Asked(work, future, now, until))
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP, self._sweep)
        return future

    def enter(self, most: int) -> list[Asked]:
        """The next ones, as many as `most`, without those that gave up."""
        some, self._waiting = self._waiting[:most], self._waiting[most:]
        self._inside = [one for one in some if not one.future.done()]
        return self._inside

    def leave(self) -> None:
        """Those inside have their outcome."""
        self._inside = []

    def held(self) -> float:
        """Somebody else has the database to himself, for so many seconds now."""
        if self._held_since is None:
            self._held_since = self._loop.time()
        return self._loop.time() - self._held_since

    @property
    def is_held(self) -> bool:
        return self._held_since is not None

    def freed(self) -> None:
        self._held_since = None

    def give_up(self, error: Callable[[], DelegatorError]) -> None:
        """Those inside without a deadline of their own wait no longer either."""
        for one in self._inside:
            if one.until is None and not one.future.done():
                one.future.set_exception(error())

    def still_inside(self) -> list[Asked]:
        """Those inside who did not give up, before anything was begun for them."""
        self._inside = [one for one in self._inside if not one.future.done()]
        return self._inside

    def _sweep(self) -> None:
        now, some = self._loop.time(), False
        for one in (*self._inside, *self._waiting):
            some = True
            if one.until is not None and one.until <= now and not one.future.done():
                one.future.set_exception(self._late())
        self._sweeping = self._loop.call_later(SWEEP, self._sweep) if some else None
