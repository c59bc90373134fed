"""Minting for a factory line: a list of service tags in, a folder of handshake certificates out.

Lives here: `rows`, which makes tags of the rows of a list, and `Line`, which works through them in groups.
Invariants: memory does not grow with certificates or keys (a group of 64 at most is held), only with the tags
already seen, about 100 bytes each, so that a duplicate can name the line of the first; whatever stops a run,
running it again finishes it and mints nothing twice that had become visible.
Must not live here: progress bars, signals, files' permissions, how a list is read (tables).

Durability. Each group is staged, made durable with one `sync`, entered in the ledger (its own fsync), and only
then linked to its names. A kill loses at most the group in work, 64 devices, 40 milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from pki import disk, keys
from pki.authority import Authority
from pki.errors import Kind, PkiError
from pki.folder import Folder, Minted
from pki.naming import service_tag
from pki.profiles import DEVICE
from pki.tables import Table

GROUP: Final = 64
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


def rows(source: IO[bytes], say: Callable[[str], None] = lambda words: None) -> Iterator[Row | RowFault]:
    """Tags from a table with a `service_tag` column, whatever else it has, or from a list, one tag a line; then `say`
    is told, before the first, that this was no heading. Raises PkiError (REFUSED) for a file that is neither."""
    table = Table(source, (COLUMN,), (COLUMN,), others=True, alone=True)
    silent = True
    for line, values in table:
        if silent and table.headless is not None:
            say(table.taken)
        silent = False
        try:
            yield RowFault(line, values) if isinstance(values, str) else Row(line, _tag(values[0]))
        except PkiError as error:
            yield RowFault(line, str(error))


def _tag(value: object) -> str:
    """What stands in the column, blanks around it aside: they are gone only now that it is known which column it is."""
    if not isinstance(value, str):
        raise PkiError(Kind.REFUSED, f"{COLUMN} must be a string", "put it into quotes")
    return service_tag(value.strip(" \t"))


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
