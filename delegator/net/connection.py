"""One connection's life at the door: bytes arrive, TLS, a request, a task that answers it, bytes leave, goodbye.

The lean shape that measured best: the loop's reader callback and one `recv`, the TLS session made at the first
byte (a peer that says nothing costs under 2 KiB, with asyncio's own TLS 300), answer and close_notify in one
`send`. The listener's sweep enforces deadlines, so that no timer is made per connection.
The invariants: one answer for one request, in order; a refused peer still gets its alert; every way out closes
the socket exactly once.
Must not live here: what a request means, TLS decisions.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from delegator.model import PeerCertificate
from delegator.model.word import Word
from delegator.net.balancers import Balancers, Introduction
from delegator.net.crowds import Source
from delegator.trail import CONNECTION
from delegator.wire.http import CONTINUE, LIMITS, HttpError, Request, RequestReader, Response, render_response
from delegator.wire.proxy import ProxyError
from delegator.wire.refused import Refused
from delegator.wire.tls import Session, TlsContext

log = logging.getLogger(__name__)
RECEIVE = 16 * 1024
"""One TLS record. `recv` makes a buffer of this size and gives back what was not filled, and each time that 64 KiB or
more come back to it, glibc puts all its free pieces in order."""
DROPPED = 1024 * 1024
"""Bytes that are read and dropped while a peer has its last answer to read: the rest of a request that was refused for
its size. Who sends more than that is not reading."""
UNTRUSTED = 192 * 1024
"""The same where TLS itself was refused. It fits a request of 64 KiB that follows a refused certificate at once, with
each segment of 1,448 bytes read alone."""
LOOK = 4096
"""What one read of dropped bytes counts for at least. A megabyte in pieces of 500 bytes would cost the loop 10 ms
(measured)."""
_AT_ONCE = getattr(socket, "TCP_QUICKACK", None)
"""Linux's option to acknowledge at once what came."""


class Phase(Word):
    """Where a connection stands; each phase has its own deadline, see serve.Deadlines."""

    SILENT = "silent"
    HANDSHAKE = "handshake"
    IDLE = "idle"
    REQUEST = "request"
    ANSWERING = "answering"
    WRITING = "writing"
    LINGERING = "lingering"
    CLOSED = "closed"


class Times(Protocol):
    """The seconds that a peer may take in each phase, see serve.Deadlines."""

    @property
    def by_phase(self) -> Mapping[Phase, float]: ...


class Keeper(Protocol):
    """What a connection asks of the listener that accepted it, and tells it (serve.Listener says what each is)."""

    loop: asyncio.AbstractEventLoop
    context: TlsContext
    balancers: Balancers | None
    draining: bool
    requests_per_connection: int
    unreadable: Callable[[HttpError, Connection], Response]

    @property
    def deadlines(self) -> Times: ...
    async def answer(self, request: Request, connection: Connection) -> Response: ...
    def introduced(self, connection: Connection, address: str) -> bool: ...
    def is_tight(self, connection: Connection) -> bool: ...
    def known(self, connection: Connection) -> None: ...
    def refused(self, connection: Connection, refused: Refused) -> None: ...
    def left(self, task: asyncio.Task[None]) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class Connection:
    """What a handler may ask of the connection: who is at the other end, since when, under which id."""

    __slots__ = ("_certificate", "_close_after", "_dropped", "_introduction", "_listener", "_out", "_paused", "_reader",
                 "_requests", "_served", "_session", "_socket", "_task", "authenticated_at", "connected_at", "deadline",
                 "id", "peer_address", "phase", "source")

    def __init__(self, listener: Keeper, sock: socket.socket, peer_address: str, number: str) -> None:
        self.id = number
        self.peer_address = peer_address
        self.connected_at = time.monotonic_ns()
        self.authenticated_at = 0
        self.deadline = 0.0
        self.source: Source | None = None
        self.phase = Phase.SILENT
        self._listener = listener
        self._socket = sock
        self._session: Session | None = None
        balancers = listener.balancers
        self._introduction = None if balancers is None else Introduction(balancers, peer_address)
        self._reader: RequestReader | None = None
        self._certificate: PeerCertificate | None = None
        self._requests: list[Request] = []
        self._task: asyncio.Task[None] | None = None
        self._out = b""
        self._served = self._dropped = 0
        self._close_after = False
        self._paused = False
        self._enter(Phase.SILENT)
        CONNECTION.set(number)  # the loop keeps a copy of the context for each reader, and so for all that it calls
        listener.loop.add_reader(sock.fileno(), self._readable)

    @property
    def certificate(self) -> PeerCertificate | None:
        """The peer's verified certificate, read once. Raises ValueError for a structure we do not read."""
        if self._certificate is None and self._session is not None:
            self._certificate = self._session.peer()
        return self._certificate

    @property
    def certificate_der(self) -> bytes | None:
        return None if self._session is None else self._session.peer_certificate_der()

    def vouch(self) -> None:
        """Note that the peer has shown who it is, by its certificate or in another way that the handler knows. From
        then on this connection is not closed to make room for others."""
        self._listener.known(self)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.deadline = time.monotonic() + self._listener.deadlines.by_phase[phase]

    # --- bytes arrive ---

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._peer_gone()
        elif self.phase is not Phase.LINGERING:
            self._received(data)
        else:
            self._drop(data)

    def _drop(self, data: bytes) -> None:
        refused = self._session is not None and self._session.refused is not None
        self._dropped += max(len(data), LOOK)
        if self._dropped > (UNTRUSTED if refused else DROPPED):
            self.abort()

    def _peer_gone(self) -> None:
        """The peer will send no more. An answer that is being made or written still goes out; half a request is
        dropped."""
        if self.phase in (Phase.ANSWERING, Phase.WRITING):
            self._listener.loop.remove_reader(self._socket.fileno())
            self._close_after = True
        else:
            self.abort()

    def _received(self, data: bytes) -> None:
        session = self._session
        if session is None:
            if self._introduction is not None and not (data := self._introduced(data)):
                return
            session = self._session = Session(self._listener.context)
            self._reader = RequestReader()
            self._enter(Phase.HANDSHAKE)
        plaintext = session.receive(data)
        if session.refused is not None:
            self._refuse(session.refused)
            return
        if session.handshaken and self.phase is Phase.HANDSHAKE:
            self.authenticated_at = time.monotonic_ns()
            if self.certificate_der is not None:  # without one, where none is asked for, anybody is a stranger still
                self.vouch()
            self._enter(Phase.IDLE)
        if plaintext:
            self._parse(plaintext)
        if session.closed and self.phase in (Phase.IDLE, Phase.REQUEST):
            self.finish()
        elif self.phase is not Phase.CLOSED and self.phase is not Phase.ANSWERING:
            self._flush()
            if _AT_ONCE is not None and self.phase in (Phase.IDLE, Phase.REQUEST):
                # A client with Nagle's algorithm holds its request back until its Finished is acknowledged, to which
                # TLS 1.3 answers nothing, and a body until its head is. The kernel would put that off: 40 of the 48 ms
                # that such a device waited (measured).
                self._socket.setsockopt(socket.IPPROTO_TCP, _AT_ONCE, 1)

    def _introduced(self, data: bytes) -> bytes:
        """Take a load balancer's PROXY header off the front. The bytes after it are the device's."""
        assert self._introduction is not None
        try:
            header = self._introduction.feed(data)
        except ProxyError as error:
            self._listener.refused(self, Refused(None, str(error)))
            self.abort()
            return b""
        if header is None:
            return b""
        self._introduction = None
        if header.source is not None:
            self.peer_address = header.source
            if not self._listener.introduced(self, header.source):
                self.abort()
                return b""
        return header.rest

    def _refuse(self, refused: Refused) -> None:
        self._listener.refused(self, refused)
        self._linger()

    def _parse(self, plaintext: bytes) -> None:
        assert self._reader is not None
        assert self._session is not None
        if self._served and self.phase is Phase.IDLE:  # a trail begins here: the time before it was the device's own
            self.connected_at = self.authenticated_at = time.monotonic_ns()
        try:
            self._requests += self._reader.feed(plaintext)
        except HttpError as error:
            if self._task is None and self.phase is not Phase.WRITING:  # otherwise after the answer before it
                self._answer_badly(error)
            return
        if self._requests:
            self._session.new_message()
            self._next_request()
            self._bound()
        elif self.phase is Phase.IDLE:
            self._enter(Phase.REQUEST)
        if self._reader.wants_continue and self.phase is Phase.REQUEST:
            self._session.send(CONTINUE)

    def _answer_badly(self, error: HttpError) -> None:
        assert self._session is not None
        log.info("%s: bad HTTP: %s", self.peer_address, error.detail)
        self._session.send(render_response(self._listener.unreadable(error, self), close=True))
        self._linger()

    # --- a request is answered ---

    def _next_request(self) -> None:
        if self._task is None and self._requests:
            if self._served and self._withdrawn():
                return
            self._enter(Phase.ANSWERING)
            self._task = self._listener.loop.create_task(self._answer(self._requests.pop(0)))

    def _bound(self) -> None:
        """Stop reading while a few requests wait for their answer; what else the peer sends stays in its own
        buffers."""
        full = len(self._requests) >= LIMITS.ahead and self.phase is not Phase.CLOSED
        if full and not self._paused:
            self._listener.loop.remove_reader(self._socket.fileno())
        elif self._paused and not full and not self._close_after and self.phase is not Phase.CLOSED:
            self._listener.loop.add_reader(self._socket.fileno(), self._readable)
        self._paused = full

    def _withdrawn(self) -> bool:
        """A further request on a kept connection, whose certificate may have been revoked since it was checked: the
        connection ends, and the next one is refused with the alert that says why."""
        assert self._session is not None
        refused = self._listener.context.withdrawn(self._session)
        if refused is not None:
            self._listener.refused(self, refused)
            self._linger()
        return refused is not None

    async def _answer(self, request: Request) -> None:
        response = await self._listener.answer(request, self)
        self._served += 1
        self._task = None
        if self.phase in (Phase.CLOSED, Phase.LINGERING):  # the peer broke TLS meanwhile, and heard so
            return
        assert self._session is not None
        close = (self._close_after or not request.keep_alive or self._listener.draining
                 or self._served >= self._listener.requests_per_connection or self._listener.is_tight(self))
        self._session.send(render_response(response, close=close))
        if close:
            self._session.close()
        self._close_after = close
        self._enter(Phase.WRITING)
        self._flush()

    # --- bytes leave ---

    def _flush(self) -> None:
        assert self._session is not None
        self._out += self._session.outgoing()
        if self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            self._out = self._out[sent:]
            if self._out:
                self._listener.loop.add_writer(self._socket.fileno(), self._writable)
                return
        if self.phase is Phase.WRITING:
            self._written()

    def _writable(self) -> None:
        self._listener.loop.remove_writer(self._socket.fileno())
        self._flush()

    def _written(self) -> None:
        if self._close_after:
            self.abort()
            return
        assert self._reader is not None
        self._enter(Phase.REQUEST if self._reader.mid_request else Phase.IDLE)
        if self._requests:
            self._next_request()
            self._bound()
        elif self._reader.refusal is not None:
            self._answer_badly(self._reader.refusal)

    # --- the ways out ---

    def finish(self) -> None:
        """Close politely: our close_notify, then the socket."""
        if self._session is not None and self.phase is not Phase.CLOSED:
            self._session.close()
            self._send_last()
        self.abort()

    def _linger(self) -> None:
        """Send what there is, then read and drop what the peer still sends: closing with bytes unread makes the
        kernel reset the connection, and the peer would lose the alert or answer it waits for."""
        if self._session is not None and self._session.refused is None:
            self._session.close()
        self._send_last()
        self._enter(Phase.LINGERING)
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def _send_last(self) -> None:
        assert self._session is not None
        if self._out:
            self._listener.loop.remove_writer(self._socket.fileno())
        try:
            self._socket.send(self._out + self._session.outgoing())
        except OSError:
            log.debug("%s left before the last words", self.peer_address, extra={"connection": self.id})
        self._out = b""

    def abort(self) -> None:
        """Close the socket now, whatever it was doing."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self._listener.loop.remove_reader(self._socket.fileno())
        if self._out:
            self._listener.loop.remove_writer(self._socket.fileno())
        self._socket.close()
        if self._task is not None:
            self._listener.left(self._task)
        self._listener.gone(self)

    def overdue(self) -> None:
        """Close the connection because the deadline of its phase has passed. Where it was kept open after an answer
        that is no fault, so the log says it at debug: a device whose hook takes longer confirms on another one."""
        level = logging.DEBUG if self._served and self.phase is Phase.IDLE else logging.INFO
        log.log(level, "%s: too slow in phase %s", self.peer_address, self.phase.value, extra={"connection": self.id})
        if self.phase in (Phase.IDLE, Phase.REQUEST):
            self.finish()
        else:
            self.abort()
