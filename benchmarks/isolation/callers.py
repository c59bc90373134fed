"""Peers that call: devices with a certificate of their own, strangers without, load balancers, callers of the
operators' port, and of the reference delegate.

The invariant: an act is one connection, or one crowd of them, and ends; who calls again is the attacker's affair.
Must not live here: other layers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from benchmarks.isolation.delegates import ATTRIBUTES, NS, envelope, flood, tree
from benchmarks.isolation.modes import RECEIVE, Act, Mode, Site, asked, called, drip, hold, pour
from benchmarks.isolation.tls import ALERT, CHANGE, DATA, HANDSHAKE, Wire, context, record

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FIRST = b"PROXY TCP4 127.0.0.9 127.0.0.1 5 4433\r\n"
CROWD = 256
"""Connections that one caller of a crowd holds: 4 096 for sixteen."""
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/xml\r\nTransfer-Encoding: chunked\r\n\r\n"
HOLDING = 1.0
"""Seconds that a caller holds what is not taken from it."""


@lru_cache(maxsize=64)
def calling(version: ssl.TLSVersion, ca: Path, chain: Path | None) -> ssl.SSLContext:
    return context(version, ca=ca, chain=chain)


def device(work: Callable[[Wire], None], version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
           first: bytes = b"") -> Act:
    """With a certificate of its own, after the handshake."""
    def act(sock: socket.socket, site: Site) -> None:
        if first:
            sock.sendall(first)
        number = int(sock.getsockname()[1])
        wire = Wire(sock, calling(version, site.ca, site.own[number % len(site.own)] if site.own else None),
                    serves=False)
        sock.settimeout(HOLDING)
        work(wire)
        hold(sock)
    return act


def exchanges(data: bytes, many: int) -> Callable[[Wire], None]:
    """So many requests, each answered before the next."""
    def work(wire: Wire) -> None:
        for number in range(many):
            wire.write(data)
            wire.read()
            asked(number > 0)
    return work


def writes(parts: Callable[[], Iterator[bytes]]) -> Callable[[Wire], None]:
    """HTTP without end, no answer read."""
    def work(wire: Wire) -> None:
        for part in parts():
            wire.write(part)
    return work


def stranger(parts: Callable[[], Iterator[bytes]]) -> Act:
    """Bytes, no certificate."""
    def act(sock: socket.socket, site: Site) -> None:
        sock.settimeout(HOLDING)
        pour(sock, parts())
        hold(sock)
    return act


def once(data: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([data])


def without_end(first: bytes, more: bytes, many: int = 100) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.chain([first], itertools.repeat(more * many))


def post(body: bytes, *lines: bytes) -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"POST / HTTP/1.1", b"Host: localhost", b"Content-Type: text/xml",
                                                *lines, b"Content-Length: %d" % len(body)))
    return head + b"\r\n" + body


def call(tag: str, extra: str = "") -> bytes:
    return envelope(f'<GetProvisioningCredential xmlns="{NS}"><Device><ServiceTag>{tag}</ServiceTag>{extra}</Device>'
                    "<TransactionId>transaction-0123456789</TransactionId></GetProvisioningCredential>")


def tag_of(sock: socket.socket, site: Site) -> str:
    """Of the certificate that `device` shows on this connection."""
    return site.own[int(sock.getsockname()[1]) % len(site.own)].stem


def asks(many: int, read: bool, lines: tuple[bytes, ...] = (), first: bytes = b"") -> Act:
    """The device's own question, that often on one connection."""
    def act(sock: socket.socket, site: Site) -> None:
        question = post(call(tag_of(sock, site)), *lines)

        work = exchanges(question, many) if read else writes(lambda: itertools.repeat(question, many))
        device(work, first=first)(sock, site)
    return act


def crowd(sock: socket.socket, site: Site) -> None:
    """Connections that say nothing, held for a moment."""
    held = [sock]
    with contextlib.suppress(OSError):
        for _ in range(CROWD - 1):
            held.append(called(sock.getpeername()[:2]))
    time.sleep(2 * HOLDING)
    for one in held:
        one.close()


def drips(data: bytes) -> Act:
    def act(sock: socket.socket, site: Site) -> None:
        sock.settimeout(HOLDING)
        drip(sock, data)
    return act


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!HH", kind, len(data)) + data


def hello(padding: int = 0) -> bytes:
    """A ClientHello of TLS 1.2 as a message, its last extension as long as that."""
    extensions = (extension(10, b"\0\x02\0\x17") + extension(13, b"\0\x02\x04\x03")
                  + extension(21, bytes(padding)))
    body = b"\x03\x03" + os.urandom(32) + b"\0\0\x02\xc0\x2b\x01\0" + struct.pack("!H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3) + body


def tls(shown: Callable[[Site], Path | None]) -> Act:
    """A whole handshake, without a certificate or with one that nobody signed."""
    def act(sock: socket.socket, site: Site) -> None:
        chain = shown(site)
        sock.settimeout(HOLDING)
        Wire(sock, calling(ssl.TLSVersion.TLSv1_3, site.ca, chain), serves=False).write(b"GET / HTTP/1.1\r\n\r\n")
        hold(sock)
    return act


def plain(data: bytes, more: bytes = b"") -> Act:
    """Plain HTTP, for the operators' port."""
    def act(sock: socket.socket, site: Site) -> None:
        sock.settimeout(HOLDING)
        sock.sendall(data)
        if more:
            pour(sock, itertools.repeat(more))
        sock.recv(RECEIVE)
    return act


well: dict[str, Act] = {
    "device": asks(1, read=True, lines=(b"Connection: close",)),
    "proxy": asks(1, read=True, lines=(b"Connection: close",), first=FIRST),
    "ops": plain(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
    "reference": device(exchanges(b"GET /?wsdl HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 1))}
well["stranger"] = well["device"]
OLD = ssl.TLSVersion.TLSv1_2
HELD = b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: "
MODES = tuple(Mode(*row) for row in (
    ("device", "key updates", "KeyUpdate without end", device(flood(lambda wire: wire.key_update(False)))),
    ("device", "key updates that ask", "each asking for one in return",
     device(flood(lambda wire: wire.key_update(True)))),
    ("device", "empty records", "records of no data, TLS 1.2",
     device(flood(lambda wire: wire.sealed(DATA, b"")), OLD)),
    ("device", "renegotiation", "ClientHello after ClientHello in an open session, TLS 1.2",
     device(flood(lambda wire: wire.sealed(HANDSHAKE, hello())), OLD)),
    ("device", "alerts", "warning alerts without end, TLS 1.2",
     device(flood(lambda wire: wire.sealed(ALERT, b"\x01\x5a")), OLD)),
    ("device", "half a request", "half a head and silence", device(lambda wire: wire.write(HELD))),
    ("device", "pipelining", "a hundred questions at once, no answer read", asks(100, read=False)),
    ("device", "again and again", "its one question a hundred times on a connection", asks(100, read=True)),
    ("device", "chunks of a byte", "a body in chunks of one byte, without end",
     device(writes(without_end(CHUNKED, b"1\r\n \r\n", 500)))),
    ("device", "endless headers", "header after header",
     device(writes(without_end(HELD, b"\r\nX-Header: value", 500)))),
    ("device", "deep XML", "a question with elements 9 000 deep", device(
        exchanges(post(envelope(tree("a", 9000))), 20))),
    ("device", "attributes", "a question with 6 000 attributes", device(
        exchanges(post(envelope(f"<a {ATTRIBUTES}/>")), 20))),
    ("stranger", "silent crowd", "256 connections that say nothing, each caller", crowd),
    ("stranger", "garbage", "random bytes without end", stranger(without_end(b"", os.urandom(1000)))),
    ("stranger", "hello drip", "a byte of a ClientHello twenty times a second", drips(record(HANDSHAKE, hello()))),
    ("stranger", "hello in pieces", "a ClientHello in records of one byte", stranger(
        once(b"".join(record(HANDSHAKE, bytes([one])) for one in hello(200))))),
    ("stranger", "hello of 16 MB", "announces one and pours it", stranger(
        without_end(record(HANDSHAKE, b"\x01\xff\xff\xff"), record(HANDSHAKE, bytes(16_000)), 4))),
    ("stranger", "empty records", "handshake records of no data without end", stranger(
        without_end(b"", record(HANDSHAKE, b"")))),
    ("stranger", "change of cipher", "ChangeCipherSpec without end", stranger(
        without_end(b"", record(CHANGE, b"\x01")))),
    ("stranger", "no certificate", "a whole handshake, but for the certificate", tls(lambda site: None)),
    ("stranger", "a certificate of nobody's", "a whole handshake with it", tls(lambda site: site.chain)),
    ("stranger", "a large certificate", "a whole handshake with one of 500 names", tls(lambda site: site.large)),
    ("stranger", "the largest certificate", "a whole handshake with one of 2 500 names",
     tls(lambda site: site.largest)),
    ("ops", "silent crowd", "256 connections that say nothing, each caller", crowd),
    ("ops", "endless headers", "header after header", plain(b"GET / HTTP/1.1\r\n", b"X-Header: value\r\n" * 500)),
    ("ops", "half a request", "half a head and silence", plain(b"GET /metrics HTTP/1.1\r\nX: ")),
    ("ops", "garbage", "random bytes without end", plain(b"", os.urandom(1000) * 10)),
    ("ops", "metrics", "reads the metrics ten times a second", plain(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")),
    ("proxy", "drip", "a byte of its header twenty times a second", drips(FIRST)),
    ("proxy", "garbage", "random bytes without end", stranger(without_end(b"", os.urandom(1000)))),
    ("proxy", "huge TLVs", "a header of version 2 that announces 64 KiB, poured", stranger(
        without_end(SIGNATURE + b"\x21\x11\xff\xff", bytes(1000)))),
    ("proxy", "longest TLVs", "2 048 bytes of them, byte by byte in a go", stranger(
        lambda: (bytes([one]) for one in SIGNATURE + b"\x21\x11\x08\x00" + bytes(2047)))),
    ("proxy", "key updates", "KeyUpdate without end behind a good header",
     device(flood(lambda wire: wire.key_update(True)), first=FIRST)),
    ("reference", "odd target", "GET //[ without a certificate, a hundred times", device(
        exchanges(b"GET //[ HTTP/1.1\r\nHost: a\r\n\r\n", 100))),
    ("reference", "key updates", "KeyUpdate without end, without a certificate",
     device(flood(lambda wire: wire.key_update(True)))),
    ("reference", "hello of 16 MB", "announces one and pours it", stranger(
        without_end(record(HANDSHAKE, b"\x01\xff\xff\xff"), record(HANDSHAKE, bytes(16_000)), 4))),
    ("reference", "half a request", "half a head and silence", device(lambda wire: wire.write(HELD))),
    ("reference", "guesses", "wrong passwords, a hundred on a connection", device(
        exchanges(b"GET /provisioning HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n", 100))),
    ("reference", "silent crowd", "256 connections that say nothing, each caller", crowd),
))
