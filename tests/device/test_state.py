"""The state folder: whole or absent, private, and never a reason to give up (mission A12)."""

from __future__ import annotations

import os
import re
import stat

import pytest

from delegator.device import state
from delegator.device.addresses import Address
from delegator.device.answers import Credential
from delegator.device.reasons import Misconfigured
from delegator.device.state import Folder, Phase


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "state")


def test_what_is_saved_is_loaded(folder):
    saved = state.new_state("ABC1234", 5.0)._replace(
        phase=Phase.ISSUED, claim_id="c", delegate_url="https://h/", alternates=(Address("h", 1),))
    folder.save(saved)
    assert folder.load() == saved
    assert saved.transaction_id not in repr(saved)


def test_transaction_ids_cannot_be_guessed():
    """192 random bits in the agreed alphabet, never twice."""
    ids = {state.new_state("T", 0).transaction_id for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]{32}", text) for text in ids)


def test_modes(folder, tmp_path):
    os.umask(os.umask(0))
    folder.write("x", b"1")
    assert stat.S_IMODE((folder.path / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    for name in ("", "lock", state.STATE):
        if name:
            (tmp_path / "open" / name).touch()
        with pytest.raises(Misconfigured, match=re.escape(f"`chmod 700 {tmp_path / 'open'}` first")):
            Folder(tmp_path / "open")


@pytest.mark.parametrize("kind", ["sticky", "full", "another user's"])
def test_a_folder_that_is_not_for_us_alone_is_not_to_be_closed_to_others(tmp_path, monkeypatch, kind):
    """`chmod 700 /tmp` would break the machine."""
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o1777 if kind == "sticky" else 0o755)
    if kind == "full":
        (place / "of somebody").touch()
    if kind == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    with pytest.raises(Misconfigured, match="name a folder of its own") as refusal:
        Folder(place)
    assert "chmod" not in str(refusal.value)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_power_cut_while_writing_leaves_the_old_file(folder, monkeypatch, step):
    """Cut before the data is on the disk, cut before the rename: the old content is still whole."""
    folder.write("x", b"old")
    target = (os, "fsync") if step == "fsync" else (state.Path, "replace")

    def cut(*_args):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(*target, cut)
        with pytest.raises(KeyboardInterrupt):
            folder.write("x", b"new")
    assert folder.read("x") == b"old"
    folder.write("x", b"newer")
    assert folder.read("x") == b"newer"
    assert [path.name for path in folder.path.iterdir()] == ["x"]


def test_data_is_on_the_disk_before_its_name(folder, monkeypatch):
    calls = []
    fsync, replace = os.fsync, state.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(state.Path, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    folder.write("x", b"1")
    assert calls == ["sync", "rename", "sync"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"phase": "x"}', b"\xff"])
def test_a_damaged_state_is_put_aside(folder, damage):
    """Nobody is there to repair it; what it was is kept for whoever wants to know."""
    folder.write(state.STATE, damage)
    assert folder.load() is None
    assert folder.read("state.json.damaged") == damage
    assert folder.load() is None


@pytest.mark.parametrize("damage", [None, b"", b"{}", b"[1]", b'{"user_name": "u"}'])
def test_a_damaged_credential_is_none(folder, damage):
    if damage is not None:
        folder.write(state.CREDENTIAL, damage)
    assert folder.load_credential() is None


def test_the_credential_stays_exact(folder):
    credential = Credential("u", "<&>\"'\u20ac", "2030-01-01T00:00:00Z")
    folder.save_credential(credential, "c")
    assert folder.load_credential() == credential


def test_missing_files_are_no_accident(folder):
    folder.remove("nothing")
    assert folder.read("nothing") is None
