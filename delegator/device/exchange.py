"""One question, one answer: one HTTP/1.1 request, one bounded answer, on a connection of its own, or on a line.

The invariants: once a name is looked up (which the system alone bounds), everything happens before one deadline, and
what is taken in is counted where it comes in, before anybody looks for its length: http.client reads a chunk of
size -1 to the end of the world. Every way to fail leaves as a Failure. What comes on a line that nobody asked for is no
answer: the line ends there.
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
from delegator.device.channel import Channel, Peer, connected
from delegator.device.envelope import HttpAnswer
from delegator.device.reasons import Failure

log = logging.getLogger("delegator.device")

_CHUNK = 64 * 1024
_HEAD = 64 * 1024
"""Bytes of status line and headers, 100-continues and all: a server's own are a few hundred."""
_PACKED = 8 * _CHUNK
"""Bytes from the network for one piece of a body: chunks of one byte take six."""
KEPT = 30.0
"""Seconds after which a line is not used any more: a delegator ends one that says nothing after ten, and a device on
the way that forgot it would be waited for in vain."""


class Request(NamedTuple):
    """One HTTP request; Host, Content-Length and, where it is the last one, Connection are added when it is sent."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


class Limit(NamedTuple):
    """How long and how large: the whole exchange in seconds, the answer's body in bytes."""

    seconds: float
    size: int


Take = Callable[[bytes], None]


class Line:
    """The connection of a question that was answered, left open while the device does something else, for one more
    question to the same peer. Whoever shows another certificate from then on has to close it."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._peer: Peer | None = None
        self._since = 0.0

    def keep(self, channel: Channel, peer: Peer) -> None:
        self.close()
        self._channel, self._peer, self._since = channel, peer, time.monotonic()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def again(self, peer: Peer, request: Request, limit: Limit) -> HttpAnswer | None:
        """The answer to the last question on this line; None where there is no line to this peer, or none came that
        could be read: then it has to be asked on a connection of its own, and must bear being asked twice."""
        channel, self._channel = self._channel, None
        if channel is None:
            return None
        with channel:
            if peer != self._peer or time.monotonic() > self._since + KEPT or not channel.is_silent():
                return None
            log.info("203 still connected to %s", peer.address)
            channel.renew(time.monotonic() + limit.seconds)
            try:
                return _exchanged(channel, peer, request, limit, None)[0]
            except Failure as failure:
                log.info("203 not connected any more: %s", failure)
                return None


class _Stream(io.RawIOBase):
    """What http.client reads from."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        content = b"" if self.is_over else self._channel.read(len(buffer))
        buffer[:len(content)] = content
        return len(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        self.reader = _Reader(self)
        return self.reader


class _Reader(io.BufferedReader):
    """Knows at its end whether more came than was asked for."""

    raw: _Stream
    more = False

    def close(self) -> None:
        if not self.closed:
            self.raw.is_over = True
            self.more = bool(self.peek(1))
        super().close()


def exchange(peer: Peer, context: ssl.SSLContext, request: Request, limit: Limit,
             take: Take | None = None, line: Line | None = None) -> HttpAnswer:
    """The answer of a peer, which must prove itself. With `take` the body of a good answer (200) is given to it in
    pieces and not kept. With `line` the connection is kept there after a good answer, if the peer keeps it too. Raises
    Failure."""
    deadline = time.monotonic() + limit.seconds
    log.info("203 connecting to %s", peer.address)
    channel, stays = connected(peer, context, deadline), False
    try:
        log.info("211 %s accepted the connection (%s)", peer.address, channel.version)
        answer, stays = _exchanged(channel, peer, request, limit, take, line is None)
        if line is not None and stays:
            line.keep(channel, peer)
        return answer
    finally:
        if line is None or not stays:
            channel.close()


def _exchanged(channel: Channel, peer: Peer, request: Request, limit: Limit, take: Take | None,
               last: bool = True) -> tuple[HttpAnswer, bool]:
    """The answer, and whether the connection is as good as new after it."""
    version = channel.version  # asked now: after an error the ssl module no longer knows
    sent = _send(channel, request, peer.address.told, last)
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


def _send(channel: Channel, request: Request, host: str, last: bool) -> Exception | None:
    """Sends the request. An error here is kept: the alert that explains it may be waiting to be read."""
    ends = (("Connection", "close"),) if last else ()
    headers = (("Host", host), *request.headers, ("Content-Length", str(len(request.body))), *ends)
    head = f"{request.method} {request.target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers) + "\r\n"
    channel.allow(_HEAD)
    try:
        channel.write(head.encode("ascii") + request.body)
    except OSError as error:
        return error
    return None


def _received(channel: Channel, method: str, size: int, take: Take | None) -> tuple[HttpAnswer, bool]:
    channel.allow(_HEAD)
    stream = _Stream(channel)
    with http.client.HTTPResponse(stream, method=method) as response:  # type: ignore[arg-type]
        response.begin()
        retry_after, body, ok = response.headers["Retry-After"], bytearray(), response.status == http.client.OK
        _read_all(channel, response, size, take if take and ok else body.extend)
    stays = ok and response.version == _HTTP_1_1 and not response.will_close and not stream.reader.more
    return HttpAnswer(response.status, retry_after, bytes(body)), stays


_HTTP_1_1 = 11


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
