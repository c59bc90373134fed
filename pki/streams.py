"""Standard input, output and error of a program, made so that writing to them may fail.

Lives here: what a program does about an 8-bit terminal, a full disk, a pipe whose reader has left, a stream that was
closed before it started; and about Ctrl-C. Used by `python -m pki`, by `delegator` and by the repository's scripts.
Invariants: a letter that the terminal does not have is shown as an escape and stops nothing; what could not be written
to standard output is said on standard error and the program does not end with 0; what could not be said on standard
error changes nothing but what whoever said it makes of that (`unheard`); a file that the program opens never becomes
one of the three streams.
Must not live here: what is written; the device client, which is shipped alone, has its own (delegator.device.command).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from pki import signals

FAILED: Final = 1
"""How a program ends whose result could not be written."""
READER_LEFT: Final = 128 + 13
"""As a shell tells it of a program that SIGPIPE ended: the reader of standard output had enough, as `head` has."""
INTERRUPTED: Final = 128 + 2
"""As a shell tells it of a program that Ctrl-C ended."""
_OUTPUT: Final = "standard output"
_ERROR_LINES: Final = ("error: {}\n  next: write it elsewhere or free space there; what was done is not undone: look "
                       "before you run it again\n")


class Unwritten(OSError):
    """Standard output took no more. Raised once; what is written afterwards goes nowhere."""


class _Written(io.RawIOBase):
    """A stream that can be written, over its number."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.lost: Unwritten | None = None

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        if self.lost is not None:
            return len(content)
        try:
            return _write(self._number, content)
        except OSError as error:
            words = "it is closed" if error.errno == errno.EBADF else error.strerror
            self.lost = Unwritten(error.errno, words, _OUTPUT)
        raise self.lost


class _Said(_Written):
    """Standard error: words that nobody can hear are no reason to stop, and the next ones are tried again."""

    unheard = 0

    def write(self, content: Any) -> int:
        try:
            return _write(self._number, content)
        except OSError:
            self.unheard += 1
        return len(content)


class _Closed(io.RawIOBase):
    """Standard input that was closed before the program started."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> NoReturn:
        raise OSError(errno.EBADF, "it is closed", "standard input")


def _write(number: int, content: Any) -> int:
    while True:
        try:
            return os.write(number, content)
        except BlockingIOError:  # whoever shares the terminal or pipe with us set it so
            select.select((), (number,), ())


def program(run: Callable[[], object]) -> NoReturn:
    """Runs a whole program: ends the process with the code that `run` returns or exits with, or with FAILED where its
    result was lost. Ctrl-C is a word and INTERRUPTED, and more of it changes neither."""
    output = _made_safe()
    code: Any
    try:
        code = run()
    except SystemExit as end:
        code = end.code
    except Unwritten:
        code = FAILED
    except KeyboardInterrupt:
        signals.over(signals.handlers())
        sys.stderr.write("error: stopped\n")
        code = INTERRUPTED
    if code == INTERRUPTED:
        signals.over(signals.handlers())
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(_told(code, output.lost))


def unheard() -> int:
    """How often standard error took nothing, for whoever has something to say that must not be lost."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    return raw.unheard if isinstance(raw, _Said) else 0


def _told(code: Any, lost: Unwritten | None) -> Any:
    """The code to end with; says what was lost, but not that a reader left, who knows."""
    if lost is None:
        return code
    if lost.errno == errno.EPIPE:
        return READER_LEFT if code in (None, 0, FAILED) else code
    sys.stderr.write(_ERROR_LINES.format(f"{lost.filename}: {lost.strerror}"))
    return code or FAILED


def _made_safe() -> _Written:
    """Puts safe streams in the place of Python's own; what stands under standard output."""
    for number in range(3):
        _fill(number)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Closed()))
    output = _Written(1)
    sys.stdout, sys.stderr = _text(output, sys.stdout), _text(_Said(2), sys.stderr)
    return output


def _fill(number: int) -> None:
    """A closed stream gets a file that refuses, else the next file that is opened, such as the database, would get its
    number, and with it what is printed."""
    try:
        os.fstat(number)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_WRONLY if number == 0 else os.O_RDONLY), True)


def _text(raw: _Written, before: Any) -> io.TextIOWrapper:
    """With the encoding and the buffering that Python chose."""
    closed = before is None
    with contextlib.suppress(AttributeError, OSError):
        before.flush()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8" if closed else before.encoding,
                            errors="backslashreplace", write_through=not closed and before.write_through,
                            line_buffering=isinstance(raw, _Said) or (not closed and before.line_buffering))
