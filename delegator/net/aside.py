"""Work that may never end, such as reading a file from a disk that does not answer, done beside the loop.

The loop's own threads will not do: one that hangs would keep the program from ending, and a handful of them would keep
everybody else's work from beginning.
The invariants: whoever waits here waits no longer than the limit; a thread that hangs keeps nobody from anything but
from the very same work, not even the program from ending; there is never more than one thread for one work, so that
what hangs for a year costs one.
Must not live here: what is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from delegator.errors import DelegatorError, Kind

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds. To read five lists of 100,000 revoked serials takes two (measured); a worker has a minute for a reload."""
_under_way: dict[str, _Work] = {}


class _Work:
    """One thread at work. `hangs` as soon as somebody waited in vain for its end."""

    def __init__(self) -> None:
        self.outcome: Future[Any] = Future()
        self.outcome.set_running_or_notify_cancel()  # whoever stops waiting for it does not end it
        self.hangs = False


async def aside(work: Callable[[], T], what: str, within: float | None = None,
                late: Callable[[], None] | None = None) -> T:
    """What `work` gives, or raises. Raises DelegatorError (UNAVAILABLE) when that takes too long, or at once where the
    same hangs already. `what` tells it from other work, also to a reader: it names the file, where there is one. `late`
    is called in the loop where it did not end in time, and ends after all."""
    limit = PATIENCE if within is None else within
    waiting = asyncio.timeout(limit)  # asyncio.wait_for swallows a cancellation that comes together with the outcome
    try:
        async with waiting:
            while (other := _under_way.get(what)) is not None:
                await _ended(other, what)
            mine = _begun(work, what)
            given: T = await asyncio.wrap_future(mine.outcome)
            return given
    except TimeoutError:
        if not waiting.expired():
            raise
        _give_up(_under_way.get(what), late or (lambda: None))
        raise _stuck(f"{what} did not end within {limit:g} s") from None


async def _ended(other: _Work, what: str) -> None:
    """Somebody is at the same just now: what that one finds may be older than what we are asked for."""
    if other.hangs:
        raise _stuck(f"{what} has not ended since an earlier try")
    await asyncio.gather(asyncio.wrap_future(other.outcome), return_exceptions=True)


def _begun(work: Callable[[], T], what: str) -> _Work:
    mine = _under_way[what] = _Work()
    try:
        threading.Thread(target=_run, args=(work, what, mine), name=f"aside: {what}", daemon=True).start()
    except BaseException:
        del _under_way[what]
        raise
    return mine


def _run(work: Callable[[], T], what: str, mine: _Work) -> None:
    try:
        outcome = work()
    except BaseException as error:
        del _under_way[what]
        mine.outcome.set_exception(error)
    else:
        del _under_way[what]
        mine.outcome.set_result(outcome)


def _give_up(hanging: _Work | None, late: Callable[[], None]) -> None:
    """Nobody waits for it any more; it may have ended this very moment."""
    loop = asyncio.get_running_loop()
    if hanging is None:
        loop.call_soon(late)
        return

    def tell(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(late)
    hanging.hangs = True
    hanging.outcome.add_done_callback(tell)


def _stuck(detail: str) -> DelegatorError:
    return DelegatorError(Kind.UNAVAILABLE, detail, hint="does the disk answer that the files lie on? What serves "
                          "tries again when it does")
