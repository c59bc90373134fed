"""Memory goes back to the system when a crowd has gone: the allocator keeps what was freed for whoever comes next.

A half-open connection takes some 50 KiB, nearly all of it OpenSSL's, in pieces that lie between those of others. What
is freed there glibc gives back by itself only from the end of its heap, where something small always lies. After 4 700
such connections a process stayed at 295 MiB where it had begun with 41; `malloc_trim` brought it to 49 (measured), in
160 to 190 ms. It runs beside the loop, at most twice a minute, and only when most of a crowd is gone.
Must not live here: connections.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

CROWD = 500
"""Connections at once from which on it is worth it: some 25 MiB."""
LEFT = 4
"""It is quiet when no more than one part of so many is left."""
APART = 30.0
"""Seconds between two times: a crowd that comes and goes must not keep the allocator busy."""


class Ebb:
    """Looks at how many connections there are, and says when memory is to be given back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most = 0
        self._not_before = clock()

    def is_out(self, connections: int) -> bool:
        """Whether it is time now; True once for each crowd."""
        self._most = max(self._most, connections)
        if self._most < CROWD or connections * LEFT > self._most or self._clock() < self._not_before:
            return False
        self._most, self._not_before = connections, self._clock() + APART
        return True


def give_back() -> None:
    """Give memory back, in a thread of its own that nothing waits for. On C libraries other than glibc do nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        threading.Thread(target=trim, args=(0,), name="giving memory back", daemon=True).start()
