"""A device that came with the shared certificate gets one of its own: R-enrolled.

The authority that signs online is the factory's, or better one beside it (docs/enrolment.md); it signs the same
profile by the same draft, lint and one-use token as `python -m pki`. Its ledger is the store's table `enrolled`.
The invariants: the name in a certificate is the claimed tag and nothing that the request says; a certificate leaves
only once it is on record; the device's key never comes here.
Must not live here: who may have one (shared_door, handshake), SQL (store.enrolled).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.model import Claim, IdentityRule
from delegator.model.enrolled import Enrolled
from delegator.policy import Applied
from delegator.secrecy import is_private, read_secret
from delegator.store import Store
from pki import DEVICE, Authority, PkiError, pem
from pki.disk import read_regular
from pki.keys import Locked, PrivateKey, from_pem
from pki.ledger import serial_text
from pki.request import Requested, requested

log = logging.getLogger(__name__)
_UNLOCK = "name the right file in [enrolment] passphrase_file"
_HINT = "make one with: python -m pki init --dir var/enrolment-pki; see docs/enrolment.md"


class Wanted(msgspec.Struct, frozen=True):
    """A key that a device has proven to hold and wants a certificate for; `fingerprint` as certificates have it."""

    key: Requested
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
            key = requested(request)
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


def fingerprint_of(key: Requested) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, as wire.certificate finds it in a certificate for this key."""
    return hashlib.sha256(key.spki).hexdigest()


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
        signer = pem.one(read_regular(certificate), pem.CERTIFICATE)
        authority = Authority(signer, _unlocked(key, settings.passphrase_file))
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {error.filename}: {error.strerror}", hint=_HINT) from None
    except pem.PemFault as error:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {certificate}: {error}", hint=_HINT) from None
    except PkiError as error:  # not this authority's key: said of a folder's files, whose names may be others here
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {key} does not belong to {certificate}",
                             hint=error.hint) from None
    if authority.certificate not in anchors:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {certificate} is not among the anchors of [server] ca, "
                             "so what it signs would be refused", hint="add it there, and its list to [server] crl")
    return authority


def _unlocked(key: Path, passphrase_file: str) -> PrivateKey:
    """Raises DelegatorError (CONFIGURATION), OSError."""
    try:
        return from_pem(read_regular(key), _passphrase(passphrase_file))
    except Locked:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {key} is encrypted and no passphrase was given",
                             hint=_UNLOCK) from None
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {key}: {error.detail}",
                             hint=_UNLOCK if "passphrase" in error.detail else error.hint) from None


def _passphrase(name: str) -> bytes | None:
    """By the rule by which the authority's own commands read it (pki.console), so that one file opens one key."""
    if not name:
        return None
    return read_secret(Path(name), "[enrolment] passphrase_file", "name a file that holds it").reveal().encode()
