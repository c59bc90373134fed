"""What commands that import have in common: options, bars, what they say at the end.

The invariant: a file is read once, from its begin to its end, so that standard input will do.
Must not live here: what a row means (desk.rows, orders), how it is kept (store).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from delegator.cli import console, files
from delegator.cli.console import Output
from delegator.errors import APPEARANCES, Kind
from delegator.store.spool import Refused

F = TypeVar("F", bound=Callable[..., Any])
MOST_TOLD = 10_000
"""Refused rows that --json holds: a file that is wrong throughout must not fill the memory with complaints."""
_TOLD = 20
"""Refused rows told on standard error."""
_REFUSED = APPEARANCES[Kind.MALFORMED].exit_code


def options(function: F) -> F:
    """--replace, --keep-good and --dry-run."""
    for option in (
            click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing."),
            click.option("--keep-good", is_flag=True, help="Keep the rows that are right even if others are not."),
            click.option("--replace", is_flag=True, help="Change what is registered differently.")):
        function = option(function)
    return function


class Stages:
    """A bar on standard error for each stage of long work, one after the other."""

    def __init__(self) -> None:
        self._bar: console.Progress | None = None

    def next(self, label: str, total: int) -> Callable[[int], None]:
        """What is told of pieces of this stage that are done."""
        self.finish()
        self._bar = console.Progress(total, label)
        return self._bar.step

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.finish()
        self._bar = None


@contextlib.contextmanager
def opened(file: Path, stages: Stages) -> Iterator[tuple[IO[bytes], Callable[[int], None]]]:
    """A file or standard input, and what is told of bytes read from it; how many there are is known of files alone."""
    with files.rows(file) as source:
        found = os.fstat(source.fileno()) if file != Path("-") else None
        plain = found is not None and stat.S_ISREG(found.st_mode)
        yield source, stages.next("bytes read", found.st_size) if found is not None and plain else lambda _: None


def result(facts: Mapping[str, Any], refused: Sequence[Refused], *, kept: bool, dry_run: bool) -> Output:
    """What an import came to, as data and in words. `facts` count rows, new, changed, unchanged, refused_rows."""
    data = {**facts, "refused": [{"line": one.line, "error": one.error} for one in refused], "registered": kept,
            "dry_run": dry_run}
    return Output(data, words=tuple(_told(data, refused)), exit_code=_REFUSED if refused else 0)


def _told(facts: Mapping[str, Any], refused: Sequence[Refused]) -> Iterable[str]:
    wrong = facts["refused_rows"]
    yield from (f"line {one.line}: {one.error}" for one in itertools.islice(refused, _TOLD))
    if wrong > _TOLD:
        yield f"... and {wrong - _TOLD} more; --json tells {'all' if wrong <= MOST_TOLD else f'{MOST_TOLD} of them'}"
    counted = (f"{facts['new']} new, {facts['changed']} changed, {facts['unchanged']} unchanged, {wrong} refused of "
               f"{facts['rows']} rows")
    if not refused:
        nothing = "; nothing was changed" if not facts["new"] + facts["changed"] else ""
        yield f"{counted}; nothing was changed, as --dry-run asks" if facts["dry_run"] else counted + nothing
        return
    yield f"error: {counted}; " + ("the others are registered" if facts["registered"] else "nothing was changed")
    yield "  next: mend those lines and run it again" + ("" if facts["registered"] else ", or add --keep-good")
