"""A delegator that kills itself (SIGKILL) at one step of a claim. For tests/e2e/test_crashes.py.

Usage: dying.py STEP [arguments of `delegator`]. The product has no such switch: steps are wrapped from outside.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from typing import Any

from delegator import engine

OWNERS = {step: owner for owner, steps in {
    "delegator.store:Store": ("open_claim", "open_and_issue", "issue", "confirm", "notified"),
    "delegator.callbacks:Callbacks": ("obtain",), "delegator.provisioning.handshake:Handshake": ("_answer",),
    "delegator.net.connection:Connection": ("_written",)}.items() for step in steps}
"""Where each step's function lives. `_answer` renders what is durable; `_written` comes after the bytes have left."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(when: str, name: str) -> None:
    """Make the process die before or after a step's function."""
    owner = pkgutil.resolve_name(OWNERS[name])
    original = getattr(owner, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die()
        await original(*args, **kwargs)
        die()

    setattr(owner, name, (lambda *args: die()) if name in ("_answer", "_written") else dying)


if __name__ == "__main__":
    engine.load()
    moment, step = sys.argv.pop(1).split("-", 1)
    kill(moment, step)
    from delegator.cli import main
    main()
