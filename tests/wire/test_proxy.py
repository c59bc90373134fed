"""The PROXY protocol: headers of both versions, whole and byte by byte, and whatever else may stand there (A10)."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.wire.proxy import LONGEST_V1, LONGEST_V2, SIGNATURE, Header, HeaderReader, ProxyError

HELLO = b"\x16\x03\x01\x02\x00\x01"
"""What stands behind a header: the first bytes of TLS."""


def v2(family: int, addresses: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses) if length is None else length) + addresses


def four(source: str, tlvs: bytes = b"") -> bytes:
    return v2(0x11, ip_address(source).packed + ip_address("192.0.2.1").packed + struct.pack("!HH", 51000, 4433) + tlvs)


def six(source: str, tlvs: bytes = b"") -> bytes:
    return v2(0x21, ip_address(source).packed + ip_address("2001:db8::1").packed + bytes(4) + tlvs)


RIGHT = {
    b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 4433\r\n": "198.51.100.7",
    b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 4433\r\n": "2001:db8::7",
    b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n":
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    b"PROXY TCP6 ::ffff:198.51.100.7 ::1 0 65535\r\n": "198.51.100.7",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n":
        None,
    four("198.51.100.7"): "198.51.100.7",
    four("198.51.100.7", b"\x04\x00\x03abc\x20\x00\x01x"): "198.51.100.7",
    four("198.51.100.7", bytes(LONGEST_V2 - 12)): "198.51.100.7",
    six("2001:db8::7"): "2001:db8::7",
    six("::ffff:198.51.100.7", b"\xee" * 40): "198.51.100.7",
    v2(0x00, b""): None,
    v2(0x00, b"", command=0x20): None,
    v2(0x11, bytes(12), command=0x20): None,
}
"""Headers, and the client that each names; None is the balancer speaking for itself or not knowing."""

WRONG = [
    HELLO, b"GET / HTTP/1.1\r\n\r\n", b"proxy TCP4 198.51.100.7 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 4433\n", b"PROXY  TCP4 198.51.100.7 192.0.2.1 51000 4433\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 51000\r\n", b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 4433 \r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 051 4433\r\n", b"PROXY TCP4 198.51.100.7 192.0.2.1 65536 4433\r\n",
    b"PROXY TCP4 198.51.100.07 192.0.2.1 1 2\r\n", b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    b"PROXY TCP6 198.51.100.7 192.0.2.1 1 2\r\n", b"PROXY TCP4 1.2.3.4.5 192.0.2.1 1 2\r\n",
    b"PROXY UDP4 198.51.100.7 192.0.2.1 1 2\r\n", b"PROXY UNKNOWNX\r\n", b"PROXY UNKNOWN " + b"x" * LONGEST_V1,
    v2(0x11, bytes(11)), v2(0x21, bytes(35)), v2(0x31, bytes(216)), v2(0x12, bytes(12)),
    v2(0x11, bytes(12), command=0x22), v2(0x11, bytes(12), command=0x11),
    v2(0x11, b"", length=LONGEST_V2 + 1),
]


def byte_by_byte(data: bytes) -> Header | None:
    reader = HeaderReader()
    for number in range(len(data)):
        header = reader.feed(data[number:number + 1])
        if header is not None:
            return Header(header.source, header.rest + data[number + 1:])
    return None


@pytest.mark.parametrize("header", RIGHT, ids=lambda header: header[:20].hex())
def test_A10_a_header_is_read_whole_and_byte_by_byte_with_what_stands_behind_it(header):
    assert HeaderReader().feed(header + HELLO) == byte_by_byte(header + HELLO) == Header(RIGHT[header], HELLO)
    assert HeaderReader().feed(header) == Header(RIGHT[header], b"")
    for cut in range(len(header)):
        assert HeaderReader().feed(header[:cut]) is None


@pytest.mark.parametrize("data", WRONG, ids=lambda data: data[:40].hex())
def test_A10_anything_else_is_refused_and_never_read_as_an_address(data):
    with pytest.raises(ProxyError):
        HeaderReader().feed(data)
    with pytest.raises(ProxyError):
        byte_by_byte(data)


@given(st.binary(max_size=64) | st.binary(max_size=300).map(lambda tail: SIGNATURE + tail)
       | st.binary(max_size=120).map(lambda tail: b"PROXY " + tail))
def test_A10_any_bytes_end_as_a_header_an_error_or_a_wish_for_more_however_they_are_cut(data):
    try:
        whole: Header | str | None = HeaderReader().feed(data)
    except ProxyError:
        whole = "refused"
    try:
        cut: Header | str | None = byte_by_byte(data)
    except ProxyError:
        cut = "refused"
    assert whole == cut
    if isinstance(whole, Header):
        assert data.endswith(whole.rest)
        assert whole.source is None or ip_address(whole.source)


@given(st.ip_addresses(), st.binary(max_size=100), st.binary(max_size=50))
def test_A10_every_address_comes_through_in_both_versions(address, tlvs, rest):
    kind, header = ("TCP4", four) if address.version == 4 else ("TCP6", six)
    expected = str(getattr(address, "ipv4_mapped", None) or address)
    line = f"PROXY {kind} {address} {'192.0.2.1' if kind == 'TCP4' else '::1'} 1 2\r\n".encode()
    for data in (line, header(str(address), tlvs)):
        assert HeaderReader().feed(data + rest) == Header(expected, rest)
