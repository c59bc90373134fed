"""A command that kills itself (SIGKILL) before or after one of its commits. For tests/e2e/test_importing.py.

Usage: dying_import.py MOMENT NUMBER [arguments of `delegator`]. Each commit of the import has 300 rows, so that there
are many. The product has no such switch: the driver is wrapped from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from delegator import engine

if __name__ == "__main__":
    engine.load()
    from delegator.cli import main
    from delegator.store import importing
    from delegator.store.engines.sqlite.driver import SqliteDriver

    moment, number = sys.argv.pop(1), int(sys.argv.pop(1))
    original, done = SqliteDriver.run, 0

    async def run(*arguments: Any, **more: Any) -> Any:
        global done
        done += 1
        if (moment, done) == ("before", number):
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = await original(*arguments, **more)
        if (moment, done) == ("after", number):
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    SqliteDriver.run = run  # type: ignore[method-assign]
    importing._FIRST = 300
    importing.Pace.took = lambda *_: None  # type: ignore[method-assign,assignment]
    main()
