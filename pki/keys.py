"""Private keys: made, written, read back, and public keys judged strong enough or not.

Lives here: the two key types, PEM in and out (PKCS#8, RFC 5958), the one reader of private keys, and the strength rule.
Invariants: a key that `from_pem` returns has passed the strength rule; no key is read in a way that could ask a person
for a pass phrase: an encrypted one without it is `Locked`, which is said at once.
Must not live here: where keys are stored (folder.py), requests (request.py), what is signed with them (authority.py).
"""

from __future__ import annotations

import base64
import enum
import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from pki.errors import Kind, PkiError
from pki.pem import KEY_LABELS, Block, PemFault, some_blocks, word_of

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

PBKDF2_ROUNDS: Final = 600_000
"""OWASP's figure for HMAC-SHA256; 0.2 s per try here. The library's own default is 2 048 (measured)."""

_RSA_BITS = range(2048, 8193)  # above 8192 one verification costs the server more than a handshake
_EXPONENT_END = 1 << 64  # OpenSSL verifies nothing with a longer one above RSA-3072, and each bit costs the server time
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
        return _NEITHER
    if key.key_size not in _RSA_BITS:
        return f"an RSA key of {key.key_size} bits is not between 2048 and 8192"
    if not 65537 <= key.public_numbers().e < _EXPONENT_END:
        return "the RSA exponent is below 65537, or has more than 64 bits"
    return None


def strong(key: object) -> PublicKey:
    """The same key, known to be strong; REFUSED otherwise."""
    fault = weakness(key)
    if fault or not isinstance(key, PublicKey):
        raise _not_taken(key, fault)
    return key


def _not_taken(key: object, fault: str | None) -> PkiError:
    """A key of a kind that we do not use is not called weak: P-521 is not."""
    small = isinstance(key, rsa.RSAPublicKey) or (isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < 256)
    words = "weak key" if small else "the key is of a kind that we do not take"
    return PkiError(Kind.REFUSED, f"{words}: {fault}", "make a new ECDSA P-256 or RSA-2048 key")


def to_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS#8 PEM; encrypted with AES-256 under PBKDF2 when a passphrase is given."""
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    if passphrase is None:
        return key.private_bytes(serialization.Encoding.PEM, form, plain)
    return _encrypted_pem(key.private_bytes(serialization.Encoding.DER, form, plain), passphrase)


class Locked(PkiError):
    """An encrypted key, and no pass phrase to open it with."""

    def __init__(self) -> None:
        super().__init__(Kind.CONFIGURATION, "the key is encrypted and no passphrase was given", _UNLOCK_HINT)


def from_pem(pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """Reads a key written by `to_pem`; CONFIGURATION for a wrong passphrase or a file that is no key."""
    key = any_key(pem, passphrase)
    if not isinstance(key, PrivateKey):
        raise _not_taken(key, _NEITHER)
    strong(key.public_key())
    return key


def any_key(pem: bytes, passphrase: bytes | None = None) -> PrivateKeyTypes:
    """The one private key in a text, of whatever kind. Certificates may stand beside it: some keep both in one file.

    Nobody is ever asked for anything: Locked where a pass phrase is needed and none is given, else CONFIGURATION with
    what is wrong. OpenSSH's own form is read too.
    """
    encrypted = False
    try:
        block = _key_block(pem)
        encrypted = _locks(block)
        if encrypted and not passphrase:
            raise Locked
        load = serialization.load_ssh_private_key if block.label == _OPENSSH else serialization.load_pem_private_key
        return load(_armoured(block), passphrase if encrypted else None)
    except PemFault as error:
        raise PkiError(Kind.CONFIGURATION, f"the file holds no readable private key: {error}", _RESTORE_HINT) from error
    except TypeError as error:  # OpenSSH's form says within that it is encrypted
        if passphrase:
            raise PkiError(Kind.CONFIGURATION, "wrong passphrase for the key", _UNLOCK_HINT) from error
        raise Locked from error
    except UnsupportedAlgorithm as error:
        detail = "the private key is of a kind, or encrypted in a way, that is not known here"
        raise PkiError(Kind.CONFIGURATION, detail, "make a new ECDSA P-256 or RSA-2048 key") from error
    except ValueError as error:
        detail = "wrong passphrase for the key" if encrypted else "the file holds no readable private key: damaged"
        raise PkiError(Kind.CONFIGURATION, detail, _UNLOCK_HINT if encrypted else _RESTORE_HINT) from error


def key_text(pem: bytes) -> bytes:
    """The one private key in a text, and nothing else of it, as PEM. CONFIGURATION."""
    try:
        return _armoured(_key_block(pem))
    except PemFault as error:
        raise PkiError(Kind.CONFIGURATION, f"the file holds no readable private key: {error}", _RESTORE_HINT) from error


def is_encrypted(pem: bytes) -> bool:
    """Whether a PEM file holds an encrypted key: PKCS#8 (RFC 7468 section 11), or OpenSSL's older form."""
    try:
        return _locks(_key_block(pem))
    except PemFault:
        return False


_OPENSSH = "OPENSSH PRIVATE KEY"
_BESIDE = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "EC PARAMETERS"})
"""What may stand in a key's file: its certificates, and what `openssl ecparam -genkey` writes in front."""


def _key_block(content: bytes) -> Block:
    found = some_blocks(content, "private key")
    mine = [block for block in found if block.label in KEY_LABELS]
    odd = next((block for block in found if block.label not in (*KEY_LABELS, *_BESIDE)), None)
    if not mine:
        words = "public key instead" if odd and "PUBLIC KEY" in odd.label else f"{word_of(found[0].label)} instead"
        raise PemFault(f"it holds a {words}")
    if len(mine) > 1 or odd is not None:
        raise PemFault(f"it holds {len(mine)} private keys" if odd is None else
                       f"{odd.where} is a {word_of(odd.label)}, where a private key belongs")
    return mine[0]


def _locks(block: Block) -> bool:
    return block.label == "ENCRYPTED PRIVATE KEY" or any("ENCRYPTED" in header for header in block.headers)


def _armoured(block: Block) -> bytes:
    head = "".join(f"{header}\n" for header in block.headers) + ("\n" if block.headers else "")
    return armour(block.label, block.der, head)


_UNLOCK_HINT = "give it with --passphrase-file, PKI_PASSPHRASE or --passphrase-prompt"
_RESTORE_HINT = "restore the file from a backup"
_NEITHER = "the key is neither ECDSA nor RSA"


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
    return armour("ENCRYPTED PRIVATE KEY", _der(_SEQUENCE, scheme, _der(_OCTETS, sealed)))


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


def armour(label: str, der: bytes, head: str = "") -> bytes:
    """PEM; `head` are lines that stand in front of the base64."""
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *(head.splitlines()), *lines, f"-----END {label}-----", "")).encode()
