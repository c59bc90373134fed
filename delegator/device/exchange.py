"""One question, one answer: dial, shake hands, send one HTTP/1.1 request, read one bounded answer, hang up.

The invariant: once dialled, everything happens before one deadline and within one size, whatever the other side
does (looking up a name is bounded by the system alone, dialling by the deadline per address); every way to fail
leaves as a Failure. Must not live here: what the bytes mean (envelope), whom to trust (tls).
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import ssl
import time
from typing import NamedTuple

from delegator.device import reasons, tls
from delegator.device.addresses import Address, proven_name
from delegator.device.envelope import HttpAnswer
from delegator.device.reasons import Failure, system_words

log = logging.getLogger("delegator.device")

_CHUNK = 64 * 1024


class Request(NamedTuple):
    """One HTTP request; Host, Content-Length and Connection are added when it is sent."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


class Limit(NamedTuple):
    """How long and how large: the whole exchange in seconds, the answer's body in bytes."""

    seconds: float
    size: int


class _Stream(io.RawIOBase):
    """What http.client reads from: a TLS socket that counts, and that keeps the deadline between its reads."""

    def __init__(self, secured: ssl.SSLSocket, deadline: float) -> None:
        self._secured = secured
        self._deadline = deadline
        self.version = secured.version()  # asked now: after an error the ssl module no longer knows
        self.received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._secured.settimeout(_left(self._deadline))
        count = self._secured.recv_into(buffer)
        self.received += count
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


def exchange(address: Address, server_name: str, context: ssl.SSLContext, request: Request,
             limit: Limit) -> HttpAnswer:
    """The answer of `address`, which must prove to be `server_name`. Raises Failure."""
    deadline = time.monotonic() + limit.seconds
    log.info("203 connecting to %s", address)
    with _connected(address, deadline) as plain, _secured(plain, server_name, context, deadline) as secured:
        stream = _Stream(secured, deadline)
        log.info("211 %s accepted the connection (%s)", address, stream.version)
        sent = _send(secured, address, request)
        return _receive(stream, request.method, limit.size, sent)


def _connected(address: Address, deadline: float) -> socket.socket:
    try:
        plain = socket.create_connection(address, timeout=_left(deadline))
    except socket.gaierror as error:
        raise Failure(reasons.NAME_NOT_FOUND, f"{address.host}: {error.strerror}") from None
    except ConnectionRefusedError:
        raise Failure(reasons.NOTHING_LISTENING, str(address)) from None
    except (OSError, UnicodeError) as error:
        raise Failure(reasons.NO_ROUTE, f"{address}: {system_words(error)}") from None
    # The request follows our last handshake message at once; with Nagle it would wait 40 ms for its acknowledgement.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def _secured(plain: socket.socket, server_name: str, context: ssl.SSLContext, deadline: float) -> ssl.SSLSocket:
    try:
        plain.settimeout(_left(deadline))
        secured = context.wrap_socket(plain, server_hostname=proven_name(server_name), suppress_ragged_eofs=False)
    except OSError as error:
        raise tls.handshake_failure(error) from None
    try:
        tls.check_lower_bound(secured.getpeercert() or {})
    except Failure:
        secured.close()
        raise
    return secured


def _send(secured: ssl.SSLSocket, address: Address, request: Request) -> Exception | None:
    """Sends the request. An error here is kept: the alert that explains it may be waiting to be read."""
    headers = (("Host", address.told), *request.headers, ("Content-Length", str(len(request.body))),
               ("Connection", "close"))
    head = f"{request.method} {request.target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers) + "\r\n"
    try:
        secured.sendall(head.encode("ascii") + request.body)
    except OSError as error:
        return error
    return None


def _receive(stream: _Stream, method: str, size: int, sent: Exception | None) -> HttpAnswer:
    try:
        with http.client.HTTPResponse(stream, method=method) as response:  # type: ignore[arg-type]
            response.begin()
            return HttpAnswer(response.status, response.headers["Retry-After"], _body(response, size))
    except http.client.RemoteDisconnected as error:
        raise tls.answer_failure(sent or error, stream.version, stream.received == 0) from None
    except (http.client.IncompleteRead, OSError) as error:
        raise tls.answer_failure(error, stream.version, stream.received == 0) from None
    except (http.client.HTTPException, ValueError):
        raise Failure(reasons.ANSWER_NOT_UNDERSTOOD, "what came is not HTTP") from None


def _body(response: http.client.HTTPResponse, size: int) -> bytes:
    """The whole body or an error: http.client alone would pass a cut one off as whole."""
    body = bytearray()
    while chunk := response.read(_CHUNK):
        body += chunk
        if len(body) > size:
            raise Failure(reasons.ANSWER_NOT_UNDERSTOOD, f"longer than {size} bytes")
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for this exchange is over")
    return left
