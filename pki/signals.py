"""The signals that end a program, SIGTERM and Ctrl-C: the first one decides how it ends, and none that follows.

Lives here: what a program does about those that come while it is ending already. Used by the servers, the
demonstration, the benchmarks and whatever else pki.streams runs.
Invariants: until the process is gone no further signal changes its exit code, cuts off what it says or leaves behind
what it clears away; a handler of whoever embeds us is put back, only a default that kills is not. Ignoring alone does
that: Python puts every handler back to the default while it ends, but leaves ignored what is ignored.
Must not live here: what the first signal leads to; the device client, which is shipped alone, has its own
(delegator.device.command).
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def handlers(numbers: Iterable[signal.Signals] = ENDING) -> dict[signal.Signals, Any]:
    """Those of now; without those that Python did not set, and cannot put back."""
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler is not None}


def over(before: Mapping[signal.Signals, Any]) -> None:
    """A program that heeded these signals is ending: what was there before is put back unless it kills."""
    _put({number: handler if callable(handler) and handler is not signal.default_int_handler else signal.SIG_IGN
          for number, handler in before.items()})


@contextmanager
def first(error: BaseException) -> Iterator[None]:
    """SIGTERM or Ctrl-C raises the error, once. For a program that clears away what it made on its way out."""
    before, listens, heard = handlers(), True, False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal listens, heard
        if listens:
            listens, heard = False, True
            raise error

    try:
        try:
            _put(dict.fromkeys(before, hear))
            yield
        finally:
            listens = False  # what was raised before this line was so once, and the next ones are run all the same
    finally:
        (over if heard else _put)(before)


def _put(wanted: Mapping[signal.Signals, Any]) -> None:
    held = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)  # of one just while its handler changes Python complains
    for number, handler in wanted.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
