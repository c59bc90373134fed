"""A program that is sent a signal where nothing of it is at work any more, which chance hits once in a hundred runs.

Once when Python runs what was registered for its exit, and once when it takes modules apart: handlers are put back to
the default in between. And one that is sent it so often that chance has little left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOTH = """
import atexit, os
class Late:
    def __del__(self, kill=os.kill, own=os.getpid()):
        kill(own, {number})
late = Late()
atexit.register(os.kill, os.getpid(), {number})
"""


def ran(number: int, body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What becomes of `body` if the signal comes in both places."""
    return subprocess.run([sys.executable, "-c", BOTH.format(number=int(number)) + body], capture_output=True,
                          text=True, timeout=60, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


def until_gone(process: subprocess.Popen[str] | subprocess.Popen[bytes], number: int,
               others: Iterable[int] = (), seconds: float = 20) -> int:
    """What it ends with if the signal comes five times at once, and then again and again wherever it is by then;
    `others` of its processes hear it too, as at a terminal."""
    for _ in range(5):
        process.send_signal(number)
    ends = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < ends:
        for pid in (process.pid, *others):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.002)
    return process.wait(0)
