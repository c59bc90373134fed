"""Files of rows: the one reader of every table and list that comes in, here and in the delegator.

A table is CSV under a header (RFC 4180; parted by commas, semicolons or tabs, as the header shows) or JSON, an object a
line; a list is one value a line, with # before a comment. Rows are read as they come: no more than a record is in
memory. The invariants: header and rows are split by the same parser, and nothing is stripped before it is split, so a
value never comes from another column than the header says; every row comes with the number of its line; what the file
was is known by its SHA-256 when it is at its end.
Must not live here: what a header may be (headings), what a row means (batch, and the delegator's importing and orders).
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import operator
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, Any, Final

import msgspec

from pki.errors import Kind, PkiError
from pki.headings import (
    SEPARATORS,
    Beginning,
    Header,
    declared,
    header,
    heads,
    must_begin_a_list,
    no_header,
    quotes_open,
    repeated,
    spelling,
    spellings,
)
from pki.text import MARK, NotText, bare_return, foreign, no_utf8, nul
from pki.twice import said_twice

LONGEST_LINE: Final = 1 << 20
"""Bytes: a thousand times what a device needs, and little enough to hold."""
_AT_ONCE = 1 << 18
_LONGEST_HEADER = 64
"""Lines: a heading of a spreadsheet may be broken into some, a quote that is never closed runs on."""

_AGAIN = "reads as a heading and not as a row: a table has one, on top; give each of several tables by itself"


class Absent(str):
    """Stands for a value whose column or name the row does not have: text without anything in it, but not the same as
    what is there and empty."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


ABSENT: Final = Absent()
Values = Sequence[object]
Record = tuple[int, Values | str]
"""A line and its values in the order of the columns, or what is wrong with the row as a whole."""


class _Hashing(io.RawIOBase):
    """What is read passes through a digest, and is counted."""

    def __init__(self, source: IO[bytes], step: Callable[[int], None]) -> None:
        self._source, self._step = source, step
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self._source.read(min(len(view), _AT_ONCE))
        view[:len(content)] = content
        self.digest.update(content)
        self._step(len(content))
        return len(content)


class Table:
    """One file of rows. `columns` are the names it may have, of which a header needs one of `needed`; `step` is told
    of bytes as they are read. `others`: it may have more columns, which are passed over. `alone`: it may be a list, of
    what else stands in the first of `columns`."""

    def __init__(self, source: IO[bytes], columns: Sequence[str], needed: Collection[str],
                 step: Callable[[int], None] = lambda _: None, *, others: bool = False, alone: bool = False) -> None:
        self._hashing = _Hashing(source, step)
        self._columns, self._needed = tuple(columns), tuple(needed)
        self._others, self._alone = others, alone
        self.headless: str | None = None
        """The first line of a list without a heading, once it is taken as a value: whoever reads it says so."""

    @property
    def taken(self) -> str:
        """What is to be said of a list without a heading; nothing of any other file."""
        return "" if self.headless is None else (
            f"no heading: the first line, {self.headless[:40]!a}, is taken as a {self._columns[0].replace('_', ' ')}")

    @property
    def sha256(self) -> str:
        """Of what was read so far, in hexadecimal digits."""
        return self._hashing.digest.hexdigest()

    def __iter__(self) -> Iterator[Record]:
        """Raises what `refused` makes, when the file as a whole is not such a table."""
        try:
            return self._records()
        except NotText as error:
            raise self.refused(error) from None

    def refused(self, error: NotText) -> Exception:
        """The error for whoever reads: a PkiError (REFUSED)."""
        return PkiError(Kind.REFUSED, detail_of(error), error.hint)

    def _records(self) -> Iterator[Record]:
        """By the notation that the first line shows, blank ones aside."""
        lines = self._lines()
        begin, separator = [], None
        for line in lines:
            begin.append(line)
            separator = separator or declared(line)
            if line.strip() and not declared(line):
                break
        first = begin[-1].lstrip() if begin else ""
        if first.startswith(("{", "[", "<", "-----BEGIN")):
            _must_be_objects(first)
            return self._told(self._json(itertools.chain(begin, lines)))
        return self._csv(begin, lines, separator)

    def _lines(self) -> Iterator[str]:
        read = io.BufferedReader(self._hashing, _AT_ONCE).readline
        line = _first(read(LONGEST_LINE + 1))
        for number in itertools.count(1):
            if not line:
                return
            if len(line) > LONGEST_LINE:
                raise NotText(f"line {number} is longer than {LONGEST_LINE} bytes", "write one row on each line")
            if b"\0" in line:
                raise nul(number)
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise no_utf8(error, number) from None
            line = read(LONGEST_LINE + 1)

    def _csv(self, begin: list[str], lines: Iterator[str], separator: str | None) -> Iterator[Record]:
        above = len(begin) - 1
        while begin and quotes_open(begin[above:]) and len(begin) - above < _LONGEST_HEADER:
            more = next(lines, None)
            if more is None:
                break
            begin.append(more)
        everything = itertools.chain(begin, lines)
        try:
            found = header(begin[above:], self._columns, self._needed, others=self._others, separator=separator)
            if found is not None:
                return self._rows(found, len(begin), everything)
            if not self._alone:
                raise no_header("".join(begin[above:]), self._columns, self._needed)
            must_begin_a_list("".join(begin[above:]), self._columns[0])
            return self._told(self._list(everything))
        except NotText as error:
            raise NotText(f"line {above + 1 if begin else 1}: {error.why}", error.hint) from None

    def _told(self, records: Iterator[Record]) -> Iterator[Record]:
        try:
            yield from records
        except NotText as error:
            raise self.refused(error) from None

    def _rows(self, found: Header, above: int, lines: Iterator[str]) -> Iterator[Record]:
        """A row is known by the line on which it begins. Most files are such tables, so there is no loop around this
        one: each costs an import of a million rows a tenth of a second."""
        reader = csv.reader(lines, delimiter=found.separator, strict=True)
        width, in_order = found.width, _in_order([found.places.get(name, -1) for name in self._columns])
        again = repeated(self._needed, [found.places[name] for name in self._needed if name in found.places])
        ended = 0
        try:
            while ended < above:
                next(reader)
                ended = reader.line_num
            for cells in reader:
                line, ended = ended + 1, reader.line_num
                if not (cells and cells[0].strip()) and not "".join(cells).strip():
                    continue
                if len(cells) == width:
                    if again(cells):
                        yield line, _AGAIN
                        continue
                    cells.append(ABSENT)
                    yield line, in_order(cells)
                else:
                    yield line, f"{len(cells)} cells under a header of {width}, parted by {SEPARATORS[found.separator]}"
        except csv.Error as error:
            raise self.refused(_broken(str(error), ended + 1, reader.line_num)) from None
        except NotText as error:
            raise self.refused(error) from None

    def _list(self, lines: Iterator[str]) -> Iterator[Record]:
        """The first lines are held until it is known that the first of them is a value as the others are."""
        name, missing = self._columns[0], [ABSENT] * (len(self._columns) - 1)
        beginning: Beginning | None = None
        held: list[Record] = []
        settled = False
        for number, text in self._alone_on_lines(lines):
            record: Record = (number, [text, *missing])
            if any(separator in text for separator in SEPARATORS):
                record = number, "more than one value on a line, and no header that says which is which"
            elif beginning is None:
                beginning = Beginning(number, text, name)
                self.headless = text
            elif heads(text, self._needed):
                record = number, _AGAIN
            elif not settled:
                settled = beginning.settled(text)
            held.append(record)
            if settled:
                yield from held
                held.clear()
        if beginning is not None and not settled:
            beginning.ended()
        yield from held

    @staticmethod
    def _alone_on_lines(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
        """What stands on lines, comments aside."""
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].rstrip().lstrip(" ")
            if "\r" in text:
                raise bare_return(number)
            if text:
                yield number, text

    def _json(self, lines: Iterator[str]) -> Iterator[Record]:
        decode = msgspec.json.Decoder().decode
        known, columns, needed = frozenset(self._columns), self._columns, self._needed
        headings = spellings(needed)
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = decode(line)
                twice = said_twice(line, found)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                yield number, "not a JSON object on one line"
                continue
            unknown = found.keys() - known
            if unknown and (wrong := self._odd(unknown)):
                yield number, wrong
            elif twice is not None:
                yield number, f"says {twice[:40]!a} twice"
            elif not headings.isdisjoint([text for text in map(found.get, needed) if type(text) is str]):
                yield number, _AGAIN
            else:
                yield number, ["" if (value := found.get(name, ABSENT)) is None else value for name in columns]

    def _odd(self, unknown: Collection[str]) -> str:
        """What is wrong with names that are not those of columns; nothing where others may be there."""
        alike = {spelling(name): name for name in self._columns}
        odd = sorted(unknown if not self._others else (name for name in unknown if spelling(name) in alike))
        return "; ".join(f"unknown name {name[:40]!a}" + (f": it is spelled {alike[spelling(name)]}"
                                                         if spelling(name) in alike else "") for name in odd)


def detail_of(error: NotText) -> str:
    """The sentence about a file of rows: its lines speak for themselves."""
    return error.why if error.why.startswith("line ") else error.of("the file")


def _first(line: bytes) -> bytes:
    """The first line without a mark. Raises NotText where the file is something else than text in lines."""
    found = foreign(line)
    if found is not None:
        raise found
    if b"\r" in line.rstrip(b"\r\n"):
        raise bare_return(1)
    return line.removeprefix(MARK)


def _in_order(places: Sequence[int]) -> Callable[[Sequence[object]], Values]:
    """Picks the values of a row."""
    if len(places) > 1:
        return operator.itemgetter(*places)
    (only,) = places
    return lambda cells: (cells[only],)


def _must_be_objects(first: str) -> None:
    """Raises NotText for what begins like another notation than JSON, an object a line."""
    if re.match(r"\[\s*(?:[\[{\"\]]|$)", first):
        raise NotText("is a JSON array, and an object a line is wanted", "cut it into lines: jq -c '.[]' FILE")
    if first.startswith("<"):
        raise NotText("is a page of XML or HTML, and no table", "save the table as CSV, not the page that shows it")
    if first.startswith("-"):
        raise NotText("is PEM, as certificates and keys are, and no table", "name the file of rows that is meant")
    if first.strip() == "{":
        raise NotText("is one JSON object over several lines, and an object a line is wanted",
                      "put each on one line: jq -c . FILE")


def _broken(error: str, begun: int, line: int) -> NotText:
    """Python's words for a record that is no CSV, in the words of who wrote it."""
    if "unexpected end" in error:
        return NotText(f"line {begun}: a quote is opened there and closed nowhere", "quote cells as in RFC 4180")
    if "field limit" in error:
        return NotText(f"line {begun}: a cell is longer than {csv.field_size_limit()} characters",
                       "look for a quote that is not closed; quote cells as in RFC 4180")
    if "new-line" in error:
        return bare_return(line)
    return NotText(f"line {line}: something else than the next cell stands behind a closing quote",
                   "quote cells as in RFC 4180: a quote within a cell is doubled")
