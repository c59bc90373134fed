"""The listener: accepts, keeps count, enforces deadlines, swaps TLS contexts, drains.

Deadlines are swept four times a second over all connections: a quarter second late is soon enough, and a sweep of
10 000 costs less than 10 000 timers.
The invariant: after `close` no socket and no task of ours is left.
Must not live here: the life of one connection (net.connection), what requests mean.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from msgspec.structs import force_setattr

from delegator.clockwork.rounds import kept
from delegator.model.places import seen
from delegator.net.admission import REFUSALS, Admission, crowded, refuse, stale
from delegator.net.balancers import Balancers
from delegator.net.company import AT_WORK, FULL, LOOK, SPENT, Company
from delegator.net.connection import Connection, Phase
from delegator.net.crowds import Caps, Sources, Strangers, source_of
from delegator.net.ebb import Ebb, give_back
from delegator.net.listening import Hosts, Place, opened, place_of
from delegator.net.lobby import Seldom
from delegator.wire.http import HttpError, Request, Response
from delegator.wire.refused import Refused
from delegator.wire.tls import TlsContext
from pki.said import said

log = logging.getLogger(__name__)
Handler = Callable[[Request, Connection], Awaitable[Response]]
"""Answers one request. At the device port it is `Server.answer`, which the app hands over by `Listener.use`."""
SWEEP = 0.25
BREATH = 0.1
"""Seconds until the next try after an accept failed for want of descriptors: they come back as connections end."""


class Deadlines(msgspec.Struct, frozen=True):
    """Seconds a peer may take in each phase; each bounds what a slow or silent peer can hold."""

    silent: float = 5.0
    """From connect to the first byte: a TLS client speaks at once."""
    handshake: float = 5.0
    """Two round trips and one signature on a slow service processor."""
    request: float = 5.0
    """Head and body together, from the first byte: one segment in practice."""
    idle: float = 10.0
    """Between requests on a kept connection."""
    answering: float = 60.0
    """Our own work; callbacks have shorter budgets of their own."""
    writing: float = 5.0
    """A kilobyte back to the device."""
    lingering: float = 1.0
    """For the peer to read its alert and go."""

    by_phase: Mapping[Phase, float] = {}
    """The same for connections to look up."""

    def __post_init__(self) -> None:
        force_setattr(self, "by_phase",
                      {phase: getattr(self, phase.value) for phase in Phase if phase is not Phase.CLOSED})


LONG = 0.01
"""Seconds of a turn of the loop from which on the next worker is asked too: twice what a crowd of 16 takes where the
core is ours."""
SLOW = 3
"""Answers that take longer than a sweep from which on the next worker is asked too: who waits for a slow delegate waits
for its turn there, of which each worker has its share."""


async def _nobody(request: Request, connection: Connection) -> Response:
    """The handler until `use` gives the real one."""
    return Response(503, {b"Content-Type": b"text/plain"}, b"not ready\n")


def _in_plain_words(error: HttpError, connection: Connection) -> Response:
    """The answer to bytes that are not HTTP, until the door puts its own in this place."""
    return Response(error.status, {b"Content-Type": b"text/plain; charset=utf-8"}, f"{error.detail}\n".encode())


class Listener:
    """A TLS port. `context` is read at each new connection, so a reload is an assignment."""

    def __init__(self, context: TlsContext, handler: Handler | None = None, *, deadlines: Deadlines | None = None,
                 on_refused: Callable[[Connection, Refused], None] | None = None, caps: Caps | None = None,
                 requests_per_connection: int = 100, company: Company | None = None) -> None:
        self.context = context
        self.deadlines = deadlines or Deadlines()
        self.requests_per_connection = requests_per_connection
        self.draining = False
        self.balancers: Balancers | None = None
        """Who speaks for devices, from the next connection on; None where they connect themselves."""
        self.unreadable: Callable[[HttpError, Connection], Response] = _in_plain_words
        """Makes the answer to bytes that are not HTTP. The connection ends with that answer."""
        self.loop = asyncio.get_running_loop()
        self._handler = handler or _nobody
        self._on_refused = on_refused
        self._caps = caps or Caps()
        self._admissions: dict[int, Admission] = {}
        """By descriptor: each socket has a line of its own."""
        self.turned_away = 0
        self._connections: set[Connection] = set()
        self._sources = Sources()
        self._strangers: Strangers[Connection] = Strangers()
        self._company = company
        self._answering = 0
        self._is_slow = False
        self._is_used_up, self._is_spent = False, False
        self._busy_until = 0.0
        self._failed = Seldom()
        self._ebb = Ebb()
        self._numbers = (f"{os.getpid():x}-{number:x}" for number in itertools.count(1))
        self._sockets: list[socket.socket] = []
        self._left: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def use(self, context: TlsContext, handler: Handler, on_refused: Callable[[Connection, Refused], None],
            deadlines: Deadlines, caps: Caps, requests_per_connection: int) -> None:
        """Replace what is served with. It counts from the next connection, request and phase on; what is under way
        goes on with what it began with."""
        self.context = context
        self._handler, self._on_refused = handler, on_refused
        self.deadlines = deadlines
        self._caps, self.requests_per_connection = caps, requests_per_connection

    def phases(self) -> dict[str, int]:
        """How many connections are in each phase now."""
        counted = collections.Counter(connection.phase.value for connection in self._connections)
        return {phase.value: counted[phase.value] for phase in Phase if phase is not Phase.CLOSED}

    @property
    def most(self) -> int:
        """Connections at most."""
        return self._caps.connections

    def listen(self, hosts: Hosts, port: int) -> Place:
        """Open the port at one host or several; the first address it really has. Raises DelegatorError (CONFIGURATION)
        when it is in use."""
        places = [self.serve(sock) for sock in opened(hosts, port)]
        return places[0]

    @property
    def places(self) -> tuple[Place, ...]:
        """Every address that it listens on."""
        return tuple(map(place_of, self._sockets))

    def serve(self, sock: socket.socket) -> Place:
        """Serve a socket that is bound already (such as one from the service manager)."""
        sock.setblocking(False)
        # Accepted sockets inherit it. They are not asyncio's own, so nobody else switches Nagle off (40 ms, measured).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(sock)
        self._admissions[sock.fileno()] = Admission()
        self.loop.add_reader(sock.fileno(), self._accept, sock)
        if self._sweeper is None:
            self._sweeper = self.loop.create_task(kept(self._sweep, "closing overdue connections"))
        return place_of(sock)

    def _accept(self, listening: socket.socket) -> None:
        """Somebody is in line: for us, or for another of several workers."""
        company, admission = self._company, self._admissions[listening.fileno()]
        if company is None:
            self._take_in(listening, admission, admission.room())
        elif company.is_ours:
            self._take_in(listening, admission, company.room(admission.room()))
            self.loop.call_soon(self._turned, time.monotonic())
        else:
            admission.behind = False  # our turns say nothing of the line now
            self._pause(listening, LOOK)

    def _turned(self, began: float) -> None:
        """All that stood ready had its turn: where that took long, devices wait here for a core that another has."""
        now = time.monotonic()
        if self._company is not None and now - began > LONG:
            self._busy_until = now + AT_WORK
            self._company.has(SPENT if self._is_spent else FULL)

    def _take_in(self, listening: socket.socket, admission: Admission, room: int) -> None:
        behind, refusals = admission.behind, REFUSALS
        while room and refusals:
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                admission.taken(True)
                return
            except OSError as error:
                if (times := self._failed.times()):
                    log.error("no connection can be accepted: %s, %d times since this was last said", error.strerror,
                              times, extra={"connection": ""})
                self._pause(listening)
                return
            if behind and (stale(sock) or crowded(listening)):
                refusals -= 1
                self.turned_away += 1
                refuse(sock)
            else:
                room -= 1
                self._take(sock, seen(address[0]))
        admission.taken(False)

    def _pause(self, listening: socket.socket, seconds: float = BREATH) -> None:
        """Look away for a moment: the same accept would fail at once again, and again, and use up the core."""
        self.loop.remove_reader(listening.fileno())
        self.loop.call_later(seconds, self._look_again, listening)

    def _look_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self.loop.add_reader(listening.fileno(), self._accept, listening)

    def _take(self, sock: socket.socket, address: str) -> None:
        """Serve it, unless there are too many; behind balancers its source is counted once that is known."""
        source = None if self.balancers is not None else source_of(address)
        if len(self._connections) >= self._caps.connections or (
                source is not None and not self._sources.enter(source, self._caps.per_source)):
            self.turned_away += 1
            sock.close()
            return
        sock.setblocking(False)
        connection = Connection(self, sock, address, next(self._numbers))
        connection.source = source
        self._connections.add(connection)
        oldest = self._strangers.enter(connection, self._caps.half_open)
        if oldest is not None:
            self.turned_away += 1
            oldest.abort()
        if self._company is not None:
            self._company.took()
            self._count(connection)

    def used(self, is_used_up: bool, is_spent: bool) -> None:
        """Whether our share of something else that is shared out among the workers is all in use now, so that the next
        device would wait for it; and whether there is no place to wait either, so that it would be refused."""
        self._is_used_up, self._is_spent = is_used_up, is_spent
        self._count(None)

    def _count(self, connection: Connection | None) -> None:
        """The other workers are told how many handshakes and answers are in hand: as many as we can have, where turns
        are long, answers slow, our calls to a delegate all in use, or half of our places taken, of all, of its source
        or for half-open ones. The others have their shares of all that too, and no worker can give away what it
        took."""
        if self._company is None:
            return
        strangers = len(self._strangers)
        full = (time.monotonic() < self._busy_until or self._is_slow or self._is_used_up
                or 2 * strangers > self._caps.half_open or self.is_tight(connection))
        # who is answered mostly waits
        self._company.has(SPENT if self._is_spent else FULL if full else max(strangers, self._answering // 2))

    def introduced(self, connection: Connection, address: str) -> bool:
        """A load balancer told the address of a connection. False where that source has too many."""
        source = source_of(address)
        if not self._sources.enter(source, self._caps.per_source):
            self.turned_away += 1
            return False
        connection.source = source
        self._count(connection)
        return True

    def is_tight(self, connection: Connection | None) -> bool:
        """Whether half of all places, or half of its source's, are taken. Then no connection is kept open for a further
        request that may come, because newcomers who find no place are turned away."""
        source = None if connection is None else connection.source
        return 2 * len(self._connections) > self._caps.connections or (
            source is not None and 2 * self._sources.of(source) > self._caps.per_source)

    def known(self, connection: Connection) -> None:
        """This connection has shown who it is: from now on it is not closed to make room for others."""
        self._strangers.leave(connection)
        self._count(connection)

    async def answer(self, request: Request, connection: Connection) -> Response:
        """The handler's answer. What it does not handle is a bug of ours: logged, answered 500, never a hang."""
        self._answering += 1
        try:
            return await self._handler(request, connection)
        except Exception:
            log.exception("unhandled in %s %s", request.method, said(request.target))
            return Response(500, {b"Content-Type": b"text/plain"}, b"internal error\n")
        finally:
            self._answering -= 1

    def refused(self, connection: Connection, refused: Refused) -> None:
        if self._on_refused is not None:
            self._on_refused(connection, refused)

    def left(self, task: asyncio.Task[None]) -> None:
        """An answer that is still worked on, while the connection it was for is gone."""
        self._left.add(task)
        task.add_done_callback(self._left.discard)

    def gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._strangers.leave(connection)
        if connection.source is not None:
            self._sources.leave(connection.source)
        self._count(connection)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            now = time.monotonic()
            if self._company is not None:
                late = now + self.deadlines.answering - SWEEP
                self._is_slow = sum(one.phase is Phase.ANSWERING and one.deadline < late
                                    for one in self._connections) > SLOW
            for connection in [one for one in self._connections if one.deadline < now]:
                self._overdue(connection)
            if self._ebb.is_out(len(self._connections)):
                give_back()

    def _overdue(self, connection: Connection) -> None:
        """Close one connection. A fault while closing it is logged, and does not keep the ones after it open."""
        try:
            connection.overdue()
        except Exception:
            log.exception("closing an overdue connection: a fault of ours")
            connection.abort()

    async def close(self, grace: float = 10.0) -> None:
        """Stop accepting, let requests in hand be answered for up to `grace` seconds, then close the rest."""
        self.draining = True
        for sock in self._sockets:
            self.loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        until = time.monotonic() + grace
        while self._connections and time.monotonic() < until:
            for connection in list(self._connections):
                if connection.phase in (Phase.SILENT, Phase.IDLE, Phase.LINGERING):
                    connection.finish()
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
        ending = [*self._left, *([] if self._sweeper is None else [self._sweeper])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
