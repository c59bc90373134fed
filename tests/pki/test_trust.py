"""A2: a verdict on a certificate names what is wrong, and nothing dubious is ever trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL._util import ffi, lib  # type: ignore[attr-defined]

from pki import DEVICE, Authority, Folder, Kind, PkiError, Reason, Refusal, TrustStore, keys, refusal_of
from pki.trust import _CODES

from ..forgery import Signer as Signed
from ..forgery import authority, forged, written

NOW = datetime.now(UTC)


def test_a2_a_good_device_is_trusted_and_the_verdict_reads_well(folder: Folder) -> None:
    made = folder.issue("device", "ABC1234")
    verdict = TrustStore.load(folder.ca_path, folder.crl_path).verify(made.certificate)
    assert verdict.trusted
    assert verdict.refusal is None
    assert str(verdict) == f"trusted: CN=ABC1234 (serial {made.serial}, depth 0)"


@pytest.mark.parametrize(
    ("profile", "name", "purpose", "refusal"),
    [("device", "ABC1234", "client", None), ("device", "ABC1234", "server", Refusal.WRONG_PURPOSE),
     ("shared-device", "shared-device", "client", None),
     ("delegator-server", "d.example.com", "server", None),
     ("delegator-server", "d.example.com", "client", Refusal.WRONG_PURPOSE),
     ("delegate-client", "d.example.com", "client", None),
     ("mail-signer", "a@example.com", "client", Refusal.WRONG_PURPOSE)],
)  # fmt: skip
def test_a2_a_certificate_is_good_for_its_own_purpose_only(
    folder: Folder, profile: str, name: str, purpose: str, refusal: Refusal | None
) -> None:
    certificate = folder.issue(profile, name).certificate
    verdict = TrustStore.load(folder.ca_path).verify(certificate, purpose=purpose)  # type: ignore[arg-type]
    assert verdict.refusal is refusal


def test_a2_time_decides(folder: Folder) -> None:
    certificate = folder.issue("delegator-server", "d.example.com").certificate
    store = TrustStore.load(folder.ca_path)
    at = {timedelta(): None, timedelta(days=398): Refusal.EXPIRED, timedelta(days=-2): Refusal.NOT_YET_VALID}
    for shift, refusal in at.items():
        verdict = store.verify(certificate, purpose="server", now=NOW + shift)
        assert verdict.refusal is refusal, verdict


def test_a2_a_stranger_s_certificate_is_refused_even_under_our_name(folder: Folder) -> None:
    stranger = Authority.found("Example Factory CA", "Example Manufacturer", keys.generate())
    token = stranger.prepare(DEVICE, "ABC1234", keys.generate().public_key())
    store = TrustStore.load(folder.ca_path)
    verdict = store.verify(stranger.issue(token))
    assert verdict.refusal in (Refusal.UNKNOWN_CA, Refusal.BAD_SIGNATURE)
    assert store.verify(token.preview).refusal in (Refusal.UNKNOWN_CA, Refusal.BAD_SIGNATURE)
    sent_along = store.verify(token.preview, chain=[stranger.certificate])
    assert sent_along.refusal in (Refusal.UNKNOWN_CA, Refusal.BAD_SIGNATURE)


def test_a2_a_changed_byte_is_a_bad_signature(folder: Folder) -> None:
    der = bytearray(folder.issue("device", "ABC1234").certificate.public_bytes(serialization.Encoding.DER))
    der = der.replace(b"ABC1234", b"ABC1235")
    verdict = TrustStore.load(folder.ca_path).verify(x509.load_der_x509_certificate(bytes(der)))
    assert verdict.refusal is Refusal.BAD_SIGNATURE
    assert "ABC1235" in verdict.subject


def test_a2_a_leaf_cannot_certify_and_the_authority_is_no_peer(folder: Folder) -> None:
    device = folder.issue("device", "ABC1234")
    assert device.key_path is not None
    key = keys.from_pem(device.key_path.read_bytes())
    child = signed(key, device.certificate.subject, keys.generate().public_key())
    store = TrustStore.load(folder.ca_path)
    assert store.verify(child, chain=[device.certificate]).refusal is not None
    assert store.verify(folder.ca_certificate).refusal is Refusal.WRONG_PURPOSE


def signed(
    key: keys.PrivateKey, issuer: x509.Name, public_key: object, *, common_name: str = "EVIL123", usage: bool = True,
    authority: bool = False,
) -> x509.Certificate:  # fmt: skip
    builder = (
        x509.CertificateBuilder(issuer, None, public_key, 77, NOW - timedelta(days=1),
                                NOW + timedelta(days=1))  # type: ignore[arg-type]
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .add_extension(x509.BasicConstraints(authority, None), True)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        builder = builder.add_extension(
            x509.KeyUsage(True, False, False, False, False, authority, authority, False, False), True
        )
    return builder.sign(key, hashes.SHA256())


Signer = tuple[keys.PrivateKey, TrustStore]


@pytest.fixture
def signer() -> tuple[keys.PrivateKey, TrustStore]:
    key = keys.generate()
    return key, TrustStore((Authority.found("Trust CA", None, key).certificate,))


def test_a2_a_key_that_is_too_weak_is_refused_although_it_is_signed(
    signer: Signer,
) -> None:
    key, store = signer
    weak = signed(key, store.anchors[0].subject, rsa.generate_private_key(65537, 1024).public_key())
    assert store.verify(weak).refusal is Refusal.WEAK_KEY


def test_a2_a_certificate_without_purposes_is_for_nothing(signer: Signer) -> None:
    """A2: RFC 5280 lets an absent extension mean any purpose; here it means none."""
    key, store = signer
    bare = signed(key, store.anchors[0].subject, keys.generate().public_key(), usage=False)
    assert store.verify(bare).refusal is Refusal.WRONG_PURPOSE


def test_a2_an_intermediate_beneath_the_factory_ca_is_too_long_a_chain(
    signer: Signer,
) -> None:
    key, store = signer
    middle_key = keys.generate()
    middle = signed(key, store.anchors[0].subject, middle_key.public_key(), common_name="Sub CA", authority=True)
    leaf = signed(middle_key, middle.subject, keys.generate().public_key())
    assert store.verify(leaf, chain=[middle]).refusal is Refusal.CHAIN_TOO_LONG


def test_a2_a_verdict_is_one_line_whatever_the_peer_calls_itself(signer: Signer) -> None:
    key, store = signer
    odd = signed(key, store.anchors[0].subject, keys.generate().public_key(), common_name="A\r\nlog: all well\x1b[2J")
    assert str(store.verify(odd)).isprintable()


def test_a2_revoked_is_refused_and_a_stale_list_refuses_everyone(folder: Folder) -> None:
    good, bad = folder.issue("device", "ABC1234"), folder.issue("device", "BAD1234")
    folder.revoke([bad.serial], Reason.KEY_COMPROMISE, folder.authority(), days=7)
    store = TrustStore.load(folder.ca_path, folder.crl_path)
    later = NOW + timedelta(days=8)
    table = [(good, NOW, None), (bad, NOW, Refusal.REVOKED), (good, later, Refusal.CRL_STALE),
             (bad, later, Refusal.REVOKED)]  # fmt: skip
    for made, now, refusal in table:
        assert store.refuse(made.certificate.serial_number, now) is refusal
        assert store.verify(made.certificate, now=now).refusal is refusal
    assert TrustStore.load(folder.ca_path).refuse(bad.certificate.serial_number, later) is None


def test_a2_during_a_change_of_authorities_two_anchors_need_two_lists(folder: Folder, tmp_path: Path) -> None:
    new = Folder.create(tmp_path / "new", common_name="Example Factory CA 2")
    (tmp_path / "anchors.pem").write_bytes(folder.ca_path.read_bytes() + new.ca_path.read_bytes())
    bad = new.issue("device", "BAD1234")
    new.revoke([bad.serial], Reason.KEY_COMPROMISE, new.authority())
    with pytest.raises(PkiError, match="no list of CN=Example Factory CA 2") as caught:
        TrustStore.load(tmp_path / "anchors.pem", folder.crl_path)
    assert caught.value.kind is Kind.CONFIGURATION
    (tmp_path / "lists.pem").write_bytes(folder.crl_path.read_bytes() + new.crl_path.read_bytes())
    store = TrustStore.load(tmp_path / "anchors.pem", tmp_path / "lists.pem")
    assert store.verify(bad.certificate).refusal is Refusal.REVOKED
    for each in (folder, new):
        assert store.verify(each.issue("device", "ABC1234").certificate).trusted


def test_a2_a_re_keyed_authority_of_the_same_name_has_its_own_list(folder: Folder, tmp_path: Path) -> None:
    new = Folder.create(tmp_path / "new", common_name="Example Factory CA", organization="Example Manufacturer")
    for name in ("ca.crt", "crl.pem"):
        (tmp_path / name).write_bytes((folder.path / name).read_bytes() + (new.path / name).read_bytes())
    store = TrustStore.load(tmp_path / "ca.crt", tmp_path / "crl.pem")
    for each in (folder, new):
        assert store.verify(each.issue("device", "ABC1234").certificate).trusted


@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_a2_anchors_that_cannot_be_read_are_an_error_never_an_empty_store(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "ca.crt").write_bytes(content)
    with pytest.raises(PkiError) as caught:
        TrustStore.load(tmp_path / "ca.crt")
    assert caught.value.kind is Kind.CONFIGURATION


def test_a2_a_store_is_a_value(folder: Folder) -> None:
    store = TrustStore.load(folder.ca_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        store.anchors = ()  # type: ignore[misc]


WORDS = {  # a word that OpenSSL's own text for each code has to contain
    Refusal.EXPIRED: ("expired",), Refusal.NOT_YET_VALID: ("not yet valid",), Refusal.REVOKED: ("revoked",),
    Refusal.UNKNOWN_CA: ("issuer", "self-signed", "first certificate", "not trusted", "mismatch"),
    Refusal.BAD_SIGNATURE: ("signature", "decode"), Refusal.CRL_STALE: ("CRL",),
    Refusal.CHAIN_TOO_LONG: ("too long", "path length", "Path length"),
    Refusal.WEAK_KEY: ("weak", "explicit ECC"),
    Refusal.WRONG_PURPOSE: ("purpose", "rejected", "usage", "CA"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("refusal", "code"), [(refusal, code) for refusal, codes in _CODES.items() for code in codes]
)
def test_a2_the_table_of_codes_agrees_with_openssl_s_own_words(refusal: Refusal, code: int) -> None:
    words = ffi.string(lib.X509_verify_cert_error_string(code)).decode()
    assert any(word in words for word in WORDS[refusal]), words
    assert refusal_of(code) is refusal


def test_a2_no_code_has_two_rows_and_an_unknown_one_is_other() -> None:
    codes = [code for row in _CODES.values() for code in row]
    assert len(codes) == len(set(codes))
    assert refusal_of(1) is refusal_of(12345) is Refusal.OTHER


def test_a2_openssl_agrees_with_the_verdicts(folder: Folder, openssl: Callable[..., str], tmp_path: Path) -> None:
    good, bad = folder.issue("device", "ABC1234"), folder.issue("device", "BAD1234")
    folder.revoke([bad.serial], Reason.SUPERSEDED, folder.authority())
    store = TrustStore.load(folder.ca_path, folder.crl_path)
    for made in (good, bad):
        trusted = store.verify(made.certificate).trusted
        openssl("verify", "-crl_check", "-purpose", "sslclient", "-CAfile", folder.ca_path, "-CRLfile",
                folder.crl_path, made.certificate_path, ok=trusted)  # fmt: skip


def test_TA4_only_the_authorities_that_are_named_sign_peers_and_each_has_a_list(tmp_path: Path) -> None:
    """A4: root, two authorities beneath it, one of them named; its list, not the root's, says who was revoked."""
    root = authority("Root")
    names = {name: authority(name, root) for name in ("Devices", "Mail")}
    written(tmp_path, "root", root)
    written(tmp_path, "devices", names["Devices"])
    leaves = {name: forged(signer, "ABC1234").certificate for name, signer in names.items()}
    stolen = forged(names["Devices"], "BAD1234").certificate
    issuing = forgery_list(names["Devices"], stolen.serial_number)
    (tmp_path / "crl.pem").write_bytes(issuing)
    store = TrustStore.load(tmp_path / "root.crt", tmp_path / "crl.pem", tmp_path / "devices.crt")
    chains = {name: [signer.certificate] for name, signer in names.items()}
    assert store.verify(leaves["Devices"], chains["Devices"]).trusted
    assert store.verify(stolen, chains["Devices"]).refusal is Refusal.REVOKED
    verdict = store.verify(leaves["Mail"], chains["Mail"])
    assert (verdict.refusal, verdict.depth, verdict.subject) == (Refusal.UNKNOWN_CA, 1, "CN=Mail")
    assert TrustStore.load(tmp_path / "root.crt").verify(leaves["Mail"], chains["Mail"]).trusted
    assert store.beneath_anchors().verify(leaves["Devices"], chains["Devices"]).refusal is Refusal.UNKNOWN_CA
    (tmp_path / "crl.pem").write_bytes(forgery_list(root))
    with pytest.raises(PkiError, match="no list of CN=Devices"):
        TrustStore.load(tmp_path / "root.crt", tmp_path / "crl.pem", tmp_path / "devices.crt")


def forgery_list(signer: Signed, *serials: int) -> bytes:
    """A revocation list of somebody who is no `pki` authority."""
    builder = (x509.CertificateRevocationListBuilder().issuer_name(signer.certificate.subject)
               .last_update(NOW - timedelta(days=1)).next_update(NOW + timedelta(days=9)))
    for serial in serials:
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial)
                                                  .revocation_date(NOW).build())
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
