"""Who signed a certificate that TLS refused before it looked: an authority of ours, also one of an hour ago.

Where an anchor was exchanged for a wrong one, or the machine's clock is before its first day, devices are refused by
something that says nothing of themselves. Their signatures tell that they are ours.
The invariant: a name is given only for a certificate whose signature was verified.
Must not live here: when this is asked, and how often (served, view).
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

REMEMBERED = 3600.0
"""Seconds that an authority counts which was taken off the anchors: one that was compromised does not for long."""
MOST = 32
"""Authorities at most, the newest."""


class Signers:
    """Authorities, and until when (monotonic seconds) each counts; None for those that count now."""

    def __init__(self) -> None:
        self._known: dict[x509.Certificate, float | None] = {}

    def add(self, now_in_force: Iterable[x509.Certificate], at: float) -> None:
        """These sign from now on; the ones before count for a while."""
        in_force = dict.fromkeys(now_in_force)
        before = {one: at + REMEMBERED if until is None else until for one, until in self._known.items()
                  if one not in in_force and (until is None or until > at)}
        self._known = dict([*before.items(), *in_force.items()][-MOST:])

    def name_in(self, shown: bytes, at: float, former: bool = False) -> str | None:
        """The one common name in a certificate that one of them signed, else None; with `former`, one that was taken
        off: who shows a device's certificate without what stands between it and an anchor proves nothing."""
        try:
            certificate = x509.load_der_x509_certificate(shown)
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            signed = any(_signed(certificate, one) for one, until in self._known.items()
                         if one.subject == certificate.issuer and (until is not None and until > at) is former)
        except (ValueError, TypeError, x509.InvalidVersion):
            return None
        return str(names[0].value) if signed and len(names) == 1 else None


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
