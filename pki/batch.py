"""Minting for a factory line: a list of service tags in, a folder of handshake certificates out.

Lives here: `rows`, which reads the list line by line, and `mint`, which works through it in groups.
Invariants: memory does not grow with certificates or keys (a group of 64 at most is held), only with the tags
already seen, about 100 bytes each, so that a duplicate can name the line of the first; whatever stops a run,
running it again finishes it and mints nothing twice that had become visible.
Must not live here: progress bars, signals, files' permissions.

Durability. Each group is staged, made durable with one `sync`, entered in the ledger (its own fsync), and only
then linked to its names. A kill loses at most the group in work, 64 devices, 40 milliseconds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

from pki import disk, keys
from pki.authority import Authority
from pki.errors import PkiError
from pki.folder import Folder, Minted
from pki.naming import service_tag
from pki.profiles import DEVICE

GROUP: Final = 64
LINE_LIMIT: Final = 4096
"""Characters read of one line: a tag has 20, the rest is columns we skip."""

COLUMN: Final = "service_tag"


@dataclass(frozen=True, slots=True)
class Row:
    """One tag, syntax checked, and the line it stands on."""

    line: int
    tag: str


@dataclass(frozen=True, slots=True)
class RowFault:
    """A line that cannot be used, and why."""

    line: int
    detail: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.detail}"


@dataclass(slots=True)
class Tally:
    """How far a run has come; `faults` counts lines that could not be used, duplicates among them."""

    minted: int = 0
    skipped: int = 0
    duplicates: int = 0
    faults: int = 0
    stopped: bool = False

    @property
    def lines(self) -> int:
        return self.minted + self.skipped + self.faults


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the tag stands; `column` None means that the line is the tag."""

    column: int | None = None
    delimiter: str = ","


def rows(stream: TextIO) -> Iterator[Row | RowFault]:
    """Tags from a CSV file with a `service_tag` column, or one tag a line; blank lines are skipped.

    A line is a record: a stray quote spoils its own line, never those behind it.
    """
    layout: _Layout | None = None
    for number, line in enumerate(_lines(stream), 1):
        text = line.strip().removeprefix("\ufeff")
        if not text:
            continue
        if layout is None:
            layout = _heading(text)
            if layout.column is not None:
                continue
        yield _row(number, text, layout) if len(line) <= LINE_LIMIT else _too_long(number)


def _lines(stream: TextIO) -> Iterator[str]:
    """One string a line, of at most one character more than the limit; the rest of it is read and dropped."""
    while line := stream.readline(LINE_LIMIT + 1):
        rest = line
        while rest and not rest.endswith("\n"):
            rest = stream.readline(LINE_LIMIT)
        yield line


def _heading(text: str) -> _Layout:
    for delimiter in ",;\t":
        cells = [cell.strip(' "').lower() for cell in text.split(delimiter)]
        if COLUMN in cells:
            return _Layout(cells.index(COLUMN), delimiter)
    return _Layout()


def _row(number: int, text: str, layout: _Layout) -> Row | RowFault:
    try:
        return Row(number, service_tag(_cell(text, layout)))
    except (IndexError, csv.Error) as error:
        return RowFault(number, f"is not a row of the table: {error}")
    except PkiError as error:
        return RowFault(number, str(error))


def _cell(text: str, layout: _Layout) -> str:
    """Without a heading a line must be a tag: guessing a column could mint the model names."""
    if layout.column is None:
        return text
    return next(csv.reader([text], delimiter=layout.delimiter, strict=True))[layout.column].strip()


def _too_long(number: int) -> RowFault:
    return RowFault(number, f"is longer than {LINE_LIMIT} characters")


Watch = Callable[[Tally, RowFault | None], None]


@dataclass(slots=True)
class Line:
    """A factory line at work: where certificates go, and what is in hand.

    `watch` is called once per input line; `stop` is asked between devices, and ends the run after the group
    in work has been published.
    """

    folder: Folder
    authority: Authority
    destination: Path
    key_type: keys.KeyType = keys.KeyType.EC
    days: int | None = None
    watch: Watch = lambda tally, fault: None
    stop: Callable[[], bool] = lambda: False
    tally: Tally = field(default_factory=Tally)
    _seen: dict[str, int] = field(default_factory=dict)
    _group: list[Minted] = field(default_factory=list)

    def run(self, source: Iterable[Row | RowFault]) -> Tally:
        """Mints every tag that has no certificate at the destination yet."""
        with disk.Staging(self.destination) as staging:
            for row in source:
                if self.stop():
                    self.tally.stopped = True
                    break
                self.watch(self.tally, self._take(row))
                if len(self._group) >= GROUP:
                    self._flush(staging)
            self._flush(staging)
        return self.tally

    def _take(self, row: Row | RowFault) -> RowFault | None:
        fault = row if isinstance(row, RowFault) else self._duplicate(row)
        if fault is not None:
            self.tally.faults += 1
            return fault
        assert isinstance(row, Row)
        if (self.destination / f"{row.tag}.crt").exists():
            self.tally.skipped += 1
        else:
            self._group.append(self._mint(row.tag))
            self.tally.minted += 1
        return None

    def _duplicate(self, row: Row) -> RowFault | None:
        first = self._seen.setdefault(row.tag, row.line)
        if first == row.line:
            return None
        self.tally.duplicates += 1
        return RowFault(row.line, f"{row.tag} stands on line {first} already; it was minted once")

    def _mint(self, tag: str) -> Minted:
        """A key that an interrupted run left without its certificate is used, not replaced."""
        path = self.destination / f"{tag}.key"
        left = path.exists()
        key = keys.from_pem(disk.read_private(path)) if left else keys.generate(self.key_type)
        token = self.authority.prepare(DEVICE, tag, key.public_key(), days=self.days)
        return Minted(DEVICE, tag, self.authority.issue(token), None if left else keys.to_pem(key))

    def _flush(self, staging: disk.Staging) -> None:
        if self._group:
            self.folder.publish(staging, self._group)
            self._group.clear()
