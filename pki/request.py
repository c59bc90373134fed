"""A PKCS#10 request (RFC 2986): what is taken from it, which is its public key, byte for byte, and nothing else.

Names and extensions in a request are ignored on purpose: what a certificate says is decided by the profile and by
whoever signs, never by whoever asks.
A key that goes through a library's object forgets how it was written: RSA-PSS becomes RSA, a compressed point an
uncompressed one. The certificate would then be for another kind of key than the one that lies with whoever asked. So
the bytes of the key (SubjectPublicKeyInfo) travel with it, and `Authority.prepare` compares them with the draft's.
Invariant: a `Requested` is strong, proven by the request's own signature, and of a kind that is certified as it is.
Must not live here: signing (authority.py), files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from pki import pem
from pki.errors import Kind, PkiError
from pki.keys import PublicKey, strong

REQUEST_LIMIT: Final = 65_536
"""Bytes of a PKCS#10 file that are read: an RSA-8192 request is under 3 KiB."""

_HINT = "make one with: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x"
_HINT_HASH = "make it again with a hash that is still safe: openssl req -new -sha256 -key KEY -subj /CN=x"
_BROKEN: Final = (hashes.MD5, hashes.SHA1)
"""A signature over one of these proves nothing: another text with the same hash can be made."""
_KINDS: Final = {
    "1.2.840.113549.1.1.10": "its key is for RSA-PSS alone, which a certificate of ours cannot say",
    "1.3.101.110": "its key is an X25519 key, which signs nothing",
    "1.3.101.112": "its key is an Ed25519 key, which TLS 1.2 servers and older devices do not know",
    "1.3.101.113": "its key is an Ed448 key, which TLS 1.2 servers and older devices do not know",
    "1.2.840.10040.4.1": "its key is a DSA key, which TLS does not take any more",
}
"""By the algorithm that the key itself names. What is taken: ECDSA (id-ecPublicKey) and RSA (rsaEncryption)."""
_TAKEN = "; an ECDSA key on P-256 or P-384, or a plain RSA key, is wanted"


@dataclass(frozen=True, slots=True)
class Requested:
    """A key to certify, and the very bytes (SubjectPublicKeyInfo, DER) that must stand in the certificate."""

    key: PublicKey
    spki: bytes


def own(key: PublicKey) -> Requested:
    """A key that was made here, in the one form that we write."""
    return Requested(key, _written(key))


def requested(request: bytes) -> Requested:
    """What a request, PEM or DER, asks to have certified. REFUSED, with the cause, for any that is not in order."""
    if len(request) > REQUEST_LIMIT:
        raise PkiError(Kind.REFUSED, "the certificate request is larger than 64 KiB", _HINT)
    parsed = _parsed(request)
    try:
        spki = _spki(parsed.tbs_certrequest_bytes, _BEFORE_KEY_IN_REQUEST)
        key = _key(parsed, spki)
        _require_proof(parsed)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(Kind.REFUSED, f"the certificate request cannot be used: {_plain(error)}", _HINT) from error
    return Requested(key, spki)


def spki_of(draft: x509.Certificate) -> bytes:
    """The bytes of the key in a certificate (version 3)."""
    return _spki(draft.tbs_certificate_bytes, _BEFORE_KEY_IN_CERTIFICATE)


def _parsed(request: bytes) -> x509.CertificateSigningRequest:
    try:
        if request[:1] != b"\x30":
            return pem.one(request, pem.REQUEST)
        return x509.load_der_x509_csr(request)
    except pem.PemFault as error:
        raise PkiError(Kind.REFUSED, f"not a readable PKCS#10 certificate request: {error}", _HINT) from error
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        what = pem.der_nature(request)
        detail = f"it is {what}" if what else "its DER is damaged or cut off"
        raise PkiError(Kind.REFUSED, f"not a readable PKCS#10 certificate request: {detail}", _HINT) from error


def _key(parsed: x509.CertificateSigningRequest, spki: bytes) -> PublicKey:
    """The key, where its kind and its form are ours."""
    kind = _KINDS.get(_algorithm(spki))
    if kind is not None:
        raise PkiError(Kind.REFUSED, f"the request cannot be certified: {kind}{_TAKEN}", _HINT)
    key = strong(parsed.public_key())
    if _written(key) != spki:
        detail = "the request cannot be certified: its key is written in another form than a certificate has it " \
                 "(explicit curve parameters, a compressed point, or parameters left out)"
        raise PkiError(Kind.REFUSED, detail, "make the key again with a named curve and the uncompressed form: "
                       "openssl ecparam -name prime256v1 -genkey -noout -out KEY")
    return key


def _require_proof(parsed: x509.CertificateSigningRequest) -> None:
    """The request's own signature, and that it proves something."""
    used = parsed.signature_hash_algorithm
    if isinstance(used, _BROKEN):
        detail = f"the request is signed with {used.name.upper().replace('SHA1', 'SHA-1')}, which proves nothing"
        raise PkiError(Kind.REFUSED, detail, _HINT_HASH)
    if not parsed.is_signature_valid:
        raise PkiError(Kind.REFUSED, "the request is not signed by its own key: it was changed, or its key is "
                       "another's", _HINT)


def _written(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _plain(error: Exception) -> str:
    """The library's words on one line, short."""
    return " ".join(str(error).split())[:120] or type(error).__name__


_BEFORE_KEY_IN_REQUEST: Final = 2
"""version, subject (RFC 2986 section 4.1)."""
_BEFORE_KEY_IN_CERTIFICATE: Final = 6
"""version, serialNumber, signature, issuer, validity, subject (RFC 5280 section 4.1)."""


def _spki(tbs: bytes, before: int) -> bytes:
    fields = _elements(tbs, _content(tbs, 0)[0])
    for _ in range(before):
        next(fields)
    start, end = next(fields)
    return tbs[start:end]


def _algorithm(spki: bytes) -> str:
    """The dotted name of the key's algorithm."""
    start, end = _content(spki, _content(spki, _content(spki, 0)[0])[0])
    first, numbers, value = spki[start], [], 0
    for octet in spki[start + 1 : end]:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    return ".".join(map(str, (min(first // 40, 2), first - 40 * min(first // 40, 2), *numbers)))


def _elements(der: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where each element begins and ends, from one to the last."""
    while at < len(der):
        end = _content(der, at)[1]
        yield at, end
        at = end


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Start and end of an element's content, in DER that a library has read already."""
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        octets = length & 0x7F
        length, start = int.from_bytes(der[start : start + octets], "big"), start + octets
    return start, start + length
