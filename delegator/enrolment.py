"""A device that came with the shared certificate gets one of its own: DESIGN 6.2.

The authority that signs online is the factory's, or better one beside it (docs/enrolment.md); it signs the same
profile by the same draft, lint and one-use token as `python -m pki`. Its ledger is the store's table `enrolled`.
The invariants: the name in a certificate is the claimed tag and nothing that the request says; a certificate leaves
only once it is on record; the device's key never comes here.
Must not live here: who may have one (shared, handshake), SQL (store.enrolled).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.model import Claim, IdentityRule
from delegator.model.enrolled import Enrolled
from delegator.policy import Applied
from delegator.private import is_private
from delegator.store import Store
from pki import DEVICE, Authority, PkiError
from pki.keys import PublicKey, from_pem, public_key_of_request
from pki.ledger import serial_text

log = logging.getLogger(__name__)
_HINT = "make one with: python -m pki init --dir var/enrolment-pki; see docs/enrolment.md"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key that a device has proven to hold and wants a certificate for; `fingerprint` as certificates have it."""

    key: PublicKey
    fingerprint: str


class Enroller:
    """Signs, and keeps what it signed on record. `now` gives aware UTC. Make it with `load_enroller`."""

    def __init__(self, store: Store, authority: Authority, days: int, now: Callable[[], datetime]) -> None:
        self._store = store
        self._authority = authority
        self._days = days
        self._now = now

    def wanted(self, request: bytes | None) -> Wanted | None:
        """The key of a PKCS#10 request; looked at before anything is looked up. Raises DelegatorError (MALFORMED) for
        one that is unreadable, not signed by its own key, or weak: it is no hint, who asks for one waits for it. An
        empty one asks for none."""
        if not request:
            return None
        try:
            key = public_key_of_request(request)
        except PkiError as error:
            raise DelegatorError(Kind.MALFORMED, f"CertificateRequest: {error.detail}", hint=error.hint) from None
        return Wanted(key, fingerprint_of(key))

    async def certificate(self, wanted: Wanted | None, claim: Claim, standing: Enrolled | None,
                          policies: Sequence[Applied]) -> str | None:
        """The certificate (PEM) that goes with the answer to a claim: the one on record, or a new one once it is.
        None where none is wanted, or a policy would not let the device in with it. Raises DelegatorError
        (NOT_ENTITLED)."""
        if any(one.policy.identity is IdentityRule.SHARED for one in policies):
            return None
        if standing is None or standing.claim_id != claim.claim_id:
            if wanted is None:
                return None
            standing = await self._store.enrolments.enrol(self._certified(wanted, claim))
            log.info("enrolled %s: certificate %s until %s, claim %s", standing.service_tag, standing.serial,
                     f"{standing.not_after:%Y-%m-%d}", standing.claim_id)
        return standing.certificate

    def _certified(self, wanted: Wanted, claim: Claim) -> Enrolled:
        """Draft, lint, sign: 0.6 ms with an ECDSA key, 2 ms with RSA-2048 (measured), so on the loop. What comes of
        it is nothing until it is on record."""
        now = self._now()
        try:
            token = self._authority.prepare(DEVICE, claim.service_tag, wanted.key, days=self._days, now=now)
            made = self._authority.issue(token)
        except PkiError as error:
            raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {error.detail}", hint=error.hint) from None
        return Enrolled(serial_text(made.serial_number), claim.service_tag, wanted.fingerprint, claim.claim_id,
                        claim.binding, made.public_bytes(Encoding.PEM).decode(), now, made.not_valid_after_utc)


def fingerprint_of(key: PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, as wire.certificate finds it in a certificate for this key."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def load_authority(settings: config.Enrolment, anchors: Sequence[x509.Certificate]) -> Authority | None:
    """The authority that settings name; None while enrolment is off. Raises DelegatorError (CONFIGURATION) when it is
    not in order, or not among the anchors that devices' certificates are checked against."""
    if not settings.enabled:
        return None
    certificate, key = Path(settings.certificate), Path(settings.key)
    try:
        if not is_private(key):
            raise DelegatorError(Kind.CONFIGURATION, f"enrolment key {key} can be read by others",
                                 hint=f"chmod 600 {key}")
        authority = Authority(x509.load_pem_x509_certificate(certificate.read_bytes()),
                              from_pem(key.read_bytes(), _passphrase(settings.passphrase_file)))
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {error.filename}: {error.strerror}", hint=_HINT) from None
    except ValueError:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {certificate} holds no certificate", hint=_HINT) from None
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {error.detail}", hint=_unlocking(error)) from None
    if authority.certificate not in anchors:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {certificate} is not among the anchors of [server] ca, "
                             "so what it signs would be refused", hint="add it there, and its list to [server] crl")
    return authority


def _passphrase(name: str) -> bytes | None:
    """The first line of a private file."""
    if not name:
        return None
    path = Path(name)
    if not is_private(path):
        raise DelegatorError(Kind.CONFIGURATION, f"passphrase file {path} can be read by others",
                             hint=f"chmod 600 {path}")
    return path.read_bytes().partition(b"\n")[0].rstrip(b"\r")


def _unlocking(error: PkiError) -> str:
    return "name the right file in [enrolment] passphrase_file" if "passphrase" in error.detail else error.hint
