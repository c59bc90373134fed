"""How many requests may be under way at once while a database that many share does none of them in time.

All connections wait for a lock, or a network is so slow that of a hundred that begin none comes to its end: whoever is
let in then waits for nothing, and takes the time of the others. So of requests that all came to nothing half as many
are let in, down to one, which finds out when it is over; and each that is done lets in one more, each that is late one
less.
The invariant: while some are done in time nobody is kept out: a customer whose rows are locked costs no other anything.
Must not live here: deadlines (delegator.clockwork.deadline), lines (pool).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from delegator.clockwork.deadline import Within

QUIET = 2.0
"""Seconds without a commit after which one that is late says something of all of them."""
WIDE = 64
"""So many at once are no limit any more."""


class Window:
    """`clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._most = math.inf
        self._inside = 0
        self._done_at = -math.inf

    def request(self, seconds: float) -> Within:
        return _Counted(self, seconds)

    @property
    def most(self) -> float:
        return self._most

    @property
    def is_full(self) -> bool:
        """Whether the newest one inside is one too many."""
        return self._inside > self._most

    def entered(self) -> None:
        self._inside += 1

    def away(self) -> None:
        """One asks somebody else, and nothing of the database: it keeps nobody from finding out."""
        self._inside -= 1

    def left(self, late: bool) -> None:
        """`late` for one that came to its deadline."""
        if late and self._clock() - self._done_at > QUIET:
            self._most = max(1.0, min(self._most, self._inside) // 2)
        elif late:  # nothing from no limit at all
            self._most = max(1.0, self._most - 1)
        self._inside -= 1

    def done(self) -> None:
        """One was committed in time."""
        self._done_at = self._clock()
        if self._most < math.inf:
            self._most = self._most + 1 if self._most < WIDE else math.inf


class _Counted(Within):
    """A request that is counted while it lasts."""

    __slots__ = ("_window",)

    def __init__(self, window: Window, seconds: float) -> None:
        super().__init__(seconds)
        self._window = window

    def __enter__(self) -> Within:
        self._window.entered()
        return super().__enter__()

    def leaves(self) -> None:
        self._window.away()

    def returns(self) -> None:
        self._window.entered()

    def __exit__(self, *error: object) -> None:
        assert self.until is not None
        self._window.left(self.until <= asyncio.get_running_loop().time())
        super().__exit__(*error)
