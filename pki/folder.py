"""One PKI folder: where an authority keeps its key, its ledger, its list and what it issued.

Lives here: `Folder` (create, open, issue, revoke, refresh the list), `Issued`, and `publish`, the one order of
steps in which certificates reach the disk.
Invariants: `create` makes a whole folder or nothing; no key is ever overwritten; a certificate file that exists
is in the ledger; the list never names a serial that the ledger does not.
Must not live here: what a certificate looks like (profiles.py, authority.py), input files (batch.py), output.

    ca.crt  ca.key  crl.pem  ledger.jsonl   server/ delegates/ delegate-clients/ shared/ devices/ mail/
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from pki import disk, keys, pem, revocation
from pki.authority import Authority
from pki.errors import Kind, PkiError
from pki.ledger import LEDGER, Entry, Event, Ledger, issued, serial_text, stamp
from pki.profiles import FACTORY_CA, AltNames, Profile, profile_named
from pki.request import Requested
from pki.revocation import Reason

DEFAULT_PATH: Final = Path("var/pki")
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate that was made; `key_path` is None when the key stayed with whoever asked."""

    profile: Profile
    name: str
    certificate: x509.Certificate
    certificate_path: Path
    key_path: Path | None

    @property
    def serial(self) -> str:
        return serial_text(self.certificate.serial_number)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True, slots=True)
class Minted:
    """A signed certificate that is on no disk yet. `key_pem` is None if the key is elsewhere or already there."""

    profile: Profile
    name: str
    certificate: x509.Certificate
    key_pem: bytes | None

    @property
    def stem(self) -> str:
        return self.profile.stem(self.name)


class Folder:
    """An existing, private PKI folder; make one with `create`, find one with `open`."""

    def __init__(self, path: Path, ca_certificate: x509.Certificate) -> None:
        self.path = path
        self.ca_certificate = ca_certificate
        self.ledger = Ledger(path / LEDGER)

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        common_name: str,
        organization: str | None = None,
        key_type: keys.KeyType | str = keys.KeyType.EC,
        passphrase: bytes | None = None,
        now: datetime | None = None,
    ) -> Folder:
        """A new authority with an empty list; CONFLICT and no change if something is there already.

        Built under a temporary name and renamed, so a crash leaves no half authority.
        """
        target = Path(path)
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise _taken(target)
        authority = Authority.found(common_name, organization, keys.generate(key_type), now)
        disk.make_parents(target)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            _furnish(Path(scratch) / "pki", authority, passphrase, now)
            try:
                (Path(scratch) / "pki").rename(target)
            except OSError as error:  # someone else was faster
                raise _taken(target) from error
        disk.make_durable(target.parent)
        return cls.open(target)

    @classmethod
    def open(cls, path: Path | str) -> Folder:
        """CONFIGURATION, with the command that helps, if the folder is missing, open to others or incomplete."""
        place = Path(path)
        disk.require_folder(place, f"make one with: python -m pki init --dir {place}")
        content = disk.read_private(place / "ca.crt")
        if (place / "ca.key").exists():  # may be kept elsewhere; everything but signing works without
            disk.require_private(place / "ca.key")
        try:
            return cls(place, pem.one(content, pem.CERTIFICATE))
        except pem.PemFault as error:
            detail = f"{place / 'ca.crt'} holds no certificate: {error}"
            raise PkiError(Kind.CONFIGURATION, detail, "restore it from a backup") from error

    @property
    def ca_path(self) -> Path:
        return self.path / "ca.crt"

    @property
    def crl_path(self) -> Path:
        return self.path / "crl.pem"

    @property
    def key_path(self) -> Path:
        return self.path / "ca.key"

    def authority(self, passphrase: bytes | None = None) -> Authority:
        """Unlocks the key; CONFIGURATION if it is absent, encrypted without a passphrase, or not the CA's."""
        return Authority(self.ca_certificate, keys.from_pem(disk.read_private(self.key_path), passphrase))

    def directory(self, profile: Profile) -> Path:
        return self.path / profile.folder

    def certificate_path(self, profile: Profile | str, name: str) -> Path:
        """Where the certificate for a valid name is or would be."""
        row = profile_named(profile)
        return self.directory(row) / f"{row.stem(name)}.crt"

    def issue(
        self,
        profile: Profile | str,
        name: str,
        *,
        names: Sequence[str] = (),
        key: keys.KeyType | str | Requested = keys.KeyType.EC,
        passphrase: bytes | None = None,
        days: int | None = None,
        renew: bool = False,
        now: datetime | None = None,
    ) -> Issued:
        """One certificate under its fixed path; `key` is the type of a new one, or the request of whoever holds it.

        With `renew` and no `names` it is for the hosts that the one before was for.
        CONFLICT if the name has a certificate already and `renew` is not set; REFUSED for bad names, weak
        keys and lint findings.
        """
        row = _leaf(profile)
        place = disk.make_folder(self.directory(row))
        stem = row.stem(name)
        if not renew:
            _require_free(place, stem, isinstance(key, Requested))
        names = names or (self.hosts(row, name) if renew else ())
        wanted, key_pem = _key_for(place / f"{stem}.key", key, renew)
        signer = self.authority(passphrase)
        token = signer.prepare(row, name, wanted, names=names, days=days, now=now)
        minted = Minted(row, token.name, signer.issue(token), key_pem)
        with disk.Staging(place) as staging:
            return self.publish(staging, [minted], retire=renew)[0]

    def hosts(self, profile: Profile, name: str) -> tuple[str, ...]:
        """The further hosts that the certificate of this name is for now; none where there is none, or where its
        profile has none."""
        path = self.certificate_path(profile, name)
        if profile.alt_names not in (AltNames.HOSTS, AltNames.HOST_NAMES) or not path.exists():
            return ()
        leaf = pem.read(disk.read_regular(path), pem.CERTIFICATE)[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
        return tuple(one for one in found if one != profile.common_name(name))

    def publish(self, staging: disk.Staging, group: Sequence[Minted], *, retire: bool = False) -> list[Issued]:
        """Files under staging, made durable; then the ledger; then the key; last the certificate's name.

        A crash between any two steps leaves at worst a ledger line, or a key without its certificate, which
        the next run certifies instead of making another.
        """
        for minted in group:
            self._stage(staging, minted)
        staging.settle()
        with disk.locked(self.path / _LOCK):
            self.ledger.append(issued(each.certificate, each.profile.name, each.name) for each in group)
        done = [_reveal(staging, minted, retire) for minted in group]
        disk.make_durable(staging.destination)
        return done

    def _stage(self, staging: disk.Staging, minted: Minted) -> None:
        chain = [minted.certificate, self.ca_certificate] if minted.profile.whole_chain else [minted.certificate]
        staging.write(f"{minted.stem}.crt", b"".join(map(_pem, chain)))
        if minted.key_pem is not None:
            staging.write(f"{minted.stem}.key", minted.key_pem)

    def revoke(
        self, serials: Iterable[str], reason: Reason, authority: Authority, days: int = revocation.DEFAULT_DAYS
    ) -> list[Entry]:
        """Withdraws certificates of this ledger and writes the list; FAILED if unknown, CONFLICT if already done.

        All serials are checked before any is recorded. The line is written before the list: should the list
        fail, `refresh_list` makes good, and `check` tells.
        """
        with disk.locked(self.path / _LOCK):
            known = {each.serial: each for each in self.ledger if each.event is Event.ISSUED}
            gone = {each.serial: each for each in self.ledger if each.event is Event.REVOKED}
            moment = stamp(datetime.now(UTC))
            entries = [_withdrawal(known, gone, serial, reason, moment) for serial in dict.fromkeys(serials)]
            self.ledger.append(entries)
            self._write_list(authority, [*gone.values(), *entries], days)
        return entries

    def enter(
        self, found: Sequence[Entry], authority: Callable[[], Authority], days: int = revocation.DEFAULT_DAYS
    ) -> tuple[int, int]:
        """Entries about certificates that this key signed elsewhere, those that are new: how many were issued, how
        many revoked. The list is written where one was revoked."""
        with disk.locked(self.path / _LOCK):
            seen = {(each.event, each.serial) for each in self.ledger}
            new = [each for each in dict.fromkeys(found) if (each.event, each.serial) not in seen]
            gone = [each for each in new if each.event is Event.REVOKED]
            signer = authority() if gone else None
            if new:
                self.ledger.append(new)
            if signer is not None:
                self._write_list(signer, [each for each in self.ledger if each.event is Event.REVOKED], days)
        return len(new) - len(gone), len(gone)

    def refresh_list(
        self, authority: Authority, days: int = revocation.DEFAULT_DAYS, now: datetime | None = None
    ) -> x509.CertificateRevocationList:
        """Writes `crl.pem` anew from the ledger, ending `days` from now."""
        with disk.locked(self.path / _LOCK):
            gone = [each for each in self.ledger if each.event is Event.REVOKED]
            return self._write_list(authority, gone, days, now)

    def _write_list(
        self, authority: Authority, gone: Sequence[Entry], days: int, now: datetime | None = None
    ) -> x509.CertificateRevocationList:
        made = revocation.build_list(authority, gone, previous_number=self._list_number(), days=days, now=now)
        disk.replace_file(self.crl_path, made.public_bytes(serialization.Encoding.PEM))
        return made

    def _list_number(self) -> int:
        try:
            return revocation.number_of(revocation.read_lists(self.crl_path)[0])
        except PkiError:  # missing or damaged: the clock keeps the number growing
            return 0


def _taken(path: Path) -> PkiError:
    what = "already holds an authority" if (path / "ca.crt").exists() else "exists and is not empty"
    hint = "nothing was changed; choose another place with --dir, or look at it with: python -m pki show ca"
    return PkiError(Kind.CONFLICT, f"{path} {what}", hint)


def _furnish(place: Path, authority: Authority, passphrase: bytes | None, now: datetime | None) -> None:
    place.mkdir(mode=disk.FOLDER_MODE)
    made = revocation.build_list(authority, (), now=now)
    files = {
        "ca.key": authority.key_pem(passphrase),
        "ca.crt": _pem(authority.certificate),
        "crl.pem": made.public_bytes(serialization.Encoding.PEM),
    }
    for name, content in files.items():
        disk.write_new(place / name, content)
        disk.make_durable(place / name)
    common_name = authority.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    Ledger(place / LEDGER).append([issued(authority.certificate, FACTORY_CA.name, str(common_name))])
    disk.make_durable(place)


def _leaf(profile: Profile | str) -> Profile:
    row = profile_named(profile)
    if row.is_authority:
        raise PkiError(Kind.USAGE, "an authority is not issued by another one here", "make one with: pki init")
    return row


def _require_free(place: Path, stem: str, with_request: bool) -> None:
    """A key without a certificate is what an interrupted run leaves; it is used, unless a request brings another."""
    for ending in (".crt", ".key") if with_request else (".crt",):
        if os.path.lexists(place / (stem + ending)):
            raise disk.exists(place / (stem + ending))


def _key_for(
    path: Path, key: keys.KeyType | str | Requested, renew: bool
) -> tuple[keys.PublicKey | Requested, bytes | None]:
    """The key to certify, and its PEM if it still has to be written."""
    if isinstance(key, Requested):
        return key, None
    if path.exists() and not renew:
        return keys.from_pem(disk.read_private(path)).public_key(), None
    made = keys.generate(key)
    return made.public_key(), keys.to_pem(made)


def _reveal(staging: disk.Staging, minted: Minted, retire: bool) -> Issued:
    place, stem = staging.destination, minted.stem
    if retire:
        _retire(place, stem, keep_key=minted.key_pem is not None)
    show = staging.replace if retire else staging.publish
    key_path = place / f"{stem}.key"
    if minted.key_pem is not None:
        show(key_path.name)
    certificate_path = show(f"{stem}.crt")
    return Issued(
        minted.profile, minted.name, minted.certificate, certificate_path, key_path if key_path.exists() else None
    )


def _retire(place: Path, stem: str, keep_key: bool) -> None:
    """Links the old pair to `retired/<stem>.<serial>.*`, so that replacing it loses nothing at any moment."""
    old = place / f"{stem}.crt"
    mark = "unpaired"
    if old.exists():
        with contextlib.suppress(pem.PemFault):  # a damaged one is kept too, and replaced
            mark = serial_text(pem.read(disk.read_regular(old), pem.CERTIFICATE)[0].serial_number)
    attic = disk.make_folder(place / "retired")
    for ending in ("crt", "key"):
        if (place / f"{stem}.{ending}").exists():
            disk.link_new(place / f"{stem}.{ending}", attic / f"{stem}.{mark}.{ending}")
    if not keep_key:  # the new certificate is for a key that is elsewhere
        (place / f"{stem}.key").unlink(missing_ok=True)


def _withdrawal(known: dict[str, Entry], gone: dict[str, Entry], serial: str, reason: Reason, moment: str) -> Entry:
    entry = known.get(serial)
    if entry is None:
        raise PkiError(Kind.FAILED, f"serial {serial} is not in the ledger", "compare: python -m pki show FILE")
    if entry.profile == FACTORY_CA.name:
        raise PkiError(Kind.REFUSED, "an authority cannot revoke itself", "take ca.crt out of the servers instead")
    if serial in gone:
        detail = f"{entry.name} ({serial}) was revoked at {gone[serial].time} because of {gone[serial].reason}"
        raise PkiError(Kind.CONFLICT, detail, "nothing was changed; write the list again with: python -m pki crl")
    return Entry(Event.REVOKED, moment, serial, entry.profile, entry.name, reason=reason.value)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
