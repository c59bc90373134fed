"""uvloop turns where it is installed and asyncio's own loop where it is not, and the log says which."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import subprocess
import sys

import pytest

from delegator import loop

HERE = importlib.util.find_spec("uvloop") is not None


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
    done = subprocess.run([sys.executable, "-c", "import sys, delegator.cli.serve, delegator.loop; "
                           "sys.exit('uvloop' in sys.modules)"], timeout=30, check=False)
    assert done.returncode == 0
