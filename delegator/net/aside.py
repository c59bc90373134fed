"""Work that may never end, such as reading a file from a disk that does not answer, done beside the loop.

The loop's own threads will not do: one that hangs would keep the program from ending, and a handful of them would keep
everybody else's work from beginning.
The invariants: whoever waits here waits no longer than the limit; a thread that hangs keeps nobody from anything, not
even the program from ending; there are never more than a few of those.
Must not live here: what is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from delegator.errors import DelegatorError, Kind

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds. To read five lists of 100,000 revoked serials takes two (measured); a worker has a minute for a reload."""
MOST = 16
"""Threads at work or hanging at once."""
_places = threading.BoundedSemaphore(MOST)


async def aside(work: Callable[[], T], what: str, within: float | None = None) -> T:
    """What `work` gives, or raises. Raises DelegatorError (UNAVAILABLE) when that takes too long; `what` is told."""
    limit = PATIENCE if within is None else within
    if not _places.acquire(blocking=False):
        raise _stuck(f"{what} cannot begin: {MOST} others before it have not ended")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=_run, args=(work, loop, done), name=f"aside: {what}", daemon=True).start()
    waiting = asyncio.timeout(limit)  # asyncio.wait_for swallows a cancellation that comes together with the outcome
    try:
        async with waiting:
            return await done
    except TimeoutError:
        if waiting.expired():
            raise _stuck(f"{what} did not end within {limit:g} s") from None
        raise


def _run(work: Callable[[], T], loop: asyncio.AbstractEventLoop, done: asyncio.Future[T]) -> None:
    try:
        outcome: Callable[[], None] = _given(done, work())
    except BaseException as error:
        outcome = _raised(done, error)
    finally:
        _places.release()
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(outcome)


def _given(done: asyncio.Future[T], value: T) -> Callable[[], None]:
    return lambda: None if done.done() else done.set_result(value)


def _raised(done: asyncio.Future[T], error: BaseException) -> Callable[[], None]:
    return lambda: None if done.done() else done.set_exception(error)


def _stuck(detail: str) -> DelegatorError:
    return DelegatorError(Kind.UNAVAILABLE, detail, hint="does the disk answer that the files lie on? It is tried "
                          "again when one of them changes, or at SIGHUP")
