"""Who of several workers takes the next connection: they fill up one after the other.

Workers share one line (docs/adr/0014). Where each takes what it can, each has its part of the devices in hand: half as
many share a commit, each commit empties what the others have read of an embedded database, and they push each other
out of the processor's caches. So whoever is at work takes all that come, until it has FULL handshakes in hand; then
the next one does. While nobody is at work whoever is woken first begins, and while all are full each takes what it can,
but who is SPENT leaves it to those that are not.
The invariants: nobody in line waits longer than AT_WORK and LOOK together for a worker that does not come, whatever
became of it; what workers know of each other are two numbers each, and one that is wrong costs no more than that wait.
Must not live here: accepting (net.serve), processes (serving.workers).
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable

FULL = 24
"""Handshakes in hand past which one more gains nothing by company: 6 to 10 ms of work."""
SPENT = 1000
"""What one has in hand that would have to refuse the next device, because its share of something is used up."""
AT_WORK = 0.05
"""Seconds for which one that took a connection is expected to take the next: longer than its turns of the loop, and
than the pause between a crowd's answers and its next questions."""
LOOK = 0.005
"""Seconds until one that left the line to another looks at it again."""
_SLOT = 2
"""When it took one last, by the system's monotonic clock, and how many it has in hand."""
_WIDTH = 8


def page(many: int) -> int:
    """A descriptor of memory for the numbers of so many workers."""
    descriptor = os.memfd_create("delegator-workers")
    os.ftruncate(descriptor, many * _SLOT * _WIDTH)
    return descriptor


class Company:
    """One worker's view of all. `number` is its own, from 1 on."""

    def __init__(self, descriptor: int, number: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast("d")
        self._slots = range(0, len(self._numbers), _SLOT)
        self._own = self._slots[number - 1]
        self._clock = clock
        self._numbers[self._own] = self._numbers[self._own + 1] = 0.0  # whoever was here before is no more

    @property
    def is_ours(self) -> bool:
        """Whether the next connection is for us to take: as who is at work and not full, or where there is no such
        worker. One that is at work and full leaves it to those that are neither."""
        for slot in self._slots:
            if self._is_at_work(slot) and self._has_room(slot):
                return slot == self._own
        if not self._is_at_work(self._own):
            return True
        if any(map(self._has_room, self._slots)):
            return False
        return not self._is_spent(self._own) or all(map(self._is_spent, self._slots))

    def _is_at_work(self, slot: int) -> bool:
        return 0 <= self._clock() - self._numbers[slot] < AT_WORK

    def _has_room(self, slot: int) -> bool:
        return self._numbers[slot + 1] < FULL

    def _is_spent(self, slot: int) -> bool:
        return self._numbers[slot + 1] >= SPENT

    def room(self, most: int) -> int:
        """How many to take at once, at most so many: none past FULL, unless we have that many already."""
        return min(most, max(0, FULL - int(self._numbers[self._own + 1])) or most)

    def took(self) -> None:
        """We took some."""
        self._numbers[self._own] = self._clock()

    def has(self, many: int) -> None:
        """So many are in hand now."""
        self._numbers[self._own + 1] = many
