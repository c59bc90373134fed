"""A test that hangs fails by itself, the next one runs, and a run that nobody can fail any more is ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
CONFTEST = """
from tests import hanging
from tests.hanging import *
hanging.AGAIN, hanging.BEYOND = 0.5, 4.0
"""
TESTS = {
    "awaits for ever": "async def test_it():\n    await asyncio.sleep(600)",
    "awaits a thread": "async def test_it():\n    await asyncio.to_thread(time.sleep, 2)",
    "waits for a program": "def test_it():\n    subprocess.run(['sleep', '600'])",
    "waits for a lock": "def test_it():\n    lock = threading.Lock()\n    lock.acquire()\n    lock.acquire()",
    "a task swallows the signal":
        "async def test_it():\n"
        "    async def blocking():\n        time.sleep(600)\n"
        "    task = asyncio.create_task(blocking())\n    await asyncio.sleep(0)\n    await asyncio.sleep(600)",
}
ENDLESS = {
    "no signal is heard":
        "def test_it():\n    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n    time.sleep(600)",
    "it failed and is not cleared up":
        "@pytest.fixture\ndef held():\n    yield\n    time.sleep(600)\n\n"
        "def test_it(held):\n    assert False",
    "a thread is left when all is done":
        "def test_it():\n    threading.Thread(target=time.sleep, args=(600,)).start()",
}


def run(folder: Path, *tests: str) -> tuple[int, str, float]:
    """How pytest ends with these tests, what it says, and how many seconds it takes."""
    (folder / "conftest.py").write_text(CONFTEST)
    for number, test in enumerate(tests):
        (folder / f"test_{number}.py").write_text(
            "import asyncio, signal, subprocess, threading, time\nimport pytest\n\n" + test)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "setup.cfg", "--rootdir", folder,
         "-o", "timeout=1", "-o", "filterwarnings=", "--tb=line", folder],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True, timeout=120,
        check=False)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def test_whatever_a_test_waits_for_it_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    code, said, _ = run(tmp_path, *TESTS.values(), "def test_it():\n    pass")
    assert code == 1
    assert f"{len(TESTS)} failed, 1 passed" in said


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_run_that_cannot_go_on_is_ended_and_says_where_it_stood(tmp_path: Path, endless: str) -> None:
    code, said, seconds = run(tmp_path, ENDLESS[endless])
    assert code != 0
    assert "Timeout (0:00:0" in said
    assert "most recent call first" in said
    assert seconds < 60
