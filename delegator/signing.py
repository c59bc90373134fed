"""Signatures of customers on what they offer and accept: Ed25519, or ECDSA over P-256 or P-384.

A step is put as a statement: one line of canonical JSON (keys sorted, no blanks, UTF-8), the same wherever it is
made, so that a customer can sign it with a key that never leaves its house and with tools of its own:
`openssl pkeyutl -sign -rawin -inkey key.pem -in statement`. The signature is detached and covers exactly those bytes.
The invariant: whoever has a statement, a signature and a public key can check them with nothing else.
Must not live here: what is signed when (store.transfers), where keys are kept (store.ownership).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from pki import PkiError, pem
from pki.keys import Locked, any_key
from pki.twice import said_twice

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
Sign = Callable[[bytes], bytes]
"""Gives the signature of a statement."""
_HASHES: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}
_KINDS = "it must be an Ed25519 key, or an EC key on P-256 or P-384"


class Signed(msgspec.Struct, frozen=True):
    """A statement as it was signed: its text, the signature in base64, the public key in PEM."""

    statement: str
    signature: str
    public_key: str

    def says(self, facts: Mapping[str, object]) -> bool:
        """Whether it states nothing but what is among these facts, each of them once."""
        try:
            said = msgspec.json.decode(self.statement, type=dict[str, object])
            return said_twice(self.statement, said) is None and said.items() <= facts.items()
        except (msgspec.DecodeError, RecursionError):
            return False

    @property
    def holds(self) -> bool:
        """Whether this very statement was signed with that key's private half."""
        try:
            signature = base64.b64decode(self.signature, validate=True)
            key = load_pem_public_key(self.public_key.encode())
            _verify(key, self.statement.encode(), signature)
        except (InvalidSignature, UnsupportedAlgorithm, binascii.Error, ValueError):
            return False
        return True


def statement(facts: Mapping[str, object]) -> bytes:
    """Facts as the one text that stands for them."""
    return msgspec.json.encode(facts, order="sorted")


def checked(text: bytes, signature: bytes, public_key: str) -> Signed:
    """A statement with its signature. Raises ValueError when the signature is not that key's of that statement."""
    signed = Signed(text.decode(), base64.b64encode(signature).decode(), public_key)
    if not signed.holds:
        raise ValueError(f"the signature is not of this statement with key {fingerprint(public_key)}")
    return signed


def fingerprint(public_key: str) -> str:
    """SHA-256 (hex) of a public key in PEM, as `openssl pkey -pubin -outform DER | sha256sum` says it."""
    key = load_pem_public_key(public_key.encode())
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def public_key_in(content: bytes) -> str:
    """The public key in a PEM file with a public key or a certificate, in PEM. Raises ValueError."""
    found = pem.some_blocks(content, "public key or certificate")
    if any(block.label in pem.KEY_LABELS for block in found):
        raise ValueError("it holds a private key; give the public one: openssl pkey -in FILE -pubout")
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} blocks where one is wanted")
    try:
        if found[0].label in pem.CERTIFICATE.labels:
            key: object = pem.one(content, pem.CERTIFICATE).public_key()
        else:
            key = load_pem_public_key(content)
    except pem.PemFault:
        raise
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"it holds neither a public key nor a certificate but a {pem.word_of(found[0].label)}"
                         if found[0].label != "PUBLIC KEY" else "its public key is damaged") from None
    if not isinstance(key, PublicKey) or not _fits(key):
        raise ValueError(_KINDS)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signer(content: bytes) -> Sign:
    """Signs with the private key in a PEM file. Raises ValueError, which tells nothing of what is in it."""
    try:
        key = any_key(content)
    except Locked:
        raise ValueError("it is encrypted with a pass phrase, which is not asked for; take it off: openssl pkey -in "
                         "FILE -out NEW, or sign elsewhere and give the signature") from None
    except PkiError as error:
        raise ValueError(error.detail) from None
    if not isinstance(key, PrivateKey) or not _fits(key.public_key()):
        raise ValueError(_KINDS)
    return lambda text: _sign(key, text)


def _fits(key: PublicKey) -> bool:
    return isinstance(key, ed25519.Ed25519PublicKey) or key.curve.name in _HASHES


def _sign(key: PrivateKey, text: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text)
    return key.sign(text, ec.ECDSA(_HASHES[key.curve.name]))


def _verify(key: object, text: bytes, signature: bytes) -> None:
    """Raises InvalidSignature, or ValueError for a key of another kind."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, text)
    elif isinstance(key, ec.EllipticCurvePublicKey) and _fits(key):
        key.verify(signature, text, ec.ECDSA(_HASHES[key.curve.name]))
    else:
        raise ValueError(_KINDS)
