"""Who may: a delegator by a name in its certificate, a device by its credential. Pure.

The invariants: a certificate of the right authority is not enough, since every device has one; a user name that
nobody has costs and looks the same as a wrong password.
Must not live here: answers (server), the ledger, counting misses (attempts), verification of certificates (wire.tls).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Hashable
from dataclasses import dataclass

from cryptography import x509

from delegator.errors import DelegatorError, Kind
from delegator.model import Secret
from delegator.model.places import normal_name
from delegator.wire.certificate import dns_names

WINDOW = 300.0
"""Seconds in which misses are counted, from the first one on."""
PER_USER = 5
"""Misses of one user name. A device is handed its password by machine, so it does not mistype."""
PER_ADDRESS = 30
"""Misses from one address: many devices may stand behind one."""
_NAMES = 5
"""Names of a certificate that a refusal shows."""
LONGEST = 64
"""Characters of a user name that count here; ours have 12."""
REMEMBERED = 4096
"""Names and addresses with misses; the oldest is forgotten first, so a flood costs memory once."""


def check_delegator(certificate: bytes | None, allowed: frozenset[str]) -> str:
    """The name of the delegator that calls. Raises DelegatorError (IDENTITY) naming whose certificate it was."""
    if certificate is None:
        raise DelegatorError(Kind.IDENTITY, "no certificate was shown")
    try:
        shown = dns_names(certificate)
        found = allowed.intersection(map(normal_name, shown))
    except ValueError as error:
        raise DelegatorError(Kind.IDENTITY, f"a certificate that cannot be read: {error}") from None
    if not found:
        carried = ascii(", ".join(shown[:_NAMES]))[1:-1][:200] or "no name of a host"
        raise DelegatorError(Kind.IDENTITY, f"the certificate of {subject(certificate)} carries no delegator's name: "
                             f"shown is {carried}, expected {' or '.join(sorted(allowed))}",
                             hint="name it with --delegator, if that is your maker's")
    return min(found)


def subject(certificate: bytes) -> str:
    """The subject for a log line, with anything unprintable escaped."""
    try:
        text = x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    except ValueError:
        return "(unreadable subject)"
    return ascii(text)[1:-1][:200]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a device shows: HTTP Basic authentication (RFC 7617)."""

    user_name: str
    password: Secret


def read_basic(header: str) -> Shown | None:
    """The pair in an Authorization header, UTF-8; None for any other scheme or a broken one."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    user_name, colon, password = pair.partition(":")
    return Shown(user_name, Secret(password)) if colon else None


def same(one: Secret, other: Secret) -> bool:
    """Compare in constant time (the length of our passwords is public)."""
    return hmac.compare_digest(one.reveal().encode(), other.reveal().encode())


def allowed(user_name: str, address: str) -> dict[Hashable, int]:
    """The names that a guess is under, with how many misses each may have."""
    return {("user", user_name[:LONGEST]): PER_USER, ("address", address): PER_ADDRESS}
