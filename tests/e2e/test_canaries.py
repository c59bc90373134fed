"""Planted secrets where things go wrong and where others can look: tracebacks, arguments, environments, open files and
memory (T-C11). What is written when all goes well is searched in test_audit.py."""

from __future__ import annotations

import signal
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delegator.model import Customer, Delegate, HostedCallback, LocalCallback, Registration, Secret
from delegator.sealing import read_key_file
from delegator.store import Store

from ..clock import today
from .conftest import World
from .failing import OWNERS
from .test_audit import HOSTED, TRANSACTION_CANARY, forms

PEER = """\
#!{python}
import json, os, sys, time
request = json.load(sys.stdin)
held = sorted(os.path.realpath(f"/proc/self/fd/{{one}}") for one in os.listdir("/proc/self/fd"))
with open({note!r}, "w") as note:
    note.write(json.dumps([sys.argv, dict(os.environ), held]))
    note.flush()
time.sleep(0.6)
print(json.dumps({{"user_name": "temp", "password": {password!r}}}))
"""
LOCAL = "Canary-Local-4711-0815"


@pytest.fixture
def secrets(world: World) -> dict[str, bytes]:
    """What is planted in a world, by its name."""
    world.store(lambda store: store.add_delegate(
        Delegate("globex-hosted", "globex", HostedCallback("root", Secret(HOSTED))), today(), replace=True))
    world.host("CANARY1")
    world.own("CANARY2")
    key = (world.factory.path / "server/delegator.key").read_bytes().split(b"\n")
    return {"hosted password": HOSTED.encode(), "transaction id": TRANSACTION_CANARY.encode(),
            "delegate's password": b"pass<&>\"'-0", "sealing key": read_key_file(world.root / "sealing.key"),
            "server's key": key[1], "local password": LOCAL.encode()}


def shown(secrets: dict[str, bytes], content: bytes) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in content for form in forms(secret))]


@pytest.mark.parametrize("step", sorted(OWNERS))
def test_TC11_a_traceback_shows_no_secret_whatever_step_fails(
        world: World, secrets: dict[str, bytes], step: str) -> None:
    """The step's outcome is part of the traceback, as a careless message would make it; the device gets a fault."""
    world.start(fail_at=step)
    replies = []
    for tag in ("CANARY1", "CANARY2"):
        replies.append(world.ask(tag, transaction=TRANSACTION_CANARY))
        if replies[-1].status == 200:
            replies.append(world.confirm(tag, replies[-1].text("ClaimId"), transaction=TRANSACTION_CANARY))
    failed = [reply for reply in replies if reply.status == 500]
    assert failed, "something did fail"
    assert {reply.fault for reply in failed} <= {"Unavailable"}
    assert all(b"broken on purpose" not in reply.body for reply in failed)
    world.stop()
    assert "broken on purpose" in world.log
    assert "Traceback" in world.log
    assert shown(secrets, world.log.encode()) == []
    (world.root / "log").write_text("")  # the world's own last look is for tracebacks that nobody wanted


def test_TC11_a_program_of_a_customer_inherits_nothing_and_processes_show_nothing(
        world: World, secrets: dict[str, bytes], tmp_path: Path) -> None:
    """Arguments and environments of the delegator and of everything it started, while a device is served."""
    program, note = tmp_path / "peer", tmp_path / "note"
    program.write_text(PEER.format(python=sys.executable, note=str(note), password=LOCAL))
    program.chmod(0o755)

    async def added(store: Store) -> None:
        await store.add_customer(Customer("initech", "Initech"), today())
        await store.add_delegate(Delegate("initech-local", "initech", LocalCallback(str(program))), today())
        await store.add_devices([Registration("initech", "CANARY3")], today())
    world.store(added)
    settings = world.root / "delegator.toml"
    settings.write_text(settings.read_text().replace("budget = 1.0", "budget = 8.0"))
    world.start()
    assert world.process is not None
    for tag in ("CANARY1", "CANARY2"):
        assert world.ask(tag, transaction=TRANSACTION_CANARY).status == 200
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.ask, "CANARY3", transaction=TRANSACTION_CANARY)
        seen: list[bytes] = []
        while not asked.done():
            seen += [content for pid in family(world.process.pid) for content in looks(pid)]
            time.sleep(0.02)
        reply = asked.result()
    assert reply.status == 200, (reply.body, world.log[-2000:])
    said = note.read_bytes()
    assert len(seen) > 2
    assert shown(secrets, b"\n".join([*seen, said])) == []
    assert not any(name in said for name in (b"delegator.db", b"sealing.key", b".key\""))
    assert b"socket:" not in said, "no connection of anybody else's"
    assert reply.credential[1] == LOCAL


def family(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they still live."""
    try:
        children = [int(one) for task in Path(f"/proc/{pid}/task").iterdir()
                    for one in (task / "children").read_text().split()]
    except OSError:
        children = []
    return [pid, *(one for child in children for one in family(child))]


def looks(pid: int) -> list[bytes]:
    """What another process may read of it."""
    found = []
    for name in ("cmdline", "environ"):
        try:
            found.append(Path(f"/proc/{pid}/{name}").read_bytes())
        except OSError:
            continue
    return found


def test_TC11_a_running_delegator_cannot_be_dumped_and_its_files_are_its_own(world: World,
                                                                             secrets: dict[str, bytes]) -> None:
    world.start()
    assert world.process is not None
    world.ask("CANARY1", transaction=TRANSACTION_CANARY)
    (limit,) = (line for line in Path(f"/proc/{world.process.pid}/limits").read_text().splitlines()
                if line.startswith("Max core file size"))
    assert limit.split()[4:6] == ["0", "0"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.root.glob("delegator.db*")}
    assert set(modes.values()) == {0o600}
    assert "delegator.db-wal" in modes
    raw = b"".join(path.read_bytes() for path in world.root.glob("delegator.db*"))
    assert shown(secrets, raw) == []
    assert world.stop(signal.SIGABRT) == -signal.SIGABRT
    assert not list(Path.cwd().glob("core*"))
