"""Work that goes on for as long as the program does: it must not end without anybody knowing.

A task of asyncio that raises is silent until somebody asks for its outcome, and of one that is meant to run for ever
nobody asks. One stray error would then keep revocations from being read until the next start.
What is done again and again by the clock is a chore, with a name, an interval and a metric of its own; a composition
lists its chores in rotas.
The invariants: what is kept here ends only by returning or by being cancelled; every error is told in the log, also a
cancellation that nobody asked us for, and the work comes again; a chore that does not end is named.
Must not live here: what the work is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from delegator.clockwork.deadline import Free
from delegator.errors import DelegatorError

log = logging.getLogger(__name__)
AGAIN = 1.0
"""Seconds until work that broke off is begun anew: an error that comes at once each time must not use up the core."""
LONG = 60.0
"""Seconds after which the log names a chore that has not ended: until it does, those behind it in its rota wait."""
Work = Callable[[], Awaitable[object]]
Noted = Callable[[str, float, bool], None]
"""Hears of each time that a chore was done: its name, the seconds that it took, whether it went well."""
Begun = Callable[[str], None]
"""Hears of each chore as its rota begins, so that one is missed that hangs the first time."""


async def guarded(work: Work, what: str = "housekeeping") -> None:
    """One round. One that fails is logged, and the next one comes all the same."""
    error = await _error_of(work)
    if error is not None:
        _tell(what, error)


async def kept(work: Work, what: str) -> None:
    """Work that makes its rounds itself, begun anew where an error got through its guards."""
    while (error := await _error_of(work)) is not None:
        _tell(what, error)
        await asyncio.sleep(AGAIN)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is done again and again by the clock: more than one asking for it makes it no more urgent. `every`
    is seconds from the end of one time to the next."""

    name: str
    every: float
    work: Work


class Rota:
    """Chores that one process does in turn, one at a time, each when it is due. A chore that must not wait for others
    has a rota of its own. Setting `woken` makes all of them due at once.

    What keeps chores from being done is told once, until it is something else or is over: a database that is gone is
    one trouble and not five every few seconds."""

    def __init__(self, chores: Iterable[Chore], noted: Noted = lambda *_: None,
                 woken: asyncio.Event | None = None, begun: Begun = lambda _: None) -> None:
        self.chores = tuple(chores)
        self._noted = noted
        self._begun = begun
        self._woken = woken or asyncio.Event()
        self._due = dict.fromkeys(self.chores, 0.0)
        self._troubles: dict[str, str] = {}

    async def run(self) -> None:
        """Do them until cancelled."""
        for chore in self.chores:
            self._begun(chore.name)
        while True:
            self._woken.clear()
            await self.round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0, min(self._due.values()) - time.monotonic())):  # not wait_for: it
                    await self._woken.wait()  # may swallow a cancellation (gh-86296)
            if self._woken.is_set():
                self._due = dict.fromkeys(self.chores, 0.0)

    async def round(self) -> None:
        """Do each that is due, whatever became of those before it."""
        began = time.monotonic()
        due = [chore for chore in self.chores if self._due[chore] <= began]
        for chore in due:
            await self._do(chore)
        ended = time.monotonic()
        self._due |= {chore: ended + chore.every for chore in due}

    async def _do(self, chore: Chore) -> None:
        began = time.monotonic()
        long = asyncio.get_running_loop().call_later(LONG, _tell_long, chore.name)
        try:
            error = await _error_of(chore.work)
        finally:
            long.cancel()
        self._noted(chore.name, time.monotonic() - began, error is None)
        if not isinstance(error, DelegatorError):
            self._troubles.pop(chore.name, None)
            if error is not None:
                _tell(chore.name, error)
            return
        if error.detail not in self._troubles.values():
            _tell(chore.name, error)
        self._troubles[chore.name] = error.detail


async def _error_of(work: Work) -> BaseException | None:
    """What kept the work from ending well. That it awaited something which was cancelled is an error like any other:
    only who cancels us may end what is to go on for ever."""
    try:
        with Free():  # what a request began is not bound by its deadline
            await work()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return error
    except Exception as error:
        return error
    return None


def _tell_long(what: str) -> None:
    log.warning("chore %s has not ended for %g s", what, LONG)


def _tell(what: str, error: BaseException) -> None:
    if isinstance(error, DelegatorError):
        log.error("%s: %s", what, error.detail)
    else:
        log.error("%s: a fault of ours", what, exc_info=error)
