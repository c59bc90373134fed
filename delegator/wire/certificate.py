"""The three things a handshake needs from a verified certificate: common names, serial, the key's fingerprint.

A walk over the DER in 5 µs where a full parse takes 12-14 and decoding the key 20 more (measured). It reads only
certificates whose signature OpenSSL has just verified.
The invariant: structure as RFC 5280 section 4.1 says, or ValueError; every common name is returned, so that two
of them can be refused.
Must not live here: verification (pki.trust, wire.tls), the comparison with a service tag (provisioning.handshake).
"""

from __future__ import annotations

import hashlib
import re
import warnings

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from delegator.model import PeerCertificate
from delegator.model.places import normal_host
from pki.ledger import serial_text
from pki.trust import shown

LARGEST = 16 * 1024
"""Bytes of a leaf. Those of devices have about 500, of public servers with a hundred names 6 000. OpenSSL takes 100
KiB, and whoever has an authority of its own may fill them."""
NAMES = 256
"""Names of a leaf that are looked at, about as many as public authorities put into one. To compare 13 000 with ours
took 140 ms of everybody's time (measured); 256 take 2."""
TOLD = 4 * 1024
"""Bytes of a refused certificate that is read for a log line. Anybody can sign one with 3 000 names, which took 25 ms
(measured)."""
EXPONENT, MODULUS = 64, 8192
"""Bits of an RSA key that a server's chain may be signed with or for. Keys have 65537 for an exponent, of 17 bits; one
of 3 060 makes each check of a signature take 7 ms instead of 0.1 (measured), and a chain has four."""
_RSA = bytes.fromhex("2a864886f70d010101")
_SEQUENCE, _SET, _INTEGER, _OID, _VERSION = 0x30, 0x31, 0x02, 0x06, 0xA0
_COMMON_NAME = bytes.fromhex("550403")
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii"}
"""UTF8String, PrintableString, IA5String; any other string type is refused (RFC 5280 section 4.1.2.4)."""


def _element(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Start and end of the content of the element at `at`, which must carry `tag`."""
    if at + 2 > len(der) or der[at] != tag or der[at + 1] == 0x80:
        raise ValueError("certificate: not the structure of RFC 5280")
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        octets = length & 0x7F
        length, start = int.from_bytes(der[start:start + octets], "big"), start + octets
    if start + length > len(der):
        raise ValueError("certificate: an element runs past its end")
    return start, start + length


def _end(der: bytes, at: int) -> int:
    return _element(der, at, der[at] if at < len(der) else -1)[1]


def _common_names(der: bytes, at: int, end: int) -> tuple[str, ...]:
    names = []
    while at < end:
        at, following = _element(der, at, _SET)
        while at < following:
            attribute, at = _element(der, at, _SEQUENCE)
            oid_at, oid_end = _element(der, attribute, _OID)
            if der[oid_at:oid_end] == _COMMON_NAME:
                names.append(_text(der, oid_end))
    return tuple(names)


def _text(der: bytes, at: int) -> str:
    tag = der[at] if at < len(der) else -1
    encoding = _ENCODINGS.get(tag)
    if encoding is None:
        raise ValueError(f"certificate: a common name in string type {tag}")
    start, end = _element(der, at, tag)
    return der[start:end].decode(encoding)


def _serial(der: bytes) -> tuple[int, int]:
    """Where the serial number's content begins and ends."""
    at = _element(der, _element(der, 0, _SEQUENCE)[0], _SEQUENCE)[0]
    if der[at:at + 1] == bytes([_VERSION]):
        at = _end(der, at)
    return _element(der, at, _INTEGER)


def serial_of(der: bytes) -> int:
    """The serial number of a certificate. Raises ValueError."""
    start, end = _serial(der)
    return int.from_bytes(der[start:end], "big", signed=True)


def read_certificate(der: bytes) -> PeerCertificate:
    """What the handshake needs of a certificate. Raises ValueError."""
    return read_leaf(der)[0]


def read_leaf(der: bytes) -> tuple[PeerCertificate, int]:
    """The same, and where the public key begins. Raises ValueError."""
    serial_at, signature_at, subject_at, key_at, end = _plain(der) or _walked(der)
    serial = int.from_bytes(der[serial_at:signature_at], "big", signed=True)
    fingerprint = hashlib.sha256(der[key_at:end]).hexdigest()
    names = _only_name(der[subject_at:key_at]) or _common_names(der, subject_at, key_at)
    return PeerCertificate(names, serial, fingerprint), key_at


Places = tuple[int, int, int, int, int]
"""Where in a certificate the serial number's content begins and ends, the subject's content begins and ends, which is
where the public key's element begins, and where that ends."""


def _walked(der: bytes) -> Places:
    """Element by element. Raises ValueError."""
    serial_at, at = _serial(der)
    signature_at = at
    for _ in ("signature", "issuer", "validity"):
        at = _end(der, at)
    subject_at, key_at = _element(der, at, _SEQUENCE)
    return serial_at, signature_at, subject_at, key_at, _end(der, key_at)


def _plain(der: bytes) -> Places | None:
    """The same of a certificate of a device: of 256 bytes and more, of version 3, with names and a key of 127 bytes at
    most, as those on curves are. A third of the walk's cost, as a length is one octet wherever it is needed (measured).
    None for any other one, whatever is the matter."""
    size = len(der)
    if _HEAD.match(der) is None or (der[2] << 8 | der[3]) + 4 != size or (der[6] << 8 | der[7]) + 8 > size:
        return None
    try:
        signature_at = _HEAD_SIZE + der[_HEAD_SIZE - 1]
        issuer_at = signature_at + 2 + der[signature_at + 1]
        validity_at = issuer_at + 2 + der[issuer_at + 1]
        subject_at = validity_at + 2 + der[validity_at + 1]
        key_at = subject_at + 2 + der[subject_at + 1]
        end = key_at + 2 + der[key_at + 1]
        long = der[signature_at + 1] | der[issuer_at + 1] | der[validity_at + 1] | der[subject_at + 1] | der[key_at + 1]
    except IndexError:
        return None
    if long >= 0x80 or der[subject_at] != _SEQUENCE or end > (der[6] << 8 | der[7]) + 8:
        return None
    return _HEAD_SIZE, signature_at, subject_at + 2, key_at, end


def _only_name(subject: bytes) -> tuple[str, ...] | None:
    """The common name, where a subject is that and nothing else. None for any other one."""
    size = len(subject)
    if not 12 <= size < 0x80 or subject[:11] != _ONLY_NAME % (size - 2, size - 4, size - 11):
        return None
    try:
        return (subject[11:].decode("utf-8"),)
    except UnicodeDecodeError:
        return None


_HEAD = re.compile(rb"\x30\x82..\x30\x82..\xa0\x03\x02\x01\x02\x02[\x01-\x7f]", re.DOTALL)
"""Certificate, what is signed of it, version 3, serial number."""
_HEAD_SIZE = 15
_ONLY_NAME = b"\x31%c\x30%c\x06\x03\x55\x04\x03\x0c%c"
"""A set of one attribute, common name, in UTF-8."""


def host_of(certificate: x509.Certificate) -> str | None:
    """The first host that a server's certificate is for: a name, else an address; None where it is for none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    hosts = [*names.value.get_values_for_type(x509.DNSName),
             *map(str, names.value.get_values_for_type(x509.IPAddress))]
    return next((normal_host(host) for host in hosts if "*" not in host), None)


def told(der: bytes) -> tuple[str, str]:
    """Subject and serial number of a refused certificate for a log line, whatever its bytes are. The subject as RFC
    4514 text; what cannot be shown plainly is escaped, so that a hostile name cannot forge a line."""
    if len(der) > TOLD:
        return f"({len(der)} bytes, not read)", ""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a serial number below one
            certificate = x509.load_der_x509_certificate(der)
            return ascii(shown(certificate))[1:-1][:200], serial_text(certificate.serial_number)
    except (ValueError, TypeError, x509.InvalidVersion):
        return "(unreadable)", ""


def dear_key(der: bytes) -> bool:
    """Whether to check a signature with the key in this certificate would hold everybody up."""
    if _RSA not in der:
        return False
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return False
    return isinstance(key, rsa.RSAPublicKey) and (
        key.key_size > MODULUS or key.public_numbers().e.bit_length() > EXPONENT)


def names_in(der: bytes) -> int:
    """How many subject alternative names a certificate has; 0 where it has none that can be read."""
    try:
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion, ValueError, TypeError):
        return 0
    return sum(1 for _ in names.value)


def dns_names(der: bytes) -> tuple[str, ...]:
    """The DNS names a certificate stands for (RFC 9525: subject alternative names only). For delegates, who check
    their delegator's name; not on a device's path."""
    try:
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.value.get_values_for_type(x509.DNSName))
