"""How far a device is, for whoever looks at it while it waits: a small file, and what is read from it.

The invariants: it holds no secret, and nothing is decided by it; it is not made durable, since it is written anew after
a power cut, and flash wears.
Must not live here: what is to be done next (flow).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

from delegator.device.contents import contents
from delegator.device.reasons import REASONS, shown
from delegator.device.state import LOCK, STATE, Phase

STATUS = "status.json"
WAITING, FAILED = "waiting", "failed"


def moment(seconds: float) -> str:
    """As people and scripts read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def write(folder: Path, facts: dict[str, object]) -> None:
    """What somebody who looks is told from now on. A disk that is full keeps nobody."""
    new = folder / f".{STATUS}.new"
    with contextlib.suppress(OSError, ValueError):
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(json.dumps(facts).encode() + b"\n")
        new.replace(folder / STATUS)


def clear(folder: Path) -> None:
    """There is nothing more to tell."""
    with contextlib.suppress(OSError):
        (folder / STATUS).unlink()


def read(folder: Path) -> dict[str, object]:
    """What is known of a state folder. `exit_code` is 0 for a device that is ready, else its reason's, or 1 where there
    is none yet; `at_work` is whether an activation goes on there now. Raises OSError for a folder that cannot be
    looked into."""
    names = {one.name for one in folder.iterdir()}
    phase = _of(folder / STATE).get("phase")
    facts: dict[str, object] = {"outcome": "not-begun" if STATE not in names else "under-way", "reason": None,
                                "exit_code": 1}
    if phase == Phase.CONFIRMED.value:
        facts = {"outcome": "ready", "reason": None, "exit_code": 0}
    elif str(_of(folder / STATUS).get("reason")) in _EXIT_CODES:
        facts = _told(_of(folder / STATUS))
    at_work = LOCK in names and _is_locked(folder / LOCK)
    return {**facts, "phase": phase if phase in _PHASES else None, "at_work": at_work, "state": str(folder)}


_PHASES = [phase.value for phase in Phase]
_EXIT_CODES = {reason.name: reason.exit_code for reason in REASONS}


def _told(said: dict[str, object]) -> dict[str, object]:
    """What was written down, and no more of it than that: a folder ages, and others write into it."""
    reason, attempts = str(said["reason"]), said.get("attempts")
    words = {name: shown(str(said[name])) for name in ("detail", "next_attempt") if said.get(name)}
    return {"outcome": WAITING if said.get("outcome") == WAITING else FAILED, "reason": reason,
            "exit_code": _EXIT_CODES[reason], "attempts": attempts if isinstance(attempts, int) else None, **words}


def _of(path: Path) -> dict[str, object]:
    try:
        facts = json.loads(contents(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_locked(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # what is no file is no lock
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
