"""What strangers send: bytes that are no TLS, requests that are no HTTP, bodies that are no SOAP. For tests of a port.

One collection for the tests that look at each answer and for the flood that sends thousands of them; the readers' own
tests have more (tests/wire).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

NAMESPACE = "urn:delegator:provisioning:1"
SOAP11, SOAP12 = "http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"


def record(kind: int, payload: bytes, version: int = 0x0303, length: int | None = None) -> bytes:
    """A TLS record (RFC 8446 section 5.1), its length a lie where one is given."""
    return struct.pack("!BHH", kind, version, len(payload) if length is None else length) + payload


def hello(extensions: bytes, session: bytes = b"", suites: bytes = b"\x13\x01\xc0\x2b") -> bytes:
    """A ClientHello with these extensions and no others."""
    body = (b"\x03\x03" + bytes(32) + bytes([len(session)]) + session + struct.pack("!H", len(suites)) + suites
            + b"\x01\x00" + struct.pack("!H", len(extensions)) + extensions)
    return record(22, b"\x01" + len(body).to_bytes(3, "big") + body, 0x0301)


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!HH", kind, len(data)) + data


NO_TLS: dict[str, bytes] = {
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"EHLO a\r\n",
    "PROXY header": b"PROXY TCP4 192.0.2.7 192.0.2.1 5 4433\r\n",
    "zeros": bytes(600),
    "ones": b"\xff" * 600,
    "a line break": b"\n",
    "SSLv2 hello": bytes.fromhex("802e0100020015000000100100800200800300800400800500800600800700c0") + bytes(16),
    "an alert": record(21, b"\x02\x28"),
    "application data first": record(23, bytes(64)),
    "a heartbeat": record(24, b"\x01\xff\xff" + bytes(20)),
    "an unknown record": record(99, bytes(20)),
    "an empty record": record(22, b""),
    "empty records": record(22, b"") * 200,
    "a record of 64 KiB": record(22, b"\x01", length=65535),
    "a hello of 16 MiB": record(22, b"\x01\xff\xff\xff" + bytes(2000)),
    "a hello in pieces of one": b"".join(record(22, bytes([one])) for one in hello(b"")[5:]),
    "a hello without extensions": hello(b""),
    "a hello of SSLv3": hello(b"").replace(b"\x03\x03" + bytes(32), b"\x03\x00" + bytes(32)),
    "no suite in common": hello(b"", suites=b"\x00\x05\x00\x0a"),
    "a session of 255": hello(b"", session=bytes(255)),
    "a ticket of ours": hello(extension(35, bytes(200))),
    "early data": hello(extension(42, b"") + extension(43, b"\x02\x03\x04")),
    "an extension past its end": hello(struct.pack("!HH", 0, 500)),
    "an extension 500 times": hello(extension(0xAAAA, b"") * 500),
    "a name with a NUL": hello(extension(0, b"\x00\x08\x00\x00\x05a\x00b.c")),
    "a second hello": hello(b"") * 2,
    "a certificate first": record(22, b"\x0b\x00\x00\x07\x00\x00\x04\x00\x00\x01A"),
    "a finished first": record(22, b"\x14\x00\x00\x0c" + bytes(12)),
    "a change of cipher": record(20, b"\x01") * 50,
}

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
NO_HTTP: dict[str, bytes] = {
    "length and chunked": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "the same length twice": HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "length list": HEAD + b"Content-Length: 1, 1\r\n\r\na",
    "length +1": HEAD + b"Content-Length: +1\r\n\r\na",
    "length -1": HEAD + b"Content-Length: -1\r\n\r\na",
    "length 1_0": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "length in Arabic": HEAD + b"Content-Length: \xd9\xa1\r\n\r\na",
    "length in hex": HEAD + b"Content-Length: 0x1\r\n\r\na",
    "length of 2^64": HEAD + b"Content-Length: 18446744073709551617\r\n\r\na",
    "length of 1 GiB": HEAD + b"Content-Length: 1073741824\r\n\r\na",
    "odd coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding with a tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "coding before chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size -1": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
    "chunk size of 2^64": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\na",
    "bare LF": b"POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "bare LF in a header": b"POST / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare CR in a header": b"POST / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "bare LF after a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "a folded line": b"POST / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "a blank before the colon": b"POST / HTTP/1.1\r\nHost : a\r\n\r\n",
    "NUL": HEAD + b"X: a\x00b\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\n\r\n",
    "no host": b"POST / HTTP/1.1\r\n\r\n",
    "unknown method": b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.7": b"GET / HTTP/3.7\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an expectation": HEAD + b"Expect: miracles\r\n\r\n",
    "a head without end": HEAD + b"X: " + b"a" * 20_000,
    "200 headers": HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
    "a target of 10 KB": b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS inside": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "binary": bytes(range(256)),
}


def envelope(inner: str, soap: str = SOAP11, before: str = "", header: str = "") -> bytes:
    return (f'{before}<s:Envelope xmlns:s="{soap}">{header}<s:Body>{inner}</s:Body></s:Envelope>').encode()


def call(tag: str = "HOSTILE1", extra: str = "", operation: str = "GetProvisioningCredential",
         after: str = "") -> str:
    return (f'<{operation} xmlns="{NAMESPACE}"><Device><ServiceTag>{tag}</ServiceTag>{extra}</Device>'
            f"<TransactionId>transaction-0123456789</TransactionId>{after}</{operation}>")


def bomb(declared: str, inner: str = "&e;") -> bytes:
    return f"<!DOCTYPE s [{declared}]>".encode() + envelope(call(inner))


LAUGHS = '<!ENTITY e0 "ha">' + "".join(f'<!ENTITY e{n} "' + f"&e{n - 1};" * 10 + '">' for n in range(1, 10))
NO_SOAP: dict[str, bytes] = {
    "nothing": b"",
    "no XML": b"hello",
    "JSON": b'{"ServiceTag": "HOSTILE1"}',
    "cut": envelope(call())[:-20],
    "twice": envelope(call()) * 2,
    "laughs": bomb(LAUGHS, "&e9;"),
    "quadratic": bomb('<!ENTITY e "' + "a" * 20_000 + '">', "&e;" * 2000),
    "a file": bomb('<!ENTITY e SYSTEM "file:///etc/passwd">'),
    "a URL": bomb('<!ENTITY e SYSTEM "http://127.0.0.1:1/x">'),
    "a parameter entity": bomb('<!ENTITY % e SYSTEM "http://127.0.0.1:1/x"> %e;', ""),
    "an external DTD": b'<!DOCTYPE s SYSTEM "http://127.0.0.1:1/x.dtd">' + envelope(call()),
    "a stylesheet": b'<?xml-stylesheet href="http://127.0.0.1:1/x.xsl" type="text/xsl"?>' + envelope(call()),
    "XInclude": envelope(call(extra='<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/passwd"/>')),
    "schemaLocation": envelope(call()).replace(
        b"<s:Body>", b'<s:Body xmlns:x="http://www.w3.org/2001/XMLSchema-instance" '
                     b'x:schemaLocation="urn:x http://127.0.0.1:1/x.xsd"><s:Other/>', 1),
    "a comment in a value": envelope(call("HOST<!---->ILE1")),
    "an instruction in a value": envelope(call("HOST<?x?>ILE1")),
    "an element in a value": envelope(call("HOST<i/>ILE1")),
    "UTF-16": envelope(call()).decode().encode("utf-16"),
    "UTF-7": envelope(call(), before='<?xml version="1.0" encoding="UTF-7"?>'),
    "EBCDIC": envelope(call()).decode().encode("cp037"),
    "Latin-1": envelope(call(), before='<?xml version="1.0" encoding="ISO-8859-1"?>'),
    "overlong": envelope(call("HOSTILE?")).replace(b"?", b"\xc0\xb1"),
    "a surrogate": envelope(call("HOSTILE?")).replace(b"?", b"\xed\xa0\x80"),
    "NUL": envelope(call("HOSTILE\0")),
    "3000 deep": envelope("<a>" * 3000 + "</a>" * 3000),
    "5000 elements": envelope(call(extra="<a/>" * 5000)),
    "5000 attributes": envelope("<a " + " ".join(f'a{n}=""' for n in range(5000)) + "/>"),
    "60 KB of text": envelope(call("A" * 60_000)),
    "two bodies": envelope(call()).replace(b"</s:Body>", b"</s:Body><s:Body/>"),
    "two operations": envelope(call() + call()),
    "no operation": envelope(""),
    "a body in the header": envelope("", header=f"<s:Header><s:Body>{call()}</s:Body></s:Header>"),
    "the tag twice": envelope(call(extra="<ServiceTag>HOSTILE1</ServiceTag>")),
    "the device twice": envelope(call(after="<Device><ServiceTag>HOSTILE1</ServiceTag></Device>")),
    "the secret twice": envelope(call(after="<TransactionId>transaction-9876543210</TransactionId>")),
    "an unknown element": envelope(call(extra="<Colour>red</Colour>")),
    "an unknown operation": envelope(call(operation="DropTable")),
    "a delegate's operation": envelope(call(operation="RequestCredential")),
    "another namespace": envelope(call()).replace(NAMESPACE.encode(), b"urn:other"),
    "another SOAP": envelope(call(), soap="http://www.w3.org/2001/12/soap-envelope"),
    "a header that must be understood": envelope(
        call(), header='<s:Header><x:S xmlns:x="urn:x" s:mustUnderstand="1"/></s:Header>'),
    "XOP": envelope(call('<x:Include xmlns:x="http://www.w3.org/2004/08/xop/include" href="cid:a"/>')),
    "a lower-case tag": envelope(call("hostile1")),
    "a Cyrillic tag": envelope(call("НOSTILE1")),
    "SQL for a tag": envelope(call("A' OR '1'='1")),
    "nil with a text in it": envelope(call(extra='<Model xmlns:i="http://www.w3.org/2001/XMLSchema-instance" '
                                                 'i:nil="true">R740</Model>')),
    "base64 that is none": envelope(call(after="<CertificateRequest>****</CertificateRequest>")),
}


def request(body: bytes, *lines: bytes) -> bytes:
    """A well-formed request around a body, whatever that is."""
    return (HEAD + b"".join(line + b"\r\n" for line in (b"Content-Type: text/xml; charset=utf-8", *lines))
            + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def mutations(whole: bytes, seed: int) -> Iterator[bytes]:
    """The same bytes with a few of them changed, taken out, doubled or put in, without end."""
    chance = random.Random(seed)
    while True:
        bent = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(bent) + 1)
            width = chance.randint(0, 8)
            put = [b"", chance.randbytes(width), bytes(bent[at:at + width]) * 2, b"<", b"&", b"\r\n", b"\0"]
            bent[at:at + width] = chance.choice(put)
        yield bytes(bent)
