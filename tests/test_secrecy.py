"""Key files: private or refused, `credential:NAME` for those that the service manager hands over, our own memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from delegator import config, secrecy
from delegator.errors import DelegatorError
from delegator.sealing import create_key_file, read_key_file


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_what_others_cannot_read_is_private(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    assert secrecy.is_private(path)


@pytest.mark.parametrize("mode", [0o440, 0o604, 0o620, 0o644])
def test_what_others_can_read_is_not(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    assert not secrecy.is_private(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to root")
@pytest.mark.parametrize(("mode", "taken"), [(0o440, True), (0o444, False), (0o460, False)])
def test_what_systemd_hands_over_shows_the_mask_of_its_access_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                   mode: int, taken: bool) -> None:
    """As systemd leaves them for a service with a user of its own: root's, opened by an access control list."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    create_key_file(tmp_path / "sealing.key")
    (tmp_path / "sealing.key").chmod(mode)
    if taken:
        assert len(read_key_file(tmp_path / "sealing.key")) == 32
    else:
        with pytest.raises(DelegatorError, match="can be read by others"):
            read_key_file(tmp_path / "sealing.key")


def test_a_setting_may_name_what_is_handed_over(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[sealing]\nkey_file = "credential:sealing.key"\n'
                                     'older_key_files = ["credential:old.key", "var/other.key"]\n')
    found = config.load(tmp_path / "c.toml", {"CREDENTIALS_DIRECTORY": "/run/credentials/x.service"})
    assert found.sealing.key_file == "/run/credentials/x.service/sealing.key"
    assert found.sealing.older_key_files == ("/run/credentials/x.service/old.key", "var/other.key")
    beside = config.load(tmp_path / "c.toml", {})
    assert beside.sealing.key_file == "/run/credentials/delegator.service/sealing.key", "a command beside the service"


@pytest.mark.parametrize("name", ["credential:", "credential:../etc/shadow", "credential:.."])
def test_it_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(DelegatorError, match="without a slash"):
        config.load(None, {"DELEGATOR_SEALING__KEY_FILE": name, "CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_TC11_a_crash_writes_no_memory_anywhere_and_a_child_may_do_as_it_likes(tmp_path: Path) -> None:
    """prctl(PR_GET_DUMPABLE) is what the kernel goes by, whatever a core would go to."""
    asks = "ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)"
    program = (f"import ctypes, os, resource, subprocess, sys; from delegator.secrecy import keep_memory_private; "
               f"before = {asks}; keep_memory_private(); print(before, {asks}, resource.getrlimit(4), flush=True); "
               f"subprocess.run([sys.executable, '-c', 'import ctypes; print({asks})']); os.abort()")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert done.stdout.splitlines() == ["1 0 (0, 0)", "1"]
    assert done.returncode == -6
    assert list(tmp_path.iterdir()) == []
