"""Revocation: why a certificate was withdrawn, the list that says so, and reading that list back.

Lives here: `Reason`, `build_list` (RFC 5280 section 5), and `RevocationList`, the checked form a server keeps.
Invariant: a `RevocationList` exists only if its signature was verified against its issuer; a list that has
ended, or has not begun, answers for nobody (`covers`), so callers fail closed.
Must not live here: files of the folder (folder.py), verdicts on certificates (trust.py).

The signature is verified once, when the list is loaded, and look-ups go to a set. OpenSSL's own check walks the
list on each handshake: with 100 000 entries that is four times the CPU (measured).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pki import disk, pem
from pki.authority import Authority
from pki.errors import Kind, PkiError
from pki.ledger import Entry
from pki.profiles import BACKDATE

DEFAULT_DAYS: Final = 30
"""A list that ends stops every device, so it must outlast a long holiday and still end."""


class Reason(enum.Enum):
    """Those of RFC 5280 section 5.3.1 that fit a leaf and are final. No hold: a tag is out, or it is not."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


def build_list(
    authority: Authority,
    revoked: Iterable[Entry],
    *,
    previous_number: int = 0,
    days: int = DEFAULT_DAYS,
    now: datetime | None = None,
) -> x509.CertificateRevocationList:
    """A complete list of all revoked entries, valid for `days` from `now`.

    The number (section 5.2.3) must grow even if the previous list was lost, so it follows the clock.
    thisUpdate is back-dated like notBefore: a server whose clock lags must not take the list for a future one.
    """
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    number = max(previous_number + 1, int(moment.timestamp()))
    builder = (
        x509.CertificateRevocationListBuilder()
        .last_update(moment - BACKDATE)
        .next_update(moment + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(_revoked(entry))
    return authority.sign_list(builder)


def _revoked(entry: Entry) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(entry.serial, 16))
        .revocation_date(datetime.fromisoformat(entry.time))
    )
    reason = x509.ReasonFlags(Reason(entry.reason).value)
    if reason is not x509.ReasonFlags.unspecified:  # section 5.3.1: absent rather than unspecified
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def number_of(revocation_list: x509.CertificateRevocationList) -> int:
    """The list's own number, 0 if it has none."""
    try:
        return revocation_list.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


@dataclass(frozen=True, slots=True)
class RevocationList:
    """Revoked serial numbers, known to come from `issuer`; times are aware UTC."""

    serials: frozenset[int]
    issuer: x509.Name = field(compare=False)
    this_update: datetime
    next_update: datetime

    @classmethod
    def load(cls, path: Path | str, issuer: x509.Certificate) -> RevocationList:
        """Reads and verifies one list, PEM or DER; CONFIGURATION if it is missing, damaged or not the issuer's."""
        (found,) = read_lists(Path(path), limit=1)
        return cls.from_list(found, issuer, Path(path))

    @classmethod
    def from_list(cls, found: x509.CertificateRevocationList, issuer: x509.Certificate, path: Path) -> RevocationList:
        """The checked form of a parsed list; the path is only for the message."""
        fault = _fault(found, issuer)
        if fault or found.next_update_utc is None:
            raise PkiError(Kind.CONFIGURATION, f"{path}: {fault}", "fetch the current list from the authority")
        serials = frozenset(entry.serial_number for entry in found)
        return cls(serials, found.issuer, found.last_update_utc, found.next_update_utc)

    def covers(self, now: datetime) -> bool:
        """Whether the list may be relied on at `now`."""
        return self.this_update <= now < self.next_update


def _fault(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> str | None:
    key = issuer.public_key()
    if found.issuer != issuer.subject or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return "the list is of another issuer"
    if not found.is_signature_valid(key):
        return "the list's signature is not its issuer's"
    if found.next_update_utc is None:
        return "the list has no end (RFC 5280 section 5.1.2.5)"
    # A delta or a partitioned list is marked critical and names only some serials: never take it for a whole.
    odd = [extension.oid.dotted_string for extension in found.extensions if extension.critical]
    return f"the list has a critical extension {odd[0]}" if odd else None


LIST_LIMIT: Final = 256 << 20
"""Bytes of a file of lists: five million serials."""
_HINT = "write it again: python -m pki crl"


def named_in(path: Path, signers: Sequence[x509.Certificate]) -> frozenset[int]:
    """The serials of every list in a file that is whole and signed by one of these. It only ever adds: what is damaged
    is passed over here, and told by `read_lists`."""
    try:
        content = disk.read_regular(path, LIST_LIMIT)
    except OSError:
        return frozenset()
    found = pem.whole(content, pem.REVOCATION_LIST)
    return frozenset(entry.serial_number for each in found for signer in signers if _fault(each, signer) is None
                     for entry in each)  # fmt: skip


def read_lists(path: Path, limit: int = 16) -> Sequence[x509.CertificateRevocationList]:
    """One to `limit` unverified lists from a file; CONFIGURATION if it is missing or damaged."""
    try:
        content = disk.read_regular(path, LIST_LIMIT)
        der = content[:1] == b"\x30"
        lists = (x509.load_der_x509_crl(content),) if der else pem.read(content, pem.REVOCATION_LIST)
    except OSError as error:
        raise PkiError(Kind.CONFIGURATION, f"{path}: {error.strerror}", _HINT) from error
    except pem.PemFault as error:
        raise PkiError(Kind.CONFIGURATION, f"{path}: {error}", _HINT) from error
    except ValueError as error:
        what = pem.der_nature(content) or "damaged DER"
        raise PkiError(Kind.CONFIGURATION, f"{path}: it is {what}, where a revocation list is wanted", _HINT) from error
    if len(lists) > limit:
        raise PkiError(Kind.CONFIGURATION, f"{path} holds {len(lists)} lists, not up to {limit}", "split the file")
    return lists
