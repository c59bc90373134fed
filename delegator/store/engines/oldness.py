"""How old a line is: since when whoever is first in it waits, as far as the loop has heard.

What ended in a thread or at a server is heard of a turn or two of the loop later, and turns are long in a crowd. So a
line is old only if its first is still there after three of them: else one long turn would send away all who come in it.
The invariant: asking costs two looks at the clock at most, and begins no timer.
Must not live here: lines (store.engines.sqlite.line, store.engines.postgres.pool), what follows from it (Store).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from delegator.store.driver import OLD

TURNS = 3


class Oldness:
    """`first` says since when, by the loop's clock, whoever is first waits, None for an empty line."""

    def __init__(self, first: Callable[[], float | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._first = first
        self._suspected: float | None = None
        self._confirmed: float | None = None

    @property
    def age(self) -> float:
        """Seconds; no more than OLD while it is not certain."""
        since = self._first()
        if since is None:
            return 0.0
        age = self._loop.time() - since
        if age <= OLD or since == self._confirmed:
            return age
        if since != self._suspected:
            self._suspected = since
            self._loop.call_soon(self._look, since, TURNS)
        return OLD

    def _look(self, since: float, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._look, since, turns - 1)
        elif self._first() == since:
            self._confirmed = since
        else:
            self._suspected = None
