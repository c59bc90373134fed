"""As a service: the service manager hears how we are, hands over sockets and keys, and nobody is refused meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from delegator.model import Delegate, LocalCallback, Registration

from ..clock import today
from ..late import until_gone
from .conftest import ROOT, World
from .operating import Heard, change, hang_up, metrics, readyz, start_with, wait_for

OF_ROOT = {"fchown"} if os.geteuid() == 0 else set()
"""SQLite gives its log to the database's owner, where it runs as root; the service does not."""
UNIT = ROOT / "deploy" / "systemd" / "delegator.service"


def test_the_manager_hears_of_start_reload_life_and_end(world: World, heard: Heard,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    world.start()
    assert heard.first("READY") == {"READY": "1", "STATUS": "serving devices"}
    assert wait_for(lambda: sum("WATCHDOG" in one for one in heard.said) > 3), "from the loop, three times as often"
    hang_up(world)
    reloading = heard.first("RELOADING")
    assert int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert wait_for(lambda: heard.said.index(reloading) < max(
        number for number, one in enumerate(heard.said) if "READY" in one))
    world.stop()
    assert heard.first("STOPPING")["STATUS"].startswith("requests under way have ")
    assert [key for one in heard.said for key in one if key in ("READY", "RELOADING", "STOPPING")] == [
        "READY", "RELOADING", "READY", "STOPPING"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("turns", ["asyncio", "uvloop"])
@pytest.mark.parametrize("many", [1, 2])
def test_an_impatient_manager_or_operator_ends_it_no_other_way(world: World, monkeypatch: pytest.MonkeyPatch, many: int,
                                                               turns: str, number: int) -> None:
    """Each signal after the first one changes nothing: 0, and no traceback, with workers that hear it too."""
    monkeypatch.setenv("DELEGATOR_LOOP", turns)
    monkeypatch.setenv("DELEGATOR_SERVER__WORKERS", str(many))
    said = world.start()
    assert world.process is not None
    assert until_gone(world.process, number, said["workers"] or ()) == 0
    world.stop()
    assert "Traceback" not in world.log
    assert "ended with" not in world.log


def test_a_loop_that_hangs_is_not_said_to_live(world: World, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager starts it anew then."""
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    world.start()
    heard.first("WATCHDOG")
    assert world.process is not None
    world.process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    before = len(heard.said)
    time.sleep(0.6)
    assert len(heard.said) == before
    world.process.send_signal(signal.SIGCONT)
    assert wait_for(lambda: len(heard.said) > before)


def test_a_new_start_refuses_nobody_where_the_socket_is_handed_over(world: World, handed_over: socket.socket) -> None:
    """Devices that connect while nothing runs wait in line, and are answered by the next one."""
    tags = [f"SOCK{number:03}" for number in range(6)]
    world.host(*tags)
    start_with(world, handed_over)
    assert world.port == handed_over.getsockname()[1]
    assert world.ask(tags[0]).status == 200
    world.stop()
    replies: list[int] = []
    for tag in tags:  # minted before, as minting is not for several threads
        world.paths(tag)
    waiting = [threading.Thread(target=lambda tag=tag: replies.append(world.ask(tag).status)) for tag in tags[1:]]
    for one in waiting:
        one.start()
    time.sleep(0.3)
    assert not replies
    start_with(world, handed_over)
    for one in waiting:
        one.join(20)
    assert replies == [200] * 5


@pytest.mark.counterpart("systemd-socket-activate")
def test_systemds_own_program_hands_over_a_socket(world: World) -> None:
    """It starts us at the first connection; that device is answered."""
    world.host("ACTIV01")
    with socket.create_server(("127.0.0.1", 0)) as free:
        world.port = free.getsockname()[1]
    world._log = (world.root / "log").open("a")
    setting = [f"--setenv={name}={value}" for name, value in os.environ.items() if name in ("PATH", "HOME")]
    world.process = subprocess.Popen(
        ["systemd-socket-activate", f"--listen=127.0.0.1:{world.port}", "--fdname=devices",
         f"--setenv=PYTHONPATH={ROOT}", *setting, sys.executable, "-m", "delegator", "--config",
         str(world.root / "delegator.toml"), "serve", "--json"], stdout=subprocess.PIPE, stderr=world._log, text=True)
    assert wait_for(lambda: "Listening on" in world.log)
    assert world.ask("ACTIV01").status == 200
    assert world.process.stdout is not None
    assert json.loads(world.process.stdout.readline())["port"] == world.port
    assert world.stop() == 0


def test_keys_are_read_from_where_they_are_handed_over(world: World, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """LoadCredential, for the server and for a command beside it."""
    given = tmp_path / "credentials"
    given.mkdir()
    shutil.copy(world.settings.server.key, given / "server.key")
    shutil.copy(world.settings.sealing.key_file, given / "sealing.key")
    for path in given.iterdir():
        path.chmod(0o400)
    change(world, (world.settings.server.key, "credential:server.key"),
           (world.settings.sealing.key_file, "credential:sealing.key"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    Path(world.settings.sealing.key_file).unlink()
    world.settings = world.settings.__class__(**{**{name: getattr(world.settings, name) for name in
                                                     world.settings.__struct_fields__},
                                                 "sealing": type(world.settings.sealing)(str(given / "sealing.key"))})
    world.host("CREDS01")
    world.start()
    assert world.ask("CREDS01").status == 200


@pytest.mark.counterpart("strace", "systemd-analyze")
def test_the_units_filter_allows_every_system_call_that_we_make(world: World, tmp_path: Path) -> None:
    """All of a life, traced: start, devices of every kind of callback, reload, scrape, drain, end."""
    change(world, ("[ops]\nenabled = false", "[ops]\nenabled = true"), ("port = 9433", "port = 0"),
           ("budget = 1.0", "budget = 8.0"))
    program = tmp_path / "getcred"
    program.write_text("#!/bin/sh\necho '{\"user_name\": \"local\", \"password\": \"secret-of-a-program\"}'\n")
    program.chmod(0o755)
    local = Delegate("acme-local", "acme", LocalCallback(str(program)))
    world.store(lambda store: store.add_delegate(local, today()))
    world.store(lambda store: store.add_devices([Registration("acme", "TRACE03", delegate="acme-local")], today()))
    world.host("TRACE01")
    world.own("TRACE02")
    trace = tmp_path / "trace"
    world._log = (world.root / "log").open("a")
    traced = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-m", "delegator", "--config",
         str(world.root / "delegator.toml"), "serve", "--json"], stdout=subprocess.PIPE, stderr=world._log, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"})
    assert traced.stdout is not None
    try:
        said = json.loads(traced.stdout.readline())
        world.port = said["port"]
        assert world.ask("TRACE01").status == 200
        assert world.ask("TRACE02").status == 200
        assert world.ask("TRACE03").status == 200
        assert readyz(said["ops"])[0] == 200
        assert metrics(said["ops"])
        os.kill(said["pid"], signal.SIGHUP)
        assert wait_for(lambda: "were reloaded" in world.log)
        os.kill(said["pid"], signal.SIGTERM)
        assert traced.wait(30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            traced.kill()
        traced.stdout.close()
        world._log.close()
    assert _calls(trace) - allowed() <= OF_ROOT


def _calls(trace: Path) -> set[str]:
    """System calls that did something: what was refused anyway is not missed."""
    return set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)(?!.* = -1 (?:EPERM|ENOSYS))", trace.read_text(),
                          re.MULTILINE))


def allowed() -> set[str]:
    """What the unit's filter lets through, as systemd itself spells out its groups."""
    def group(name: str) -> set[str]:
        text = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True,
                              text=True, check=True, timeout=20).stdout
        names = re.findall(r"^\s+([@\w-]+)\s*$", text, re.MULTILINE)
        return set().union(*(group(one) if one.startswith("@") else {one} for one in names))

    found: set[str] = group("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        for name in line.removeprefix("~").split():
            found = found - group(name) if line.startswith("~") else found | group(name)
    return found


def _is_there(library: str) -> bool:
    """Whether the dynamic linker finds it."""
    done = subprocess.run([sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", library],
                          capture_output=True, timeout=30, check=False)
    return done.returncode == 0


def test_it_starts_with_the_allocator_of_the_drop_in_and_where_that_is_missing(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the dynamic linker has it: what is not there is said, and left out."""
    drop_in = (UNIT.parent / "delegator.service.d" / "allocator.conf").read_text()
    (said,) = re.findall(r"^Environment=LD_PRELOAD=(\S+)$", drop_in, re.MULTILINE)
    there = _is_there(said)
    monkeypatch.setenv("LD_PRELOAD", said)
    world.host("ALC0001")
    world.start()
    assert world.process is not None
    assert ("mimalloc" in Path(f"/proc/{world.process.pid}/maps").read_text()) == there
    assert world.ask("ALC0001").credential[0] is not None
    if not there:
        assert "cannot be preloaded" in world.log
    assert world.stop() == 0
