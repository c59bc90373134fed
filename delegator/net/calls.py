"""The sockets of the calls that we make: no more than their share of the files that the process may hold open.

Each delegate has bounds of its own, but there may be thousands of delegates. What a call cannot have it must not take
from devices, so it fails at once, and its device is told to try later.
The invariant: sockets that are open and were entered here are never more than the share.
Must not live here: connecting, what is said (client).
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable

from delegator.errors import DelegatorError, Kind
from delegator.net import descriptors


class Calls:
    """Counts them. `share` is asked at each look, as the limit may be raised after the start."""

    def __init__(self, share: Callable[[], int]) -> None:
        self._share = share
        self.let_go: Callable[[], None] = lambda: None
        """Closes what is kept idle: it gives way to a call."""
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def is_full(self, more: int = 1) -> bool:
        """Whether there is no room for so many. Those that were closed are let go of when it matters."""
        if len(self._open) + more <= self._share():
            return False
        for one in list(self._open):
            if one.fileno() < 0:
                self._open.discard(one)
        return len(self._open) + more > self._share()

    def enter(self, *socks: socket.socket) -> None:
        """So many more, of one call. Raises DelegatorError (TRY_LATER) where there is no room, which is the fault of
        nobody who was to be called; then they are closed."""
        if self.is_full(len(socks)):
            self.let_go()
        if self.is_full(len(socks)):
            for sock in socks:
                sock.close()
            raise DelegatorError(Kind.TRY_LATER, f"not called: {self._share()} sockets of calls are open, as many as "
                                 "the limit of open files leaves for them", hint="raise LimitNOFILE")
        self._open.update(socks)


CALLS = Calls(lambda: descriptors.calls(descriptors.limit()))
"""Those of this process."""
