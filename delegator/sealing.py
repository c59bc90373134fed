"""Secrets at rest: AES-256-GCM, the row's identity as associated data, the key's id in front.

The invariant: a sealed value opens only under its key and only for the row it was sealed for; copied to another
row it does not open. Layout: key id (4 bytes) + nonce (12, random) + ciphertext and tag.
Nonces are random: at 2^32 seals under one key the chance of a repeat is 2^-33 (NIST SP 800-38D section 8.3).
Must not live here: where keys come from in configuration, what is sealed.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from delegator.errors import DelegatorError, Kind
from delegator.private import read_secret

ID_BYTES = 4
_ID, _NONCE, _KEY = ID_BYTES, 12, 32
_LARGEST = 4096


class SealingKey:
    """Seals with one key and opens with any it knows, so that keys can be rotated."""

    def __init__(self, current: bytes, *older: bytes) -> None:
        self._current = _key_id(current)
        self._ciphers = {_key_id(key): AESGCM(key) for key in (current, *older)}

    @property
    def current(self) -> bytes:
        """The id of the key that seals."""
        return self._current

    @property
    def known(self) -> tuple[str, ...]:
        """The ids of all keys, as shown to operators, the current one first."""
        return tuple(map(id_of, self._ciphers))

    def seal(self, text: str, row: str) -> bytes:
        """Seal `text` for the row named `row` (such as "claims/<id>")."""
        nonce = os.urandom(_NONCE)
        return self._current + nonce + self._ciphers[self._current].encrypt(nonce, text.encode(), row.encode())

    def open(self, sealed: bytes, row: str) -> str:
        """Open what was sealed for `row`. Raises DelegatorError (UNAVAILABLE) and tells neither key nor text."""
        cipher = self._ciphers.get(sealed[:_ID])
        if cipher is None:
            raise DelegatorError(Kind.UNAVAILABLE, f"{row} is sealed with an unknown key {sealed[:_ID].hex()}",
                                 hint="put the older key back into [sealing] older_key_files")
        try:
            return cipher.decrypt(sealed[_ID:_ID + _NONCE], sealed[_ID + _NONCE:], row.encode()).decode()
        except (InvalidTag, ValueError):  # ValueError: cut off within the nonce
            raise DelegatorError(Kind.UNAVAILABLE,
                                 f"{row} does not open: changed, or moved from another row") from None


def id_of(sealed: bytes) -> str:
    """The id of the key that a value is sealed with, as shown to operators."""
    return sealed[:ID_BYTES].hex()


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"delegator sealing key id" + key).digest()[:_ID]


def create_key_file(path: Path) -> None:
    """Write a new random key, base64, mode 0600. Raises FileExistsError: a key is never overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(_KEY)) + b"\n")
        file.flush()
        os.fsync(descriptor)


def read_key_file(path: Path) -> bytes:
    """Read a key. Raises DelegatorError (CONFIGURATION) when it is missing, open to others or not a key."""
    text = read_secret(path, "sealing key", f"make one with: delegator config new-key {path}").reveal()
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:  # binascii.Error, or letters that are not ASCII
        key = b""
    if len(key) != _KEY:
        raise DelegatorError(Kind.CONFIGURATION, f"sealing key {path} is not 32 bytes in base64",
                             hint="restore it from your copy; a new one, from delegator config new-key, opens nothing "
                                  "that is sealed already")
    return key
