"""One HTTP/1.1 message as httptools calls it out: limits, framing, refusals (RFC 9112 section 6).

The invariant: a message has exactly one framing and stays within `Limits`, whichever role reads it. llhttp, strict,
refuses bare LF, folded lines, odd or repeated Content-Length, and Content-Length beside Transfer-Encoding (tested in
tests/wire/test_http.py); what it leaves open is decided here.
Must not live here: what a request or an answer is (wire.http).
"""

from __future__ import annotations

from http import HTTPStatus

import httptools
import msgspec

from delegator.errors import DelegatorError, Kind


class Limits(msgspec.Struct, frozen=True):
    """How much of a message is taken. All in bytes but the two counts."""

    target: int = 2048
    """The request target. We serve `/` and `/?wsdl`; RFC 9112 section 3 asks for 8000 as a courtesy to the Web."""
    head: int = 16 * 1024
    """Request line and headers together, and the empty lines before them. nginx and h11 stop near 16 KiB too.
    Exact for the first message of a read; a pipelined head is counted from the read after the one it starts in."""
    headers: int = 64
    """Header fields, trailers included. A SOAP stack sends 6 to 12; 64 leaves room for proxies."""
    body: int = 64 * 1024
    """A request is about 1 KB, an answer with certificates about 10 KB; the worst XML in 64 KiB parses in 1 to 2 ms."""
    chunks: int = 1024
    """Chunks of a body, the last and empty one too. 24 000 of one byte fitted into the framing and took 4 ms
    (measured), as long as all the rest of a call; stacks that stream send some hundred bytes or more in each."""
    interim: int = 8
    """Interim answers before the answer (RFC 9110 section 15.2). A server sends one, if any; 860 fitted into a head."""
    ahead: int = 4
    """Requests taken from one read. Devices never pipeline; 200 piped requests on each of 300 connections once
    held a server up for 15 s."""


LIMITS = Limits()
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a peer waits for that sent `Expect: 100-continue` (RFC 9110 section 10.1.1)."""


class HttpError(DelegatorError):
    """The peer's bytes are refused. `status` is the hint for the reply; 502 is a bad answer to a request of ours."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(Kind.UNREACHABLE if status == HTTPStatus.BAD_GATEWAY else Kind.MALFORMED, detail)
        self.status = status


_ONCE = frozenset((b"host", b"content-type", b"soapaction", b"authorization", b"expect"))
"""Fields whose repetition would mean two readings of one message (RFC 9110 section 5.3). llhttp itself refuses a
second Content-Length and a second Transfer-Encoding."""
_VERSIONS = {"1.1", "1.0"}


class Message:
    """What httptools calls back while it reads one message; the part that both roles share.

    It knows its parser only while a reader feeds it: the parser holds bound methods of this object, and a lasting
    reference back would be a cycle per connection, left for the garbage collector.
    """

    __slots__ = ("body", "chunks", "complete", "fields", "head_done", "headers", "limits", "parser", "piece", "size",
                 "started", "used")

    parser: httptools.HttpRequestParser | httptools.HttpResponseParser

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.used = 0
        self.piece = 0
        self.clear()

    def clear(self) -> None:
        self.started = self.head_done = self.complete = False
        self.headers: dict[bytes, bytes] = {}
        self.fields = self.chunks = 0
        self.body: list[bytes] = []
        self.size = 0

    def on_message_begin(self) -> None:
        self.clear()
        self.started = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields += 1
        if self.fields > self.limits.headers:
            raise self.refuse(431, f"more than {self.limits.headers} header fields")
        if self.head_done:
            return  # trailers: nothing we know, so ignored (RFC 9110 section 6.5.1)
        name = name.lower()
        value = value.rstrip(b" \t")
        if name in self.headers:
            if name in _ONCE:
                raise self.refuse(400, f"header {name.decode('latin-1')!a} was sent twice")
            value = self.headers[name] + b", " + value
        self.headers[name] = value

    def on_chunk_header(self) -> None:
        self.chunks += 1
        if self.chunks > self.limits.chunks:
            raise self.refuse(413, f"the body comes in more than {self.limits.chunks} chunks")

    def on_body(self, part: bytes) -> None:
        self.size += len(part)
        if self.size > self.limits.body:
            raise self.refuse(413, f"the body is larger than {self.limits.body} bytes")
        self.body.append(part)

    def read_framing(self, version: str) -> None:
        """What llhttp leaves open once it refused two framings and odd digits (RFC 9112 section 6.1)."""
        if version not in _VERSIONS:
            raise self.refuse(505, f"HTTP version {version}")
        coding = self.headers.get(b"transfer-encoding")
        if coding is None:
            if int(self.headers.get(b"content-length", b"0")) > self.limits.body:
                raise self.refuse(413, f"a body larger than {self.limits.body} bytes is announced")
        elif version == "1.0":
            raise self.refuse(400, "Transfer-Encoding in HTTP/1.0")
        elif coding.lower() != b"chunked":
            raise self.refuse(501, f"transfer coding {coding[:64]!r}")
        self.head_done = True

    def account(self) -> None:
        """Count the bytes of this read. Twice the body is room enough for chunk sizes, extensions and trailers."""
        self.used += self.piece
        if self.used < self.limits.head:
            return
        if not self.head_done:
            raise self.refuse(431, f"the head is larger than {self.limits.head} bytes")
        if self.used > self.limits.head + 2 * self.limits.body:
            raise self.refuse(413, "the framing is larger than the body it carries")

    def room(self) -> int:
        """How many bytes may be read before `account` must look again: a head's rest, or a head's worth."""
        return self.limits.head if self.head_done else self.limits.head - self.used

    def finish(self) -> bytes:
        """The body; what follows in the same read belongs to the next message and is not counted on this one."""
        self.complete, self.started, self.head_done = True, False, False
        self.used = -self.piece
        body = self.body
        return body[0] if len(body) == 1 else b"".join(body)

    def refuse(self, status: int, detail: str) -> HttpError:
        return HttpError(status, detail)
