"""A delegator in which one step fails with an exception that shows what the step gave. For
tests/e2e/test_canaries.py.

Usage: failing.py STEP [arguments of `delegator`]. The product has no such switch: steps are wrapped from outside.
"""

from __future__ import annotations

import sys
from typing import Any

from delegator import engine

engine.load()

from delegator.callbacks import Callbacks  # noqa: E402
from delegator.handshake import Handshake  # noqa: E402
from delegator.store import Store  # noqa: E402

OWNERS: dict[str, Any] = {"open_claim": Store, "open_and_issue": Store, "obtain": Callbacks, "issue": Store,
                          "_answer": Handshake, "confirm": Store}


def fail(name: str) -> None:
    """Make a step raise once it has done its work, with its outcome in the words of the exception."""
    owner = OWNERS[name]
    original = getattr(owner, name)

    async def failing(*args: Any, **kwargs: Any) -> Any:
        given = await original(*args, **kwargs)
        raise RuntimeError(f"broken on purpose: {given!r}")

    def failing_at_once(*args: Any, **kwargs: Any) -> Any:
        given = original(*args, **kwargs)
        raise RuntimeError(f"broken on purpose: {given!r}")

    setattr(owner, name, failing_at_once if name == "_answer" else failing)


if __name__ == "__main__":
    fail(sys.argv.pop(1))
    from delegator.cli import main
    main()
