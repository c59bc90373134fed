"""The authority: the only place where the real key signs a certificate or a revocation list.

Lives here: `Authority`, its two steps `prepare` and `issue`, and the translation of a profile into a
certificate builder (after letsencrypt/boulder's `issuance`).
Invariant: `prepare` signs with a throw-away key and lints the result; `issue` redeems the token it returned,
once, by signing the very same to-be-signed bytes. What fails the lint can therefore not be signed by the
real key, and neither can anything that was changed after the lint.
Must not live here: files, ledgers, names on disk (folder.py); the rules themselves (lint.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from pki import keys
from pki.errors import Kind, PkiError
from pki.lint import Draft, findings
from pki.naming import fitting_common_name
from pki.profiles import BACKDATE, FACTORY_CA, AltNames, Profile
from pki.request import Requested, own, spki_of

_HASH = hashes.SHA256()
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A linted certificate waiting to be issued, good for one `issue`.

    It carries nothing the authority trusts: changing a field of the token changes no certificate.
    `preview` is signed by a throw-away key that nobody trusts.
    """

    profile: Profile
    name: str
    serial: int
    preview: x509.Certificate


class Authority:
    """A certificate and its private key, able to issue leaves directly beneath itself."""

    def __init__(self, certificate: x509.Certificate, key: keys.PrivateKey) -> None:
        """CONFIGURATION if the key is not the certificate's."""
        if certificate.public_key() != key.public_key():
            raise PkiError(Kind.CONFIGURATION, "ca.key does not belong to ca.crt", "restore both from one backup")
        self.certificate = certificate
        self._key = key
        self._throw_away = keys.like(key)
        self._waiting: dict[int, tuple[x509.CertificateBuilder, bytes]] = {}

    @classmethod
    def found(
        cls, common_name: str, organization: str | None, key: keys.PrivateKey, now: datetime | None = None
    ) -> Authority:
        """A new self-signed authority; REFUSED if its own certificate would fail the lint."""
        subject = _authority_subject(common_name, organization)
        start, end = _window(FACTORY_CA, None, now)
        builder = _builder(FACTORY_CA, subject, key.public_key(), start, end).issuer_name(subject)
        preview = builder.sign(keys.like(key), _HASH)
        _refuse_findings(Draft(preview, FACTORY_CA, preview))
        return cls(builder.sign(key, _HASH), key)

    def prepare(
        self,
        profile: Profile,
        name: str,
        wanted: keys.PublicKey | Requested,
        *,
        names: Sequence[str] = (),
        days: int | None = None,
        now: datetime | None = None,
    ) -> Prepared:
        """Checks names, drafts, lints; `names` are further alternative names, `days` shortens the lifetime.

        Raises REFUSED for a bad name, a lint finding or a key that would not stand in the certificate as it stood in
        the request, USAGE for names a profile does not carry.
        """
        asked = wanted if isinstance(wanted, Requested) else own(wanted)
        name = fitting_common_name(profile.common_name(name))
        start, end = _within(self.certificate, _window(profile, days, now))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(profile, subject, asked.key, start, end).issuer_name(self.certificate.subject)
        builder = _with_alt_names(builder, profile, _unique(profile, name, names))
        builder = builder.add_extension(_authority_key_id(self.certificate), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.purposes), critical=False)
        preview = builder.sign(self._throw_away, _HASH)
        _refuse_findings(Draft(preview, profile, self.certificate))
        _require_same_key(preview, asked)
        self._waiting[preview.serial_number] = (builder, preview.tbs_certificate_bytes)
        return Prepared(profile, name, preview.serial_number, preview)

    def issue(self, token: Prepared) -> x509.Certificate:
        """Signs what was linted; REFUSED if the token was used before or is not this authority's."""
        waiting = self._waiting.pop(token.serial, None)
        if waiting is None:
            raise PkiError(Kind.REFUSED, "the token was already used or is foreign", "prepare the certificate again")
        builder, linted = waiting
        certificate = builder.sign(self._key, _HASH)
        if certificate.tbs_certificate_bytes != linted:
            raise PkiError(Kind.REFUSED, "the signed bytes are not the linted bytes", "report this as a defect")
        return certificate

    def key_pem(self, passphrase: bytes | None) -> bytes:
        """The private key for its file, encrypted if a passphrase is given."""
        return keys.to_pem(self._key, passphrase)

    def sign_list(self, builder: x509.CertificateRevocationListBuilder) -> x509.CertificateRevocationList:
        """Signs a revocation list as this authority (RFC 5280 section 5.2.1: with its key identifier)."""
        builder = builder.issuer_name(self.certificate.subject)
        builder = builder.add_extension(_authority_key_id(self.certificate), critical=False)
        return builder.sign(self._key, _HASH)


def _refuse_findings(draft: Draft) -> None:
    found = findings(draft)
    if found:
        detail = f"a {draft.profile.name} certificate like this fails the lint: " + "; ".join(map(str, found))
        raise PkiError(Kind.REFUSED, detail, "nothing was signed; correct the request")


def _require_same_key(draft: x509.Certificate, asked: Requested) -> None:
    """To the byte: a key that is written otherwise may be of another kind, and its holder could not use the pair."""
    if spki_of(draft) != asked.spki:
        detail = "the key would stand in the certificate otherwise than in the request"
        raise PkiError(Kind.REFUSED, detail, "nothing was signed; ask with a plain ECDSA P-256 or RSA-2048 key")


def _authority_subject(common_name: str, organization: str | None) -> x509.Name:
    common = x509.NameAttribute(NameOID.COMMON_NAME, fitting_common_name(FACTORY_CA.common_name(common_name)))
    if organization is None:
        return x509.Name([common])
    owner = fitting_common_name(FACTORY_CA.common_name(organization))  # ub-organization-name is 64 as well
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, owner), common])


def _window(profile: Profile, days: int | None, now: datetime | None) -> tuple[datetime, datetime]:
    """notAfter is inclusive (RFC 5280 section 4.1.2.5), so a second comes off the end."""
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    lifetime = profile.lifetime if days is None else timedelta(days=days)
    return moment - BACKDATE, moment + lifetime - _SECOND


def _within(issuer: x509.Certificate, window: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    """A leaf never outlives its issuer: late in the authority's life, devices get shorter certificates."""
    return max(window[0], issuer.not_valid_before_utc), min(window[1], issuer.not_valid_after_utc)


def _builder(
    profile: Profile, subject: x509.Name, public_key: keys.PublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    """Everything that does not depend on the issuer. Serials: 159 random bits, never counted."""
    if end <= start:
        raise PkiError(Kind.FAILED, "the authority's own certificate has ended", "create a new authority")
    constraints = x509.BasicConstraints(profile.is_authority, 0 if profile.is_authority else None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(_random_serial())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(constraints, critical=True)
        .add_extension(_key_usage(profile), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _random_serial() -> int:
    """Another draw for a serial that happens to be short (one in 2**95): the lint wants 64 bits or more."""
    while (serial := x509.random_serial_number()).bit_length() < 64:
        pass
    return serial


_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
           "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def _key_usage(profile: Profile) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in profile.key_usage for usage in _USAGES})


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _unique(profile: Profile, name: str, names: Sequence[str]) -> list[str]:
    """The common name first, then the rest in the order given, each once."""
    if names and profile.alt_names not in (AltNames.HOSTS, AltNames.HOST_NAMES):
        raise PkiError(Kind.USAGE, f"a {profile.name} certificate carries one name", "leave further names away")
    return list(dict.fromkeys((name, *map(profile.common_name, names))))


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


_GENERAL_NAMES: dict[AltNames, Callable[[str], x509.GeneralName]] = {
    AltNames.HOSTS: _host,
    AltNames.HOST_NAMES: x509.DNSName,
    AltNames.MAIL: x509.RFC822Name,
}


def _with_alt_names(
    builder: x509.CertificateBuilder, profile: Profile, names: Sequence[str]
) -> x509.CertificateBuilder:
    kind = _GENERAL_NAMES.get(profile.alt_names)
    if kind is None:
        return builder
    return builder.add_extension(x509.SubjectAlternativeName(map(kind, names)), critical=False)
