"""The authority that signs online is in order, or the delegator says what is not and what to do about it (6.2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.provisioning.certifying import load_authority
from pki import Authority
from pki.keys import generate, to_pem

KEY, OTHER = generate(), generate()
AUTHORITY = Authority.found("Enrolment CA", None, KEY)
PEM = AUTHORITY.certificate.public_bytes(Encoding.PEM)
MAKE = "make one with: python -m pki init --dir var/enrolment-pki; see docs/enrolment.md"
NAME = "name the right file in [enrolment] passphrase_file"


@pytest.fixture
def settings(tmp_path: Path) -> config.Enrolment:
    """All in order, with a key that no passphrase locks."""
    (tmp_path / "ca.crt").write_bytes(PEM)
    written(tmp_path / "ca.key", to_pem(KEY))
    return config.Enrolment(True, str(tmp_path / "ca.crt"), str(tmp_path / "ca.key"))


def written(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def test_R_enrolled_it_is_its_certificate_and_key(settings: config.Enrolment) -> None:
    authority = load_authority(settings, [AUTHORITY.certificate])
    assert authority is not None
    assert authority.certificate == AUTHORITY.certificate


def test_R_enrolled_while_enrolment_is_off_no_file_is_even_looked_at() -> None:
    assert load_authority(config.Enrolment(certificate="nowhere", key="nowhere"), []) is None


def test_R_enrolled_a_passphrase_opens_the_key(settings: config.Enrolment, tmp_path: Path) -> None:
    written(tmp_path / "ca.key", to_pem(KEY, b"correct horse"))
    written(tmp_path / "words", b"correct horse\n")
    locked = config.Enrolment(True, settings.certificate, settings.key, str(tmp_path / "words"))
    assert load_authority(locked, [AUTHORITY.certificate]) is not None


Break = Callable[[Path], object]
FAULTS: dict[str, tuple[Break, str, str]] = {
    "the certificate is missing": (lambda at: (at / "ca.crt").unlink(),
                                   "enrolment: {}/ca.crt: No such file or directory", MAKE),
    "the key is missing": (lambda at: (at / "ca.key").unlink(),
                           "enrolment: {}/ca.key: No such file or directory", MAKE),
    "the key is anybody's to read": (lambda at: (at / "ca.key").chmod(0o644),
                                     "enrolment key {}/ca.key can be read by others", "chmod 600 {}/ca.key"),
    "two certificates": (lambda at: written(at / "ca.crt", PEM * 2),
                         "enrolment: {}/ca.crt: block 2 (line 11) is block 1 (line 1) once more", MAKE),
    "another's key": (lambda at: written(at / "ca.key", to_pem(OTHER)),
                      "enrolment: {0}/ca.key does not belong to {0}/ca.crt", "restore both from one backup"),
    "no key": (lambda at: written(at / "ca.key", PEM), "enrolment: {}/ca.key: ", ""),
    "a locked key": (lambda at: written(at / "ca.key", to_pem(KEY, b"x" * 12)),
                     "enrolment: {}/ca.key is encrypted and no passphrase was given", NAME)}


@pytest.mark.parametrize("fault", FAULTS)
def test_R_enrolled_what_is_not_in_order_is_said_with_the_file_and_what_to_do(
        fault: str, settings: config.Enrolment, tmp_path: Path) -> None:
    cause, detail, hint = FAULTS[fault]
    cause(tmp_path)
    with pytest.raises(DelegatorError) as raised:
        load_authority(settings, [AUTHORITY.certificate])
    error, detail = raised.value, detail.format(tmp_path)
    assert error.kind is Kind.CONFIGURATION
    assert error.detail.startswith(detail) if detail.endswith(": ") else error.detail == detail
    assert error.hint == hint.format(tmp_path) if hint else error.hint not in (None, "", NAME)


def test_R_enrolled_a_wrong_passphrase_names_the_setting_that_holds_the_right_one(
        settings: config.Enrolment, tmp_path: Path) -> None:
    written(tmp_path / "ca.key", to_pem(KEY, b"correct horse"))
    written(tmp_path / "words", b"wrong horse")
    locked = config.Enrolment(True, settings.certificate, settings.key, str(tmp_path / "words"))
    with pytest.raises(DelegatorError) as raised:
        load_authority(locked, [AUTHORITY.certificate])
    assert (raised.value.kind, raised.value.detail, raised.value.hint) == (
        Kind.CONFIGURATION, f"enrolment: {settings.key}: wrong passphrase for the key", NAME)
    (tmp_path / "words").unlink()
    with pytest.raises(DelegatorError) as raised:
        load_authority(locked, [AUTHORITY.certificate])
    assert (raised.value.detail, raised.value.hint) == (
        f"[enrolment] passphrase_file {tmp_path}/words: No such file or directory", "name a file that holds it")


def test_R_enrolled_an_authority_whose_devices_would_be_refused_is_refused(settings: config.Enrolment) -> None:
    with pytest.raises(DelegatorError) as raised:
        load_authority(settings, [Authority.found("Another", None, OTHER).certificate])
    assert (raised.value.kind, raised.value.detail, raised.value.hint) == (
        Kind.CONFIGURATION, f"enrolment: {settings.certificate} is not among the anchors of [server] ca, so what it "
        "signs would be refused", "add it there, and its list to [server] crl")
