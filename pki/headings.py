"""The header of a table: where each column stands, and what parts one from the next.

The invariant: a header is taken only where it can be read in one way. The columns are parted by that one of comma,
semicolon and tab by which a wanted name becomes a cell of its own; where two do, or two cells name one column, or a
cell has no name, nothing is guessed: a wrong guess mints certificates for the wrong column. A heading is never taken
for a value without a word: not in the middle of a table, nor as the first line of a list.
Must not live here: rows, files (tables).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
"""What stands over a column and fits the form of a service tag: in such a column it is no value, on whatever line."""
_OF_A_HEADING = re.compile(
    "tag|seri|servic|name|nom|model|desc|besch|bezei|comput|devic|dispos|ger[aä]e?t|host|asset|activ|invent|num[eé]|"
    "numb|order|orden|bestel|commande|pedido|client|kunde|custom|produ|artic|artik|ident|machin|maschin|equip|rechner|"
    "ordina|server|laptop|label|etiq|colum|spalte|titel|title|valu|wert|(id|nr|no|sn|sku)$")
"""What heads a column in several languages has one of these in it, casefolded. Asked only of the first line of a list,
and only where that holds no digit: chance makes such tags too."""
_DIGIT = re.compile("[0-9]").search
_SETTLED = 1000
"""Lines after which the first line of a list that is unlike all of them is refused, whatever is still to come."""


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


# --- headings where values should be --------------------------------------------------------------------------------


def heads(text: str, needed: Collection[str]) -> bool:
    """Whether it stands over a column, and is no value of one."""
    return spelling(text) in _NO_TAGS or _names_one(text, needed)


def _names_one(text: str, needed: Collection[str]) -> bool:
    found = spelling(text)
    return any(found == spelling(name) for name in needed)


def spellings(needed: Collection[str]) -> frozenset[str]:
    """How people write these names, for a look at a million rows: a cell costs a tenth of what `spelling` takes."""
    joined = [sign.join(name.split("_")) for name in needed for sign in ("_", " ", "-", "")]
    titled = ["".join(part.title() for part in name.split("_")) for name in needed]
    return frozenset((*titled, *(way(one) for one in joined for way in (
        str.lower, str.upper, str.title, str.capitalize))))


def repeated(needed: Collection[str], places: Sequence[int]) -> Callable[[Sequence[str]], bool]:
    """Whether the cells of a row are a heading again, as where two files were written one behind the other: one of them
    names a needed column, or one at those `places`, which needed columns have, heads a column. Without asking each
    cell: only a row of which such a cell is a word is looked at closely."""
    names = spellings(needed)

    def found(cells: Sequence[str]) -> bool:
        if not names.isdisjoint(cells):
            return True
        for place in places:
            cell = cells[place]
            if cell and not _DIGIT(cell) and (heads(cell, ()) or any(_names_one(each, needed) for each in cells)):
                return True
        return False
    return found


class Beginning:
    """The first line of a list without a heading, held against those that follow: words alone do not tell a heading
    from a tag. Raises NotText where it is one, or differs in kind from all others."""

    def __init__(self, line: int, text: str, name: str) -> None:
        self._line, self._text, self._name = line, text, name
        self._letters = not any(map(str.isdigit, text))
        self._lengths: set[int] = set()
        self._others = 0
        if heads(text, ()) or (self._letters and _OF_A_HEADING.search(spelling(text))):
            raise self._refused(f"reads as the heading of a column, and names no column {name}")

    def settled(self, other: str) -> bool:
        """Whether this line shows that the first is like some other, so that no more have to be looked at."""
        self._others += 1
        self._letters = self._letters and any(map(str.isdigit, other))
        self._lengths.add(len(other))
        if self._others >= _SETTLED:
            self.ended()
        return not self._letters and not self._sole_length

    @property
    def _sole_length(self) -> bool:
        return len(self._lengths) == 1 and len(self._text) not in self._lengths

    def ended(self) -> None:
        """There are no more lines to hold it against, or enough were."""
        if self._others and self._letters:
            raise self._refused("has no digit, and all other lines have one")
        if self._others > 1 and self._sole_length:
            raise self._refused(f"is not as long as all other lines, which have {self._lengths.pop()} characters")

    def _refused(self, why: str) -> NotText:
        return NotText(f"line {self._line}: {_shown(self._text)} {why}",
                       f"if it is a {self._name}, write a line {self._name} above it; if it is a heading, call that "
                       f"column {self._name}")


def _named(separator: str) -> str:
    return SEPARATORS[separator]


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN - 3] + "...")


def quotes_open(lines: Iterable[str]) -> bool:
    """Whether a quoted cell goes on behind these lines."""
    return sum(line.count('"') for line in lines) % 2 == 1
