"""A2: one folder per authority: created whole or not at all, and what it issues is where it belongs."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

import pki.folder
from pki import DELEGATOR_SERVER, DEVICE, Folder, Kind, PkiError, Reason, disk, keys
from pki.ledger import Event, serial_text
from pki.request import requested

ISSUED = [
    ("delegator-server", "d.example.com", "server/d.example.com", 2),
    ("delegator-server", "2001:db8::1", "server/2001-db8--1", 2),
    ("delegate-server", "p.example.com", "delegates/p.example.com", 2),
    ("delegate-client", "d.example.com", "delegate-clients/d.example.com", 2),
    ("shared-device", "shared-device-b1", "shared/shared-device-b1", 1),
    ("device", "ABC1234", "devices/ABC1234", 1),
    ("mail-signer", "ops@example.com", "mail/ops@example.com", 2),
]


@pytest.mark.parametrize(("profile", "name", "stem", "length"), ISSUED)
@pytest.mark.parametrize("key_type", ["ec", "rsa"])
def test_a2_every_profile_is_issued_to_its_place_with_its_chain(
    folder: Folder, openssl: Callable[..., str], profile: str, name: str, stem: str, length: int, key_type: str
) -> None:
    made = folder.issue(profile, name, key=key_type)
    assert made.certificate_path == folder.path / f"{stem}.crt"
    assert made.key_path == folder.path / f"{stem}.key"
    assert len(x509.load_pem_x509_certificates(made.certificate_path.read_bytes())) == length
    assert openssl("pkey", "-in", made.key_path, "-pubout") == openssl(
        "x509", "-in", made.certificate_path, "-noout", "-pubkey"
    )
    assert openssl("verify", "-x509_strict", "-CAfile", folder.ca_path, made.certificate_path).strip().endswith("OK")


PURPOSES = {
    "delegator-server": ("sslserver", "sslclient"), "delegate-server": ("sslserver", "sslclient"),
    "delegate-client": ("sslclient", "sslserver"), "device": ("sslclient", "sslserver"),
    "shared-device": ("sslclient", "sslserver"), "mail-signer": ("smimesign", "sslclient"),
}  # fmt: skip


@pytest.mark.parametrize(("profile", "name"), [(row[0], row[1]) for row in ISSUED if ":" not in row[1]])
def test_a2_openssl_accepts_each_certificate_for_its_purpose_and_for_no_other(
    folder: Folder, openssl: Callable[..., str], profile: str, name: str
) -> None:
    path = folder.issue(profile, name).certificate_path
    meant, foreign = PURPOSES[profile]
    openssl("verify", "-purpose", meant, "-CAfile", folder.ca_path, path)
    openssl("verify", "-purpose", foreign, "-CAfile", folder.ca_path, path, ok=False)


def test_a2_a_device_certificate_says_its_tag_and_nothing_else(folder: Folder, openssl: Callable[..., str]) -> None:
    path = folder.issue("device", "ABC1234").certificate_path
    assert openssl("x509", "-in", path, "-noout", "-subject", "-nameopt", "RFC2253").strip() == "subject=CN=ABC1234"
    text = openssl("x509", "-in", path, "-noout", "-text")
    assert "X509v3 Basic Constraints: critical\n                CA:FALSE" in text
    assert "X509v3 Key Usage: critical\n                Digital Signature\n" in text
    assert "TLS Web Client Authentication\n" in text
    assert "Subject Alternative Name" not in text


def test_a2_everything_in_the_folder_is_private(folder: Folder) -> None:
    folder.issue("device", "ABC1234")
    folder.issue("delegator-server", "d.example.com")
    for path in (folder.path, *folder.path.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a2_create_twice_is_a_conflict_and_changes_nothing(folder: Folder) -> None:
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    with pytest.raises(PkiError, match="already holds an authority; nothing was changed") as caught:
        Folder.create(folder.path, common_name="Another CA")
    assert caught.value.kind is Kind.CONFLICT
    assert {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before


def test_a2_create_does_not_move_into_a_folder_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(PkiError, match="exists and is not empty"):
        Folder.create(tmp_path, common_name="CA")
    (tmp_path / "empty").mkdir()
    assert Folder.create(tmp_path / "empty", common_name="CA").ca_path.exists()


def test_a2_a_create_that_dies_half_way_leaves_no_half_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pki.folder.Ledger, "append", die)
    with pytest.raises(KeyboardInterrupt):
        Folder.create(tmp_path / "pki", common_name="CA")
    assert list(tmp_path.iterdir()) == []


def test_a2_a_new_authority_is_in_its_own_ledger_with_an_empty_list(folder: Folder) -> None:
    (entry,) = folder.ledger
    assert (entry.profile, entry.name) == ("factory-ca", "Example Factory CA")
    assert len(x509.load_pem_x509_crl(folder.crl_path.read_bytes())) == 0


def test_a2_the_encrypted_authority_signs_only_with_the_passphrase(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path / "pki", common_name="CA", passphrase=b"secret")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in folder.key_path.read_bytes()
    with pytest.raises(PkiError, match="no passphrase"):
        folder.issue("device", "ABC1234")
    assert not (folder.path / "devices" / "ABC1234.crt").exists()
    assert folder.issue("device", "ABC1234", passphrase=b"secret").key_path


def test_a2_an_authority_whose_key_is_kept_elsewhere_opens_but_does_not_sign(folder: Folder) -> None:
    folder.key_path.rename(folder.path.parent / "safe")
    with pytest.raises(PkiError, match=r"ca.key is missing") as caught:
        Folder.open(folder.path).issue("device", "ABC1234")
    assert caught.value.kind is Kind.CONFIGURATION


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "."])
def test_a2_wrong_permissions_are_refused_on_open(folder: Folder, name: str) -> None:
    (folder.path / name).chmod(0o755)
    with pytest.raises(PkiError, match="chmod") as caught:
        Folder.open(folder.path)
    assert caught.value.kind is Kind.CONFIGURATION


def test_a2_a_missing_folder_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match=f"python -m pki init --dir {tmp_path / 'none'}"):
        Folder.open(tmp_path / "none")


def test_a2_a_damaged_ca_certificate_is_told(folder: Folder) -> None:
    folder.ca_path.write_text("rubbish")
    with pytest.raises(PkiError, match="holds no certificate"):
        Folder.open(folder.path)


def test_a2_a_key_is_never_overwritten(folder: Folder) -> None:
    made = folder.issue("delegator-server", "d.example.com")
    assert made.key_path is not None
    before = made.key_path.read_bytes()
    with pytest.raises(PkiError, match="--renew"):
        folder.issue("delegator-server", "D.example.com")
    assert made.key_path.read_bytes() == before


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "/etc/passwd", "..", ".", "x\0y"])
@pytest.mark.parametrize("profile", ["delegator-server", "device", "shared-device", "mail-signer"])
def test_a2_no_name_leads_out_of_the_folder(folder: Folder, profile: str, name: str) -> None:
    with pytest.raises(PkiError):
        folder.issue(profile, name)


def test_a2_a_renewal_takes_the_place_and_keeps_the_old_pair(folder: Folder) -> None:
    old = folder.issue("delegator-server", "d.example.com")
    assert old.key_path is not None
    old_key = old.key_path.read_bytes()
    new = folder.issue("delegator-server", "d.example.com", renew=True)
    assert new.certificate_path == old.certificate_path
    assert new.serial != old.serial
    attic = folder.path / "server" / "retired"
    assert (attic / f"d.example.com.{old.serial}.key").read_bytes() == old_key
    assert (attic / f"d.example.com.{old.serial}.crt").exists()
    assert new.key_path is not None
    assert keys.from_pem(new.key_path.read_bytes()).public_key() == new.certificate.public_key()


def test_a2_a_renewal_is_for_the_hosts_that_the_one_before_was_for(folder: Folder) -> None:
    """The page renewed a server's certificate, which lost its address, and no device called it by that any more."""
    folder.issue("delegator-server", "d.example.com", names=("127.0.0.1", "alias.example.com"))
    folder.issue("delegator-server", "d.example.com", renew=True)
    assert set(folder.hosts(DELEGATOR_SERVER, "d.example.com")) == {"127.0.0.1", "alias.example.com"}
    folder.issue("delegator-server", "d.example.com", names=("127.0.0.1",), renew=True)
    assert folder.hosts(DELEGATOR_SERVER, "d.example.com") == ("127.0.0.1",)
    assert folder.hosts(DEVICE, "ABC1234") == ()


def test_a2_renewing_what_does_not_exist_just_issues_it(folder: Folder) -> None:
    assert folder.issue("device", "ABC1234", renew=True).certificate_path.exists()


def test_a2_a_partner_s_request_is_certified_and_its_key_never_comes_here(
    folder: Folder, request_file: Callable[..., Path], openssl: Callable[..., str], tmp_path: Path
) -> None:
    wishes = ("-addext", "basicConstraints=CA:TRUE", "-addext", "subjectAltName=DNS:bank.example")
    csr = request_file("-newkey", "rsa:2048", *wishes, subject="/CN=bank.example/O=Evil").read_bytes()
    made = folder.issue("delegator-server", "partner.example.com", key=requested(csr))
    assert made.key_path is None
    assert list((folder.path / "server").iterdir()) == [made.certificate_path]
    text = openssl("x509", "-in", made.certificate_path, "-noout", "-text")
    assert "bank.example" not in text
    assert "Evil" not in text
    assert "CA:FALSE" in text
    partner = openssl("pkey", "-in", tmp_path / "partner.key", "-pubout")
    assert openssl("x509", "-in", made.certificate_path, "-noout", "-pubkey") == partner


def test_a2_a_request_does_not_take_the_place_of_a_pair(folder: Folder, request_file: Callable[..., Path]) -> None:
    folder.issue("delegator-server", "d.example.com")
    with pytest.raises(PkiError, match="never overwritten"):
        folder.issue("delegator-server", "d.example.com", key=requested(request_file().read_bytes()))
    renewed = folder.issue("delegator-server", "d.example.com", key=requested(request_file().read_bytes()), renew=True)
    assert renewed.key_path is None
    assert len(list((folder.path / "server" / "retired").glob("*.key"))) == 1


STEPS = ["Staging.write", "Staging.settle", "Ledger.append", "Staging.publish"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("call", [1, 2])
def test_a2_wherever_issuing_dies_a_visible_certificate_is_in_the_ledger_and_a_rerun_finishes(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    owner = {"Staging": disk.Staging, "Ledger": pki.folder.Ledger}[step.split(".")[0]]
    name = step.split(".")[1]
    real, calls = getattr(owner, name), []

    def dying(*arguments: object) -> object:
        calls.append(step)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        try:
            folder.issue(DEVICE, "ABC1234")
        except KeyboardInterrupt:
            assert not folder.certificate_path(DEVICE, "ABC1234").exists()
    key_path = folder.path / "devices" / "ABC1234.key"
    survivor = key_path.read_bytes() if key_path.exists() else None
    if not folder.certificate_path(DEVICE, "ABC1234").exists():
        folder.issue(DEVICE, "ABC1234")
    assert survivor in (None, key_path.read_bytes())
    serial = x509.load_pem_x509_certificate((folder.path / "devices" / "ABC1234.crt").read_bytes()).serial_number
    assert serial_text(serial) in {entry.serial for entry in folder.ledger}


def test_a2_the_ledger_line_precedes_the_file(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    append, publish = pki.folder.Ledger.append, disk.Staging.publish
    monkeypatch.setattr(pki.folder.Ledger, "append", lambda *a: (order.append("ledger"), append(*a))[1])
    monkeypatch.setattr(disk.Staging, "publish", lambda self, name: (order.append(name), publish(self, name))[1])
    folder.issue(DEVICE, "ABC1234")
    assert order == ["ledger", "ABC1234.key", "ABC1234.crt"]


def test_a2_an_authority_is_not_issued_as_a_leaf(folder: Folder) -> None:
    with pytest.raises(PkiError, match="pki init"):
        folder.issue("factory-ca", "Sub CA")


def test_a2_revoking_writes_ledger_and_list(folder: Folder, openssl: Callable[..., str]) -> None:
    made = folder.issue(DEVICE, "ABC1234")
    authority = folder.authority()
    folder.revoke([made.serial], Reason.KEY_COMPROMISE, authority)
    text = openssl("crl", "-in", folder.crl_path, "-noout", "-text", "-CAfile", folder.ca_path)
    assert "verify OK" in text
    assert made.serial.upper() in text
    assert "Key Compromise" in text
    assert [entry.reason for entry in folder.ledger if entry.event is Event.REVOKED] == ["keyCompromise"]
    words = openssl("verify", "-crl_check", "-CAfile", folder.ca_path, "-CRLfile", folder.crl_path,
                    made.certificate_path, ok=False)  # fmt: skip
    assert "certificate revoked" in words


def test_a2_revoking_twice_the_unknown_or_the_authority_changes_nothing(folder: Folder) -> None:
    made, authority = folder.issue(DEVICE, "ABC1234"), folder.authority()
    folder.revoke([made.serial], Reason.SUPERSEDED, authority)
    before = folder.ledger.path.read_bytes(), folder.crl_path.read_bytes()
    root = next(iter(folder.ledger)).serial
    for serial, kind in ((made.serial, Kind.CONFLICT), ("abcd", Kind.FAILED), (root, Kind.REFUSED)):
        with pytest.raises(PkiError) as caught:
            folder.revoke([serial], Reason.UNSPECIFIED, authority)
        assert caught.value.kind is kind
    assert (folder.ledger.path.read_bytes(), folder.crl_path.read_bytes()) == before


def test_a2_a_list_that_was_lost_is_written_again_with_a_higher_number(folder: Folder) -> None:
    first = x509.load_pem_x509_crl(folder.crl_path.read_bytes())
    made, authority = folder.issue(DEVICE, "ABC1234"), folder.authority()
    folder.revoke([made.serial], Reason.SUPERSEDED, authority)
    folder.crl_path.unlink()
    again = folder.refresh_list(authority, days=3)
    assert [entry.serial_number for entry in again] == [made.certificate.serial_number]
    number = x509.CRLNumber
    assert (
        again.extensions.get_extension_for_class(number).value.crl_number
        >= first.extensions.get_extension_for_class(number).value.crl_number
    )
    later = folder.refresh_list(authority)
    assert later.extensions.get_extension_for_class(number).value.crl_number > (
        again.extensions.get_extension_for_class(number).value.crl_number
    )


def test_a2_two_processes_issuing_one_name_end_with_one_pair(folder: Folder) -> None:
    """A2: the loser of the race gets a conflict, and the pair that is there belongs together."""
    real = disk.Staging.settle

    def slow(self: disk.Staging) -> None:
        real(self)
        disk.Staging.settle = real  # type: ignore[method-assign]
        folder.issue(DEVICE, "ABC1234")

    disk.Staging.settle = slow  # type: ignore[method-assign]
    try:
        with pytest.raises(PkiError, match="never overwritten"):
            folder.issue(DEVICE, "ABC1234")
    finally:
        disk.Staging.settle = real  # type: ignore[method-assign]
    key = keys.from_pem((folder.path / "devices" / "ABC1234.key").read_bytes())
    made = x509.load_pem_x509_certificate((folder.path / "devices" / "ABC1234.crt").read_bytes())
    assert made.public_key() == key.public_key()


def test_a2_a_read_only_folder_is_a_clear_error(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk.tempfile, "mkdtemp", denied)
    with pytest.raises(PkiError, match="Permission denied; check the path"):
        folder.issue(DEVICE, "ABC1234")
