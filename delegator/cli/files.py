"""What commands take from files: certificates, passwords, keys, rows. Of each file nothing but that is kept.

The invariants: a secret comes from a file that others cannot read, from a prompt or from standard input; no error
shows what a file holds.
Must not live here: which option names which file (reaching), what a file must hold (desk.contents).
"""

from __future__ import annotations

import contextlib
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from delegator.cli.parameters import as_configuration
from delegator.desk import contents
from delegator.errors import DelegatorError, Kind
from delegator.model import Secret
from delegator.secrecy import read_secret, secret_of
from pki.disk import read_given, require_given
from pki.text import SECRET_BYTES

_LARGEST = 1 << 20
"""Bytes that are read of any file: all certificates of a system have a quarter of it."""


def read(path: Path, what: str, most: int | None = None) -> bytes:
    """A file, or standard input for "-"; with `most`, so many bytes of it. Raises DelegatorError (CONFIGURATION), also
    for more than _LARGEST bytes where `most` is not said."""
    wanted = _LARGEST + 1 if most is None else most
    try:
        content = sys.stdin.buffer.read(wanted) if str(path) == "-" else read_given(path, wanted)
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{what} {path}: {error.strerror}", hint="check the path") from None
    if len(content) > _LARGEST:
        raise DelegatorError(Kind.CONFIGURATION, f"{what} {path} is larger than {_LARGEST // 1024} KiB",
                             hint="is that the file you mean?")
    return content


def read_private(path: Path, what: str) -> bytes:
    """A file that only its owner can read. Raises DelegatorError (CONFIGURATION)."""
    content = read(path, what)
    if str(path) != "-" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise DelegatorError(Kind.CONFIGURATION, f"{what} {path} can be read by others", hint=f"chmod 600 {path}")
    return content


def password(path: Path) -> Secret:
    """The one line of a private file, or of standard input. Raises DelegatorError (CONFIGURATION)."""
    return _secret(path, "password file")


def _secret(path: Path, what: str) -> Secret:
    if str(path) == "-":
        return secret_of(read(path, what, SECRET_BYTES), f"the {what} on standard input")
    return read_secret(path, what, "check the path")


def webhook_secret(path: Path) -> Secret:
    """The one line of a private file, long enough that nobody guesses it. Raises DelegatorError (CONFIGURATION)."""
    secret = _secret(path, "webhook secret file")
    with as_configuration(path):
        return contents.webhook_secret(secret, str(path))


def asked_password(wanted: bool) -> Secret:
    """Typed twice on the terminal."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password: use --password-file")
    typed = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return secret_of(typed.encode(errors="surrogateescape"), "what was typed")


def private_key(path: Path) -> Secret:
    """Raises DelegatorError (CONFIGURATION)."""
    content = read_private(path, "private key file")
    with as_configuration(path):
        return contents.private_key(content, f"private key file {path}")


def host_key(path: Path) -> str:
    """Raises DelegatorError (CONFIGURATION)."""
    content = read(path, "host key file")
    with as_configuration(path):
        return contents.host_key(content, f"host key file {path}")


def certificates(path: Path) -> str:
    """The certificates in a PEM file that others are verified by, and nothing else of it: see desk.contents. Raises
    DelegatorError (CONFIGURATION)."""
    content = read(path, "certificate file")
    with as_configuration(path):
        return contents.anchors(content, f"certificate file {path}")


@contextlib.contextmanager
def rows(path: Path) -> Iterator[IO[bytes]]:
    """A file of rows, or standard input for "-". Raises DelegatorError (CONFIGURATION)."""
    try:
        if str(path) != "-":
            require_given(path)  # nobody is waited for who would have to write into a named pipe
        opened = click.open_file(str(path), "rb")
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{path}: {error.strerror}", hint="check the path") from None
    with opened as found:
        yield found
