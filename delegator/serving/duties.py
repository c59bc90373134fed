"""Whether this process does the work that one process does for all of them: housekeeping, notifications.

A process that is alone does all of it. Of several workers one keeps house, and the others tell it when there is work.
The invariant: a worker that keeps house does so until it exits. The parent appoints one only; two would be wasteful,
and not wrong.
Must not live here: the work, who is appointed (workers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SOON = 0.1
"""Seconds for which words to who keeps house are gathered: a handshake pays for looking at a flag."""


class Duties:
    """`number` is the worker's, 0 for a process alone; `relay` wakes the one that keeps house."""

    def __init__(self, number: int = 0, relay: Callable[[], None] | None = None) -> None:
        self.number = number
        self.ours = asyncio.Event()
        self._relay = relay
        self._told = False
        if not number:
            self.ours.set()

    @property
    def alone(self) -> bool:
        """No other process of ours is at work on the same database."""
        return self.number == 0

    @property
    def named(self) -> dict[str, object]:
        """For the audit: which process this is, where there are several."""
        return {} if self.alone else {"worker": self.number}

    def wake(self, here: Callable[[], None]) -> None:
        """There is something to do: for `here`, where it is ours."""
        if self.ours.is_set():
            here()
        elif not self._told and self._relay is not None:
            self._told = True
            asyncio.get_running_loop().call_later(SOON, self._tell)

    def _tell(self) -> None:
        self._told = False
        if self._relay is not None:
            self._relay()
