"""Which event loop turns: uvloop's where it is installed (extra `uvloop`), else asyncio's own.

The environment's DELEGATOR_LOOP=asyncio keeps to asyncio's: no setting, as a process has its loop before it reads any.
The invariants: nothing else depends on which it is; whatever keeps uvloop from being had, the program runs.
Must not live here: what runs on it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
VARIABLE = "DELEGATOR_LOOP"


def run(main: Coroutine[None, None, T]) -> T:
    """As `asyncio.run`, for programs that serve."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(_told(main))


async def _told(main: Coroutine[None, None, T]) -> T:
    tell()
    return await main


def tell() -> None:
    """Say in the log which loop turns; whoever has its log later than its loop says it again."""
    log.info("the event loop is %s", name())


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if os.environ.get(VARIABLE, "") == "asyncio":
        return None
    try:
        import uvloop

        made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except Exception:  # not there, or made for another Python: an old one raises AttributeError there
        return None
    return made


def name() -> str:
    """Of the loop that turns."""
    room = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    if room != "uvloop":
        return room
    from importlib import metadata

    return f"uvloop {metadata.version('uvloop')}"
