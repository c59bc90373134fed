"""A2: every rule of the lint catches the certificate that breaks it, and only that one.

Each case takes a device's or a server's certificate that is right, breaks one thing with cryptography's own
builder, and expects the finding of that name.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki import DELEGATOR_SERVER, DEVICE, Authority, Profile, keys
from pki.lint import RULES, Draft, findings

NOW = datetime.now(UTC).replace(microsecond=0)
AUTHORITY = Authority.found("Lint CA", None, CA_KEY := keys.generate())
CA = AUTHORITY.certificate
KEY = keys.generate()
SKI = x509.SubjectKeyIdentifier
NAMES = {DEVICE: "ABC1234", DELEGATOR_SERVER: "d.example.com"}


def good(profile: Profile = DEVICE) -> x509.Certificate:
    return AUTHORITY.issue(AUTHORITY.prepare(profile, NAMES[profile], KEY.public_key()))


Parts = dict[str, object]


def rebuilt(profile: Profile, **changes: object) -> x509.Certificate:
    """The good certificate with some parts replaced; an extension set to None is left out."""
    base = good(profile)
    extensions = {type(each.value).__name__: (each.value, each.critical) for each in base.extensions}
    parts = {"serial": base.serial_number, "subject": base.subject, "issuer": base.issuer,
             "key": KEY.public_key(), "start": base.not_valid_before_utc,
             "end": base.not_valid_after_utc, "hash": hashes.SHA256()}  # fmt: skip
    for name, value in changes.items():
        (parts if name in parts else extensions)[name] = value  # type: ignore[index]
    builder = x509.CertificateBuilder(
        parts["issuer"], parts["subject"], parts["key"], parts["serial"], parts["start"], parts["end"]
    )
    for entry in filter(None, extensions.values()):
        builder = builder.add_extension(*entry)
    return builder.sign(CA_KEY, parts["hash"])


def name(*values: str, kind: x509.ObjectIdentifier = NameOID.COMMON_NAME) -> x509.Name:
    with warnings.catch_warnings(action="ignore"):  # the library warns of what it is asked to allow
        return x509.Name([x509.NameAttribute(kind, value, _validate=False) for value in values])


def usage(**on: bool) -> x509.KeyUsage:
    bits = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{bit: on.get(bit, False) for bit in bits})


def alternatives(*names: x509.GeneralName) -> tuple[x509.SubjectAlternativeName, bool]:
    return x509.SubjectAlternativeName(names), False


D, S = DEVICE, DELEGATOR_SERVER
DNS, MAIL = x509.DNSName, x509.RFC822Name
LONG = "a" * 60 + ".example"
CASES: list[tuple[str, Profile, Parts]] = [
    ("serial", D, {"serial": 2**63 - 1}),
    ("serial", D, {"serial": 1}),
    ("signature", D, {"hash": hashes.SHA384()}),
    ("issuer", D, {"issuer": name("Other CA")}),
    ("validity", D, {"end": NOW + DEVICE.lifetime + timedelta(days=2)}),
    ("validity", S, {"end": NOW + timedelta(days=399)}),
    ("nesting", D, {"start": NOW - timedelta(days=3), "end": NOW + timedelta(days=9)}),
    ("subject", D, {"subject": x509.Name([])}),
    ("subject", D, {"subject": name("ABC1234", "ABC1235")}),
    ("subject", D, {"subject": name("abc1234")}),
    ("subject", D, {"subject": name("ABC1234 ")}),
    ("subject", D, {"subject": name("ABC1234\x00")}),
    ("subject", D, {"subject": name("shared-device")}),
    ("subject", D, {"subject": x509.Name([*name("ABC1234"), *name("Evil", kind=NameOID.ORGANIZATION_NAME)])}),
    ("subject, alternative names", S, {"subject": name("D.example.com"),
                                       "SubjectAlternativeName": alternatives(DNS("D.example.com"))}),
    ("subject", S, {"subject": name(LONG), "SubjectAlternativeName": alternatives(DNS(LONG))}),
    ("key", D, {"key": (weak := ec.generate_private_key(ec.SECP256K1()).public_key()),
                "SubjectKeyIdentifier": (SKI.from_public_key(weak), False)}),
    ("extensions", D, {"extra": (x509.OCSPNoCheck(), False)}),
    ("extensions", D, {"KeyUsage": (usage(digital_signature=True), False)}),
    ("extensions", D, {"SubjectAlternativeName": alternatives(DNS("abc1234.example"))}),
    ("extensions", S, {"SubjectAlternativeName": (x509.SubjectAlternativeName([DNS("d.example.com")]), True)}),
    ("identifiers", D, {"SubjectKeyIdentifier": (SKI(b"\x01" * 20), False)}),
    ("identifiers", D, {"AuthorityKeyIdentifier": (x509.AuthorityKeyIdentifier(b"\x01" * 20, None, None), False)}),
    ("key usage", D, {"KeyUsage": (usage(digital_signature=True, key_cert_sign=True), True)}),
    ("key usage", D, {"KeyUsage": (usage(key_encipherment=True), True)}),
    ("alternative names", S, {"SubjectAlternativeName": alternatives(DNS("other.example.com"))}),
    ("alternative names", S, {"SubjectAlternativeName": alternatives(DNS("d.example.com"), DNS("d.example.com"))}),
    ("alternative names", S, {"SubjectAlternativeName": alternatives(DNS("d.example.com"), DNS("*.example.com"))}),
    ("alternative names", S, {"SubjectAlternativeName": alternatives(DNS("d.example.com"), MAIL("a@b.c"))}),
    ("basic constraints", D, {"BasicConstraints": (x509.BasicConstraints(True, 0), True)}),
    ("purposes", D, {"ExtendedKeyUsage": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)}),
    ("purposes", S, {"ExtendedKeyUsage": (x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "profile", "changes"), CASES)
def test_a2_a_broken_rule_is_found_by_its_name(rule: str, profile: Profile, changes: Parts) -> None:
    found = findings(Draft(rebuilt(profile, **changes), profile, CA))
    assert ", ".join(finding.rule for finding in found) == rule, found
    assert found[0].source
    assert found[0].detail


@pytest.mark.parametrize("profile", [DEVICE, DELEGATOR_SERVER])
def test_a2_what_the_authority_makes_has_no_finding(profile: Profile) -> None:
    assert findings(Draft(good(profile), profile, CA)) == ()
    assert findings(Draft(rebuilt(profile), profile, CA)) == ()


@pytest.mark.parametrize("missing", ["BasicConstraints", "KeyUsage", "ExtendedKeyUsage", "SubjectKeyIdentifier",
                                     "AuthorityKeyIdentifier"])  # fmt: skip
def test_a2_a_missing_extension_is_found_and_never_raises(missing: str) -> None:
    found = findings(Draft(rebuilt(DEVICE, **{missing: None}), DEVICE, CA))
    assert "extensions" in [finding.rule for finding in found]


def test_a2_a_certificate_of_one_profile_fails_as_another() -> None:
    assert findings(Draft(good(DEVICE), DELEGATOR_SERVER, CA))
    assert findings(Draft(good(DELEGATOR_SERVER), DEVICE, CA))


def test_a2_every_rule_has_a_case_that_breaks_it() -> None:
    unbreakable = {"version"}  # cryptography's builder writes version 3 only
    assert {rule for rule, _, _ in RULES} - unbreakable <= {rule for rule, _, _ in CASES}
