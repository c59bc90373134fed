"""What commands take from files: certificates, passwords, keys. Of each file nothing but that is kept.

The invariants: a secret comes from a file that others cannot read, from a prompt or from standard input; no error
shows what a file holds.
Must not live here: which option names which file (reaching).
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import click

from delegator.errors import DelegatorError, Kind
from delegator.model import Secret
from delegator.private import read_secret, secret_of
from pki.disk import read_given
from pki.text import SECRET_BYTES, NotText, decoded

_SHORTEST_SECRET = 16
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
    """The one line of a private file, long enough that nobody guesses it (RFC 2104 section 3 asks for as many bits
    as the hash has; 16 random characters are what people copy). Raises DelegatorError (CONFIGURATION)."""
    secret = _secret(path, "webhook secret file")
    if len(secret.reveal()) < _SHORTEST_SECRET:
        raise DelegatorError(Kind.CONFIGURATION, f"the secret in {path} is shorter than {_SHORTEST_SECRET} characters",
                             hint=f"make one with: openssl rand -hex 32 > {path}")
    return secret


def asked_password(wanted: bool) -> Secret:
    """Typed twice on the terminal."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password: use --password-file")
    typed = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return secret_of(typed.encode(errors="surrogateescape"), "what was typed")


def private_key(path: Path) -> Secret:
    """Raises DelegatorError (CONFIGURATION)."""
    from delegator.callbacks.ssh_keys import private_key_in

    content = read_private(path, "private key file")
    try:
        return private_key_in(content)
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"private key file {path}: {error}",
                             hint="make one for this delegate: ssh-keygen -t ed25519 -N '' -f FILE") from None


def host_key(path: Path) -> str:
    """Raises DelegatorError (CONFIGURATION)."""
    from delegator.callbacks.ssh_keys import host_key_in

    try:
        return str(host_key_in(decoded(read(path, "host key file"))))
    except NotText as error:
        raise DelegatorError(Kind.CONFIGURATION, error.of(f"host key file {path}"), hint=error.hint) from None
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"host key file {path}: {error}",
                             hint="delegator delegates scan-host-key HOST --output FILE") from None


def certificates(path: Path) -> str:
    """The certificates in a PEM file that others are verified by, and nothing else of it. A file with a private key is
    refused: what is kept here goes out to devices. So is one that vouches for nobody, such as a server's own
    certificate. Raises DelegatorError (CONFIGURATION)."""
    content = read(path, "certificate file")
    if b"PRIVATE KEY-----" in content:
        raise DelegatorError(Kind.CONFIGURATION, f"certificate file {path} holds a private key",
                             hint="give a file with certificates only; devices are sent what is in it")
    from cryptography.hazmat.primitives.serialization import Encoding

    from pki import pem
    from pki.trust import anchors_fault

    try:
        found = pem.read(content, pem.CERTIFICATE)
    except pem.PemFault as error:
        raise DelegatorError(Kind.CONFIGURATION, f"certificate file {path}: {error}",
                             hint=f"look at it with: openssl storeutl -noout -text -certs {path}") from None
    fault = anchors_fault(found)
    if fault:
        raise DelegatorError(Kind.CONFIGURATION, f"certificate file {path}: {fault}",
                             hint="ask for the certificate of the authority, often called ca.crt or root.pem")
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)
