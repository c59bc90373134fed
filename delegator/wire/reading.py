"""Elements to values by a table: of which form tables are, what is left out of a message, and what ends it.

The invariant: what is wrong in a hint costs that hint alone and is noted, a few times and briefly, with nothing in the
note that could be more than text; what is wrong anywhere else is MALFORMED and names the element.
Must not live here: any element name (wire.messages has the tables).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import force_setattr

from delegator.errors import DelegatorError, Kind
from delegator.wire.scalars import Scalar

if TYPE_CHECKING:
    from delegator.wire.xml import Element

SHOWN, MOST_NOTES = 48, 4
"""Characters that are shown of a hint, and how many hints are: a row of audit stays short."""
_MORE = "and more"


class Part(msgspec.Struct, frozen=True):
    """One element of a record: its name, the model's field, its type, how often it may stand there."""

    name: str
    field: str
    type: Scalar | Record
    least: int = 1
    most: int = 1
    absent: object = None
    """The model's value for "was not sent"."""
    of: Callable[[Any], Any] | None = None
    """How to get it from the value, where that is not simply `field`."""
    judge: Callable[[Any], object] | None = None
    """Of a hint: raises ValueError where it is left out."""
    cut: int = 0
    """Of words for people: how many characters are kept of too many."""

    @property
    def hint(self) -> bool:
        """Whether it proves nothing and asks for nothing, so that whatever is wrong with it costs it alone."""
        if isinstance(self.type, Record):
            return not self.least and all(part.hint for part in self.type.parts)
        return not self.least and (self.judge is not None or self.cut > 0)


class Record(msgspec.Struct, frozen=True):
    """A sequence of elements that makes one model value (`make` takes the parts' fields by keyword)."""

    name: str
    make: Callable[..., Any]
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = {}
    needed: frozenset[str] = frozenset()
    """The fields that must be there; like `by_name` it follows from the parts."""

    def __post_init__(self) -> None:
        force_setattr(self, "by_name", {part.name: part for part in self.parts})
        force_setattr(self, "needed", frozenset(part.field for part in self.parts if part.least))


def malformed(where: str, what: object) -> DelegatorError:
    return DelegatorError(Kind.MALFORMED, f"{where}: {str(what)[:300]}")


def _note(left_out: list[str], said: str) -> None:
    if len(left_out) <= MOST_NOTES:
        left_out.append(said if len(left_out) < MOST_NOTES else _MORE)


def read_record(record: Record, element: Element, left_out: list[str]) -> Any:
    """The value of a record; `left_out` is told each hint that was left out, in words that are harmless wherever they
    are shown. Raises DelegatorError (MALFORMED)."""
    namespace, _, text, children = element
    if text and text.strip():
        raise malformed(record.name, "text where elements are wanted")
    found: dict[str, Any] = {}
    crowded = False
    by_name = record.by_name
    for child in children:
        part = by_name.get(child[1])
        if part is None or child[0] != namespace:
            raise malformed(record.name, f"no element {child.name[:64]!a} of {child.namespace[:64]!a} here")
        try:
            value = _read_part(record, part, child, left_out)
        except DelegatorError:
            if not part.hint:
                raise
            _note(left_out, f"{record.name}/{part.name} is not of its form")
            continue
        if part.most == 1:
            if part.field in found:
                if not part.hint:
                    raise malformed(record.name, f"{part.name} stands there twice")
                _note(left_out, f"{record.name}/{part.name} stands there twice, the first counts")
                continue
            found[part.field] = value
        else:
            found[part.field] = (*found.get(part.field, ()), value)
            if len(found[part.field]) > part.most:
                if part.judge is None:
                    raise malformed(record.name, f"more than {part.most} times {part.name}")
                crowded = True
    if not record.needed <= found.keys():
        missing = next(part.name for part in record.parts if part.least and part.field not in found)
        raise malformed(record.name, "; ".join((f"{missing} is missing", *left_out)))
    if not crowded:
        try:
            return record.make(**found)
        except ValueError:
            pass  # perhaps for a hint
    return _without_bad_hints(record, found, left_out)


def _without_bad_hints(record: Record, found: dict[str, Any], left_out: list[str]) -> Any:
    """The model knows all forms, so hints are looked at one by one only where it refuses something."""
    for part in record.parts:
        if part.judge is not None and part.field in found:
            found[part.field] = _judged(part, found[part.field], left_out)
    try:
        return record.make(**found)
    except ValueError as error:
        raise malformed(record.name, error) from None


def _judged(part: Part, said: Any, left_out: list[str]) -> Any:
    """What can be kept of a hint."""
    if part.most == 1:
        return said if said == part.absent or _fits(part, said, left_out) else part.absent
    kept = [one for one in said if _fits(part, one, left_out)]
    if len(kept) > part.most:
        _note(left_out, f"more than {part.most} times {part.name}")
    return tuple(kept[:part.most])


def _fits(part: Part, value: str, left_out: list[str]) -> bool:
    assert part.judge is not None
    try:
        part.judge(value)
    except ValueError:
        if value:
            more = "..." if len(value) > SHOWN else ""
            _note(left_out, f"{part.name} {value[:SHOWN]!a}{more} is not of its form")
        return False
    return True


def _read_part(record: Record, part: Part, element: Element, left_out: list[str]) -> Any:
    """The value of one element; an optional one that says nothing, where its type needs something, was not sent."""
    kind, text = part.type, element[2]
    if not isinstance(kind, Scalar):
        says = part.least or element[3] or text.strip()
        return read_record(kind, element, left_out) if says else part.absent
    if element[3]:
        raise malformed(f"{record.name}/{part.name}", "elements where a text is wanted")
    try:
        return kind.read(text)
    except ValueError as error:
        if not (part.least or text.strip()):
            return part.absent
        if not part.cut:
            raise malformed(f"{record.name}/{part.name}", error) from None
        _note(left_out, f"{record.name}/{part.name}: {error}, the rest is cut off")
        return text[:part.cut]
