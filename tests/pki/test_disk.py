"""A2: files are private, complete or absent, and never written over."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pki import Kind, PkiError, disk


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o666, 0o620])
def test_a2_a_file_that_others_can_touch_is_refused_with_the_chmod(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "ca.key"
    path.write_text("secret")
    path.chmod(bits)
    with pytest.raises(PkiError, match=f"chmod 600 {path}") as caught:
        disk.read_private(path)
    assert caught.value.kind is Kind.CONFIGURATION


@pytest.mark.parametrize("bits", [0o755, 0o710, 0o500, 0o000])
def test_a2_a_folder_must_be_open_to_its_owner_and_to_nobody_else(tmp_path: Path, bits: int) -> None:
    place = tmp_path / "pki"
    place.mkdir()
    place.chmod(bits)
    with pytest.raises(PkiError, match=f"chmod 700 {place}"):
        disk.require_folder(place, "")
    place.chmod(0o700)
    disk.require_folder(place, "")


def test_a2_a_read_only_key_is_fine_and_a_link_is_not(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    path.write_text("x")
    path.chmod(0o400)
    assert disk.exposure(path) is None
    (tmp_path / "link").symlink_to(path)
    assert disk.exposure(tmp_path / "link") == "is a symbolic link"


def test_a2_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert disk.exposure(tmp_path) == "belongs to another user"


def test_a2_a_missing_folder_and_a_file_in_its_place_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="does not exist; make one"):
        disk.require_folder(tmp_path / "none", "make one")
    (tmp_path / "file").touch()
    with pytest.raises(PkiError, match="is not a folder; make one"):
        disk.require_folder(tmp_path / "file", "make one")


def test_a2_new_files_are_0600_and_folders_0700_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = disk.make_folder(tmp_path / "a" / "b")
        disk.replace_file(place / "file", b"x")
    finally:
        os.umask(before)
    assert (mode(place), mode(place / "file")) == (0o700, 0o600)


def test_a2_staged_files_are_invisible_until_published_and_never_replace(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with disk.Staging(tmp_path) as staging:
        staging.write("new", b"1")
        staging.write("old", b"2")
        (tmp_path / "old").write_bytes(b"kept")
        assert not (tmp_path / "new").exists()
        staging.settle()
        staging.publish("new")
        with pytest.raises(PkiError, match="never overwritten") as caught:
            staging.publish("old")
    assert caught.value.kind is Kind.CONFLICT
    assert (tmp_path / "new").read_bytes() == b"1"
    assert (tmp_path / "old").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_a2_the_leavings_of_a_dead_process_are_swept_and_a_living_one_s_are_not(tmp_path: Path) -> None:
    code = (
        f"from pki import disk; from pathlib import Path; s = disk.Staging(Path({str(tmp_path)!r})).__enter__();"
        "s.write('half', b'x'); print(s.path, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          cwd=Path(disk.__file__).parents[1]) as other:  # fmt: skip
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        with disk.Staging(tmp_path):
            assert (left / "half").exists()
        other.kill()
        other.wait()
        with disk.Staging(tmp_path):
            assert not left.exists()


def test_a2_a_full_disk_is_an_error_with_a_hint_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.replace_file(tmp_path / "crl.pem", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        disk.replace_file(tmp_path / "crl.pem", b"new")
    assert (tmp_path / "crl.pem").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["crl.pem"]


def test_a2_the_lock_makes_other_processes_wait(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    code = (
        f"import fcntl; f = open({str(lock)!r}, 'r+')\n"
        "try: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n"
        "except BlockingIOError: print('busy')"
    )

    def ask() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    with disk.locked(lock):
        assert ask() == "busy"
    assert ask() == "free"
    assert mode(lock) == 0o600
