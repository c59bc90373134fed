"""T-B10: what one call may make us digest before it is over is a number, whatever the peer sends and however it is cut.

No clock: bytes are counted. TLS records have the same law in test_records.py, answers of the DNS in test_dns_weight.py,
turns of the loop in tests/net/test_turns.py.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from delegator.wire.framing import LIMITS
from delegator.wire.http import HttpError, RequestReader, ResponseReader
from delegator.wire.proxy import LONGEST_V1, LONGEST_V2, SIGNATURE, HeaderReader, ProxyError

PIECES = (7, 1460, 64 * 1024)
"""Bytes that arrive together: a few, a segment, all that is read in one go."""
MOST = LIMITS.head + 2 * LIMITS.body
"""Bytes of a message, its head and its framing included."""
REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (b"", b"X-Header: value\r\n"),
    "one header": (b"X: ", b"value "),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n"),
    "chunks of a byte with an extension": (CHUNKED, b"1;x\r\nx\r\n"),
    "an extension": (CHUNKED + b"1;", b"x"),
    "a chunk of 4 GiB": (CHUNKED + b"ffffffff\r\n", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X-Trailer: value\r\n"),
    "one trailer": (CHUNKED + b"0\r\nX: ", b"value "),
}
"""What follows the first line of a message, and then follows for ever."""
ALONE: dict[str, tuple[bytes, bytes]] = {
    "empty lines": (b"", b"\r\n"), "a method": (b"", b"P"), "a target": (b"POST /", b"a"), "zeros": (b"", b"\0")}
ANSWERED: dict[str, tuple[bytes, bytes]] = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "hints": (b"", b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n"),
    "a body that ends with the connection": (ANSWER + b"\r\n", b"x"), "a reason": (b"HTTP/1.1 200 ", b"O"),
    "garbage": (b"", bytes(range(256)))}


def endless(first: bytes, more: bytes, piece: int) -> Iterator[bytes]:
    """The same for ever, so many bytes at a time."""
    many = more * (piece // len(more) + 2)
    yield from (first[at:at + piece] for at in range(0, len(first), piece))
    at = 0
    while True:
        yield many[at:at + piece]
        at = (at + piece) % len(more)


def digested(feed: Callable[[bytes], object], pieces: Iterator[bytes]) -> int:
    """Bytes that were taken until the peer was refused."""
    taken = 0
    for piece in pieces:
        taken += len(piece)
        try:
            feed(piece)
        except (HttpError, ProxyError):
            return taken
        assert taken <= 4 * MOST, "without end"
    raise AssertionError


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("kind", [*ENDLESS, *ALONE])
def test_TB10_a_request_that_does_not_end_is_refused_within_a_number_of_bytes(kind: str, piece: int) -> None:
    first, more = ALONE[kind] if kind in ALONE else (REQUEST + ENDLESS[kind][0], ENDLESS[kind][1])
    assert digested(RequestReader().feed, endless(first, more, piece)) <= MOST + max(PIECES)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("kind", [*ENDLESS, *ANSWERED])
def test_TB10_an_answer_that_does_not_end_is_refused_within_a_number_of_bytes(kind: str, piece: int) -> None:
    first, more = ANSWERED[kind] if kind in ANSWERED else (ANSWER + ENDLESS[kind][0], ENDLESS[kind][1])
    assert digested(ResponseReader().feed, endless(first, more, piece)) <= MOST + max(PIECES)


@pytest.mark.parametrize("reader", [RequestReader, ResponseReader])
def test_TB10_no_more_fields_than_that_are_kept(reader: type[RequestReader] | type[ResponseReader]) -> None:
    one = reader()
    first = REQUEST if reader is RequestReader else ANSWER
    with pytest.raises(HttpError, match=f"more than {LIMITS.headers} header fields"):
        one.feed(first + b"".join(b"X-%d: y\r\n" % number for number in range(LIMITS.headers + 2)))
    assert one._message.fields <= LIMITS.headers + 1


COUNTED: dict[str, tuple[bytes, bytes, bytes, int]] = {
    "chunks": (CHUNKED, b"1\r\nx\r\n", b"0\r\n\r\n", LIMITS.chunks - 1),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n", b"\r\n", LIMITS.headers - 2)}
"""What is small and many: how it begins, goes on and ends, and how often it may."""


@pytest.mark.parametrize("piece", [1, 1460, 64 * 1024])
@pytest.mark.parametrize("kind", COUNTED)
def test_TB10_each_step_of_a_message_is_counted_however_it_is_cut(kind: str, piece: int) -> None:
    """Each costs a call of ours, and thousands fit into the bytes that a message may have."""
    first, more, last, most = COUNTED[kind]
    for many, good in ((most, True), (most + 1, False)):
        data = REQUEST + first + more * many + last
        reader, done = RequestReader(), 0
        with contextlib.nullcontext() if good else pytest.raises(HttpError):
            for at in range(0, len(data), piece):
                done += len(reader.feed(data[at:at + piece]))
        assert done == good


@pytest.mark.parametrize("piece", [1, 64 * 1024])
def test_TB10_a_few_interim_answers_are_passed_over_and_no_more(piece: int) -> None:
    for many, good in ((LIMITS.interim, True), (LIMITS.interim + 1, False)):
        data = b"HTTP/1.1 100 Continue\r\n\r\n" * many + ANSWER + b"Content-Length: 0\r\n\r\n"
        reader, found = ResponseReader(), None
        with contextlib.nullcontext() if good else pytest.raises(HttpError, match="interim"):
            for at in range(0, len(data), piece):
                found = reader.feed(data[at:at + piece]) or found
        assert (found is not None) == good


@pytest.mark.parametrize("piece", [1, 700, 64 * 1024])
@pytest.mark.parametrize(("first", "more", "most"), [
    (b"PROXY TCP4 ", b"1", LONGEST_V1), (b"PROXY UNKNOWN ", b"x", LONGEST_V1), (b"", b"\r\n", len(SIGNATURE)),
    (SIGNATURE + b"\x21\x11\xff\xff", b"\0", len(SIGNATURE) + 4),
    (SIGNATURE + b"\x21\x31" + LONGEST_V2.to_bytes(2), b"\0", len(SIGNATURE) + 4 + LONGEST_V2)],
    ids=["an address", "unknown", "empty lines", "64 KiB of TLVs", "the longest of TLVs, and no family of ours"])
def test_TB10_a_proxy_header_is_decided_within_its_own_length(first: bytes, more: bytes, most: int, piece: int) -> None:
    assert digested(HeaderReader().feed, endless(first, more, piece)) <= most + piece


def test_the_streams_do_not_end_by_themselves() -> None:
    assert len(b"".join(itertools.islice(endless(b"ab", b"cde", 4), 1000))) > 3000
    assert b"".join(itertools.islice(endless(b"ab", b"cde", 4), 3))[:8] == b"abcdecde"
