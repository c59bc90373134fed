"""What a complete handshake costs the delegator: `make bench`, explained in docs/performance.md.

Measures the tree this file lies in, wherever `python benchmarks/handshakes.py` is called from.
Must not live here: the measurement (benchmarks.command).
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("benchmarks.command", run_name="__main__")
