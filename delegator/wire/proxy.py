"""The PROXY protocol, versions 1 and 2: whom a TCP load balancer speaks for, told before the first byte of TLS.

Sans-IO: bytes go in, a `Header` comes out once it is whole, with what stands behind it. What else a balancer may add
(TLVs of version 2) is skipped. Whose header may be believed is not decided here: anybody can send one.
The invariants: a header is read only where one must stand; one that is not exactly right is an error, never a guess;
no more than its own length is kept.
Must not live here: trust, sockets. Specification: haproxy.org, proxy-protocol.txt, 2020/03/05.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import msgspec

from delegator.model.places import normal_address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""Section 2.2: the first twelve bytes of version 2, which no other protocol begins with."""
_FIXED = len(SIGNATURE) + 4
LONGEST_V1 = 107
"""Section 2.1: the longest line there can be, its CRLF included."""
LONGEST_V2 = 2048
"""Addresses take 36 bytes; the rest is room for what balancers add about TLS and themselves."""
_PORT = rb"(0|[1-9]\d{0,4})"
_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F.:]{2,39}) ([0-9a-fA-F.:]{2,39}) " + _PORT + b" " + _PORT)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN( [^\r\n]*)?")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6, _UNSPEC = 0x11, 0x21, 0x00


class ProxyError(ValueError):
    """What came is no header of the PROXY protocol."""


class Header(msgspec.Struct, frozen=True):
    """`source` is the client's address as text, None where the balancer speaks for itself (a check of its health) or
    does not know; `rest` is what came behind the header."""

    source: str | None
    rest: bytes


class HeaderReader:
    """Feed it what arrives until it returns a header; then it is done with."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> Header | None:
        """The header when it is whole, None while it is not. Raises ProxyError as soon as it cannot become one."""
        self._bytes += data
        if self._bytes.startswith(SIGNATURE):
            return _second(self._bytes)
        if SIGNATURE.startswith(self._bytes):
            return None
        return _first(self._bytes)


def _first(data: bytes) -> Header | None:
    """Version 1: a line of text."""
    line, end, _ = data[:LONGEST_V1].partition(b"\r\n")
    if not end:
        if len(data) >= LONGEST_V1 or not line.startswith(b"PROXY "[:len(line)]) or b"\n" in line:
            raise ProxyError("begins with no PROXY header")
        return None
    rest = data[len(line) + 2:]
    if _UNKNOWN.fullmatch(line):
        return Header(None, rest)
    found = _V1.fullmatch(line)
    if found is None or max(int(found[4]), int(found[5])) > 65535:
        raise ProxyError("no line of PROXY version 1")
    kind = IPv4Address if found[1] == b"TCP4" else IPv6Address
    try:
        kind(found[3].decode())
        return Header(_plain(kind(found[2].decode())), rest)
    except AddressValueError:
        raise ProxyError("no address of its kind in PROXY version 1") from None


def _second(data: bytes) -> Header | None:
    """Version 2: a fixed part, the addresses by family, and TLVs that nobody here reads."""
    if len(data) < _FIXED:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise ProxyError(f"PROXY version 2 with command {command:#04x}")
    if length > LONGEST_V2:
        raise ProxyError(f"PROXY version 2 with {length} bytes, {LONGEST_V2} are allowed")
    if len(data) < _FIXED + length:
        return None
    addresses, rest = data[_FIXED:_FIXED + length], data[_FIXED + length:]
    return Header(None if command == _LOCAL else _source(family, addresses), rest)


def _source(family: int, addresses: bytes) -> str | None:
    if family == _UNSPEC:
        return None
    if family == _TCP4 and len(addresses) >= 12:
        return _plain(IPv4Address(addresses[:4]))
    if family == _TCP6 and len(addresses) >= 36:
        return _plain(IPv6Address(addresses[:16]))
    raise ProxyError(f"PROXY version 2 with family {family:#04x} and {len(addresses)} bytes")


def _plain(address: IPv4Address | IPv6Address) -> str:
    """As the kernel would have told it; an IPv4 address inside an IPv6 one is the former."""
    return normal_address(str(address))
