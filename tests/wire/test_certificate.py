"""A certificate is read the same by the short way and by the walk, whatever its bytes are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from delegator.wire import certificate

NOW = datetime(2026, 12, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = {
    "device": [(NameOID.COMMON_NAME, "ABC1234")],
    "letters": [(NameOID.COMMON_NAME, "Łódź")],
    "maker": [(NameOID.ORGANIZATION_NAME, "Maker"), (NameOID.COMMON_NAME, "ABC1234")],
    "two": [(NameOID.COMMON_NAME, "ABC1234"), (NameOID.COMMON_NAME, "XYZ9876")],
    "none": [(NameOID.ORGANIZATION_NAME, "Maker")],
    "long": [(NameOID.ORGANIZATION_NAME, "M" * 64), (NameOID.ORGANIZATIONAL_UNIT_NAME, "U" * 64)],
}


def made(name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY, serial: int = 2**150) -> bytes:
    """A certificate (DER) with these names."""
    subject = x509.Name([x509.NameAttribute(*one) for one in NAMES[name]])
    builder = x509.CertificateBuilder(
        subject_name=subject, issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Factory CA")]),
        public_key=key.public_key(), serial_number=serial, not_valid_before=NOW,
        not_valid_after=NOW + timedelta(days=1))
    for extension in (x509.BasicConstraints(False, None), x509.SubjectKeyIdentifier(bytes(20)),
                      x509.AuthorityKeyIdentifier(bytes(20), None, None),
                      x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


MADE = {name: made(name) for name in NAMES} | {
    "small serial": made("device", serial=1), "RSA": made("device", rsa.generate_private_key(65537, 2048))}


@pytest.mark.parametrize("name", MADE)
def test_TA5_what_is_read_is_what_another_reader_reads(name: str) -> None:
    der = MADE[name]
    theirs = x509.load_der_x509_certificate(der)
    peer, _ = certificate.read_leaf(der)
    assert peer.common_names == tuple(one.value for one in theirs.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    assert peer.serial == certificate.serial_of(der) == theirs.serial_number


def test_a_devices_certificate_goes_the_short_way_and_others_the_long_one() -> None:
    assert [name for name, der in MADE.items() if certificate._plain(der) is None] == ["long", "RSA"]


@settings(max_examples=300)
@given(st.sampled_from(sorted(MADE)), st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
def test_TA5_the_short_way_reads_what_the_walk_reads_or_leaves_it_to_it(
        name: str, at: int, put: bytes, cut: int) -> None:
    der = MADE[name][:at] + put + MADE[name][at + cut:]
    places = certificate._plain(der)
    if places is not None:
        assert places == certificate._walked(der)
        names = certificate._only_name(der[places[2]:places[3]])
        assert names is None or names == certificate._common_names(der, places[2], places[3])
