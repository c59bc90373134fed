"""A2: how the command line asks for a passphrase and tells how far it has come."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pki import Folder
from pki.console import Progress

ROOT = Path(__file__).parents[2]


def on_a_terminal(*words: str, answers: list[bytes]) -> tuple[int, bytes]:
    """Runs `python -m pki` with a terminal of its own; answers each prompt."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "pki", *words])
    seen = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux says EIO when the other side is gone
            break
        seen += chunk
        if chunk.rstrip().endswith(b":") and answers:
            os.write(terminal, answers.pop(0) + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), seen


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a2_a_passphrase_is_asked_twice_never_shown_and_then_needed(tmp_path: Path) -> None:
    place = str(tmp_path / "pki")
    code, seen = on_a_terminal("init", "--dir", place, "--passphrase-prompt", answers=[b"secret 1", b"secret 1"])
    assert code == 0, seen
    assert b"secret 1" not in seen
    folder = Folder.open(place)
    assert b"ENCRYPTED" in folder.key_path.read_bytes()
    assert folder.authority(b"secret 1")
    code, seen = on_a_terminal("device", "ABC1234", "--dir", place, "--passphrase-prompt", answers=[b"secret 1"])
    assert code == 0, seen


def test_a2_a_log_gets_a_line_now_and_then(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    monkeypatch.setattr(Progress, "INTERVAL", 0.0)
    done = run("device", "--from", "-", stdin="ABC1234\nDEF5678\n")
    *reading, taken, first, second = done.err.splitlines()
    assert reading == [f"{count} lines read, nothing is minted before the last one" for count in (1, 2)]
    assert taken == "no heading: the first line, 'ABC1234', is taken as a service tag"
    assert (first, second) == ("1 of 2 lines", "2 of 2 lines")


def test_a2_an_exposed_passphrase_file_is_named_not_quoted(run: Callable[..., Any], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse")
    secret.chmod(0o666)
    done = run("init", "--passphrase-file", secret)
    assert str(secret) in done.err
    assert "horse" not in done.err
