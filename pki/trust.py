"""Verdicts: is this certificate one of ours, still, and for this purpose.

Lives here: `Refusal` (the reasons a peer can be turned away, and the table from OpenSSL's codes to them),
`Verdict`, and `TrustStore`, an immutable set of anchors with an optional revocation list.
Invariant: a store is a value. A reload builds a new one; nothing in here ever changes, so a verdict depends
on nothing but the arguments. Without a usable revocation list the answer is no.
Must not live here: connections, contexts, callbacks (the delegator's TLS engine uses `refusal_of` and
`TrustStore.refuse` from its own callback), or minting. This is the only room that imports pyOpenSSL.
"""

from __future__ import annotations

import enum
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from OpenSSL import crypto

from pki import disk, pem
from pki.errors import Kind, PkiError
from pki.keys import strong, weakness
from pki.ledger import serial_text
from pki.revocation import RevocationList, named_in, read_lists
from pki.said import visible

Purpose = Literal["client", "server"]


class Refusal(enum.Enum):
    """Why a peer was turned away; the value is the word for logs, metrics and trails."""

    NO_CERTIFICATE = "no certificate"
    UNKNOWN_CA = "unknown authority"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    REVOKED = "revoked"
    WRONG_PURPOSE = "wrong purpose"
    BAD_SIGNATURE = "bad signature"
    CHAIN_TOO_LONG = "chain too long"
    WEAK_KEY = "weak key"
    CRL_STALE = "revocation list stale"
    OTHER = "other"


# X509_V_ERR_* of <openssl/x509_vfy.h>; the numbers are part of OpenSSL's ABI and do not change.
_CODES: dict[Refusal, tuple[int, ...]] = {
    Refusal.UNKNOWN_CA: (2, 18, 19, 20, 21, 24, 27, 29, 30, 31),
    Refusal.EXPIRED: (10,),
    Refusal.NOT_YET_VALID: (9,),
    Refusal.REVOKED: (23,),
    Refusal.WRONG_PURPOSE: (26, 28, 32, 37, 39, 79, 82),
    Refusal.BAD_SIGNATURE: (4, 6, 7, 76, 77, 78),
    Refusal.CHAIN_TOO_LONG: (22, 25, 38, 80),
    Refusal.WEAK_KEY: (66, 67, 68, 94),
    Refusal.CRL_STALE: (3, 5, 8, 11, 12, 33, 35, 36, 44, 54),
}
_REFUSALS: Final = {code: refusal for refusal, codes in _CODES.items() for code in codes}


def refusal_of(openssl_verify_code: int) -> Refusal:
    """The refusal for a failed OpenSSL verification; any code without a row is OTHER."""
    return _REFUSALS.get(openssl_verify_code, Refusal.OTHER)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one verification, about the certificate at `depth` (0 is the leaf).

    `refusal` None means trusted; `serial` is lower-case hexadecimal.
    """

    refusal: Refusal | None
    detail: str
    depth: int
    subject: str
    serial: str

    @property
    def trusted(self) -> bool:
        return self.refusal is None

    def __str__(self) -> str:
        word = "trusted" if self.refusal is None else f"refused, {self.refusal.value}"
        why = f": {self.detail}" if self.detail else ""
        return f"{word}: {self.subject} (serial {self.serial}, depth {self.depth}){why}"


@dataclass(frozen=True)
class TrustStore:
    """Anchors and, if given, the serials withdrawn by them; `withdrawn` are others that no list names yet.

    `issuers` are the certificates (DER) of those that may sign a peer themselves; None for whoever the anchors let.
    """

    anchors: tuple[x509.Certificate, ...]
    revocation: RevocationList | None = None
    withdrawn: frozenset[int] = frozenset()
    issuers: frozenset[bytes] | None = None

    @classmethod
    def load(
        cls, ca_file: Path | str, crl_file: Path | str | None = None, issuers_file: Path | str | None = None
    ) -> TrustStore:
        """Reads one or more PEM anchors, the authorities beneath them that may sign peers if such a file is
        given, and the list of each of those if a list file is given.

        During a change of authorities both files hold two. A signer without a list is CONFIGURATION: its
        devices could not be revoked. So is a missing, damaged or foreign file. A stale list loads; `refuse`
        then turns everyone away until a fresh one is loaded.
        """
        anchors = read_anchors(Path(ca_file))
        signers = anchors if issuers_file is None else read_anchors(Path(issuers_file))
        pinned = None if issuers_file is None else frozenset(map(_der, signers))
        if crl_file is None:
            return cls(anchors, issuers=pinned)
        _require_authorities(signers, issuers_file or ca_file)
        return cls(anchors, _read_revocation(Path(crl_file), signers), issuers=pinned)

    def tightened(self, crl_file: Path | str) -> TrustStore:
        """The same with the lists of a file, whatever became of anything else. Of one that is not in order as a whole
        it takes the serials on those lists that are: who was withdrawn is refused. It never raises."""
        try:
            return replace(self, revocation=_read_revocation(Path(crl_file), self._signers))
        except PkiError:
            return replace(self, withdrawn=self.withdrawn | named_in(Path(crl_file), self._signers))

    @property
    def _signers(self) -> tuple[x509.Certificate, ...]:
        if self.issuers is None:
            return self.anchors
        return tuple(map(x509.load_der_x509_certificate, sorted(self.issuers)))

    def beneath_anchors(self) -> TrustStore:
        """The same, where nobody but the anchors themselves may sign a peer."""
        return replace(self, issuers=frozenset(map(_der, self.anchors)))

    def refuse(self, serial: int, now: datetime) -> Refusal | None:
        """REVOKED, CRL_STALE or None for a serial whose chain was already verified; `now` is aware."""
        if serial in self.withdrawn:
            return Refusal.REVOKED
        if self.revocation is None:
            return None
        if serial in self.revocation.serials:
            return Refusal.REVOKED
        return None if self.revocation.covers(now) else Refusal.CRL_STALE

    def verify(
        self,
        certificate: x509.Certificate,
        chain: Sequence[x509.Certificate] = (),
        purpose: Purpose = "client",
        now: datetime | None = None,
    ) -> Verdict:
        """The full verdict on a certificate outside a connection, about 0.2 ms."""
        moment = now or datetime.now(UTC)
        return self._chain_fault(certificate, chain, moment) or self._leaf_verdict(certificate, purpose, moment)

    @functools.cached_property
    def _openssl_anchors(self) -> tuple[crypto.X509, ...]:
        return tuple(map(crypto.X509.from_cryptography, self.anchors))

    def _chain_fault(
        self, certificate: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime
    ) -> Verdict | None:
        store = crypto.X509Store()
        for anchor in self._openssl_anchors:
            store.add_cert(anchor)
        store.set_time(now.astimezone(UTC))
        untrusted = [crypto.X509.from_cryptography(link) for link in chain]
        context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate), untrusted)
        try:
            context.verify_certificate()
        except crypto.X509StoreContextError as error:
            code, depth, words = error.errors
            return _verdict(error.certificate.to_cryptography(), refusal_of(code), words, depth)
        return self._issuer_fault(context.get_verified_chain())

    def _issuer_fault(self, chain: Sequence[crypto.X509]) -> Verdict | None:
        issuer = chain[min(1, len(chain) - 1)].to_cryptography()
        if self.issuers is None or _der(issuer) in self.issuers:
            return None
        return _verdict(issuer, Refusal.UNKNOWN_CA, NOT_AN_ISSUER, 1)

    def _leaf_verdict(self, certificate: x509.Certificate, purpose: Purpose, now: datetime) -> Verdict:
        withdrawn = self.refuse(certificate.serial_number, now)
        if withdrawn:
            return _verdict(certificate, withdrawn, "")
        fault = leaf_fault(certificate, purpose)
        return _verdict(certificate, *(fault or (None, "")))


NOT_AN_ISSUER: Final = "signed by an authority that may not sign devices itself"


def leaf_fault(certificate: x509.Certificate, purpose: Purpose) -> tuple[Refusal, str] | None:
    """What a certificate says of itself that no peer's may say: a weak key, or not this purpose; None if nothing."""
    try:
        weak = weakness(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        weak = str(error)
    if weak:
        return Refusal.WEAK_KEY, weak
    wrong = _purpose_fault(certificate, _PURPOSES[purpose])
    return (Refusal.WRONG_PURPOSE, wrong) if wrong else None


_PURPOSES: dict[Purpose, ObjectIdentifier] = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
}


def _purpose_fault(certificate: x509.Certificate, purpose: ObjectIdentifier) -> str | None:
    """Stricter than OpenSSL: an absent extension means no, where RFC 5280 lets it mean anything."""
    try:
        extensions = certificate.extensions
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "an authority's certificate in a peer's place"
        if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return "the key may not sign"
        allowed = purpose in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return None if allowed else "the extended key usage does not allow it"
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError) as error:
        return str(error)


def _verdict(certificate: x509.Certificate, refusal: Refusal | None, detail: str, depth: int = 0) -> Verdict:
    return Verdict(refusal, detail, depth, shown(certificate), serial_text(certificate.serial_number))


def shown(certificate: x509.Certificate) -> str:
    """The subject for a log line: a peer may put line breaks into its name, or no readable name at all."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that are too long
            text = certificate.subject.rfc4514_string()
    except (ValueError, TypeError):  # the latter of a bit string where none may be
        return "(unreadable subject)"
    return visible(text)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it says that it may sign others (RFC 5280 section 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def anchors_fault(found: Sequence[x509.Certificate]) -> str | None:
    """Why nobody can be verified by these: none is an authority's, nor signed by itself. The usual slip is to give a
    server's own certificate where its authority's is wanted; every call then ends with "unknown authority"."""
    if any(is_authority(one) or one.issuer == one.subject for one in found):
        return None
    return (
        f"the certificate of {shown(found[0])} is no authority's (basicConstraints) and not signed by itself, so it "
        "vouches for nobody; wanted is that of who signed it"
    )


def read_anchors(
    path: Path, hint: str = "name the authority's ca.crt", *, twice: bool = False
) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM file that others are to be verified by; CONFIGURATION as below, and if none can."""
    found = read_certificates(path, hint, twice=twice)
    fault = anchors_fault(found)
    if fault:
        raise PkiError(Kind.CONFIGURATION, f"{path}: {fault}", hint)
    return found


def read_certificates(
    path: Path, hint: str = "name the authority's ca.crt", *, twice: bool = False
) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM file; CONFIGURATION if it is missing, or if any of what stands there is not whole."""
    try:
        return pem.read(disk.read_regular(path), pem.CERTIFICATE, twice=twice)
    except OSError as error:
        raise PkiError(Kind.CONFIGURATION, f"{path}: {error.strerror}", hint) from error
    except pem.PemFault as error:
        raise PkiError(Kind.CONFIGURATION, f"{path}: {error}", f"put the whole file there again; {hint}") from error


def _require_authorities(signers: Sequence[x509.Certificate], path: Path | str) -> None:
    """CONFIGURATION for one among others that signs nobody: no list is of it, and that is not the list's fault."""
    for one in signers:
        if not is_authority(one) and one.issuer != one.subject:
            detail = f"{path}: the certificate of {shown(one)} is no authority's (basicConstraints)"
            raise PkiError(Kind.CONFIGURATION, detail, "take it out of that file: authorities stand there alone")


def _read_revocation(path: Path, signers: Sequence[x509.Certificate]) -> RevocationList:
    """One checked list for all signers: the union of serials, the intersection of the times they cover."""
    found = read_lists(path)
    checked = [
        RevocationList.from_list(mine, signer, path) for signer in signers for mine in _lists_of(found, signer, path)
    ]
    return RevocationList(
        frozenset().union(*(each.serials for each in checked)),
        checked[0].issuer,
        max(each.this_update for each in checked),
        min(each.next_update for each in checked),
    )


def _lists_of(
    found: Sequence[x509.CertificateRevocationList], anchor: x509.Certificate, path: Path
) -> list[x509.CertificateRevocationList]:
    mine = [each for each in found if each.issuer == anchor.subject]
    if not mine:
        detail = f"{path} holds no list of {anchor.subject.rfc4514_string()}"
        raise PkiError(Kind.CONFIGURATION, detail, "add the list of that authority to the file")
    # A re-keyed authority keeps its name: of two lists with one issuer, take the one that this key signed.
    key = strong(anchor.public_key())
    return [each for each in mine if each.is_signature_valid(key)] or mine
