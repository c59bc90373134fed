"""A program that is sent a signal where nothing of it is at work any more, which chance hits once in a hundred runs.

Once when Python runs what was registered for its exit, and once when it takes modules apart: handlers are put back to
the default in between.
"""

from __future__ import annotations

import os
import subprocess
import sys
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
