"""uvloop turns where it is installed and asyncio's own loop where it is not, and the log says which."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import subprocess
import sys

import pytest

from delegator.clockwork import loop

from ..late import ROOT, ran

HERE = importlib.util.find_spec("uvloop") is not None


SERVES = """
import asyncio, os, signal, sys
from delegator.clockwork import loop
async def serve():
    stopping, turns = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        turns.add_signal_handler(number, stopping.set)
    turns.add_signal_handler(signal.SIGHUP, print, "read again")
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), {number})
    await stopping.wait()
    return 5
sys.exit(loop.run(serve()))
"""


EARLY = """
import asyncio, os, signal, sys
from delegator.clockwork import loop
async def serve():
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c",
        "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)")
    await child.wait()
    return 5
code = loop.run(serve())
print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
sys.exit(code)
"""


async def turning() -> str:
    return loop.name()


def kinds(monkeypatch: pytest.MonkeyPatch, said: str | None) -> str:
    monkeypatch.delenv(loop.VARIABLE, raising=False)
    if said is not None:
        monkeypatch.setenv(loop.VARIABLE, said)
    return loop.run(turning())


@pytest.mark.skipif(not HERE, reason="uvloop is not installed")
@pytest.mark.parametrize("said", [None, "", "uvloop"])
def test_uvloop_turns_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, said: str | None,
                                            caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert kinds(monkeypatch, said).startswith("uvloop 0.")
    assert "the event loop is uvloop 0." in caplog.text


def test_the_environment_keeps_to_asyncios_own(monkeypatch: pytest.MonkeyPatch,
                                               caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert kinds(monkeypatch, "asyncio") == "asyncio"
    assert "the event loop is asyncio" in caplog.text


@pytest.mark.parametrize("found", [None, object()], ids=["not there", "another one than we know"])
def test_where_it_cannot_be_had_asyncios_own_turns(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", found)
    assert kinds(monkeypatch, None) == "asyncio"


def test_what_is_raised_comes_out_and_the_loop_is_closed() -> None:
    seen: list[asyncio.AbstractEventLoop] = []

    async def broken() -> None:
        seen.append(asyncio.get_running_loop())
        raise OSError("broken")
    with pytest.raises(OSError, match="broken"):
        loop.run(broken())
    assert seen[0].is_closed()


def test_commands_that_serve_nobody_do_not_load_it() -> None:
    """It costs 2 ms and 1 MiB."""
    done = subprocess.run([sys.executable, "-c", "import sys, delegator.cli.serve, delegator.clockwork.loop; "
                           "sys.exit('uvloop' in sys.modules)"], timeout=30, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("late", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("turns", ["asyncio", "uvloop"])
def test_a_signal_that_comes_when_the_loop_is_over_changes_nothing(turns: str, number: int, late: int) -> None:
    """asyncio's own gives a default back that kills, and Python itself does at its end."""
    done = ran(late, SERVES.format(number=int(number)), **{loop.VARIABLE: turns})
    assert (done.returncode, done.stdout, done.stderr) == (5, "read again\n", "")


@pytest.mark.parametrize("turns", ["asyncio", "uvloop"])
def test_signals_that_nobody_heeded_and_handlers_of_others_are_as_they_were(monkeypatch: pytest.MonkeyPatch,
                                                                            turns: str) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    kinds(monkeypatch, turns)
    assert [signal.getsignal(number) for number in numbers] == before

    def theirs(number: int, _: object) -> None:
        raise AssertionError(number)

    async def heeding() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
    signal.signal(signal.SIGTERM, theirs)
    try:
        loop.run(heeding())
        assert signal.getsignal(signal.SIGTERM) is theirs
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, before[0])


@pytest.mark.parametrize("turns", ["asyncio", "uvloop"])
def test_a_hangup_before_anybody_heeds_it_kills_nobody_and_programs_begun_meanwhile_have_their_default(
        turns: str) -> None:
    """As long as a database is migrated, for instance: the start reads everything anyway."""
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), loop.VARIABLE: turns})
    assert (done.returncode, done.stdout, done.stderr) == (5, "True\nTrue\n", "")


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Whatever level the log has: another test may have said which."""
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("said", ["asycnio", "Asyncio", "uvloop "])
def test_a_loop_that_nobody_knows_is_told_with_those_that_are(monkeypatch: pytest.MonkeyPatch, said: str,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    kinds(monkeypatch, said)
    assert warned(caplog) == [f"DELEGATOR_LOOP={said!a} is not known: write asyncio or uvloop"]


@pytest.mark.parametrize("said", [None, "", "asyncio", "uvloop"])
def test_of_a_loop_that_is_known_there_is_nothing_to_warn_of(monkeypatch: pytest.MonkeyPatch, said: str | None,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    kinds(monkeypatch, said)
    assert warned(caplog) == []
