"""What a certificate must look like before the real key may sign it.

Lives here: the table of rules, each a pure function over a certificate signed by a throw-away key, and
`findings`, which runs them all. The rules read the finished DER, not the builder's wishes, and share no
code with it: a slip in authority.py has to be made twice, in two ways, to reach a device.
Invariant: no finding means that the certificate is exactly what its profile allows, extension by extension.
Must not live here: keys, files, or repairing anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from pki.errors import PkiError
from pki.keys import PublicKey, weakness
from pki.naming import COMMON_NAME_LIMIT
from pki.profiles import BACKDATE, AltNames, Profile


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: its name, where the rule comes from, and what was seen."""

    rule: str
    source: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail} ({self.source})"


@dataclass(frozen=True, slots=True)
class Draft:
    """A certificate as it would be issued; `issuer` is itself for the factory CA."""

    certificate: x509.Certificate
    profile: Profile
    issuer: x509.Certificate

    def extension(self, oid: ObjectIdentifier) -> x509.Extension[x509.ExtensionType]:
        return self.certificate.extensions.get_extension_for_oid(oid)


Rule = Callable[[Draft], str | None]


def findings(draft: Draft) -> tuple[Finding, ...]:
    """Every rule that the draft breaks, in the order of the table; empty means it may be issued."""
    with warnings.catch_warnings(action="ignore"):  # the library warns of names that a rule below refuses
        faults = [(name, source, _run(rule, draft)) for name, source, rule in RULES]
    return tuple(Finding(name, source, fault) for name, source, fault in faults if fault is not None)


def _run(rule: Rule, draft: Draft) -> str | None:
    try:
        return rule(draft)
    except (ValueError, PkiError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        return f"unreadable: {error}"


def _version(draft: Draft) -> str | None:
    return None if draft.certificate.version is x509.Version.v3 else "not version 3"


def _serial(draft: Draft) -> str | None:
    bits = draft.certificate.serial_number.bit_length()
    return None if 64 <= bits <= 159 else f"{bits} bits, not 64 to 159"


def _signature(draft: Draft) -> str | None:
    used = draft.certificate.signature_hash_algorithm
    return None if isinstance(used, hashes.SHA256) else f"hash {used and used.name}, not sha256"


def _issuer(draft: Draft) -> str | None:
    if draft.certificate.issuer != draft.issuer.subject:
        return "the issuer is not this authority's subject"
    return None if list(draft.issuer.subject) else "the issuer is empty"


def _subject(draft: Draft) -> str | None:
    names = draft.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        return f"{len(names)} common names"
    if not draft.profile.is_authority and len(list(draft.certificate.subject)) != 1:
        return "more than a common name"
    name = str(names[0].value)
    size = len(name.encode())
    return f"common name of {size} bytes" if size > COMMON_NAME_LIMIT else _ill_formed(draft.profile, name)


def _ill_formed(profile: Profile, name: str) -> str | None:
    try:
        return None if profile.common_name(name) == name else f"{name!a} is not in its canonical form"
    except PkiError as error:
        return error.detail


def _validity(draft: Draft) -> str | None:
    certificate = draft.certificate
    span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if span.total_seconds() <= 0:
        return "ends before it begins"
    return None if span <= draft.profile.lifetime + BACKDATE else f"lasts {span.days} days"


def _nesting(draft: Draft) -> str | None:
    leaf, issuer = draft.certificate, draft.issuer
    inside = (
        issuer.not_valid_before_utc <= leaf.not_valid_before_utc
        and leaf.not_valid_after_utc <= issuer.not_valid_after_utc
    )
    return None if inside else "valid outside the time of its issuer"


def _key(draft: Draft) -> str | None:
    return weakness(draft.certificate.public_key())


def _extensions(draft: Draft) -> str | None:
    seen = {extension.oid: extension.critical for extension in draft.certificate.extensions}
    wanted = expected_extensions(draft.profile)
    if seen == wanted:
        return None
    odd = [oid._name for oid in seen.keys() | wanted.keys() if seen.get(oid) != wanted.get(oid)]
    return "missing, foreign or of wrong criticality: " + ", ".join(sorted(odd))


def expected_extensions(profile: Profile) -> dict[ObjectIdentifier, bool]:
    """Exactly the extensions a profile carries, and whether each is critical (RFC 5280 section 4.2.1)."""
    table = {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    }
    if not profile.is_authority:
        table |= {ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False, ExtensionOID.EXTENDED_KEY_USAGE: False}
    if profile.alt_names is not AltNames.NONE:
        table[ExtensionOID.SUBJECT_ALTERNATIVE_NAME] = False
    return table


def _constraints(draft: Draft) -> str | None:
    authority = draft.profile.is_authority
    wanted = x509.BasicConstraints(ca=authority, path_length=0 if authority else None)
    seen = draft.extension(ExtensionOID.BASIC_CONSTRAINTS).value
    return None if seen == wanted else f"{seen}"


_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
           "key_agreement", "key_cert_sign", "crl_sign")  # fmt: skip


def _usage(draft: Draft) -> str | None:
    usage = draft.extension(ExtensionOID.KEY_USAGE).value
    seen = {name for name in _USAGES if getattr(usage, name)}
    return None if seen == draft.profile.key_usage else "has " + ", ".join(sorted(seen))


def _purposes(draft: Draft) -> str | None:
    if not draft.profile.purposes:
        return None
    value = draft.extension(ExtensionOID.EXTENDED_KEY_USAGE).value
    assert isinstance(value, x509.ExtendedKeyUsage)
    return None if tuple(value) == draft.profile.purposes else "has " + ", ".join(p.dotted_string for p in value)


_NAME_TYPES: dict[AltNames, tuple[type[x509.GeneralName], ...]] = {
    AltNames.HOSTS: (x509.DNSName, x509.IPAddress),
    AltNames.HOST_NAMES: (x509.DNSName,),
    AltNames.MAIL: (x509.RFC822Name,),
}


def _alt_names(draft: Draft) -> str | None:
    if draft.profile.alt_names is AltNames.NONE:
        return None
    value = draft.extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(value, x509.SubjectAlternativeName)
    names = [str(name.value) for name in value]
    if not all(isinstance(name, _NAME_TYPES[draft.profile.alt_names]) for name in value):
        return "a name of a type that the profile does not have"
    common = draft.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    if common not in names or len(set(names)) != len(names):
        return "the common name is missing, or a name stands twice"
    return next(filter(None, (_ill_formed(draft.profile, name) for name in names)), None)


def _identifiers(draft: Draft) -> str | None:
    key_id = x509.SubjectKeyIdentifier.from_public_key(cast(PublicKey, draft.certificate.public_key()))
    if draft.extension(ExtensionOID.SUBJECT_KEY_IDENTIFIER).value != key_id:
        return "the subject key identifier is not that of the key"
    if draft.profile.is_authority:
        return None
    issuer_id = draft.issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    wanted = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id)
    seen = draft.extension(ExtensionOID.AUTHORITY_KEY_IDENTIFIER).value
    return None if seen == wanted else "the authority key identifier is not the issuer's"


RULES: tuple[tuple[str, str, Rule], ...] = (
    ("version", "RFC 5280 section 4.1.2.1", _version),
    ("serial", "RFC 5280 section 4.1.2.2", _serial),
    ("signature", "RFC 5280 section 4.1.2.3", _signature),
    ("issuer", "RFC 5280 section 4.1.2.4", _issuer),
    ("validity", "RFC 5280 section 4.1.2.5", _validity),
    ("nesting", "profiles", _nesting),
    ("subject", "RFC 5280 section 4.1.2.6 and profiles", _subject),
    ("key", "RFC 5280 section 4.1.2.7 and keys", _key),
    ("extensions", "RFC 5280 section 4.2", _extensions),
    ("identifiers", "RFC 5280 sections 4.2.1.1 and 4.2.1.2", _identifiers),
    ("key usage", "RFC 5280 section 4.2.1.3", _usage),
    ("alternative names", "RFC 5280 section 4.2.1.6", _alt_names),
    ("basic constraints", "RFC 5280 section 4.2.1.9", _constraints),
    ("purposes", "RFC 5280 section 4.2.1.12", _purposes),
)
