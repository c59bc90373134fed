"""A delegator that kills itself (SIGKILL) at one step of a claim. For tests/e2e/test_crashes.py.

Usage: dying.py STEP [arguments of `delegator`]. The product has no such switch: steps are wrapped from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from delegator import engine

engine.load()

from delegator.callbacks import Callbacks  # noqa: E402
from delegator.handshake import Handshake  # noqa: E402
from delegator.net.connection import Connection  # noqa: E402
from delegator.store import Store  # noqa: E402

OWNERS: dict[str, Any] = {"open_claim": Store, "open_and_issue": Store, "obtain": Callbacks, "issue": Store,
                          "_answer": Handshake, "confirm": Store, "_written": Connection}
"""Where each step's function lives. `_answer` renders what is durable; `_written` comes after the bytes have left."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(when: str, name: str) -> None:
    """Make the process die before or after a step's function."""
    owner = OWNERS[name]
    original = getattr(owner, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die()
        await original(*args, **kwargs)
        die()

    setattr(owner, name, (lambda *args: die()) if name in ("_answer", "_written") else dying)


if __name__ == "__main__":
    moment, step = sys.argv.pop(1).split("-", 1)
    kill(moment, step)
    from delegator.cli import main
    main()
