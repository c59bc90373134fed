"""How a shared certificate becomes an own one: a key made here, a request, and a certificate that fits both.

The invariant: the key is on the disk before anything is asked with it, it never leaves its file, and a certificate is
kept only if it is for this key and this service tag. Whatever is cut off is done again and leads to the same.
Must not live here: when a certificate is shown (flow), asking for it (asking).
"""

from __future__ import annotations

import base64
import logging
import os
import ssl
import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from delegator.device import reasons
from delegator.device.certificate import common_names
from delegator.device.contents import contents
from delegator.device.reasons import Failure, Misconfigured, system_words
from delegator.device.settings import Own
from delegator.device.state import HANDSHAKE_CERTIFICATE, HANDSHAKE_KEY, Folder

log = logging.getLogger("delegator.device")

OPENSSL = ("openssl",)
"""The default maker of requests: the program of every OpenSSL since 1.0.2, and of LibreSSL."""
_CANDIDATE = "handshake.candidate.pem"
_TIMEOUT = 60.0
"""Seconds for a key and a request: RSA-2048 takes a slow service processor 20."""
_LARGEST = 64 * 1024
"""Bytes of a key or a request."""
_CONFIG = "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = {}\n"
"""Given on standard input, because not every device has the file that openssl looks for."""


def is_usable(own: Own, service_tag: str) -> bool:
    """Whether there is a certificate for this tag that fits the key."""
    path = own.folder / HANDSHAKE_CERTIFICATE
    try:
        names = common_names(contents(path).decode("ascii"))
        return names == [service_tag] and _fits(path, own.key)
    except (OSError, ValueError):
        return False


def _fits(certificate: Path, key: Path) -> bool:
    try:
        contents(key)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    return True


def drop_foreign(own: Own, service_tag: str) -> None:
    """A copied disk: a certificate that names another device goes, and the key that two devices would share."""
    folder = Folder(own.folder)
    pem = folder.read(HANDSHAKE_CERTIFICATE)
    names = [] if pem is None else common_names(pem.decode("ascii", "replace"))
    if names and names != [service_tag]:
        log.warning("the certificate in %s is for %s, not for %s: it is dropped", own.folder, ascii(names[0]),
                    service_tag)
        folder.remove(HANDSHAKE_CERTIFICATE)
        if not own.request:
            folder.remove(HANDSHAKE_KEY)


def request(own: Own, service_tag: str) -> str:
    """A PKCS#10 request as xs:base64Binary: the one that was given, or one made now. Raises Misconfigured for a
    file that is none, Failure where a program did not make one."""
    if own.request:
        return _encoded(own.request, lambda: contents(own.request), Misconfigured)
    made = _by_openssl(own, service_tag) if own.command == OPENSSL else _by_command(own, service_tag)
    return _encoded(own.command[0], lambda: made, partial(Failure, reasons.OWN_TROUBLE))


def _encoded(source: str, read: Callable[[], bytes], error_of: Callable[[str], Exception]) -> str:
    """The base64 between the lines of PEM."""
    try:
        lines = [line.strip() for line in read().removeprefix(b"\xef\xbb\xbf").decode("ascii").splitlines()]
        text = "".join(line for line in lines if not line.startswith("-----"))
        if not base64.b64decode(text, validate=True):
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        raise error_of(f"the certificate request of {source} is not PEM: {system_words(error)}") from None
    return text


def _by_openssl(own: Own, service_tag: str) -> bytes:
    """With no pass phrase given, openssl would ask for that of an encrypted key, on whatever terminal there is."""
    if not own.key.exists():
        _make_key(own)
    subject = "".join(one if one.isascii() and one.isalnum() else f"\\{one}" for one in service_tag)
    words = (*OPENSSL, "req", "-utf8", "-new", "-sha256", "-key", str(own.key), "-passin", "pass:",
             "-config", "/dev/stdin")
    given = _CONFIG.format(subject).encode()
    try:
        contents(own.key)
        return _run(words, given)
    except (OSError, ValueError, Failure) as error:
        if _is_readable(own.key):
            raise
        log.warning("the key %s is damaged, and another is made: %s", own.key, error)
    _make_key(own)
    return _run(words, given)


def _make_key(own: Own) -> None:
    log.info("making this device's own key")
    key = _run((*OPENSSL, "ecparam", "-name", "prime256v1", "-genkey", "-noout"), b"")
    Folder(own.folder).write(HANDSHAKE_KEY, key)


def _is_readable(key: Path) -> bool:
    try:
        contents(key)
        _run((*OPENSSL, "pkey", "-noout", "-in", str(key), "-passin", "pass:"), b"")
    except (OSError, ValueError, Failure):
        return False
    return True


def _by_command(own: Own, service_tag: str) -> bytes:
    """The maker's own command, for keys that come from elsewhere: it leaves the key in its file, and says the request.
    """
    Folder(own.folder)
    made = _run(own.command, b"", {"DELEGATOR_KEY_FILE": str(own.key), "DELEGATOR_SERVICE_TAG": service_tag})
    if not own.key.is_file() or stat.S_IMODE(own.key.stat().st_mode) & 0o077:
        raise Failure(reasons.OWN_TROUBLE,
                      f"{own.command[0]} left no key in {own.key} that is for its owner alone (mode 0600)")
    return made


def _run(command: tuple[str, ...], given: bytes, more: dict[str, str] | None = None) -> bytes:
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=_TIMEOUT,
                              env={**os.environ, **(more or {})})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_made(command, system_words(error)) from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise _not_made(command, said or f"it ended with {done.returncode}")
    if len(done.stdout) > _LARGEST:
        raise _not_made(command, f"it says more than {_LARGEST} bytes")
    return done.stdout


def _not_made(command: tuple[str, ...], why: str) -> Failure:
    """It may pass: at a first boot there may be too little entropy, and a program may be put in place a moment later.
    """
    return Failure(reasons.OWN_TROUBLE, f"{command[0]} cannot make a certificate request: {why}")


def keep(own: Own, service_tag: str, pem: str) -> bool:
    """Keep a certificate that came with an answer; False where it is not for this key and tag."""
    folder = Folder(own.folder)
    candidate = folder.write(_CANDIDATE, pem.encode())
    try:
        if common_names(pem) != [service_tag] or not _fits(candidate, own.key):
            log.warning("the certificate that came is not for this device's key and tag: it is not kept")
            return False
        folder.write(HANDSHAKE_CERTIFICATE, pem.encode())
        return True
    finally:
        folder.remove(_CANDIDATE)
