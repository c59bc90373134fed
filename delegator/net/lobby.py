"""The connections of a small port that everybody inside the network can reach: a bounded number, none silent for long.

When all places are taken, a new connection gets the place of one whose request has not come yet: the oldest one of the
source that has most of those. So neither silence nor a crowd from one address keeps others out. An answer that is being
made is given up only for a source that has fewer connections.
The invariants: a connection is closed when its time is over, whatever it does; what cannot be accepted is tried again
after a moment, and logged once a minute.
Must not live here: what is asked and answered (watching.ops), the devices' port (net.serve).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from delegator.clockwork.rounds import guarded
from delegator.net.crowds import Source, source_of

log = logging.getLogger(__name__)
MOST = 64
"""Connections at once: a scraper has one, and there may be several of them and a few people."""
TURN = 16
"""New ones in a turn of the loop, so that devices have their turn in between."""
LINE = 128
"""In the kernel's line: whoever asks waits behind them, so the line is short."""
SILENT = 2.0
"""Seconds for a whole request; a scraper sends it at once."""
WITHIN = 5.0
"""Seconds for everything; a scraper that is slower is broken."""
FAREWELL = 0.5
"""Seconds for the other side to close first, which it does when it has read the answer: closing with bytes unread
would reset the connection, and the answer may be lost."""
BREATH = 0.1
SELDOM = 60.0
READ = 16 * 1024
DROPPED = 64 * 1024
"""Bytes that are read and dropped of who has the answer to read. Without a bound one connection that goes on sending
cost devices more than ten handshakes' worth (measured)."""
LOOK = 4096
"""Bytes that a read of those counts for at least."""


class Seldom:
    """Limits a log line that may be due a thousand times a second to once a minute, with how often it was due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._times = 0

    def times(self) -> int:
        """Count it once more. Returns how often it came since the last line, or 0 if no line is due now."""
        self._times += 1
        now = self._clock()
        if now < self._next:
            return 0
        self._next, times, self._times = now + SELDOM, self._times, 0
        return times


@dataclass(eq=False, slots=True)
class Guest:
    """One connection. `heard`: its request is whole and its answer is being made, so that it waits for us."""

    sock: socket.socket
    source: Source
    heard: bool = False
    task: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """The bytes that came. Each read takes a turn of the loop of its own, however fast the other side sends."""
        await asyncio.sleep(0)
        return await asyncio.get_running_loop().sock_recv(self.sock, READ)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def farewell(self) -> None:
        """Send no more, and drop what the other side still sends."""
        self.sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(FAREWELL):
            dropped = 0
            while dropped < DROPPED and (data := await self.read()):
                dropped += max(len(data), LOOK)


class Lobby:
    """The connections of all sockets of one port. `serve` takes one from its first byte to its answer."""

    def __init__(self, what: str, serve: Callable[[Guest], Awaitable[None]]) -> None:
        self._what, self._serve = what, serve
        self._listening: list[socket.socket] = []
        self._guests: dict[Guest, None] = {}
        self._full, self._failed = Seldom(), Seldom()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._guests)

    def listen(self, sock: socket.socket) -> None:
        """Accept there from now on."""
        sock.setblocking(False)
        sock.listen(LINE)
        self._listening.append(sock)
        self._loop.add_reader(sock.fileno(), self._accept, sock)

    def close(self) -> None:
        """Accept no more connections. Those that are there still get their answer."""
        for sock in self._listening:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._listening.clear()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(TURN):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            self._enter(sock, address[0] if isinstance(address, tuple) else "")

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Look away for a moment: the same accept would fail at once again."""
        if (times := self._failed.times()):
            log.error("%s: no connection can be accepted: %s, %d times since this was last said", self._what,
                      errno.errorcode.get(error.errno or 0, "an error of the system"), times)
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(BREATH, self._look_again, listening)

    def _look_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _enter(self, sock: socket.socket, address: str) -> None:
        source = source_of(address) if address else ""
        if len(self._guests) >= MOST:
            self._tell_full()
            other = self._least(source)
            if other is None:
                sock.close()
                return
            self._put_out(other)
        sock.setblocking(False)
        guest = Guest(sock, source)
        self._guests[guest] = None
        guest.task = self._loop.create_task(guarded(lambda: self._serve_one(guest), self._what))
        guest.task.add_done_callback(lambda _: sock.close())  # one that is closed in its first turn never began

    def _tell_full(self) -> None:
        if (times := self._full.times()):
            log.warning("%s: all %d places are taken; %d times since this was last said one connection was closed for "
                        "another", self._what, MOST, times)

    def _least(self, source: Source) -> Guest | None:
        """The connection that has to go for a new one from this source, or None if the new one has to."""
        waited_for = [guest for guest in self._guests if not guest.heard]
        candidates = waited_for or list(self._guests)
        standing = Counter(guest.source for guest in candidates)
        most = max(standing.values())
        if not waited_for and standing[source] + 1 >= most:
            return None
        return next(guest for guest in candidates if standing[guest.source] == most)

    def _put_out(self, guest: Guest) -> None:
        self._guests.pop(guest, None)
        if guest.task is not None:
            guest.task.cancel()

    async def _serve_one(self, guest: Guest) -> None:
        try:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(WITHIN):
                    await self._serve(guest)
                    await guest.farewell()
        finally:
            self._guests.pop(guest, None)
            guest.sock.close()
