"""A delegator in which one step fails with an exception that shows what the step gave. For
tests/e2e/test_canaries.py.

Usage: failing.py STEP [arguments of `delegator`]. The product has no such switch: steps are wrapped from outside.
"""

from __future__ import annotations

import pkgutil
import sys
from typing import Any

from delegator import engine

OWNERS = {step: owner for owner, steps in {
    "delegator.store:Store": ("open_claim", "open_and_issue", "issue", "confirm"),
    "delegator.callbacks:Callbacks": ("obtain",), "delegator.provisioning.handshake:Handshake": ("_answer",),
}.items() for step in steps}


def fail(name: str) -> None:
    """Make a step raise once it has done its work, with its outcome in the words of the exception."""
    owner = pkgutil.resolve_name(OWNERS[name])
    original = getattr(owner, name)

    async def failing(*args: Any, **kwargs: Any) -> Any:
        given = await original(*args, **kwargs)
        raise RuntimeError(f"broken on purpose: {given!r}")

    def failing_at_once(*args: Any, **kwargs: Any) -> Any:
        given = original(*args, **kwargs)
        raise RuntimeError(f"broken on purpose: {given!r}")

    setattr(owner, name, failing_at_once if name == "_answer" else failing)


if __name__ == "__main__":
    engine.load()
    fail(sys.argv.pop(1))
    from delegator.cli import main
    main()
