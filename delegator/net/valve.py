"""A valve between a peer's socket and a library that reads it by rules of its own: asyncssh, aiosmtplib.

The library is given one end of a pair of sockets, and what the peer sends comes through the other: counted, a little in
each turn of the loop, and no longer than the call's ration lasts. Where the wire speaks TLS it is spoken here, by the
core that counts records, and the library sees plaintext. Why no process of its own: docs/adr/0018.
A valve is three sockets, and all of them count among those of calls: `Valve` raises DelegatorError (TRY_LATER) where
there is no room, and the peer's is closed.
The invariants: a library digests no byte that was not counted; what all valves let through in one turn of the loop is
bounded; when the ration is over the connection is, and `why` says it in words.
Must not live here: SSH, SMTP, bounds (wire.ration), who may be connected to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from types import TracebackType
from typing import Protocol

from delegator.errors import DelegatorError
from delegator.net.calls import CALLS
from delegator.net.turnstile import TURN, pass_through
from delegator.wire.ration import Ration

log = logging.getLogger(__name__)
SENT = 64 * 1024
"""Bytes of ours that are taken at once."""


class Line(Protocol):
    """What lies between the wire and the library: `wire.tls.Session`, or nothing."""

    closed: bool

    def receive(self, data: bytes) -> bytes: ...
    def send(self, plaintext: bytes) -> None: ...
    def outgoing(self) -> bytes: ...
    def close(self) -> None: ...


class Plain:
    """Nothing in between."""

    closed = False

    def __init__(self) -> None:
        self._out = b""

    def receive(self, data: bytes) -> bytes:
        return data

    def send(self, plaintext: bytes) -> None:
        self._out += plaintext

    def outgoing(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def close(self) -> None:
        """There is nothing to say."""


class Valve:
    """Between `peer`, which is closed at the end, and `inner`, which the library takes over. `first` is what the
    library is to read first."""

    def __init__(self, peer: socket.socket, ration: Ration, line: Line | None = None, first: bytes = b"") -> None:
        self.why = ""
        """What of the peer's was too much; the connection was cut then."""
        self._peer, self._ration, self._line = peer, ration, line or Plain()
        self._first = first
        self._sending = asyncio.Lock()
        self._going = asyncio.Event()
        self._going.set()
        self._loop = asyncio.get_running_loop()
        self.inner, self._outer = socket.socketpair()
        try:
            CALLS.enter(self.inner, self._outer)
        except DelegatorError:
            peer.close()
            raise
        self.inner.setblocking(False)
        self._outer.setblocking(False)

    async def __aenter__(self) -> Valve:
        self._tasks = [self._loop.create_task(self._inwards()), self._loop.create_task(self._outwards())]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        traceback: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self.why:
            self._send_last()
        self._outer.close()
        self._peer.close()
        for end in ends:
            if isinstance(end, Exception):
                log.error("valve: a fault of ours", exc_info=end)

    def of_use(self, size: int) -> None:
        """So much of what came was what the call is for."""
        self.cut(self._ration.of_use(size))

    def passes(self) -> bool:
        """Whether a packet that begins may be opened: packets are counted by the library's reader of their headers,
        for nobody else can tell where a sealed one ends. Nothing passes that had come before the connection was cut."""
        self.cut(self._ration.packet())
        return not self.why

    def is_slow(self) -> bool:
        """Whether this call has had as much as is taken quickly."""
        return self._ration.is_slow

    def hold(self) -> None:
        """Take nothing from the peer until `go_on`."""
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def cut(self, why: str) -> None:
        """End the connection, where there is a reason to. The library meets an end, and what it still says is dropped:
        asyncio writes a line into the log for each word to a socket that is gone."""
        if why and not self.why:
            self.why = f"{why} and was cut off"
            with contextlib.suppress(OSError):
                self._outer.shutdown(socket.SHUT_WR)

    async def _inwards(self) -> None:
        """What the peer sends, to the library."""
        with contextlib.suppress(OSError):
            if self._first:
                await self._give(self._first)
            while not self._line.closed and not self.why:
                await self._going.wait()
                data = await self._loop.sock_recv(self._peer, TURN)
                await pass_through(len(data))
                if not data:
                    break
                await self._digest(data)
        with contextlib.suppress(OSError):
            self._outer.shutdown(socket.SHUT_WR)

    async def _digest(self, data: bytes) -> None:
        plaintext = self._line.receive(data)
        refused = getattr(self._line, "refused", None)
        self.cut(f"TLS: {refused}" if refused is not None else "")
        await self._send_out()
        await self._give(plaintext)

    async def _give(self, plaintext: bytes) -> None:
        self.cut(self._ration.took(plaintext))
        if plaintext and not self.why:
            await self._loop.sock_sendall(self._outer, plaintext)

    async def _outwards(self) -> None:
        """What the library says, to the peer."""
        with contextlib.suppress(OSError):
            while data := await self._loop.sock_recv(self._outer, SENT):
                if not self.why:
                    self._line.send(data)
                    await self._send_out()

    async def _send_out(self) -> None:
        """One after the other: both directions have something to send where TLS is spoken."""
        async with self._sending:
            if out := self._line.outgoing():
                await self._loop.sock_sendall(self._peer, out)

    def _send_last(self) -> None:
        """What the library said as it closed, if the peer takes it at once."""
        with contextlib.suppress(OSError, ValueError):
            if data := self._outer.recv(SENT):
                self._line.send(data)
        self._line.close()
        with contextlib.suppress(OSError):
            self._peer.send(self._line.outgoing())
