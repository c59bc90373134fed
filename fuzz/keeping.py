"""Choosing what is kept: `python -m fuzz --keep` takes from what atheris learned the inputs that reach lines of ours
which nothing kept reaches yet, smallest first.

Must not live here: finding such inputs (engines).
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.engines import FOUND
from fuzz.target import MOST, Target

_ROOT = Path(__file__).resolve().parent.parent
_OURS = (str(_ROOT / "delegator"), str(_ROOT / "pki"))
Line = tuple[str, int]


def reached(target: Target, data: bytes) -> set[Line]:
    """The lines of ours that an input runs through."""
    lines: set[Line] = set()

    def traced(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return traced
    sys.settrace(traced)
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return lines


def keep(target: Target) -> int:
    """How many inputs were added to the corpus."""
    known = set().union(*(reached(target, data) for data in target.inputs()))
    learned = sorted((path.read_bytes() for path in (FOUND / "learned" / target.name).glob("*")), key=len)
    added = 0
    for data in learned:
        new = reached(target, data) - known if len(data) <= MOST else set()
        if new:
            known |= new
            target.corpus.mkdir(exist_ok=True)
            (target.corpus / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
            added += 1
    return added
