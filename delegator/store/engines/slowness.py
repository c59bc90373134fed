"""Says once in the log that a database is slow, why, and once that it answers in time again.

The invariant: whatever happens how often, no more than one line for each turn for the worse or the better.
Must not live here: what slow is (the drivers).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)
WELL = 2.0
"""Seconds in which nothing was late before it is said that all is well: of a database that is slow, parts still answer
in time."""


class Slowness:
    """Of the database `name`; `clock` gives monotonic seconds."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name, self._clock = name, clock
        self._since: float | None = None
        self._last = 0.0

    @property
    def slow(self) -> bool:
        return self._since is not None

    def late(self, why: str) -> None:
        """Somebody was told to try later, because of this."""
        self._last = self._clock()
        if self._since is None:
            self._since = self._last
            log.error("database %s: is slow, devices are told to try later: %s", self._name, why,
                      extra={"connection": ""})

    def done(self) -> None:
        """A transaction was committed in time."""
        if self._since is not None and self._clock() - self._last > WELL:
            log.warning("database %s: answers in time again, after %.0f s", self._name, self._clock() - self._since,
                        extra={"connection": ""})
            self._since = None
