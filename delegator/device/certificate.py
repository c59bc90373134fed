"""What a certificate says: its common names, its last moment, and what it is for; nothing else of it.

The standard library shows a connected peer's certificate alone, and stumbles over one with a strange name in it, so
this walks the DER (RFC 5280 section 4.1). The invariant: whatever the bytes are, the answer is a value or ValueError,
in a time that grows with their number. What is said here narrows what OpenSSL believes, and never widens it.
Must not live here: files, keys (enrolling), trust (tls).
"""

from __future__ import annotations

import binascii
import calendar
import ssl
import time
from collections.abc import Iterator
from typing import NamedTuple

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_OCTETS, _UTC_TIME, _GENERALIZED_TIME, _VERSION, _EXTENSIONS = 0x04, 0x17, 0x18, 0xA0, 0xA3
_COMMON_NAME = bytes.fromhex("550403")
_PURPOSES = bytes.fromhex("551d25")
_FOR_SERVERS = bytes.fromhex("2b06010505070301")


class Facts(NamedTuple):
    """`ends` is in seconds since 1970. `for_servers` is None where the certificate does not say what it is for."""

    common_names: tuple[str, ...]
    ends: int
    for_servers: bool | None


def common_names(pem: str) -> list[str]:
    """The common names in the subject of the first certificate; [] where there is none to be read."""
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin)
    try:
        return list(facts(ssl.PEM_cert_to_DER_cert(pem[begin:end + len(_END)] + "\n")).common_names)
    except (ValueError, binascii.Error):
        return []


def facts(der: bytes) -> Facts:
    """Raises ValueError for what is no certificate."""
    try:
        return _facts(der)
    except (IndexError, StopIteration):
        raise ValueError("it is no certificate") from None


def _facts(der: bytes) -> Facts:
    ((_, start, end),) = _inside(der, 0, len(der))
    body = list(_inside(der, *next(_inside(der, start, end))[1:]))
    if body[0][0] == _VERSION:
        body = body[1:]
    _, _, _, validity, subject = body[:5]  # serial number, algorithm and issuer first
    _, ends = _inside(der, *validity[1:])
    purposes = [purpose for tag, *where in body[5:] if tag == _EXTENSIONS for purpose in _purposes(der, *where)]
    return Facts(tuple(_names(der, *subject[1:])), _moment(ends[0], der[ends[1]:ends[2]].decode("ascii")),
                 any(purposes) if purposes else None)


def _names(der: bytes, start: int, end: int) -> Iterator[str]:
    for _, *one in _inside(der, start, end):  # sets of attributes, each an OID and a string
        for _, *attribute in _inside(der, *one):
            kind, text = _inside(der, *attribute)
            if der[kind[1]:kind[2]] == _COMMON_NAME:
                yield der[text[1]:text[2]].decode("utf-8", "replace")  # a name may be in another writing


def _purposes(der: bytes, start: int, end: int) -> Iterator[bool]:
    """Of each purpose whether it is to be a server."""
    ((_, *extensions),) = _inside(der, start, end)
    for _, *one in _inside(der, *extensions):
        kind, *_, (tag, *content) = _inside(der, *one)
        if der[kind[1]:kind[2]] == _PURPOSES and tag == _OCTETS:
            ((_, *purposes),) = _inside(der, *content)
            for _, first, last in _inside(der, *purposes):
                yield der[first:last] == _FOR_SERVERS


def _moment(kind: int, text: str) -> int:
    if kind not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("it has no last moment")
    if kind == _UTC_TIME:  # RFC 5280 section 4.1.2.5.1
        text = ("19" if text >= "5" else "20") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _inside(der: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The elements between two places: tag, and where the content begins and ends."""
    while start < end:
        tag, length, at = der[start], der[start + 1], start + 2
        if length >= 0x80:
            octets = length & 0x7F
            length, at = int.from_bytes(der[at:at + octets], "big"), at + octets
        start = at + length
        if start > end:
            raise ValueError("an element runs past the end")
        yield tag, at, start
