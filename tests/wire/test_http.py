"""HTTP/1.1 as read and written: one framing per message however the bytes are cut (T-C5), bounded (T-C6, T-C8)."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Iterable

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegator.wire.http import (
    CONTINUE,
    HttpError,
    Limits,
    Request,
    RequestReader,
    Response,
    ResponseReader,
    render_request,
    render_response,
)

UNHURRIED = settings(deadline=None)  # the machine is shared
HEAD = b"POST / HTTP/1.1\r\nHost: delegator.example\r\n"
PATIENT = Limits(ahead=1000)


def read_all(pieces: Iterable[bytes]) -> tuple[list[Request], int | None, bool]:
    """What a server sees: requests, the status of the refusal, and whether a request is cut where the bytes end."""
    reader, requests = RequestReader(PATIENT), []
    try:
        for piece in pieces:
            requests += reader.feed(piece)
        reader.feed(b"")
    except HttpError as error:
        return requests, error.status, False
    return requests, None, reader.mid_request


def read_every_way(data: bytes) -> tuple[list[Request], int | None, bool]:
    """Whole and byte by byte: the same."""
    whole = read_all([data])
    assert whole == read_all(data[i:i + 1] for i in range(len(data)))
    return whole


def one(data: bytes) -> Request:
    requests, refusal, cut = read_every_way(data)
    assert (len(requests), refusal, cut) == (1, None, False)
    return requests[0]


def test_a3_a_soap_call_as_devices_send_it() -> None:
    fields = b'Content-Type: text/xml\r\nSOAPAction: "x"\r\nX-A: 1 \r\nx-a: 2\r\nContent-Length: 3\r\n\r\n'
    request = one(HEAD + fields + b"abc")
    assert (request.method, request.target, request.body) == ("POST", "/", b"abc")
    assert request.header("soapaction") == '"x"'
    assert request.header("x-a") == "1, 2"
    assert request.header("absent") == ""
    assert request.keep_alive


@pytest.mark.parametrize(("data", "body", "keep_alive"), [
    (b"GET /?wsdl HTTP/1.1\r\nHost: a\r\n\r\n", b"", True),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"", False),
    (b"GET / HTTP/1.0\r\n\r\n", b"", False),
    (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"", False),
    (b"\r\n\r\n" + HEAD + b"\r\n", b"", True),
    (HEAD + b"content-length: 0\r\n\r\n", b"", True),
    (HEAD + b"Transfer-Encoding: Chunked\r\n\r\n2;ext=1\r\nab\r\n1\r\nc\r\n0\r\nTrailer: t\r\nHost: b\r\n\r\n",
     b"abc", True),
])
def test_TC5_accepted_framings(data: bytes, body: bytes, keep_alive: bool) -> None:
    request = one(data)
    assert (request.body, request.keep_alive) == (body, keep_alive)


REFUSED = {
    "length and chunked": (400, HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked and length": (400, HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    "length in a trailer": (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "two lengths": (400, HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    "length list": (400, HEAD + b"Content-Length: 1, 1\r\n\r\na"),
    "length +5": (400, HEAD + b"Content-Length: +1\r\n\r\na"),
    "length 1_0": (400, HEAD + b"Content-Length: 1_0\r\n\r\n0123456789"),
    "length in other digits": (400, HEAD + b"Content-Length: \xd9\xa1\r\n\r\na"),
    "length 0x1": (400, HEAD + b"Content-Length: 0x1\r\n\r\na"),
    "no length": (400, HEAD + b"Content-Length:\r\n\r\n"),
    "length beyond 64 bits": (400, HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n"),
    "coding before chunked": (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked not last": (400, HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "unknown coding": (501, HEAD + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked twice": (400, HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "vertical tab in coding": (400, HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "chunked in 1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunk size +1": (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n"),
    "chunk size too long": (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na"),
    "chunk without end": (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n"),
    "bare LF after chunk size": (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"),
    "bare LF": (400, b"POST / HTTP/1.1\nHost: a\n\n"),
    "bare LF in headers": (400, b"POST / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    "bare CR in headers": (400, b"POST / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
    "folded header": (400, b"POST / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
    "blank before colon": (400, b"POST / HTTP/1.1\r\nHost : a\r\n\r\n"),
    "NUL in header": (400, HEAD + b"X: a\0b\r\n\r\n"),
    "no host": (400, b"POST / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, HEAD + b"Host: b\r\n\r\n"),
    "two content types": (400, HEAD + b"Content-Type: a/b\r\nContent-Type: a/c\r\n\r\n"),
    "other expectation": (417, HEAD + b"Expect: miracles\r\n\r\n"),
    "unknown method": (501, b"FROB / HTTP/1.1\r\n\r\n"),
    "TLS inside": (501, b"\x16\x03\x01\x02\x00"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "HTTP/2 preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "tunnel": (501, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "upgrade": (501, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    "target": (414, b"GET /" + b"a" * 2048 + b" HTTP/1.1\r\n"),
    "announced body": (413, HEAD + b"Content-Length: 65537\r\n\r\n"),
    "chunked body": (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n10001\r\n" + b"a" * 65537),
    "chunk extension without end": (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 170_000),
    "header count": (431, HEAD + b"a: b\r\n" * 64 + b"\r\n"),
    "header without end": (431, HEAD + b"a: " + b"b" * 16384),
    "padding without end": (431, HEAD + b"a:" + b" " * 20_000 + b"\r\n\r\n"),
    "nothing but empty lines": (431, b"\r\n" * 8193),
}


@pytest.mark.parametrize("name", REFUSED)
def test_TC5_refused_whole_and_byte_by_byte_and_never_answered_as_a_request(name: str) -> None:
    status, data = REFUSED[name]
    assert read_every_way(data + b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")[:2] == ([], status)


def test_the_head_may_have_16_kib_and_not_a_byte_more() -> None:
    def head_of(size: int) -> bytes:
        return HEAD + b"a: " + b"b" * (size - len(HEAD) - 7) + b"\r\n\r\n"
    assert len(head_of(16384)) == 16384
    assert one(head_of(16384)).body == b""
    assert read_every_way(head_of(16385))[:2] == ([], 431)


def test_requests_before_a_refused_byte_are_given_then_the_reader_is_dead() -> None:
    reader = RequestReader()
    assert len(reader.feed(HEAD + b"\r\nFROB")) == 1
    assert reader.refusal is not None
    for _ in range(2):
        with pytest.raises(HttpError) as caught:
            reader.feed(HEAD + b"\r\n")
        assert caught.value.status == 501


def test_TC8_a_read_yields_at_most_four_piped_requests() -> None:
    reader = RequestReader()
    assert len(reader.feed((HEAD + b"\r\n") * 4)) == 4
    assert len(reader.feed((HEAD + b"\r\n") * 200)) == 4
    with pytest.raises(HttpError) as caught:
        reader.feed(b"")
    assert caught.value.status == 429


def test_TC6_the_shell_learns_when_a_request_is_under_way_and_when_its_sender_waits() -> None:
    reader = RequestReader()
    assert not reader.mid_request
    reader.feed(b"P")
    assert reader.mid_request
    reader.feed(HEAD[1:] + b"Content-Length: 3\r\nExpect: 100-Continue\r\n\r\n")
    assert reader.wants_continue
    reader.feed(b"a")
    assert not reader.wants_continue
    assert reader.mid_request
    assert reader.feed(b"bc")[0].body == b"abc"
    assert not reader.mid_request
    assert CONTINUE.endswith(b"\r\n\r\n")


def test_who_expects_but_does_not_wait_or_speaks_http_1_0_gets_no_interim_answer() -> None:
    for data in (HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\na",
                 b"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"):
        reader = RequestReader()
        reader.feed(data)
        assert not reader.wants_continue


def test_a_connection_leaves_no_cycle_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            RequestReader().feed(HEAD + b"\r\n")
            with contextlib.suppress(HttpError):
                RequestReader().feed(HEAD + b": \r\n")
        assert gc.collect() < 50
    finally:
        gc.enable()


# --- fuzz ---------------------------------------------------------------------------------------------------------

FRAGMENTS = [b"POST / HTTP/1.1\r\n", b"GET /?wsdl HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n", b"\r\n",
             b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"abc",
             b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"\n", b"\r", b" ", b"X:\r\n", b": ", b"\0", HEAD]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(marks)]


@UNHURRIED
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(b"".join), st.lists(st.integers(0, 999), max_size=4))
def test_TC5_the_same_bytes_mean_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    assert read_every_way(data) == read_all(cut(data, places))


@UNHURRIED
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_requests_or_an_http_error(noise: bytes, after_head: bool) -> None:
    read_every_way(HEAD + noise if after_head else noise)


@UNHURRIED
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(lambda parts: HEAD + b"".join(parts)))
def test_TC5_a_second_reader_sees_the_same_first_request(data: bytes) -> None:
    """What we accept, h11 accepts with the same body: no two servers in a row could differ about it."""
    requests = read_all([data])[0]
    if not requests:
        return
    other, body = h11.Connection(h11.SERVER), b""
    other.receive_data(data)
    assert isinstance(other.next_event(), h11.Request)
    while isinstance(event := other.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == requests[0].body


# --- answers ------------------------------------------------------------------------------------------------------


def read_answer(pieces: Iterable[bytes]) -> Response | int | None:
    reader, answer = ResponseReader(), None
    try:
        for piece in pieces:
            answer = reader.feed(piece) or answer
        return answer or reader.eof()
    except HttpError as error:
        return error.status


@pytest.mark.parametrize(("data", "body"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    (b"HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
    (b"HTTP/1.1 200\r\n\r\n", b""),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
])
def test_a7_answers_of_a_delegate(data: bytes, body: bytes) -> None:
    whole = read_answer([data])
    assert isinstance(whole, Response)
    assert whole.body == body
    assert whole == read_answer(data[i:i + 1] for i in range(len(data)))


@pytest.mark.parametrize("data", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 70_000,
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 700,
    b"HTTP/1.1 2 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX",
    b"GET / HTTP/1.1\r\n\r\n",
])
def test_TC10_answers_that_are_refused(data: bytes) -> None:
    assert read_answer([data]) == 502
    assert read_answer(data[i:i + 1] for i in range(len(data))) == 502


def test_a_reader_of_answers_stays_dead() -> None:
    reader = ResponseReader()
    for _ in range(2):
        with pytest.raises(HttpError):
            reader.feed(b"NO ")
    with pytest.raises(HttpError):
        reader.eof()


def test_silence_is_no_answer() -> None:
    assert ResponseReader().eof() is None


@pytest.mark.parametrize(("data", "reusable"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n", False),
    (b"HTTP/1.1 200 OK\r\n", False),
])
def test_a_connection_is_used_again_only_after_one_whole_answer(data: bytes, reusable: bool) -> None:
    reader = ResponseReader()
    reader.feed(data)
    assert reader.reusable is reusable


@UNHURRIED
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_http_error(noise: bytes) -> None:
    for data in (noise, b"HTTP/1.1 200 OK\r\n" + noise):
        assert read_answer([data]) == read_answer(data[i:i + 1] for i in range(len(data)))


# --- writing ------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(rb"x-[A-Za-z0-9-]{1,8}", fullmatch=True)
VALUES = st.from_regex(rb"([!-~]([ -~\x80-\xff]{0,20}[!-~])?)?", fullmatch=True)


@UNHURRIED
@given(st.dictionaries(NAMES, VALUES, max_size=4).filter(lambda d: len({k.lower() for k in d}) == len(d)),
       st.binary(max_size=50))
def test_what_one_side_renders_the_other_reads(headers: dict[bytes, bytes], body: bytes) -> None:
    request = one(render_request("POST", "/x?y", "host:4433", headers, body))
    assert (request.method, request.target, request.body) == ("POST", "/x?y", body)
    assert request.header("host") == "host:4433"
    answer = read_answer([render_response(Response(500, headers, body), close=True)])
    assert isinstance(answer, Response)
    assert (answer.status, answer.body, answer.header("connection")) == (500, body, "close")
    for name, value in headers.items():
        assert request.headers[name.lower()] == answer.headers[name.lower()] == value


@pytest.mark.parametrize("headers", [
    {b"X": b"a\r\nSet-Cookie: b"}, {b"X": b"a\nb"}, {b"X": b"a\rb"}, {b"X": b"a\0b"}, {b"X": b" a"},
    {b"X: y\r\nZ": b"a"}, {b"": b"a"}, {b"X ": b"a"},
    {b"Content-Length": b"1"}, {b"transfer-encoding": b"chunked"}, {b"Connection": b"close"},
])
def test_TC5_no_header_can_be_smuggled_into_what_is_rendered(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError):
        render_response(Response(200, headers), close=False)
    with pytest.raises(ValueError):
        render_request("GET", "/", "host", headers)


@pytest.mark.parametrize(("method", "target", "host"), [
    ("GET", "/ HTTP/1.1\r\nX: y", "host"), ("GET /", "/", "host"), ("GET", "/", "a\r\nX: y"), ("GET", "", "host"),
    ("GET", "/ü", "host"),
])
def test_TC5_nor_by_method_target_or_host(method: str, target: str, host: str) -> None:
    with pytest.raises(ValueError):
        render_request(method, target, host, {})


def test_an_answer_without_body_by_definition_carries_no_length() -> None:
    assert render_response(Response(204, {}), close=False) == b"HTTP/1.1 204 No Content\r\n\r\n"
