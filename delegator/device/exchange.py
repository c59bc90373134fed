"""One question, one answer: one HTTP/1.1 request, one bounded answer, on a connection of its own.

The invariant: once a name is looked up (which the system alone bounds), everything happens before one deadline, and
what is taken in is counted where it comes in, before anybody looks for its length: http.client reads a chunk of
size -1 to the end of the world. Every way to fail leaves as a Failure.
Must not live here: TLS and sockets (channel), what the bytes mean (envelope), whom to trust (tls).
"""

from __future__ import annotations

import http.client
import io
import logging
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from delegator.device import reasons, tls
from delegator.device.channel import Channel, Peer, opened
from delegator.device.envelope import HttpAnswer
from delegator.device.reasons import Failure

log = logging.getLogger("delegator.device")

_CHUNK = 64 * 1024
_HEAD = 64 * 1024
"""Bytes of status line and headers, 100-continues and all: a server's own are a few hundred."""
_PACKED = 8 * _CHUNK
"""Bytes from the network for one piece of a body: chunks of one byte take six."""


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


Take = Callable[[bytes], None]


class _Stream(io.RawIOBase):
    """What http.client reads from."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        content = self._channel.read(len(buffer))
        buffer[:len(content)] = content
        return len(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


def exchange(peer: Peer, context: ssl.SSLContext, request: Request, limit: Limit,
             take: Take | None = None) -> HttpAnswer:
    """The answer of a peer, which must prove itself. With `take` the body of a good answer (200) is given to it in
    pieces and not kept. Raises Failure."""
    deadline = time.monotonic() + limit.seconds
    log.info("203 connecting to %s", peer.address)
    with opened(peer, context, deadline) as channel:
        version = channel.version  # asked now: after an error the ssl module no longer knows
        log.info("211 %s accepted the connection (%s)", peer.address, version)
        sent = _send(channel, request, peer.address.told)
        try:
            return _received(channel, request.method, limit.size, take)
        except http.client.RemoteDisconnected as error:
            raise tls.answer_failure(sent or error, version, channel.received == 0) from None
        except (http.client.IncompleteRead, OSError) as error:
            raise tls.answer_failure(error, version, channel.received == 0) from None
        except Failure:
            raise
        except Exception:  # of whatever class: http.client believes numbers that nobody can count
            raise Failure(reasons.ANSWER_NOT_UNDERSTOOD, "what came is not HTTP") from None


def _send(channel: Channel, request: Request, host: str) -> Exception | None:
    """Sends the request. An error here is kept: the alert that explains it may be waiting to be read."""
    headers = (("Host", host), *request.headers, ("Content-Length", str(len(request.body))), ("Connection", "close"))
    head = f"{request.method} {request.target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers) + "\r\n"
    channel.allow(_HEAD)
    try:
        channel.write(head.encode("ascii") + request.body)
    except OSError as error:
        return error
    return None


def _received(channel: Channel, method: str, size: int, take: Take | None) -> HttpAnswer:
    channel.allow(_HEAD)
    with http.client.HTTPResponse(_Stream(channel), method=method) as response:  # type: ignore[arg-type]
        response.begin()
        retry_after, body = response.headers["Retry-After"], bytearray()
        _read_all(channel, response, size, take if take and response.status == http.client.OK else body.extend)
        return HttpAnswer(response.status, retry_after, bytes(body))


def _read_all(channel: Channel, response: http.client.HTTPResponse, size: int, take: Take) -> None:
    """The whole body or an error: http.client alone would pass a cut one off as whole."""
    count = 0
    while True:
        channel.allow(_PACKED)
        chunk = response.read(_CHUNK)
        count += len(chunk)
        if count > size:
            raise Failure(reasons.ANSWER_NOT_UNDERSTOOD, f"longer than {size} bytes")
        if not chunk:
            break
        take(chunk)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
