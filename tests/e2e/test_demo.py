"""`delegator demo`, run as a newcomer runs it: three devices activated, and nothing stays behind. A1-A8, A12, A13.

The scene that `--json` prints is a contract with scripts, so its keys are counted here, and every request in it is
posted by a program that is not ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ..late import until_gone
from .conftest import NS, ROOT, Reply

DEMO = [sys.executable, "-m", "delegator", "demo"]
KEPT = ["--json", "--keep", "--port", "0", "--devices", "3"]
WITHIN = 60
"""Seconds a newcomer waits at most."""


def environment() -> dict[str, str]:
    """A variable of somebody's real delegator must not disturb the demonstration."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "DELEGATOR_SERVER__PORT": "1"}


@contextlib.contextmanager
def kept(root: Path, *, cwd: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A demonstration that goes on serving, and its scene."""
    words = root.parent / f"{root.name}.words"
    with words.open("w") as stderr, subprocess.Popen(
            [*DEMO, *KEPT, "--dir", str(root)], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=cwd,
            env=environment(), start_new_session=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, words.read_text()
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def until(condition: Any, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def posted(scene: dict[str, Any], device: dict[str, str]) -> Reply:
    done = subprocess.run(
        ["curl", "-q", "-sS", "--noproxy", "*", "--cacert", scene["delegator"]["ca"], "--cert", device["cert"],
         "--key", device["key"], "-H", "Content-Type: text/xml", "--data-binary", f"@{device['request']}",
         scene["delegator"]["url"]], capture_output=True, check=True, timeout=20)
    return Reply(0, {}, done.stdout)


def test_a12_a_newcomer_sees_three_devices_activated(tmp_path: Path) -> None:
    """A1 to A8, A12, A13: one command, under a minute, told in the patent's order; no password among the words."""
    began = time.monotonic()
    done = subprocess.run([*DEMO, "--port", "0"], capture_output=True, text=True, check=False, timeout=WITHIN,
                          cwd=tmp_path, env=environment())
    assert (done.returncode, time.monotonic() - began < WITHIN) == (0, True), done.stderr
    told = " ".join(done.stdout.split())
    for tag in ("ACMESRV01", "GLOBEX001", "NOBODY001"):
        assert f". {tag} ─" in told
    for block in (205, 210, 212, 213, 214, 215, 216, 218):
        assert f"block {block}]" in " ".join(told.split()).replace("block [", "[").replace("[block", "[block")
    assert told.count("=> activated") == 2
    assert told.count("=> refused, as it should be") == 1
    root = tmp_path / "var" / "demo"
    assert not leaked(root, done.stdout + done.stderr)


def leaked(root: Path, told: str) -> list[str]:
    """The canary: passwords that devices took and transaction ids, looked for in words and logs."""
    secrets = [json.loads(file.read_text())["password"] for file in root.glob("devices/*/credential.json")]
    assert len(secrets) == 2
    for file in root.glob("requests/*.xml"):
        secrets += [element.text for element in ElementTree.parse(file).iter(NS + "TransactionId")]
    written = told + "".join(file.read_text() for file in root.glob("*.log"))
    assert len(written) > 2000
    return [secret for secret in secrets if secret in written]


def check_scene(scene: dict[str, Any], root: Path) -> None:
    """Exactly the keys that scripts rely on; each path is absolute, exists, and lies under --dir."""
    assert set(scene) == {"delegator", "delegate", "devices"}
    assert set(scene["delegator"]) == {"host", "port", "pid", "url", "ca", "database", "log"}
    assert set(scene["delegate"]) == {"host", "port", "pid"}
    assert [device["identity"] for device in scene["devices"]] == ["own", "shared", "stranger", *["own"] * 3]
    for device in scene["devices"]:
        assert set(device) == {"tag", "identity", "cert", "key", "request"}
    paths = [scene["delegator"][name] for name in ("ca", "database", "log")] + [
        device[name] for device in scene["devices"] for name in ("cert", "key", "request")]
    for path in map(Path, paths):
        assert path.is_absolute()
        assert path.is_file()
        assert path.is_relative_to(root)


def check_requests(scene: dict[str, Any]) -> None:
    """Own and shared get a credential, the stranger gets nothing."""
    for device in scene["devices"]:
        reply = posted(scene, device)
        assert reply.fault == ("NotEntitled" if device["identity"] == "stranger" else None), device
        assert reply.credential[1] or device["identity"] == "stranger"
        assert device["tag"] in Path(device["request"]).read_text()


@pytest.mark.counterpart("curl")
def test_the_scene_is_whole_and_a_signal_ends_it_and_the_next_run_uses_the_same_pki(tmp_path: Path) -> None:
    """A script that reads the first line has all it needs. SIGTERM and Ctrl-C alike end every process that was started.
    The second run finds the authority, mints nothing anew, and starts with fresh devices: they are answered again."""
    root, words, seen = tmp_path / "demo", tmp_path / "demo.words", []
    for number in (signal.SIGTERM, signal.SIGINT):
        with kept(root, cwd=tmp_path) as (process, scene):
            check_scene(scene, root)
            check_requests(scene)
            if not seen:
                second = subprocess.run([*DEMO, *KEPT, "--dir", str(root)], capture_output=True, text=True, check=False,
                                        timeout=20, env=environment())
                assert (second.returncode, "--dir" in second.stderr) == (6, True), "one demonstration to a folder"
            seen.append({path: path.read_bytes() for path in root.glob("*-pki/**/*.[ck][re][ty]")})
            assert until(lambda: "Ctrl-C ends everything" in words.read_text())
            os.killpg(process.pid, number)  # as a terminal does it: the whole group hears it
            assert process.wait(20) == 0
            pids = (scene["delegator"]["pid"], scene["delegate"]["pid"])
            assert until(lambda pids=pids: not any(lives(pid) for pid in pids))
        assert not leaked(root, words.read_text())
        assert "Traceback" not in words.read_text()
    assert seen[0] == seen[1]
    assert len(seen[0]) > 10
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "demo.words"}, "everything lies under --dir"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_again_and_again_leaves_no_process(tmp_path: Path, number: int) -> None:
    """The second one is not allowed to cut off the clearing away that the first began."""
    root = tmp_path / "demo"
    with kept(root) as (process, _):
        assert len(processes_with(str(root))) >= 2
        assert until_gone(process, number) == 0
        assert not processes_with(str(root))
    assert "Traceback" not in (tmp_path / "demo.words").read_text()


def test_a_port_in_use_is_3_with_a_hint(tmp_path: Path) -> None:
    """And nothing stays behind, though the delegate was already running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run([*DEMO, "--port", str(taken.getsockname()[1]), "--dir", str(tmp_path / "demo")],
                              capture_output=True, text=True, check=False, timeout=20, env=environment())
    assert done.returncode == 3, done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr
    assert until(lambda: not processes_with(str(tmp_path)))


def processes_with(word: str) -> list[str]:
    """Command lines that hold a word."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if word in line]
