"""Keys as a registration takes them: the customer's pinned host key, the private key that lets us in.

Pure, and without the SSH library, so that a registration can be checked on a machine that lacks it.
The invariant: what comes out holds one key in its plain form and nothing else of the file it stood in.
Must not live here: connections (ssh_session), where a key is kept (store).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_public_key,
)

from delegator.model import Secret
from pki import PkiError
from pki.keys import Locked, any_key

SIGNATURES = {
    "ssh-ed25519": "ssh-ed25519",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
    "ssh-rsa": "rsa-sha2-512,rsa-sha2-256",
}
"""Kinds of keys, best first, each with the algorithms that sign with it. SHA-1 is none of them."""
LEAST_RSA = 2048
MOST_RSA, MOST_PRIVATE_RSA = 8192, 4096
"""Longer ones are work for everybody who waits: 8192 bits verify in half a millisecond; 4096 sign in 9 ms, 8192 in 40,
15360 in 240 (measured)."""
_PRIVATE = (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host's public key: its kind and its bytes on the wire."""

    kind: str
    blob: bytes

    def __str__(self) -> str:
        """As it stands in a `.pub` file, without the comment."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def host_key_in(text: str) -> HostKey:
    """The one host key in a text: a `.pub` file, a line of known_hosts, what ssh-keyscan prints. Raises
    ValueError."""
    found = {key for line in text.splitlines() for key in [_key_of(line)] if key is not None}
    if len(found) != 1:
        raise ValueError(f"there are {len(found)} host keys where one is wanted" if found else
                         f"there is no host key of a kind we take: {', '.join(SIGNATURES)}")
    return found.pop()


def _key_of(line: str) -> HostKey | None:
    words = line.split()
    if not words or words[0].startswith(("#", "@")):  # marks of known_hosts: an authority, a revoked key
        return None
    for kind, encoded in itertools.pairwise(words):
        if kind in SIGNATURES:
            return _checked(kind, encoded)
    return None


def _checked(kind: str, encoded: str) -> HostKey:
    try:
        key = load_ssh_public_key(f"{kind} {encoded}".encode())
        found = HostKey(kind, base64.b64decode(encoded, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"the {kind} host key cannot be read") from None
    _long_enough(key)
    return found


def private_key_in(content: bytes) -> Secret:
    """The private key in a file, without a pass phrase, in OpenSSH's form. Raises ValueError, which shows nothing of
    it."""
    try:
        key = any_key(content)
    except Locked:
        raise ValueError("it has a pass phrase, which nobody would be there to type; make one without it: "
                         "ssh-keygen -p -N ''") from None
    except PkiError as error:
        raise ValueError(f"it is no private key in PEM or OpenSSH's form: {error.detail}") from None
    if not isinstance(key, _PRIVATE):
        raise ValueError("it is neither Ed25519, ECDSA nor RSA")
    _long_enough(key)
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())


def _long_enough(key: object) -> None:
    """And no longer than it may be. Raises ValueError."""
    if not isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return
    most = MOST_RSA if isinstance(key, rsa.RSAPublicKey) else MOST_PRIVATE_RSA
    if key.key_size < LEAST_RSA:
        raise ValueError(f"an RSA key of {key.key_size} bits is too short, {LEAST_RSA} are wanted")
    if key.key_size > most:
        raise ValueError(f"an RSA key of {key.key_size} bits is too long, {most} are the most")
