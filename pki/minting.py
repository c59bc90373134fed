"""The factory line on the console: a list of tags with progress, row errors, a tidy Ctrl-C and a summary.

Lives here: what surrounds batch.py when a person or a script runs it.
Invariants: nothing is minted of a list that is wrong as a whole, through a pipe too; the first Ctrl-C (or SIGTERM) ends
the run after the group in work, the second at once; both leave a folder that the same command finishes.
Must not live here: minting itself.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Final

import click

from pki import batch, disk, piped
from pki.console import Passphrase, Progress, Values
from pki.errors import Kind, PkiError
from pki.folder import Folder
from pki.keys import KeyType
from pki.profiles import DEVICE

SHOWN_FAULTS: Final = 100
"""So many row errors are told one by one; a wrong file of a million lines must not fill the log."""


def mint(
    source: IO[bytes], out: Path | None, *, place: Path, key_type: str, csr: object, days: int | None,
    renew: bool, passphrase: Passphrase,
) -> Values:  # fmt: skip
    """Mints the list; the exit code is 1 if a line could not be used or the run was stopped."""
    if csr or renew:
        raise PkiError(Kind.USAGE, "--csr and --renew are for a single TAG", "leave them away with --from")
    folder = Folder.open(place)
    authority = folder.authority(passphrase.read())
    destination = disk.make_folder(out or folder.directory(DEVICE))
    with piped.read_twice(source) as (first, again), _Desk(Progress(_count(first))) as desk, _stoppable() as stop:
        line = batch.Line(folder, authority, destination, KeyType(key_type), days, desk.watch, stop)
        tally = line.run(batch.rows(again(), desk.progress.say))
    return _summary(tally, destination, desk.faults)


@dataclass(slots=True)
class _Desk:
    """Watches the line: moves the bar, tells the first faults."""

    progress: Progress
    faults: list[batch.RowFault] = field(default_factory=list)

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.finish()

    def watch(self, tally: batch.Tally, fault: batch.RowFault | None) -> None:
        self.progress.advance(tally.lines)
        if fault is not None and len(self.faults) < SHOWN_FAULTS:
            self.faults.append(fault)
            self.progress.say(str(fault))


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """A question "shall we stop?" that a signal turns to yes; a second signal has its usual effect."""
    asked = False
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, usual[signal.Signals(number)])
        click.echo("\nstopping after this group; once more to stop at once", err=True)

    for number in usual:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _count(source: IO[bytes]) -> int:
    """Records, for the bar. Raises PkiError (REFUSED) where the list as a whole is wrong, be it on its last line."""
    progress, count = Progress(None), 0
    for count, _ in enumerate(batch.rows(source), 1):
        progress.read(count)
    return count


def _summary(tally: batch.Tally, destination: Path, faults: list[batch.RowFault]) -> Values:
    words = f"{tally.minted} minted, {tally.skipped} were there already, {tally.faults} lines not used"
    ending = ["stopped; run the same command again to go on"] if tally.stopped else []
    return {
        "lines": [f"{destination}: {words}", *ending],
        "exit": 1 if tally.stopped or tally.faults else 0,
        "folder": str(destination),
        "minted": tally.minted,
        "skipped": tally.skipped,
        "duplicates": tally.duplicates,
        "faults": tally.faults,
        "stopped": tally.stopped,
        "errors": [{"line": fault.line, "detail": fault.detail} for fault in faults],
    }
