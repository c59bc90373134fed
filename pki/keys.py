"""Private keys: made, written, read back, and public keys judged strong enough or not.

Lives here: the two key types, PEM in and out (PKCS#8, RFC 5958), the strength rule, and what is taken from
a PKCS#10 request, which is its public key and nothing else.
Invariant: a key that this module returns, from wherever it came, has passed the strength rule.
Must not live here: where keys are stored (folder.py), what is signed with them (authority.py).
"""

from __future__ import annotations

import base64
import enum
import os
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from pki.errors import Kind, PkiError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

REQUEST_LIMIT: Final = 65_536
"""Bytes of a PKCS#10 file that are read: an RSA-8192 request is under 3 KiB."""

PBKDF2_ROUNDS: Final = 600_000
"""OWASP's figure for HMAC-SHA256; 0.2 s per try here. The library's own default is 2 048 (measured)."""

_RSA_BITS = range(2048, 8193)  # above 8192 one verification costs the server more than a handshake
_CURVES = (ec.SECP256R1, ec.SECP384R1)


class KeyType(enum.Enum):
    """What can be generated: ECDSA P-256 (25 microseconds) or RSA-2048 (some 100 milliseconds)."""

    EC = "ec"
    RSA = "rsa"


_GENERATORS: dict[KeyType, Callable[[], PrivateKey]] = {
    KeyType.EC: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyType.RSA: lambda: rsa.generate_private_key(65537, 2048),
}


def generate(key_type: KeyType | str = KeyType.EC) -> PrivateKey:
    """A new private key; `key_type` is a `KeyType` or its value, USAGE for anything else."""
    try:
        return _GENERATORS[KeyType(key_type)]()
    except ValueError as error:
        raise PkiError(Kind.USAGE, f"no key type called {key_type!a}", "choose ec or rsa") from error


def like(key: PrivateKey) -> PrivateKey:
    """A throw-away key of the same kind, so that both put the same signature algorithm into a certificate."""
    if isinstance(key, rsa.RSAPrivateKey):
        return rsa.generate_private_key(65537, key.key_size)
    return ec.generate_private_key(key.curve)


def weakness(key: object) -> str | None:
    """Why a public key is not acceptable, or None: P-256, P-384, or RSA of 2048 to 8192 bits."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return None if isinstance(key.curve, _CURVES) else f"curve {key.curve.name} is not P-256 or P-384"
    if not isinstance(key, rsa.RSAPublicKey):
        return "the key is neither ECDSA nor RSA"
    if key.key_size not in _RSA_BITS:
        return f"an RSA key of {key.key_size} bits is not between 2048 and 8192"
    if key.public_numbers().e < 65537:
        return "the RSA exponent is below 65537"
    return None


def strong(key: object) -> PublicKey:
    """The same key, known to be strong; REFUSED otherwise."""
    fault = weakness(key)
    if fault or not isinstance(key, PublicKey):
        raise PkiError(Kind.REFUSED, f"weak key: {fault}", "make a new ECDSA P-256 or RSA-2048 key")
    return key


def to_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS#8 PEM; encrypted with AES-256 under PBKDF2 when a passphrase is given."""
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    if passphrase is None:
        return key.private_bytes(serialization.Encoding.PEM, form, plain)
    return _encrypted_pem(key.private_bytes(serialization.Encoding.DER, form, plain), passphrase)


def from_pem(pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """Reads a key written by `to_pem`; CONFIGURATION for a wrong passphrase or a file that is no key."""
    encrypted = is_encrypted(pem)
    if encrypted and not passphrase:
        raise PkiError(Kind.CONFIGURATION, "the key is encrypted and no passphrase was given", _UNLOCK_HINT)
    try:
        key = serialization.load_pem_private_key(pem, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        detail = "wrong passphrase for the key" if encrypted else "the file holds no readable private key"
        hint = _UNLOCK_HINT if encrypted else "restore the file from a backup"
        raise PkiError(Kind.CONFIGURATION, detail, hint) from error
    strong(key.public_key())
    assert isinstance(key, PrivateKey)
    return key


def is_encrypted(pem: bytes) -> bool:
    """Whether a PEM file holds an encrypted PKCS#8 key (RFC 7468 section 11)."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem


def public_key_of_request(request: bytes) -> PublicKey:
    """The public key of a PKCS#10 request (RFC 2986), PEM or DER, whose own signature proves possession.

    Names and extensions in the request are ignored on purpose: what a certificate says is decided by the
    profile and by whoever signs, never by whoever asks. REFUSED if unreadable, unproven or weak.
    """
    if len(request) > REQUEST_LIMIT:
        raise PkiError(Kind.REFUSED, "the certificate request is larger than 64 KiB", _REQUEST_HINT)
    load = x509.load_pem_x509_csr if b"-----BEGIN" in request else x509.load_der_x509_csr
    try:
        parsed = load(request)
        key = strong(parsed.public_key())
        proven = parsed.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise PkiError(Kind.REFUSED, "not a readable PKCS#10 certificate request", _REQUEST_HINT) from error
    if not proven:
        raise PkiError(Kind.REFUSED, "the request is not signed by its own key", _REQUEST_HINT)
    return key


_UNLOCK_HINT = "give it with --passphrase-file, PKI_PASSPHRASE or --passphrase-prompt"
_REQUEST_HINT = "make one with: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x"


# EncryptedPrivateKeyInfo (RFC 5958 section 3) with PBES2 (RFC 8018 appendix A), written out because the
# library offers no way to raise the round count. Checked against `openssl pkey` in the tests.
_OID_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_OID_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("300c06082a864886f70d02090500")
_OID_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_SEQUENCE, _OCTETS, _INTEGER = 0x30, 0x04, 0x02


def _encrypted_pem(plain: bytes, passphrase: bytes) -> bytes:
    if not passphrase:
        raise PkiError(Kind.USAGE, "the passphrase is empty", "give a longer one, or none at all")
    salt, start = os.urandom(16), os.urandom(16)
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, PBKDF2_ROUNDS).derive(passphrase)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(start)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    rounds = _der(_INTEGER, PBKDF2_ROUNDS.to_bytes(3, "big"))
    derivation = _der(_SEQUENCE, _OID_PBKDF2, _der(_SEQUENCE, _der(_OCTETS, salt), rounds, _HMAC_SHA256))
    cipher = _der(_SEQUENCE, _OID_AES_256_CBC, _der(_OCTETS, start))
    scheme = _der(_SEQUENCE, _OID_PBES2, _der(_SEQUENCE, derivation, cipher))
    return _armour("ENCRYPTED PRIVATE KEY", _der(_SEQUENCE, scheme, _der(_OCTETS, sealed)))


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


def _armour(label: str, der: bytes) -> bytes:
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()
