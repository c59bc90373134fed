"""The header of a table: where each column stands, and what parts one from the next.

The invariant: a header is taken only where it can be read in one way. The columns are parted by that one of comma,
semicolon and tab by which a wanted name becomes a cell of its own; where two do, or two cells name one column, or a
cell has no name, nothing is guessed: a wrong guess mints certificates for the wrong column.
Must not live here: rows, files (tables).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pki.text import NotText

SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
_DECLARED = re.compile(r"sep=([,;\t])", re.IGNORECASE)
"""Excel's own line above a header, which says what parts the columns."""
_OTHERS = re.compile(r"[|:\s]+")
_ASIDE = re.compile(r"[ \xa0\r\n_-]+")
"""What people vary within a name; a tab is none of it, for it may part columns."""
_SHOWN = 120
_NO_TAGS: Final = frozenset((
    "tag", "tags", "servicetags", "assettag", "assettags", "serial", "serials", "serialno", "serialnumber", "model",
    "models", "order", "orders", "customer", "customers", "delegate", "delegates", "device", "devices", "mac", "macs",
    "macaddress", "macaddresses", "hostname", "hostnames", "product", "number", "identifier"))
"""What stands over a column and fits the form of a service tag: as the first line of a list it is no value."""


@dataclass(frozen=True, slots=True)
class Header:
    """`places` says where each known column stands among `width`."""

    separator: str
    width: int
    places: Mapping[str, int]


def spelling(name: str) -> str:
    """Names that people take for one: `Service Tag`, `service_tag` and `ServiceTag`."""
    return _ASIDE.sub("", name).casefold()


def declared(line: str) -> str | None:
    """The separator, if the line is Excel's `sep=;` and nothing else."""
    found = _DECLARED.fullmatch(line.strip("\r\n "))
    return found and found[1]


def header(lines: Sequence[str], columns: Sequence[str], needed: Collection[str], *, others: bool,
           separator: str | None = None) -> Header | None:
    """The header in those lines; None where no needed column is named. `others`: whether columns may be there that are
    not wanted. Raises NotText for a header that can be read in two ways, or in none."""
    known = {spelling(name): name for name in columns}
    ways: dict[tuple[str, ...], str] = {}
    for one in separator or SEPARATORS:
        cells = _cells(lines, one)
        if any(known.get(spelling(cell)) in needed for cell in cells):
            ways.setdefault(tuple(cells), one)
    if len(ways) > 1:
        raise NotText(f"the header can be read as parted by {' and by '.join(map(_named, ways.values()))}",
                      "part the columns by commas, and put names that hold one into quotes")
    for found, one in ways.items():
        return Header(one, len(found), _places(found, known, others))
    return None


def _cells(lines: Sequence[str], separator: str) -> list[str]:
    """None at all where it is not one record of CSV."""
    try:
        records = list(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error:
        return []
    return [cell.strip(" \r\n") for cell in records[0]] if len(records) == 1 else []


def _places(cells: Sequence[str], known: Mapping[str, str], others: bool) -> dict[str, int]:
    places: dict[str, int] = {}
    for at, cell in enumerate(cells):
        name = known.get(spelling(cell))
        if not cell:
            raise NotText(f"column {at + 1} of the header has no name", "name it, or remove it from every row")
        if name in places:
            raise NotText(f"columns {places[name] + 1} and {at + 1} of the header are both {name}",
                          "leave one of them, or rename the other")
        if name is not None:
            places[name] = at
        elif not others:
            raise NotText(f"the header names an unknown column {_shown(cell)}",
                          f"the names are: {','.join(known.values())}")
    return places


def no_header(line: str, columns: Sequence[str], needed: Collection[str]) -> NotText:
    """Why such a first line is not the header that a table needs."""
    text, known = line.strip(), {spelling(name) for name in columns}
    hint = f"begin the file with a header, some of: {','.join(columns)}"
    parts = max((re.split(f"[{one}]", text) for one in SEPARATORS), key=len)
    if not text:
        return NotText("the header is missing: there is no such line", hint)
    if any(spelling(part) in known for part in parts):
        return NotText(f"the header has no column {' or '.join(needed)}: it is {_shown(text)}", hint)
    if any(spelling(part) in known for part in _OTHERS.split(text)):
        return NotText(f"the columns of the header {_shown(text)} are parted by something else than commas, "
                       "semicolons or tabs", "save it as comma separated (CSV UTF-8)")
    return NotText(f"this is no header: {_shown(text)} names no column that is known", hint)


def must_begin_a_list(line: str, name: str) -> None:
    """The first line of a file without a header, one value a line. Raises NotText for one that can be no value."""
    text = line.strip("\r\n ")
    if any(separator in text.rstrip() for separator in (*SEPARATORS, "|")):
        raise NotText(f"no header with a column {name}, and more than one value: {_shown(text)}",
                      f"begin the file with a header that names {name}, or write one {name} a line")
    if spelling(text) in _NO_TAGS:
        raise NotText(f"the header {_shown(text)} names no column {name}", f"call it {name} if that is what it holds")


def _named(separator: str) -> str:
    return SEPARATORS[separator]


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN - 3] + "...")


def quotes_open(lines: Iterable[str]) -> bool:
    """Whether a quoted cell goes on behind these lines."""
    return sum(line.count('"') for line in lines) % 2 == 1
