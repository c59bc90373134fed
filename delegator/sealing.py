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
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from delegator.errors import DelegatorError, Kind
from delegator.secrecy import read_secret

ID_BYTES = 4
_ID, _NONCE, _KEY = ID_BYTES, 12, 32
_OTHER = ("put the file of that key back as [sealing] key_file, or beside it in older_key_files; which key is needed "
          "for what tells: delegator sealing status")
RESTORE = "restore it from your copy; a new one opens nothing that is sealed already"


class SealingKey:
    """Seals with one key and opens with any it knows, so that keys can be rotated."""

    def __init__(self, current: bytes, *older: bytes, files: Sequence[str] = ()) -> None:
        """`files` are what the keys were read from, for words about them."""
        self._current = _key_id(current)
        self._ciphers = {_key_id(key): AESGCM(key) for key in (current, *older)}
        self._files = tuple(zip(files, map(_key_id, (current, *older)), strict=False))

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
        """Open what was sealed for `row`. Raises DelegatorError and tells neither key nor text: CONFIGURATION where it
        is another key, UNAVAILABLE where the value is not what it was."""
        cipher = self._ciphers.get(sealed[:_ID])
        if cipher is None and len(sealed) > _ID + _NONCE:
            raise DelegatorError(Kind.CONFIGURATION, self._unknown(sealed, row), hint=_OTHER)
        try:
            if cipher is None:
                raise ValueError("cut off")
            return cipher.decrypt(sealed[_ID:_ID + _NONCE], sealed[_ID + _NONCE:], row.encode()).decode()
        except (InvalidTag, ValueError):  # ValueError: cut off within the nonce
            raise DelegatorError(Kind.UNAVAILABLE,
                                 f"{row} does not open: changed, or moved from another row") from None

    def _unknown(self, sealed: bytes, row: str) -> str:
        """Whose key is needed, beside those that there are, each with the file that an operator knows it by."""
        held = ", ".join(f"{name} is key {key.hex()}" for name, key in self._files)
        return f"{row} is sealed with an unknown key {id_of(sealed)}" + (f"; {held}" if held else "")


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


def making(path: Path | str) -> str:
    """What to do for a key where nothing is sealed yet."""
    return f"make one with: delegator config new-key {path}"


def read_key_file(path: Path, hint: str = "") -> bytes:
    """Read a key. Raises DelegatorError (CONFIGURATION) when it is missing, for which `hint` is what to do, open to
    others or not a key."""
    text = read_secret(path, "sealing key", hint or making(path)).reveal()
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:  # binascii.Error, or letters that are not ASCII
        key = b""
    if len(key) != _KEY:
        raise DelegatorError(Kind.CONFIGURATION, f"sealing key {path} is not 32 bytes in base64", hint=RESTORE)
    return key
