"""A2: prepare, lint on a throw-away key, issue. What fails the lint cannot be signed by the real key."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

import pki.authority
from pki import DELEGATE_CLIENT, DELEGATOR_SERVER, DEVICE, MAIL_SIGNER, SHARED_DEVICE, Authority, Kind, PkiError, keys
from pki.lint import Finding

KEY = keys.generate()
PUBLIC = KEY.public_key()


@pytest.fixture
def authority() -> Authority:
    return Authority.found("Example Factory CA", "Example Manufacturer", keys.generate())


def test_a2_the_preview_is_signed_by_nobody_the_certificate_by_the_authority(authority: Authority) -> None:
    token = authority.prepare(DEVICE, "ABC1234", PUBLIC)
    with pytest.raises(InvalidSignature):
        token.preview.verify_directly_issued_by(authority.certificate)
    certificate = authority.issue(token)
    certificate.verify_directly_issued_by(authority.certificate)
    assert certificate.tbs_certificate_bytes == token.preview.tbs_certificate_bytes


def test_a2_a_token_is_good_for_one_certificate(authority: Authority) -> None:
    token = authority.prepare(DEVICE, "ABC1234", PUBLIC)
    authority.issue(token)
    with pytest.raises(PkiError, match="already used") as caught:
        authority.issue(token)
    assert caught.value.kind is Kind.REFUSED


def test_a2_a_foreign_or_forged_token_signs_nothing(authority: Authority) -> None:
    other = Authority.found("Other CA", None, keys.generate())
    with pytest.raises(PkiError, match="foreign"):
        authority.issue(other.prepare(DEVICE, "ABC1234", PUBLIC))
    token = authority.prepare(DEVICE, "ABC1234", PUBLIC)
    with pytest.raises(PkiError, match="foreign"):
        authority.issue(dataclasses.replace(token, serial=token.serial + 1))
    forged = dataclasses.replace(token, name="XYZ9999", preview=authority.certificate)
    assert "ABC1234" in authority.issue(forged).subject.rfc4514_string()


def test_a2_a_lint_finding_stops_before_the_real_key(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A2: the real key is replaced by an object that cannot sign; refusing must not even touch it."""
    monkeypatch.setattr(authority, "_key", None)
    monkeypatch.setattr(pki.authority, "findings", lambda draft: (Finding("serial", "test", "too short"),))
    with pytest.raises(PkiError, match="fails the lint: serial: too short") as caught:
        authority.prepare(DEVICE, "ABC1234", PUBLIC)
    assert caught.value.kind is Kind.REFUSED
    assert not authority._waiting


def test_a2_a_life_longer_than_the_profile_s_fails_the_lint(authority: Authority) -> None:
    with pytest.raises(PkiError, match="fails the lint: validity: lasts 400 days"):
        authority.prepare(DELEGATOR_SERVER, "d.example.com", PUBLIC, days=400)
    token = authority.prepare(DELEGATOR_SERVER, "d.example.com", PUBLIC, days=7)
    assert token.preview.not_valid_after_utc < datetime.now(UTC) + timedelta(days=7)


def test_a2_a_weak_public_key_fails_the_lint(authority: Authority) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    with pytest.raises(PkiError, match="an RSA key of 1024 bits"):
        authority.prepare(DEVICE, "ABC1234", rsa.generate_private_key(65537, 1024).public_key())


def test_a2_serials_are_random_and_long(authority: Authority) -> None:
    serials = [authority.prepare(DEVICE, "ABC1234", PUBLIC).serial for _ in range(200)]
    assert len(set(serials)) == 200
    assert all(64 <= serial.bit_length() <= 159 for serial in serials)
    assert max(serials).bit_length() > 150


def test_a2_a_certificate_begins_a_day_early_for_lagging_clocks(authority: Authority) -> None:
    now = datetime.now(UTC) + timedelta(days=30)
    preview = authority.prepare(DEVICE, "ABC1234", PUBLIC, now=now).preview
    assert timedelta(hours=23) < now - preview.not_valid_before_utc < timedelta(hours=25)


def test_a2_late_in_the_authority_s_life_a_device_ends_with_it(authority: Authority) -> None:
    late = authority.certificate.not_valid_after_utc - timedelta(days=10)
    preview = authority.prepare(DEVICE, "ABC1234", PUBLIC, now=late).preview
    assert preview.not_valid_after_utc == authority.certificate.not_valid_after_utc
    with pytest.raises(PkiError, match="own certificate has ended"):
        authority.prepare(DEVICE, "ABC1234", PUBLIC, now=late + timedelta(days=20))


def test_a2_further_names_are_canonical_and_stand_once(authority: Authority) -> None:
    names = ["127.0.0.1", "D.EXAMPLE.com", "2001:DB8::1", "localhost", "localhost"]
    preview = authority.prepare(DELEGATOR_SERVER, "D.example.com", PUBLIC, names=names).preview
    alternatives = preview.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in alternatives] == ["d.example.com", "127.0.0.1", "2001:db8::1", "localhost"]


@pytest.mark.parametrize(("profile", "name"), [(DEVICE, "ABC1234"), (SHARED_DEVICE, "shared-device"),
                                               (MAIL_SIGNER, "a@example.com")])  # fmt: skip
def test_a2_profiles_of_one_name_take_no_further_ones(authority: Authority, profile: pki.Profile, name: str) -> None:
    with pytest.raises(PkiError, match="carries one name"):
        authority.prepare(profile, name, PUBLIC, names=["x.example.com"])


def test_a2_a_delegate_client_has_no_address(authority: Authority) -> None:
    with pytest.raises(PkiError, match="not a valid host name"):
        authority.prepare(DELEGATE_CLIENT, "192.0.2.1", PUBLIC)


def test_a2_a_name_too_long_for_a_common_name_is_refused_with_the_way_out(authority: Authority) -> None:
    long = "a" * 60 + ".example.com"
    with pytest.raises(PkiError, match="put a short name first"):
        authority.prepare(DELEGATOR_SERVER, long, PUBLIC)
    assert authority.prepare(DELEGATOR_SERVER, "d.example.com", PUBLIC, names=[long])


def test_a2_a_key_that_is_not_the_certificate_s_makes_no_authority(authority: Authority) -> None:
    with pytest.raises(PkiError, match="does not belong"):
        Authority(authority.certificate, KEY)


def test_a2_an_rsa_authority_certifies_an_ec_device_and_the_other_way_round() -> None:
    rsa_authority = Authority.found("RSA CA", None, keys.generate("rsa"))
    rsa_authority.issue(rsa_authority.prepare(DEVICE, "ABC1234", PUBLIC)).verify_directly_issued_by(
        rsa_authority.certificate
    )
    assert rsa_authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
