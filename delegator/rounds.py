"""Work that goes on for as long as the program does: it must not end without anybody knowing.

A task of asyncio that raises is silent until somebody asks for its outcome, and of one that is meant to run for ever
nobody asks. One stray error would then keep revocations from being read until the next start.
The invariant: what is kept here ends only by returning or by being cancelled; every error is told in the log, and the
work comes again.
Must not live here: what the work is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from delegator.deadline import Free
from delegator.errors import DelegatorError

log = logging.getLogger(__name__)
AGAIN = 1.0
"""Seconds until work that broke off is begun anew: an error that comes at once each time must not use up the core."""


async def guarded(work: Callable[[], Awaitable[object]], what: str = "housekeeping") -> None:
    """One round. One that fails is logged, and the next one comes all the same."""
    await _went_well(work, what)


class Round:
    """Several works, one after the other, again and again. What keeps them from being done is told once, until it is
    something else or is over: a database that is gone is one trouble, not five every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told: frozenset[str] = frozenset()

    async def of(self, *works: Callable[[], Awaitable[object]]) -> None:
        """One round: each of them, whatever became of those before it."""
        met: set[str] = set()
        for work in works:
            await _went_well(work, self._what, met, self._told)
        self._told = frozenset(met)


async def kept(work: Callable[[], Awaitable[object]], what: str) -> None:
    """Work that makes its rounds itself, begun anew where an error got through its guards."""
    while not await _went_well(work, what):  # noqa: ASYNC110
        await asyncio.sleep(AGAIN)


async def _went_well(work: Callable[[], Awaitable[object]], what: str, met: set[str] | None = None,
                     told: Collection[str] = ()) -> bool:
    """Whether there was no error. Its words are added to `met`, and not logged where they are there or in `told`."""
    try:
        with Free():  # what a request began is not bound by its deadline
            await work()
    except DelegatorError as error:
        if error.detail not in told and (met is None or error.detail not in met):
            log.error("%s: %s", what, error.detail)
        if met is not None:
            met.add(error.detail)
    except Exception:
        log.exception("%s: a fault of ours", what)
    else:
        return True
    return False
