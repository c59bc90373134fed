"""A2: `pki check` finds every way in which a folder can be wrong, and nothing in one that is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pki import Folder, Reason
from pki.check import Remark, examine

NOW = datetime.now(UTC)


@pytest.fixture
def full(folder: Folder) -> Folder:
    """One certificate of every kind, one of them renewed, one revoked."""
    for profile, name in (("delegator-server", "d.example.com"), ("delegate-server", "p.example.com"),
                          ("delegate-client", "d.example.com"), ("shared-device", "shared-device"),
                          ("mail-signer", "ops@example.com"), ("device", "ABC1234"), ("device", "BAD1234"),
                          ("delegator-server", "2001:db8::1")):  # fmt: skip
        folder.issue(profile, name)
    folder.issue("delegator-server", "d.example.com", renew=True)
    bad = [entry.serial for entry in folder.ledger if entry.name == "BAD1234"]
    folder.revoke(bad, Reason.KEY_COMPROMISE, folder.authority())
    return folder


def problems(folder: Folder, **options: object) -> list[str]:
    return [str(each) for each in examine(folder, **options) if not each.note]  # type: ignore[arg-type]


def notes(folder: Folder) -> list[str]:
    return [each.detail for each in examine(folder) if each.note]


def test_a2_a_folder_in_order_has_no_problem(full: Folder) -> None:
    assert problems(full) == []
    assert any("revoked at" in note for note in notes(full))
    assert any("1 issued certificates are not in this folder" in note for note in notes(full))


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def forget(folder: Folder, word: str) -> None:
    path = folder.ledger.path
    path.write_text("".join(line for line in path.read_text().splitlines(True) if word not in line))


def misprint(folder: Folder) -> None:
    path = folder.ledger.path
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["fingerprint"] = "00"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


Harm = Callable[[Folder], object]
HARMS: dict[str, tuple[Harm, str]] = {
    "key open to others": (lambda f: (f.path / "devices/ABC1234.key").chmod(0o644), "is open to others (mode 0644"),
    "folder open to others": (lambda f: (f.path / "devices").chmod(0o755), "is open to others (mode 0755"),
    "keys exchanged": (lambda f: swap(f.path / "devices/ABC1234.key", f.path / "devices/BAD1234.key"),
                       "does not belong to the certificate beside it"),
    "certificates exchanged": (lambda f: swap(f.path / "devices/ABC1234.crt", f.path / "devices/BAD1234.crt"),
                               "is for another name than its file name"),
    "wrong folder": (lambda f: (f.path / "devices/ABC1234.crt").rename(f.path / "shared/ABC1234.crt"), "subject: "),
    "rubbish certificate": (lambda f: (f.path / "devices/ABC1234.crt").write_text("x"), "not a readable certificate"),
    "rubbish key": (lambda f: (f.path / "devices/ABC1234.key").write_text("x"), "no readable private key"),
    "chain missing": (lambda f: (f.path / "server/d.example.com.crt").write_bytes(
        f.issue("delegate-client", "x.example.com").certificate_path.read_bytes()), "is for another name"),
    "chain on a device": (lambda f: append(f.path / "devices/ABC1234.crt", f.ca_path.read_text()),
                          "does not hold the chain it should"),
    "not in the ledger": (lambda f: forget(f, "ABC1234"), "is not in the ledger"),
    "another fingerprint": (misprint, "is not the certificate that the ledger lists"),
    "unreadable line": (lambda f: append(f.ledger.path, "{}\n"), "cannot be read"),
    "revocation of nothing": (lambda f: append(f.ledger.path, '{"event":"revoked","time":"2026-01-01T00:00:00Z",'
                                               '"serial":"0abc","profile":"device","name":"T"}\n'),
                              "which it does not list as issued"),
    "serial twice": (lambda f: append(f.ledger.path, f.ledger.path.read_text().splitlines(True)[1]), "twice"),
    "revocation undone": (lambda f: forget(f, '"event":"revoked"'), "which the ledger does not revoke"),
    "list missing": (lambda f: f.crl_path.unlink(), "No such file"),
    "list damaged": (lambda f: f.crl_path.write_text("x"), "holds no revocation list"),
    "list ends soon": (lambda f: f.refresh_list(f.authority(), days=3), "refresh it with: python -m pki crl"),
    "CA key of another": (lambda f: f.key_path.write_bytes((f.path / "devices/ABC1234.key").read_bytes()),
                          "does not belong to ca.crt"),
    "ledger missing": (lambda f: f.ledger.path.unlink(), "is missing"),
    "a key alone": (lambda f: (f.path / "devices/ABC1234.crt").unlink(), "has no certificate"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_a2_every_harm_is_found(full: Folder, harm: str) -> None:
    do, words = HARMS[harm]
    do(full)
    found = problems(full)
    assert any(words in problem for problem in found), found


def test_a2_a_list_that_lags_behind_the_ledger_is_found(full: Folder) -> None:
    before = full.crl_path.read_bytes()
    serial = next(entry.serial for entry in full.ledger if entry.name == "ABC1234")
    full.revoke([serial], Reason.SUPERSEDED, full.authority())
    full.crl_path.write_bytes(before)
    assert any(f"does not name {serial}" in problem for problem in problems(full))


def test_a2_an_end_that_is_near_is_a_problem_and_a_passed_one_too(full: Folder) -> None:
    assert any("renew it with --renew" in each for each in problems(full, soon_days=500))
    assert any("expired" in each for each in problems(full, now=NOW + timedelta(days=500)))


def test_a2_a_stranger_s_certificate_in_the_folder_is_found(full: Folder, tmp_path: Path) -> None:
    other = Folder.create(tmp_path / "other", common_name="Other CA")
    stranger = other.issue("device", "XYZ9999")
    (full.path / "devices" / "XYZ9999.crt").write_bytes(stranger.certificate_path.read_bytes())
    found = " ".join(problems(full))
    assert "issuer: the issuer is not this authority's subject" in found
    assert "unknown authority" in found
    assert "not in the ledger" in found


def test_a2_what_a_crash_leaves_is_a_note_not_a_problem(full: Folder) -> None:
    append(full.ledger.path, '{"event":"issued","ser')
    (full.path / "devices" / ".staging-x").mkdir(mode=0o700)
    assert problems(full) == []
    assert any("cut off by a crash" in note for note in notes(full))
    assert any("left by an interrupted run" in note for note in notes(full))


def test_a2_an_encrypted_or_absent_authority_key_is_noted(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path / "pki", common_name="CA", passphrase=b"secret")
    assert any("encrypted, not compared" in note for note in notes(folder))
    assert list(examine(folder, b"secret")) == []
    assert any("wrong passphrase" in problem for problem in problems(folder, passphrase=b"wrong"))
    folder.key_path.unlink()
    assert any("nothing can be signed" in note for note in notes(folder))


def test_a2_examining_changes_nothing(full: Folder) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in full.path.rglob("*")}
    assert all(isinstance(each, Remark) for each in examine(full))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in full.path.rglob("*")} == before


def test_a2_an_authority_that_ends_before_a_new_device_would_is_noted(full: Folder) -> None:
    late = NOW + timedelta(days=11 * 365)
    assert any("plan its successor" in each.detail for each in examine(full, now=late) if each.note)
