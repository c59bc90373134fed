"""The load client: handshakes of many devices, a given number in flight, from one process over epoll.

Not what is measured, so it does no more than it must: it does not verify the server's chain (which costs the server
nothing), and closes without a goodbye. It does read every answer to its end and judge it.
The invariant: a round that ends without an exception had exactly one good answer for each device.
Must not live here: servers, statistics.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

from benchmarks.fleet import Device

_lib = Binding.lib
RECEIVE = 64 * 1024
STALLED = 10.0
"""Seconds without a sign of life from the server before a round is given up."""
Judge = Callable[[Device, bytes], bool]
"""Whether the body of a 200 is what this device should get."""


class LoadError(Exception):
    """The server did not answer as it should; a measurement of that means nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """One round seen from the client: seconds of each handshake, of the whole, and of the client's own CPU."""

    latencies: list[float]
    wall: float
    cpu: float


def client_context() -> SSL.Context:
    """TLS 1.3 only, so that both servers do the same; groups come from openssl-client.cnf."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


class Call:
    """A device's call over a socket that is connected: TLS, the request, the answer to its end."""

    __slots__ = ("_asked", "_parts", "_tls", "device", "socket")

    def __init__(self, context: SSL.Context, sock: socket.socket, device: Device) -> None:
        self.device, self.socket = device, sock
        self._asked = False
        self._parts: list[bytes] = []
        self._tls = SSL.Connection(context, None)
        # The public calls would convert certificate and key each time.
        _lib.SSL_use_certificate(self._tls._ssl, device.certificate._x509)
        _lib.SSL_use_PrivateKey(self._tls._ssl, device.key._pkey)
        self._tls.set_connect_state()
        self._advance()

    def received(self) -> bool:
        """Take what came; True when the answer is complete. Raises OSError where the server cut it, SSL.Error."""
        data = self.socket.recv(RECEIVE)
        if not data:
            return True
        self._tls.bio_write(data)
        return self._advance()

    def _advance(self) -> bool:
        try:
            if not self._asked:
                self._tls.do_handshake()
                self._tls.sendall(self.device.request)
                self._asked = True
            while True:
                self._parts.append(self._tls.recv(RECEIVE))
        except SSL.WantReadError:
            self._flush()
        except SSL.ZeroReturnError:
            return True
        return False

    def _flush(self) -> None:
        try:
            self.socket.sendall(self._tls.bio_read(RECEIVE))
        except SSL.WantReadError:
            return

    def answer(self) -> tuple[bytes, bytes]:
        """Head and body, as far as they came."""
        head, _, body = b"".join(self._parts).partition(b"\r\n\r\n")
        return head, body


class _Exchange:
    """One device's connection, from connect to the end of the answer."""

    __slots__ = ("_call", "device", "socket", "started")

    def __init__(self, context: SSL.Context, address: tuple[str, int], device: Device) -> None:
        self.device = device
        self.started = time.perf_counter()
        self.socket = socket.socket()
        self.socket.settimeout(STALLED)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._call = Call(context, self.socket, device)

    def received(self) -> bool:
        """Take what came; True when the answer is complete. Raises LoadError."""
        try:
            return self._call.received()
        except SSL.Error as error:
            raise LoadError(f"{self.device.tag}: TLS failed: {error}") from None

    def body(self) -> bytes:
        """The body of the answer. Raises LoadError unless it is a whole 200."""
        head, body = self._call.answer()
        if not head.startswith(b"HTTP/1.1 200 ") or b"content-length: %d" % len(body) not in head.lower():
            raise LoadError(f"{self.device.tag}: not a whole 200: {head[:80]!r} with {body[:400]!r}")
        return body


class _Round:
    """One round at work."""

    def __init__(self, address: tuple[str, int], devices: Sequence[Device], good: Judge) -> None:
        self._context = client_context()
        self._address, self._good = address, good
        self._waiting: Iterator[Device] = iter(devices)
        self._epoll = select.epoll()
        self._open: dict[int, _Exchange] = {}
        self.latencies: list[float] = []

    def _start_one(self) -> None:
        device = next(self._waiting, None)
        if device is not None:
            exchange = _Exchange(self._context, self._address, device)
            self._open[exchange.socket.fileno()] = exchange
            self._epoll.register(exchange.socket.fileno(), select.EPOLLIN)

    def _end(self, number: int) -> None:
        exchange = self._open.pop(number)
        self._epoll.unregister(number)
        exchange.socket.close()
        self.latencies.append(time.perf_counter() - exchange.started)
        if not self._good(exchange.device, exchange.body()):
            raise LoadError(f"{exchange.device.tag}: a 200 that is not the answer: {exchange.body()[:400]!r}")

    def run(self, in_flight: int) -> None:
        for _ in range(in_flight):
            self._start_one()
        while self._open:
            events = self._epoll.poll(STALLED)
            if not events:
                raise LoadError(f"no answer for {STALLED:.0f} s with {len(self._open)} handshakes open")
            for number, _ in events:
                if self._open[number].received():
                    self._end(number)
                    self._start_one()

    def close(self) -> None:
        for exchange in self._open.values():
            exchange.socket.close()
        self._epoll.close()


def run(address: tuple[str, int], devices: Sequence[Device], good: Judge, in_flight: int) -> Load:
    """One handshake of each device, `in_flight` at a time. Raises LoadError at the first bad answer."""
    with closing(_Round(address, devices, good)) as work:
        cpu, start = time.process_time(), time.perf_counter()
        try:
            work.run(in_flight)
        except OSError as error:
            raise LoadError(f"connection: {error}") from error
        return Load(work.latencies, time.perf_counter() - start, time.process_time() - cpu)
