"""Files of rows under named columns, CSV or JSON lines, read as they come: no more than a line is in memory.

The invariants: reading changes nothing; every row comes with the number of its line; what the file was is known by its
SHA-256 when it is at its end.
Must not live here: what a row means (importing, orders).
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Final

import msgspec

from delegator.errors import DelegatorError, Kind

LONGEST_LINE = 1 << 20
"""Bytes: a thousand times what a device needs, and little enough to hold."""
_AT_ONCE = 1 << 18
_MARK = b"\xef\xbb\xbf"


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
    """One file of rows. `columns` are the names it may have, of which a CSV file needs one of `needed`; `step` is told
    of bytes as they are read."""

    def __init__(self, source: IO[bytes], columns: Sequence[str], needed: Sequence[str],
                 step: Callable[[int], None] = lambda _: None) -> None:
        self._hashing = _Hashing(source, step)
        self._columns, self._needed = tuple(columns), frozenset(needed)

    @property
    def sha256(self) -> str:
        """Of what was read so far, in hexadecimal digits."""
        return self._hashing.digest.hexdigest()

    def __iter__(self) -> Iterator[Record]:
        """Raises DelegatorError (MALFORMED) when the file as a whole is not such a table."""
        lines = self._lines()
        begin = []
        for line in lines:
            begin.append(line)
            if line.strip():
                break
        everything = itertools.chain(begin, lines)
        return self._json(everything) if begin and begin[-1].lstrip().startswith("{") else self._csv(everything)

    def _lines(self) -> Iterator[str]:
        read = io.BufferedReader(self._hashing, _AT_ONCE).readline
        for number in itertools.count(1):
            line = read(LONGEST_LINE + 1)
            if not line:
                return
            if len(line) > LONGEST_LINE:
                raise _malformed(f"line {number}: longer than {LONGEST_LINE} bytes", "one row on each line")
            try:
                yield line.decode() if number > 1 else line.removeprefix(_MARK).decode()
            except UnicodeDecodeError:
                raise _malformed(f"line {number}: not UTF-8", "save the file as UTF-8") from None

    def _csv(self, lines: Iterator[str]) -> Iterator[Record]:
        reader = csv.reader(lines, strict=True)
        try:
            header = [cell.strip().lower() for cell in next(reader, [])]
            self._check_header(header)
            width = len(header)
            in_order = operator.itemgetter(*(header.index(name) if name in header else -1 for name in self._columns))
            for cells in reader:
                if not any(cells) or "".join(cells).isspace():
                    continue
                if len(cells) == width:
                    cells.append(ABSENT)
                    yield reader.line_num, in_order(cells)
                else:
                    yield reader.line_num, f"{len(cells)} cells under a header of {width}"
        except csv.Error as error:
            raise _malformed(f"line {reader.line_num}: {error}", "quote cells as in RFC 4180") from None

    def _check_header(self, header: list[str]) -> None:
        unknown = [name for name in header if name not in self._columns]
        if unknown or len(set(header)) < len(header) or not self._needed & set(header):
            raise _malformed(f"line 1: the header is {','.join(header)[:120] or 'missing'!a}",
                             f"begin the file with some of: {','.join(self._columns)}")

    def _json(self, lines: Iterator[str]) -> Iterator[Record]:
        decode = msgspec.json.Decoder().decode
        known, columns = frozenset(self._columns), self._columns
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = decode(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                yield number, "not a JSON object on one line"
            elif unknown := found.keys() - known:
                yield number, "; ".join(f"unknown name {name[:40]!a}" for name in sorted(unknown))
            else:
                yield number, ["" if (value := found.get(name, ABSENT)) is None else value for name in columns]


def _malformed(detail: str, hint: str) -> DelegatorError:
    return DelegatorError(Kind.MALFORMED, detail, hint=hint)
