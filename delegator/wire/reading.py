"""Elements to values by a table, with what is left out of a message and what ends it.

The invariant: what is wrong in a hint costs that hint alone and is noted, a few times and briefly, with nothing in the
note that could be more than text; what is wrong anywhere else is MALFORMED and names the element.
Must not live here: any element name (wire.messages has the tables).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from delegator.errors import DelegatorError, Kind
from delegator.wire.scalars import Scalar

if TYPE_CHECKING:
    from delegator.wire.messages import Part, Record
    from delegator.wire.xml import Element

SHOWN, MOST_NOTES = 48, 4
"""Characters that are shown of a hint, and how many hints are: a row of audit stays short."""
_MORE = "and more"


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
    stood: set[str] = set()
    by_name = record.by_name
    for child in children:
        part = by_name.get(child[1])
        if part is None or child[0] != namespace:
            raise malformed(record.name, f"no element {child.name[:64]!a} of {child.namespace[:64]!a} here")
        if part.most == 1 and part.name in stood:
            raise malformed(record.name, f"{part.name} stands there twice")
        stood.add(part.name)
        value = _read_part(record, part, child, left_out)
        if value is not None:
            _keep(record, part, value, found, left_out)
    if not record.needed <= found.keys():
        missing = next(part.name for part in record.parts if part.least and part.field not in found)
        raise malformed(record.name, "; ".join((f"{missing} is missing", *left_out)))
    try:
        return record.make(**found)
    except ValueError as error:
        raise malformed(record.name, error) from None


def _keep(record: Record, part: Part, value: Any, found: dict[str, Any], left_out: list[str]) -> None:
    """One more value of a part; those past the last that has room are refused, or where they are hints left out."""
    before = found.get(part.field, ())
    if part.most == 1:
        found[part.field] = value
    elif len(before) < part.most:
        found[part.field] = (*before, value)
    elif part.judge is None:
        raise malformed(record.name, f"more than {part.most} times {part.name}")
    else:
        _note(left_out, f"more than {part.most} times {part.name}")


def _read_part(record: Record, part: Part, element: Element, left_out: list[str]) -> Any:
    """The value of one element; None for an optional one that says nothing, or nothing that can be used."""
    kind, text, children = part.type, element[2], element[3]
    if not isinstance(kind, Scalar):
        says = part.least or children or text.strip()
        return read_record(kind, element, left_out) if says else None
    if children:
        raise malformed(f"{record.name}/{part.name}", "elements where a text is wanted")
    try:
        value = kind.read(text)
        if part.judge is not None:
            part.judge(value)
    except ValueError as error:
        return _made_do(record, part, text, error, left_out)
    return value


def _made_do(record: Record, part: Part, text: str, error: ValueError, left_out: list[str]) -> Any:
    """What is kept of a text that is not of its form. Raises DelegatorError(MALFORMED) where it is no hint."""
    if not (part.least or text.strip()):
        return None
    if part.cut:
        _note(left_out, f"{record.name}/{part.name}: {error}, the rest is cut off")
        return text[:part.cut]
    if part.judge is None:
        raise malformed(f"{record.name}/{part.name}", error) from None
    shown = text.strip()
    _note(left_out, f"{part.name} {shown[:SHOWN]!a}{'...' if len(shown) > SHOWN else ''} is not of its form")
    return None
