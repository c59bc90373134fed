"""The examination of a whole folder: every file, every pair, the list and the ledger against each other.

Lives here: `examine`, one function per thing examined, and the remarks they yield.
Invariant: examining changes nothing and stops at nothing; a file that cannot be read is a problem among others.
Must not live here: mending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from pki import disk, keys, pem
from pki.errors import PkiError
from pki.folder import Folder
from pki.ledger import Entry, Event, TornLine, serial_text, stamp
from pki.lint import Draft, findings
from pki.profiles import DEVICE, FACTORY_CA, LEAVES, Profile
from pki.revocation import RevocationList
from pki.trust import Refusal, TrustStore

SOON_DAYS: Final = 30
LIST_SOON: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a file; a `note` is for information, everything else is a problem to act on."""

    path: Path
    detail: str
    note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.note else 'problem'}: {self.path}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger in memory: fingerprint and name by serial, and what was withdrawn."""

    issued: dict[str, Entry]
    revoked: dict[str, Entry]
    remarks: tuple[Remark, ...]


def examine(
    folder: Folder, passphrase: bytes | None = None, *, soon_days: int = SOON_DAYS, now: datetime | None = None
) -> Iterator[Remark]:
    """All remarks, a file at a time. Certificates ending within `soon_days` are problems."""
    moment = now or datetime.now(UTC)
    soon = moment + timedelta(days=soon_days)
    yield from _permissions(folder.path)
    yield from _authority_key(folder, passphrase)
    yield from _authority_time(folder, soon, moment)
    books = _books(folder)
    yield from books.remarks
    yield from _list(folder, books, moment)
    store = TrustStore((folder.ca_certificate,))
    seen: set[str] = set()
    for profile in LEAVES:
        for path in sorted(folder.directory(profile).glob("*.crt")):
            yield from _leaf(folder, profile, path, store, books, seen, soon, moment)
        yield from _widows(folder.directory(profile))
    yield from _unseen(folder, books, seen)


def _permissions(root: Path) -> Iterator[Remark]:
    for path in (root, *sorted(root.rglob("*"))):
        fault = disk.exposure(path)
        if fault:
            yield Remark(path, fault)
        if path.name.startswith(".staging-"):
            yield Remark(path, "left by an interrupted run, or in use; the next run removes it", note=True)


def _authority_key(folder: Folder, passphrase: bytes | None) -> Iterator[Remark]:
    path = folder.key_path
    try:
        found = keys.from_pem(disk.read_regular(path), passphrase)
        if found.public_key() != folder.ca_certificate.public_key():
            yield Remark(path, "does not belong to ca.crt")
    except keys.Locked:
        yield Remark(path, "encrypted, not compared with ca.crt (give the passphrase)", note=True)
    except FileNotFoundError:
        yield Remark(path, "not here; nothing can be signed until it is brought back", note=True)
    except OSError as error:
        yield Remark(path, error.strerror or str(error))
    except PkiError as error:
        yield Remark(path, str(error))


def _authority_time(folder: Folder, soon: datetime, now: datetime) -> Iterator[Remark]:
    certificate = folder.ca_certificate
    yield from _findings(folder.ca_path, Draft(certificate, FACTORY_CA, certificate))
    end = certificate.not_valid_after_utc
    if end <= soon:
        yield Remark(folder.ca_path, f"ends at {stamp(end)}")
    elif end < now + DEVICE.lifetime:
        detail = f"ends at {stamp(end)}, before a device minted today would; plan its successor"
        yield Remark(folder.ca_path, detail, note=True)


def _books(folder: Folder) -> Books:
    issued: dict[str, Entry] = {}
    revoked: dict[str, Entry] = {}
    remarks: list[Remark] = []
    path = folder.ledger.path
    try:
        for line in folder.ledger.lines():
            if isinstance(line, TornLine):
                remarks.append(_torn(path, line))
            elif line.event is Event.REVOKED:
                revoked[line.serial] = line
                if line.serial not in issued:
                    remarks.append(Remark(path, f"revokes {line.serial}, which it does not list as issued"))
            elif issued.setdefault(line.serial, line) is not line:
                remarks.append(Remark(path, f"lists serial {line.serial} twice"))
    except PkiError as error:
        remarks.append(Remark(path, str(error)))
    return Books(issued, revoked, tuple(remarks))


def _torn(path: Path, line: TornLine) -> Remark:
    if line.torn:
        return Remark(path, f"line {line.line} was cut off by a crash; nothing had been issued for it", note=True)
    return Remark(path, f"line {line.line} cannot be read")


def _list(folder: Folder, books: Books, now: datetime) -> Iterator[Remark]:
    path = folder.crl_path
    try:
        found = RevocationList.load(path, folder.ca_certificate)
    except PkiError as error:
        yield Remark(path, str(error))
        return
    if not found.covers(now + LIST_SOON):
        yield Remark(path, f"ends at {stamp(found.next_update)}; refresh it with: python -m pki crl")
    listed = {serial_text(serial) for serial in found.serials}
    for serial in sorted(books.revoked.keys() - listed):
        yield Remark(path, f"does not name {serial}, which the ledger revokes; run: python -m pki crl")
    for serial in sorted(listed - books.revoked.keys()):
        yield Remark(path, f"names {serial}, which the ledger does not revoke")


def _leaf(
    folder: Folder,
    profile: Profile,
    path: Path,
    store: TrustStore,
    books: Books,
    seen: set[str],
    soon: datetime,
    now: datetime,
) -> Iterator[Remark]:
    try:
        chain = pem.read(disk.read_regular(path), pem.CERTIFICATE)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        yield Remark(path, f"is not a readable certificate: {why}")
        return
    leaf = chain[0]
    seen.add(serial_text(leaf.serial_number))
    yield from _shape(folder, profile, path, chain)
    yield from _pair(path, leaf)
    yield from _record(path, leaf, books)
    yield from _time(path, leaf, store, soon, now)


def _shape(folder: Folder, profile: Profile, path: Path, chain: Sequence[x509.Certificate]) -> Iterator[Remark]:
    yield from _findings(path, Draft(chain[0], profile, folder.ca_certificate))
    if list(chain[1:]) != ([folder.ca_certificate] if profile.whole_chain else []):
        yield Remark(path, "does not hold the chain it should")
    names = chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names or str(names[0].value).replace(":", "-") != path.stem:
        yield Remark(path, "is for another name than its file name")


def _findings(path: Path, draft: Draft) -> Iterator[Remark]:
    return (Remark(path, str(finding)) for finding in findings(draft))


def _pair(path: Path, leaf: x509.Certificate) -> Iterator[Remark]:
    key_path = path.with_suffix(".key")
    if not key_path.exists():  # made from a request, or the key was moved to where it is used
        return
    try:
        if keys.from_pem(disk.read_regular(key_path)).public_key() != leaf.public_key():
            yield Remark(key_path, "does not belong to the certificate beside it")
    except (OSError, PkiError) as error:
        yield Remark(key_path, str(error))


def _record(path: Path, leaf: x509.Certificate, books: Books) -> Iterator[Remark]:
    serial = serial_text(leaf.serial_number)
    entry = books.issued.get(serial)
    if entry is None:
        yield Remark(path, f"serial {serial} is not in the ledger")
    elif entry.fingerprint != leaf.fingerprint(hashes.SHA256()).hex():
        yield Remark(path, f"is not the certificate that the ledger lists under {serial}")
    if serial in books.revoked:
        yield Remark(path, f"revoked at {books.revoked[serial].time}", note=True)


def _time(path: Path, leaf: x509.Certificate, store: TrustStore, soon: datetime, now: datetime) -> Iterator[Remark]:
    verdict = store.verify(leaf, now=now)
    if verdict.refusal not in (None, Refusal.WRONG_PURPOSE):  # the purpose is the lint's business
        yield Remark(path, str(verdict))
    elif leaf.not_valid_after_utc <= soon:
        yield Remark(path, f"ends at {stamp(leaf.not_valid_after_utc)}; renew it with --renew")


def _widows(place: Path) -> Iterator[Remark]:
    for path in sorted(place.glob("*.key")):
        if not path.with_suffix(".crt").exists():
            yield Remark(path, "has no certificate; mint the name again to give it one")


def _unseen(folder: Folder, books: Books, seen: set[str]) -> Iterator[Remark]:
    gone = sum(1 for serial, entry in books.issued.items() if serial not in seen and entry.profile != FACTORY_CA.name)
    if gone:
        detail = f"{gone} issued certificates are not in this folder: renewed, moved away, or lost by a crash"
        yield Remark(folder.ledger.path, detail, note=True)


__all__ = ["SOON_DAYS", "Remark", "examine"]
