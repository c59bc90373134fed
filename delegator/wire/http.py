"""HTTP/1.1 in both roles: bytes to `Request` and `Response`, and back (RFC 9112, RFC 9110).

The invariant: whatever the bytes and however they are cut, a reader gives the same messages and raises nothing but
`HttpError`, after which it is dead; what is rendered has exactly the head that was asked for.
The grammar is httptools' (llhttp in its strict mode), chosen over h11 for its cost: in one run here a request of
700 bytes took 9 us with all rules below (2 of them llhttp's), with h11 57 us.
Must not live here: deadlines and sockets (net.serve, net.client), paths and media types (doors.devices.soap), XML.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from http import HTTPStatus

import httptools
import msgspec

from delegator.model.places import authority, read_authority
from delegator.wire.framing import CONTINUE, LIMITS, HttpError, Limits, Message
from delegator.wire.media import foreign

__all__ = ["CONTINUE", "LIMITS", "HttpError", "Limits", "Request", "RequestReader", "Response", "ResponseReader",
           "render_request", "render_response"]


class Request(msgspec.Struct, frozen=True):
    """One request. Header names are in lower case; fields that were sent twice are joined by a comma."""

    method: str
    target: str
    headers: Mapping[bytes, bytes]
    body: bytes
    keep_alive: bool

    def header(self, name: str) -> str:
        """The value of a field by its lower-case name; empty where it was not sent."""
        return self.headers.get(name.encode("ascii"), b"").decode("latin-1")

    @property
    def authority(self) -> str:
        """HOST[:PORT] by which the caller knows us, as far as that can be told on to anybody; empty where it was not
        sent (HTTP/1.0 need not), or is in no form of one."""
        found = read_authority(self.header("host"))
        return "" if found is None else authority(*found)


class Response(msgspec.Struct, frozen=True):
    """One answer, to be rendered or as it was read (header names in lower case then)."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The value of a field by its lower-case name; empty where it was not sent."""
        return self.headers.get(name.encode("ascii"), b"").decode("latin-1")


def check_media(request: Request) -> None:
    """Whether the body is said to be what a SOAP call is. Raises HttpError(415)."""
    why = foreign(request.header("content-type"), request.header("content-encoding"))
    if why:
        raise HttpError(415, why)


# --- reading ------------------------------------------------------------------------------------------------------

_BAD_VERSION = "Invalid HTTP version"  # llhttp's words


class _Reader:
    """Feeds httptools in pieces no longer than a head may be, and keeps the first refusal."""

    __slots__ = ("_message", "_parser", "refusal")

    _message: Message
    _parser: httptools.HttpRequestParser | httptools.HttpResponseParser

    def __init__(self) -> None:
        self.refusal: HttpError | None = None
        """Why this reader is dead. Set even where `feed` still had something good to give."""

    def _consume(self, data: bytes) -> None:
        message, parser, start = self._message, self._parser, 0
        message.parser = parser
        try:
            while start < len(data):
                piece = data[start:start + message.room()]
                message.piece = len(piece)
                start += message.piece
                parser.feed_data(piece)
                message.account()
        except HttpError as error:
            self._die(error)
        except httptools.HttpParserError as error:
            self._die(self._reason(error))
        finally:
            del message.parser

    def _die(self, error: HttpError) -> None:
        self.refusal = HttpError(error.status, error.detail)  # without a traceback, which would lead back to us

    def _raise_refusal(self) -> None:
        if self.refusal is not None:
            raise HttpError(self.refusal.status, self.refusal.detail)

    def _reason(self, error: httptools.HttpParserError) -> HttpError:
        if isinstance(error.__context__, HttpError):
            return error.__context__
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            return self._message.refuse(501, "unknown method")  # RFC 9110 section 15.6.2
        return self._message.refuse(505 if str(error) == _BAD_VERSION else 400, str(error))

    @property
    def mid_request(self) -> bool:
        """A first byte has come and the message is not complete: a deadline runs, and an end here cuts it off."""
        return self._message.started


class _RequestMessage(Message):
    __slots__ = ("done", "target", "version", "waiting")

    parser: httptools.HttpRequestParser

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.done: list[Request] = []
        self.waiting = False
        self.target = self.version = ""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.target = ""

    def on_url(self, part: bytes) -> None:
        self.target += part.decode("latin-1")
        if len(self.target) > self.limits.target:
            raise self.refuse(414, f"the request target is longer than {self.limits.target} bytes")

    def on_headers_complete(self) -> None:
        self.version = self.parser.get_http_version()
        self.read_framing(self.version)
        if self.parser.should_upgrade():
            raise self.refuse(501, "no upgrade and no tunnel here")
        if self.version == "1.1":
            if b"host" not in self.headers:
                raise self.refuse(400, "no Host header")  # RFC 9112 section 3.2
            if b"expect" in self.headers:
                self._expect(self.headers[b"expect"])

    def _expect(self, what: bytes) -> None:
        if what.lower() != b"100-continue":
            raise self.refuse(417, f"cannot meet the expectation {what[:64]!r}")  # RFC 9110 section 10.1.1
        self.waiting = True

    def on_message_complete(self) -> None:
        body = self.finish()
        self.waiting = False
        if len(self.done) >= self.limits.ahead:
            raise self.refuse(429, f"more than {self.limits.ahead} requests in one read")
        parser = self.parser
        self.done.append(Request(parser.get_method().decode("latin-1"), self.target, self.headers, body,
                                 self.version == "1.1" and parser.should_keep_alive()))


class RequestReader(_Reader):
    """The server role: bytes of one connection to requests. HTTP/1.0 is answered, then closed."""

    __slots__ = ()

    _message: _RequestMessage

    def __init__(self, limits: Limits = LIMITS) -> None:
        super().__init__()
        self._message = _RequestMessage(limits)
        self._parser = httptools.HttpRequestParser(self._message)

    def feed(self, data: bytes) -> list[Request]:
        """The requests these bytes complete, usually none or one. Raises HttpError.

        Requests that were complete before the refused byte are given first; the next call (or `refusal`) tells.
        """
        message = self._message
        message.waiting = False
        if self.refusal is None:
            self._consume(data)
        if message.done:
            done, message.done = message.done, []
            return done
        self._raise_refusal()
        return []

    @property
    def wants_continue(self) -> bool:
        """The last read completed a head whose sender waits for `CONTINUE` before it sends the body."""
        return self._message.waiting and self._message.size == 0 and self.refusal is None


class _ResponseMessage(Message):
    __slots__ = ("done", "interim", "keep_alive", "status", "until_end")

    parser: httptools.HttpResponseParser

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.done: Response | None = None
        self.status = self.interim = 0
        self.keep_alive = self.until_end = False

    def refuse(self, status: int, detail: str) -> HttpError:
        return HttpError(502, detail)

    def on_message_begin(self) -> None:
        if self.complete and self.status >= 200:
            raise self.refuse(502, "bytes after the answer")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.read_framing(self.parser.get_http_version())
        if self.parser.should_upgrade() or self.status == 101:
            raise self.refuse(502, "an upgrade that was not asked for")
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self.until_end = not framed and self.status not in (204, 304) and self.status >= 200

    def on_message_complete(self) -> None:
        used = self.used
        body = self.finish()
        if self.status < 200:
            self.used = used  # interim answers are passed over (RFC 9110 section 15.2), all within one head's limit
            self.interim += 1
            if self.interim > self.limits.interim:
                raise self.refuse(502, f"more than {self.limits.interim} interim answers")
            return
        self.keep_alive = self.parser.should_keep_alive()
        self.done = Response(self.status, self.headers, body)


class ResponseReader(_Reader):
    """The client role: bytes to the one answer of one request (none of ours is a HEAD)."""

    __slots__ = ()

    _message: _ResponseMessage

    def __init__(self, limits: Limits = LIMITS) -> None:
        super().__init__()
        self._message = _ResponseMessage(limits)
        self._parser = httptools.HttpResponseParser(self._message)

    def feed(self, data: bytes) -> Response | None:
        """The answer, once, with the bytes that complete it. Raises HttpError(502)."""
        message = self._message
        if self.refusal is None:
            self._consume(data)
        if message.done is not None:
            done, message.done = message.done, None
            return done
        self._raise_refusal()
        return None

    def eof(self) -> Response | None:
        """The peer closed. The answer where the close is its framing (RFC 9112 section 6.3), None before any byte.

        Raises HttpError(502) where the close cut an answer.
        """
        message = self._message
        self._raise_refusal()
        if not message.started:
            return None
        if not (message.head_done and message.until_end):
            self._die(message.refuse(502, "closed in the middle of the answer"))
            self._raise_refusal()
        return Response(message.status, message.headers, message.finish())

    @property
    def reusable(self) -> bool:
        """The answer is complete, nothing followed it, and the peer keeps the connection open."""
        return self._message.complete and self._message.keep_alive and self.refusal is None


# --- writing ------------------------------------------------------------------------------------------------------

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode("ascii"))
                 for status in HTTPStatus}
_NO_BODY = frozenset((204, 304))
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_OURS = frozenset((b"content-length", b"transfer-encoding", b"connection", b"host"))


def _fields(headers: Mapping[bytes, bytes]) -> list[bytes]:
    """Header lines. No value can add a line of its own (RFC 9110 section 5.5). Raises ValueError."""
    return [_content_type(name, value) if name == _CONTENT_TYPE else _line(name, value)
            for name, value in headers.items()]


def _line(name: bytes, value: bytes) -> bytes:
    if _TOKEN.fullmatch(name) is None or name.lower() in _OURS:
        raise ValueError(f"not a header for a caller to set: {name!r}")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"header {name!r} holds what no header can carry")
    return b"%b: %b\r\n" % (name, value)


_CONTENT_TYPE = b"Content-Type"
_content_type = functools.lru_cache(maxsize=16)(_line)
"""Of a few values, so that lines are kept; what other headers carry may be secret, and is kept by nobody."""


def render_response(response: Response, close: bool) -> bytes:
    """The bytes of an answer; `close` tells the peer that the connection ends with it. Raises ValueError."""
    parts = [_STATUS_LINES[response.status], *_fields(response.headers)]
    if response.status not in _NO_BODY:
        parts.append(b"Content-Length: %d\r\n" % len(response.body))
    parts.append(b"Connection: close\r\n\r\n" if close else b"\r\n")
    parts.append(response.body)
    return b"".join(parts)


def render_request(method: str, target: str, host: str, headers: Mapping[bytes, bytes], body: bytes = b"") -> bytes:
    """The bytes of a request, framed by Content-Length. Raises ValueError."""
    line = tuple(text.encode("ascii") for text in (method, target, host))
    if _TOKEN.fullmatch(line[0]) is None or not all(map(_TARGET.fullmatch, line[1:])):
        raise ValueError("method, target and host are printable ASCII without blanks")
    return b"".join([b"%b %b HTTP/1.1\r\nHost: %b\r\n" % line, *_fields(headers),
                     b"Content-Length: %d\r\n\r\n" % len(body), body])
