"""HTTPS as a client: mutual TLS on the same core as the server, a small pool of kept connections per endpoint.

The invariant: what is sent goes only to a peer whose certificate chains to the endpoint's own anchors and stands
for its name; every call ends within its budget; no redirect is followed.
Must not live here: SOAP, what a delegate is, circuit breaking (callbacks).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from delegator.errors import DelegatorError, Kind, words_of
from delegator.model.places import authority, normal_host
from delegator.net.calls import CALLS
from delegator.net.turnstile import OWN_TURN, pass_through
from delegator.outbound import Outbound
from delegator.wire.http import HttpError, Response, ResponseReader, render_request
from delegator.wire.ration import LOOKS, TRICKLES
from delegator.wire.tls import Session, TlsContext
from pki.said import said

NOWHERE_PRIVATE = Outbound()
KEPT = 8
"""Idle connections per endpoint: enough for a burst, few enough for a small customer's server."""
KEPT_FOR = 30.0
"""Seconds an idle connection is worth keeping: below the 60 s after which common servers hang up."""
KEPT_IN_ALL = 256
"""Idle connections to all endpoints: there may be thousands of those, and each connection is an open file."""
RECEIVE = 16 * 1024
RESOLVING = 64
"""Names that can be looked up at once; delegates' names are few, and each holds one thread at most."""


@dataclass(frozen=True, eq=False)
class Endpoint:
    """Where to call. `host` is whom its certificate must stand for; `address` overrides where to connect."""

    host: str
    port: int
    context: TlsContext
    address: str | None = None
    outbound: Outbound = NOWHERE_PRIVATE
    kept: list[_Stream] = field(default_factory=list)

    def __str__(self) -> str:
        return authority(self.host, self.port)

    @property
    def name(self) -> str:
        """As certificates and the other side have it: no final dot, no scope."""
        return normal_host(self.host.partition("%")[0])


class Resolved(NamedTuple):
    """What a socket needs to connect."""

    family: socket.AddressFamily
    kind: socket.SocketKind
    protocol: int
    address: tuple[Any, ...]


class _Stream:
    """One open connection: read and write plaintext."""

    def __init__(self, sock: socket.socket, session: Session) -> None:
        self._socket = sock
        self._session = session
        self.idle_since = 0.0
        self.reusable = False

    async def handshake(self, name: str) -> None:
        await shaken(self._socket, self._session, name)

    async def exchange(self, request: bytes) -> Response:
        """Send one request, read its response. An answer that ends where the connection does is taken only where the
        peer said so itself (close_notify, RFC 8446 section 6.1): else anybody could cut it. Raises DelegatorError
        (UNREACHABLE), OSError, HttpError."""
        self._session.new_message()
        self._session.send(request)
        await _send_out(self._socket, self._session)
        reader, looks = ResponseReader(), _Looks(self._socket)
        while True:
            data = await looks.next()
            response = reader.feed(self._session.receive(data))
            _check(self._session)
            if response is None and self._session.closed:
                response = reader.eof()
            if response is not None:
                self.reusable = reader.reusable and not self._session.closed
                return response
            if not data or self._session.closed:
                raise DelegatorError(Kind.UNREACHABLE, "it closed the connection before a whole answer")
            await _send_out(self._socket, self._session)

    def usable(self) -> bool:
        """Still fresh, and the peer has not hung up or spoken out of turn."""
        if time.monotonic() - self.idle_since > KEPT_FOR:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._session.close()
        with contextlib.suppress(OSError):
            self._socket.send(self._session.outgoing())
        self._socket.close()


async def shaken(sock: socket.socket, session: Session, name: str) -> bytes:
    """TLS on a connection to who stands for `name`; what that one said with its last words of the handshake. Raises
    DelegatorError (UNREACHABLE), OSError."""
    session.start()
    await _send_out(sock, session)
    said, looks = b"", _Looks(sock)
    while not session.handshaken:
        data = await looks.next()
        if not data:
            raise DelegatorError(Kind.UNREACHABLE, "it closed the connection during the TLS handshake")
        said = session.receive(data)
        await _send_out(sock, session)
        _check(session)
    session.check_name(name)
    return said


class _Looks:
    """At what comes, in one handshake or for one answer."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._left = sock, LOOKS

    async def next(self) -> bytes:
        """What has come. The loop's own `sock_recv` returns at once while bytes are there, so a peer that sends faster
        than we digest would keep the loop, its timers and with them every budget waiting: each look is a turn, and in
        one turn all calls together digest so much and no more. Raises DelegatorError (UNREACHABLE)."""
        self._left -= 1
        if self._left < 0:
            raise DelegatorError(Kind.UNREACHABLE, f"{TRICKLES} and was cut off")
        await asyncio.sleep(0)
        data = await asyncio.get_running_loop().sock_recv(self._socket, RECEIVE)
        await pass_through(len(data), OWN_TURN)
        return data


def _check(session: Session) -> None:
    if session.refused is not None:
        raise DelegatorError(Kind.UNREACHABLE, f"TLS: {session.refused}")


async def _send_out(sock: socket.socket, session: Session) -> None:
    data = session.outgoing()
    if data:
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def call(endpoint: Endpoint, path: str, headers: Mapping[bytes, bytes], body: bytes,
               budget: float, method: str = "POST") -> Response:
    """Call an endpoint, on a kept connection where there is one. A kept one that turns out dead is replaced once,
    so the call must be idempotent. Raises DelegatorError (UNREACHABLE)."""
    request = render_request(method, path, authority(endpoint.name, endpoint.port), headers, body)
    try:
        async with asyncio.timeout(budget):
            return await _call(endpoint, request)
    except TimeoutError:
        raise DelegatorError(Kind.UNREACHABLE, f"{endpoint}: no answer within {budget:g} s") from None
    except (OSError, HttpError) as error:
        raise DelegatorError(Kind.UNREACHABLE, f"{endpoint}: {said(words_of(error))}") from None
    except DelegatorError as error:
        kind = error.kind if error.kind is Kind.TRY_LATER else Kind.UNREACHABLE  # it was not even tried
        raise DelegatorError(kind, f"{endpoint}: {error.detail}") from None


async def _call(endpoint: Endpoint, request: bytes) -> Response:
    while endpoint.kept:
        stream = endpoint.kept.pop()
        _idle.pop(stream, None)
        if not stream.usable():
            stream.close()
            continue
        try:
            return await _exchange(endpoint, stream, request)
        except (OSError, DelegatorError):
            break
    return await _exchange(endpoint, await _connect(endpoint), request)


_idle: dict[_Stream, Endpoint] = {}
"""All connections that are kept, the oldest first."""


def _let_go_of_idle(most: int) -> None:
    """Hang up those that are too many or too old: an endpoint that is not called again would keep its own for ever."""
    too_old = time.monotonic() - KEPT_FOR
    for stream, endpoint in list(_idle.items()):
        if len(_idle) <= most and stream.idle_since > too_old:
            return
        del _idle[stream]
        if stream in endpoint.kept:
            endpoint.kept.remove(stream)
            stream.close()


CALLS.let_go = partial(_let_go_of_idle, 0)


async def _exchange(endpoint: Endpoint, stream: _Stream, request: bytes) -> Response:
    try:
        response = await stream.exchange(request)
    except BaseException:
        stream.close()
        raise
    if stream.reusable and len(endpoint.kept) < KEPT:
        stream.idle_since = time.monotonic()
        endpoint.kept.append(stream)
        _idle[stream] = endpoint
        _let_go_of_idle(KEPT_IN_ALL)
    else:
        stream.close()
    return response


async def resolved(host: str, port: int, outbound: Outbound) -> Resolved:
    """The first address of a host that may be connected to. Raises DelegatorError (UNREACHABLE), OSError."""
    refusal = "no address"
    for family, kind, protocol, _, address in await _found(host, port):
        refused = outbound.refusal(str(address[0]), port)
        if refused is None:
            return Resolved(family, kind, protocol, address)
        refusal = refused
    raise DelegatorError(Kind.UNREACHABLE, f"{host} is not to be connected to: {refusal}")


async def _found(host: str, port: int) -> list[tuple[Any, ...]]:
    """What a host resolves to. An address needs no look-up, so it waits for no thread that a slow name holds."""
    try:
        address = ipaddress.ip_address("" if "%" in host else host)  # a scope is the system's to read
    except ValueError:
        return await _looked_up(host, port)
    where = (str(address), port) if address.version == 4 else (str(address), port, 0, 0)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]


_threads = ThreadPoolExecutor(RESOLVING, "resolve")
_under_way: dict[tuple[str, int], asyncio.Task[list[tuple[Any, ...]]]] = {}


async def _looked_up(host: str, port: int) -> list[tuple[Any, ...]]:
    """By the system's resolver, in threads of our own: asyncio's has six, and six slow names would stall everybody.
    Calls for one name share one look-up, which goes on when a caller gives up, so a name holds one thread at most."""
    loop, key = asyncio.get_running_loop(), (host, port)
    task = _under_way.get(key)
    if task is None or task.get_loop() is not loop:
        async def look_up() -> list[tuple[Any, ...]]:
            try:
                return list(await loop.run_in_executor(
                    _threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            finally:
                _under_way.pop(key, None)
        task = _under_way[key] = loop.create_task(look_up())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # callers may all be gone
    return await asyncio.shield(task)


async def connected(host: str, port: int, outbound: Outbound) -> socket.socket:
    """A TCP connection to a host, to the very address that was judged. Raises as `resolved` does."""
    return await _connected_to(await resolved(host, port, outbound))


async def reached(host: str, port: int) -> socket.socket:
    """A TCP connection to a host that the operator named: whichever of its addresses takes it. Raises OSError."""
    refused = OSError("no address")
    for family, kind, protocol, _, address in await _found(host, port):
        try:
            return await _connected_to(Resolved(family, kind, protocol, address))
        except OSError as error:
            refused = error
    raise refused


async def _connected_to(where: Resolved) -> socket.socket:
    sock = socket.socket(where.family, where.kind, where.protocol)
    CALLS.enter(sock)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await asyncio.get_running_loop().sock_connect(sock, where.address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(endpoint: Endpoint) -> _Stream:
    sock = await connected(endpoint.address or endpoint.host, endpoint.port, endpoint.outbound)
    try:
        stream = _Stream(sock, Session(endpoint.context, endpoint.name))
        await stream.handshake(endpoint.name)
    except BaseException:
        sock.close()
        raise
    return stream


def close(endpoint: Endpoint) -> None:
    """Hang up all kept connections."""
    while endpoint.kept:
        stream = endpoint.kept.pop()
        _idle.pop(stream, None)
        stream.close()
