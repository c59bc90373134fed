"""What a certificate says about whom it is for: its common names, and nothing else of it.

The standard library shows no certificate but a connected peer's, so this walks the DER (RFC 5280 section 4.1), as far
as the subject. The invariant: whatever the bytes are, the answer is names or none; nobody trusts anything by it.
Must not live here: files, keys (enrolling), trust (tls).
"""

from __future__ import annotations

import binascii
import re
import ssl

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _OID, _VERSION = 0x30, 0x06, 0xA0
_COMMON_NAME = bytes.fromhex("550403")
_FIELDS_BEFORE_SUBJECT = 4
"""serialNumber, signature, issuer, validity."""


def common_names(pem: str) -> list[str]:
    """The common names in the subject of the first certificate; [] where there is none to be read."""
    found = _PEM.search(pem)
    try:
        return [] if found is None else _names(ssl.PEM_cert_to_DER_cert(found[0] + "\n"))
    except (ValueError, IndexError, binascii.Error):
        return []


def _names(der: bytes) -> list[str]:
    at, _ = _content(der, _content(der, 0)[0])
    if der[at] == _VERSION:
        at = sum(_content(der, at))
    for _ in range(_FIELDS_BEFORE_SUBJECT):
        at = sum(_content(der, at))
    names = []
    at, size = _content(der, at)
    end = at + size
    while at < end:  # sets of attributes, each an OID and a string
        attribute, _ = _content(der, _content(der, at)[0])
        at = sum(_content(der, at))
        oid_at, oid_size = _content(der, attribute)
        if der[oid_at:oid_at + oid_size] == _COMMON_NAME:
            text_at, text_size = _content(der, oid_at + oid_size)
            names.append(der[text_at:text_at + text_size].decode("utf-8"))
    return names


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins, and its size. Their sum is where the next one begins."""
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        octets = length & 0x7F
        length, start = int.from_bytes(der[start:start + octets], "big"), start + octets
    if start + length > len(der):
        raise ValueError("an element runs past the end")
    return start, length
