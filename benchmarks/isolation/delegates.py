"""Hostile delegates: TCP, TLS records of both versions, HTTP, SOAP. A receiver of webhooks does the same.

The invariant: a peer never shows anything that the delegator must not stand: it may be anybody who answers at a
delegate's address, with or without its certificate.
Must not live here: other layers, what is measured.
"""

from __future__ import annotations

import gzip
import itertools
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from benchmarks.isolation.modes import Act, Mode, Site, drip, hold, pour, reset
from benchmarks.isolation.tls import ALERT, CHANGE, DATA, HANDSHAKE, Wire, context, record

NS, SOAP = "urn:delegator:provisioning:1", "http://schemas.xmlsoap.org/soap/envelope/"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT = 64 * 1024
"""Of a body that is read, see delegator/wire/framing.py."""
KIB = bytes(1024)


def envelope(inner: str, before: str = "") -> bytes:
    return f'{before}<s:Envelope xmlns:s="{SOAP}"><s:Body>{inner}</s:Body></s:Envelope>'.encode()


def credential(before: str = "", user: str = "temp", more: str = "") -> str:
    return (f"<RequestCredentialResponse xmlns='{NS}'{more}>{before}<Credential><UserName>{user}</UserName>"
            "<Password>p</Password></Credential></RequestCredentialResponse>")


def framed(body: bytes, head: bytes = HEAD) -> bytes:
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


@lru_cache(maxsize=8)
def serving(version: ssl.TLSVersion, chain: Path) -> ssl.SSLContext:
    return context(version, chain=chain)


def shaken(sock: socket.socket, site: Site, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Wire:
    return Wire(sock, serving(version, site.chain), serves=True)


# --- kinds of acts ------------------------------------------------------------------------------------------------

Work = Callable[[Wire], None]


def over(version: ssl.TLSVersion) -> Callable[[Work], Act]:
    """After the handshake and the request."""
    def made(work: Work) -> Act:
        def act(sock: socket.socket, site: Site) -> None:
            wire = shaken(sock, site, version)
            wire.request()
            work(wire)
        return act
    return made


tls12, tls13 = over(ssl.TLSVersion.TLSv1_2), over(ssl.TLSVersion.TLSv1_3)


def flood(one: Callable[[Wire], bytes], many: int = 100) -> Work:
    """Records without end, many in a go."""
    def work(wire: Wire) -> None:
        pour(wire.socket, (b"".join(one(wire) for _ in range(many)) for _ in itertools.count()))
    return work


def after_hello(what: Callable[[], Iterator[bytes]]) -> Act:
    """In the clear, once the ClientHello is there: nobody needs a certificate for that."""
    def act(sock: socket.socket, site: Site) -> None:
        sock.recv(4096)
        pour(sock, what())
        hold(sock)
    return act


def endless(data: bytes, many: int = 1000) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.repeat(data * many)


def once(data: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([data])


def says(parts: Callable[[], Iterator[bytes]]) -> Act:
    """HTTP, whatever it is."""
    def work(wire: Wire) -> None:
        for part in parts():
            wire.write(part)
        hold(wire.socket)
    return tls13(work)


def drips(data: bytes) -> Act:
    def work(wire: Wire) -> None:
        for one in data:
            wire.write(bytes([one]))
            time.sleep(0.05)
        hold(wire.socket)
    return tls13(work)


def answers(body: bytes, head: bytes = HEAD) -> Act:
    """One whole answer."""
    return tls13(lambda wire: wire.write(framed(body, head)))


def endlessly(first: bytes, more: bytes, many: int = 1) -> Act:
    return says(lambda: itertools.chain([first], itertools.repeat(more * many)))


# --- pieces -------------------------------------------------------------------------------------------------------

SERVER_HELLO = record(HANDSHAKE, b"\x02\0\0\x2d\x03\x03" + os.urandom(24) + bytes(8) + b"\0\xc0\x2b\0\0\x05\xff\x01"
                                 b"\0\x01\0")
HELLO_REQUEST = record(HANDSHAKE, b"\0\0\0\0")


def certificates(site: Site, many: int) -> bytes:
    """A Certificate message (RFC 5246 section 7.4.2) with the same certificate many times, in records."""
    one = ssl.PEM_cert_to_DER_cert(site.chain.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n")
    listed = (len(one).to_bytes(3) + one) * many
    message = b"\x0b" + (len(listed) + 3).to_bytes(3) + len(listed).to_bytes(3) + listed
    return b"".join(record(HANDSHAKE, message[at:at + 16_000]) for at in range(0, len(message), 16_000))


def chain_of(many: int) -> Act:
    def act(sock: socket.socket, site: Site) -> None:
        sock.recv(4096)
        sock.sendall(SERVER_HELLO + certificates(site, many))
        hold(sock)
    return act


def well(sock: socket.socket, site: Site) -> None:
    """The control: as a delegate should."""
    wire = shaken(sock, site)
    wire.request()
    wire.write(framed(envelope(credential())))
    sock.shutdown(socket.SHUT_WR)
    hold(sock)


refuses = answers(b"", b"HTTP/1.1 403 Forbidden\r\n")
"""The control of a receiver: it says no politely."""


def many_names(sock: socket.socket, site: Site) -> None:
    Wire(sock, serving(ssl.TLSVersion.TLSv1_3, site.many), serves=True)
    hold(sock)


def half_closed(sock: socket.socket, site: Site) -> None:
    sock.shutdown(socket.SHUT_WR)
    hold(sock)


def asleep(sock: socket.socket, site: Site) -> None:
    """The kernel's window fills, as nobody reads."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    time.sleep(60)




def tree(tag: str, deep: int) -> str:
    return f"<{tag}>" * deep + f"</{tag}>" * deep


ENTITIES = "<!DOCTYPE s [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '&{chr(97 + n)};&{chr(97 + n)};'>" for n in range(20)) + "]>"
SPACES = " ".join(f"xmlns:n{n}='urn:{n}'" for n in range(3000))
ATTRIBUTES = f"xmlns:p='{'u' * 255}' " + " ".join(f"p:{n:x}=''" for n in range(0xa000, 0xb800))
"""The dearest to read that fit: each is looked up under a long name."""
FAULT = "<s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring></s:Fault>"
BOMB = gzip.compress(bytes(64 << 20))[:60_000]

MODES = tuple(Mode(*row) for row in (
    ("tcp", "silence", "takes the connection and says nothing", lambda sock, site: hold(sock)),
    ("tcp", "drip", "says a byte of a TLS record twenty times a second",
     lambda sock, site: drip(sock, record(HANDSHAKE, KIB))),
    ("tcp", "reset", "resets every connection at once", lambda sock, site: reset(sock)),
    ("tcp", "half close", "closes its half at once and holds the other", half_closed),
    ("tcp", "zero window", "never reads", asleep),
    ("tcp", "flood", "pours zeros and never reads", lambda sock, site: pour(sock, itertools.repeat(KIB * 64))),
    ("tls 1.2", "hello requests", "HelloRequest without end after the ClientHello, no certificate needed",
     after_hello(endless(HELLO_REQUEST))),
    ("tls 1.2", "hello requests inside", "the same, sealed, in place of an answer",
     tls12(flood(lambda wire: wire.sealed(HANDSHAKE, b"\0\0\0\0")))),
    ("tls 1.2", "empty records", "records of no data in place of an answer",
     tls12(flood(lambda wire: wire.sealed(DATA, b"")))),
    ("tls 1.2", "warning alerts", "user_canceled without end",
     tls12(flood(lambda wire: wire.sealed(ALERT, b"\x01\x5a")))),
    ("tls 1.2", "change of cipher", "ChangeCipherSpec without end before the handshake",
     after_hello(endless(record(CHANGE, b"\x01")))),
    ("tls 1.2", "server hello", "a good ServerHello and silence", after_hello(once(SERVER_HELLO))),
    ("tls 1.2", "long chain", "a chain of a thousand certificates", chain_of(1000)),
    ("tls 1.2", "short chain", "a chain of eighty certificates, which OpenSSL reads", chain_of(80)),
    ("tls 1.2", "16 MB", "announces a handshake message of 16 MB and pours it",
     after_hello(lambda: itertools.chain([SERVER_HELLO, record(HANDSHAKE, b"\x0b\xff\xff\xff")],
                                         itertools.repeat(record(HANDSHAKE, bytes(16_000)))))),
    ("tls 1.2", "fragments", "a handshake message in records of one byte",
     after_hello(lambda: itertools.chain([record(HANDSHAKE, b"\x02\x00\xff\xff")],
                                         itertools.repeat(record(HANDSHAKE, b"\0") * 1000)))),
    ("tls 1.3", "key updates", "KeyUpdate without end in place of an answer",
     tls13(flood(lambda wire: wire.key_update(False)))),
    ("tls 1.3", "key updates that ask", "KeyUpdate without end, each asking for one in return",
     tls13(flood(lambda wire: wire.key_update(True)))),
    ("tls 1.3", "empty records", "records of no data", tls13(flood(lambda wire: wire.sealed(DATA, b"")))),
    ("tls 1.3", "tickets", "NewSessionTicket without end",
     tls13(flood(lambda wire: wire.sealed(HANDSHAKE, b"\x04\0\0\x17\0\0\x1c\x20" + os.urandom(4)
                                          + b"\x01\x01\0\x0a" + bytes(10) + b"\0\0")))),
    ("tls 1.3", "alerts", "user_canceled without end", tls13(flood(lambda wire: wire.sealed(ALERT, b"\x01\x5a")))),
    ("tls 1.3", "padding", "a byte in 16 KiB of padding, without end",
     tls13(flood(lambda wire: wire.sealed(DATA, b"x", 16_000), 10))),
    ("tls 1.3", "change of cipher", "ChangeCipherSpec without end after the ClientHello",
     after_hello(endless(record(CHANGE, b"\x01")))),
    ("tls 1.3", "many names", "a good certificate with 2 000 names", many_names),
    ("tls 1.3", "16 MB", "announces a handshake message of 16 MB after the handshake and pours it",
     tls13(lambda wire: pour(wire.socket, itertools.chain(
         [wire.sealed(HANDSHAKE, b"\x04\xff\xff\xff")],
         (wire.sealed(HANDSHAKE, bytes(16_000)) for _ in itertools.count()))))),
    ("tls 1.3", "half a record", "a record that never ends, a byte twenty times a second",
     tls13(lambda wire: drip(wire.socket, wire.sealed(DATA, KIB)[:100]))),
    ("http", "endless headers", "header after header", endlessly(HEAD, b"X-Header: value\r\n", 500)),
    ("http", "header drip", "a byte of its head twenty times a second", drips(HEAD * 20)),
    ("http", "interim answers", "100 Continue without end", endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 500)),
    ("http", "huge chunk", "a chunk of 4 GiB, poured", endlessly(CHUNKED + b"ffffffff\r\n", KIB, 64)),
    ("http", "negative chunk", "a chunk of -1 bytes", says(once(CHUNKED + b"-1\r\nx\r\n0\r\n\r\n"))),
    ("http", "chunks of a byte", "a body in chunks of one byte, without end", endlessly(CHUNKED, b"1\r\nx\r\n", 2000)),
    ("http", "chunk extensions", "a chunk whose extension never ends", endlessly(CHUNKED + b"1;x=", KIB, 16)),
    ("http", "chunk drip", "a chunk of one byte twenty times a second", drips(CHUNKED + b"1\r\nx\r\n" * 50)),
    ("http", "endless trailers", "trailer after trailer", endlessly(CHUNKED + b"0\r\n", b"X-Trailer: value\r\n", 500)),
    ("http", "gzip bomb", "64 MiB of nothing, compressed",
     answers(BOMB, HEAD + b"Content-Encoding: gzip\r\n")),
    ("http", "no end", "a body without a length, without end", endlessly(HEAD + b"\r\n", b"<" * 16_000)),
    ("http", "garbage", "random bytes for a status line", endlessly(b"", os.urandom(16_000))),
    ("http", "answer after answer", "one whole answer after the other",
     endlessly(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200)),
    ("soap", "deep", "elements 9 000 deep", answers(envelope(tree("a", 9000)))),
    ("soap", "attributes", "6 000 attributes", answers(envelope(f"<a {ATTRIBUTES}/>"))),
    ("soap", "namespaces", "3 000 namespaces", answers(envelope(f"<a {SPACES}/>"))),
    ("soap", "entities", "a billion laughs", answers(envelope(credential(user="&u;"), ENTITIES))),
    ("soap", "huge text", "a user name of 60 KB", answers(envelope(credential(user="x" * 60_000)))),
    ("soap", "many elements", "9 000 elements before the credential", answers(envelope(credential("<a/>" * 9000)))),
    ("soap", "faults", "a fault each time", answers(envelope(FAULT), HEAD.replace(b"200 OK", b"500 Oops"))),
    ("soap", "a byte too much", "a body of 64 KiB and a byte", answers(b" " * (LIMIT + 1))),
    ("soap", "comments", "60 KB of comments in a password", answers(envelope(credential("<!-- -->" * 7000)))),
))
"""What a delegate does to who calls it."""
WEBHOOKS = tuple(Mode("webhook", one.name, one.does, one.act) for one in MODES if (one.layer, one.name) in {
    ("tcp", "silence"), ("tls 1.2", "hello requests"), ("tls 1.3", "key updates that ask"), ("http", "endless headers"),
    ("http", "chunks of a byte"), ("http", "interim answers")})
"""What a receiver of webhooks does: the same, at other people's expense."""
