"""Which event loop turns: uvloop's where it is installed (extra `uvloop`), else asyncio's own.

The environment's DELEGATOR_LOOP=asyncio keeps to asyncio's: no setting, as a process has its loop before it reads any.
The invariants: nothing else depends on which it is; whatever keeps uvloop from being had, the program runs; a program
that heeded signals ends as it does on its own, whatever signals follow (pki.signals); a SIGHUP that nobody heeds yet
kills nobody, as a start reads everything anyway.
Must not live here: what runs on it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import TypeVar

from pki import signals

log = logging.getLogger(__name__)
T = TypeVar("T")
VARIABLE = "DELEGATOR_LOOP"
KNOWN = ("asyncio", "uvloop")


def run(main: Coroutine[None, None, T]) -> T:
    """As `asyncio.run`, for programs that serve, in the main thread."""
    before = signals.handlers((*signals.ENDING, signal.SIGHUP))
    if signal.SIGHUP in before:
        signal.signal(signal.SIGHUP, _unheeded)
    with asyncio.Runner(loop_factory=_factory()) as runner:
        try:
            return runner.run(_told(main))
        finally:
            if signal.getsignal(signal.SIGHUP) is _unheeded:
                signal.signal(signal.SIGHUP, before[signal.SIGHUP])
            heeded = {number: each for number, each in before.items() if signal.getsignal(number) is not each}
            signals.over(heeded)


def _unheeded(*_: object) -> None:
    """Until main takes its signals. No SIG_IGN: programs that are begun meanwhile would inherit that."""


class _Asyncio(asyncio.SelectorEventLoop):
    """asyncio's own; but like uvloop it leaves it to `run` what becomes of signals once it is closed. Its own way is
    the default, which kills, in the middle of an orderly end."""

    def remove_signal_handler(self, sig: int) -> bool:
        signal.set_wakeup_fd(-1)  # what it was is closed next
        return False


async def _told(main: Coroutine[None, None, T]) -> T:
    tell()
    return await main


def tell() -> None:
    """Say in the log which loop turns; whoever has its log later than its loop says it again."""
    said = os.environ.get(VARIABLE, "")
    if said and said not in KNOWN:
        log.warning("%s=%a is not known: write %s", VARIABLE, said[:64], " or ".join(KNOWN))
    log.info("the event loop is %s", name())


def _factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if os.environ.get(VARIABLE, "") == "asyncio":
        return _Asyncio
    try:
        import uvloop

        made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except Exception:  # not there, or made for another Python: an old one raises AttributeError there
        return _Asyncio
    return made


def name() -> str:
    """Of the loop that turns."""
    if type(asyncio.get_running_loop()).__module__.partition(".")[0] != "uvloop":
        return "asyncio"
    from importlib import metadata

    return f"uvloop {metadata.version('uvloop')}"
