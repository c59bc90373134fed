"""One turn of the loop digests so many bytes of the peers that we call, and no more, however many call at once.

A turn is what a device waits for whenever it waits at all. 16 calls that may each have 2 KiB of it digested cost a
device 16 times as much as one, at every step of its handshake.
The invariants: what passes in one turn is at most so many bytes, or one piece; who came first passes first.
Must not live here: sockets, what the bytes are.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque

TURN = 2048
"""Bytes of all peers whose words a library reads: the dearest SSH packets are 1.7 ms for each KiB (measured), and a
call that is as it should be gets by with three or four turns."""
OWN_TURN = 32 * 1024
"""Bytes of all peers that our own core reads. The dearest are chunks of a byte: 2 ms (measured)."""
LOOK = 256
"""Bytes that a look counts for at least: one at a single byte is work, too."""


class Turnstile:
    """Before the peers of one loop. `turn` is what passes in a turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: int = TURN) -> None:
        self._call_soon, self._future = loop.call_soon, loop.create_future
        self._turn = self._left = turn
        self._renewing = False
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def pass_through(self, size: int) -> None:
        """Wait until `size` bytes may be digested."""
        size = max(size, LOOK)
        if self._waiting or not self._admits(size):
            turn = self._future()
            self._waiting.append((size, turn))
            self._renew()
            await turn
        else:
            self._left -= size
            self._renew()

    def _admits(self, size: int) -> bool:
        return size <= self._left or self._left == self._turn

    def _renew(self) -> None:
        """In the next turn there is a whole turn again."""
        if not self._renewing:
            self._renewing = True
            self._call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._renewing, self._left = False, self._turn
        while self._waiting and self._admits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():  # else who waited was cancelled
                self._left -= size
                turn.set_result(None)
        if self._waiting or self._left < self._turn:
            self._renew()


_of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, Turnstile]] = weakref.WeakKeyDictionary()


async def pass_through(size: int, turn: int = TURN) -> None:
    """Wait until the running loop may digest so many bytes more of peers that we call."""
    loop = asyncio.get_running_loop()
    turnstiles = _of.setdefault(loop, {})
    turnstile = turnstiles.get(turn)
    if turnstile is None:
        turnstile = turnstiles[turn] = Turnstile(loop, turn)
    await turnstile.pass_through(size)
