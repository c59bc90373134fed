"""A2: the factory line as an operator sees it: progress, row errors, Ctrl-C, kill, and running it again."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pki import Folder
from pki.check import examine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def start(folder: Folder, *words: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pki", "device", "--dir", str(folder.path), *map(str, words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def tag_file(path: Path, count: int) -> Path:
    path.write_text("service_tag,model\n" + "".join(f"TAG{number:05},R7\n" for number in range(count)))
    return path


def minted(folder: Folder) -> int:
    return len(list((folder.path / "devices").glob("*.crt")))


def wait_for_some(folder: Folder) -> None:
    deadline = time.monotonic() + 20
    while minted(folder) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)


def whole(folder: Folder) -> None:
    assert [str(each) for each in examine(folder) if not each.note and "no certificate" not in each.detail] == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a2_one_ctrl_c_ends_the_group_tells_how_to_go_on_and_the_rerun_does(
    folder: Folder, tmp_path: Path, how: signal.Signals
) -> None:
    tags = tag_file(tmp_path / "tags.csv", 4000)
    process = start(folder, "--from", tags)
    wait_for_some(folder)
    process.send_signal(how)
    out, err = process.communicate(timeout=20)
    first = minted(folder)
    assert process.returncode == 1
    assert "run the same command again" in out
    assert f"{first} minted" in out
    assert "stopping after this group" in err
    assert 0 < first < 4000
    whole(folder)
    assert not list((folder.path / "devices").glob(".staging-*"))
    shorter = tag_file(tags, first + 50)
    out, _ = start(folder, "--from", shorter).communicate(timeout=30)
    assert f"50 minted, {first} were there already, 0 lines not used" in out
    assert minted(folder) == first + 50


def test_a2_a_kill_at_any_moment_loses_nothing_that_was_visible(folder: Folder, tmp_path: Path) -> None:
    tags = tag_file(tmp_path / "tags.csv", 4000)
    for _ in range(3):
        before = minted(folder)
        process = start(folder, "--from", tags)
        deadline = time.monotonic() + 20
        while minted(folder) <= before and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert minted(folder) > before
        whole(folder)
    held = {path: path.read_bytes() for path in (folder.path / "devices").glob("TAG*")}
    final = sorted((folder.path / "devices").glob("*.crt"))[-1].stem
    out, _ = start(folder, "--from", tag_file(tags, int(final[3:]) + 100)).communicate(timeout=30)
    assert " 0 lines not used" in out
    assert {path: path.read_bytes() for path in held} == held
    assert not list((folder.path / "devices").glob(".staging-*"))
    whole(folder)


def test_a2_bad_rows_are_told_by_line_and_the_rest_is_minted(run: Callable[..., Any], tmp_path: Path) -> None:
    run("init")
    text = "service_tag\nABC1234\nbad tag\nABC1234\nXYZ9999\n"
    done = run("device", "--from", "-", stdin=text)
    assert done.code == 1
    assert "line 3: 'bad tag' is not a valid service tag" in done.err
    assert "line 4: ABC1234 stands on line 2 already" in done.err
    assert "2 minted, 0 were there already, 2 lines not used" in done.out
    again = run("device", "--from", "-", "--json", stdin=text).json
    assert (again["minted"], again["skipped"], again["duplicates"], again["faults"]) == (0, 2, 1, 2)
    assert [error["line"] for error in again["errors"]] == [3, 4]


def test_a2_a_million_bad_rows_do_not_fill_the_log(run: Callable[..., Any]) -> None:
    run("init")
    done = run("device", "--from", "-", stdin="bad\n" * 5000)
    assert len(done.err.splitlines()) <= 110
    assert "5000 lines not used" in done.out


def test_a2_bytes_that_are_no_text_are_refused_and_nothing_is_minted(run: Callable[..., Any], folder: Folder) -> None:
    done = run("device", "--from", "-", stdin=b"ABC1234\nABC\xff\n")
    assert done.code == 5
    assert "line 2 is not UTF-8" in done.err
    assert not minted(folder)


def test_a2_other_folders_are_made_private(run: Callable[..., Any], tmp_path: Path) -> None:
    run("init")
    assert run("device", "--from", "-", "--out", tmp_path / "line", stdin="ABC1234\n").code == 0
    assert (tmp_path / "line").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "line" / "ABC1234.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    assert run("device", "--from", "-", "--out", tmp_path / "open", stdin="ABC1234\n").code == 3


def test_a2_a_terminal_gets_a_bar_on_standard_error_and_a_pipe_gets_none(folder: Folder, tmp_path: Path) -> None:
    tags = tag_file(tmp_path / "tags.csv", 200)
    ours, theirs = pty.openpty()
    process = start(folder, "--from", tags, "--json", stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # Linux says EIO when the other side is gone
            break
        if not chunk:
            break
        seen += chunk
    os.close(ours)
    out, _ = process.communicate(timeout=20)
    assert b"devices" in seen
    assert b"200/200" in seen
    assert out.count("\n") == 1
    _, err = start(folder, "--from", tags).communicate(timeout=20)
    assert err == ""
