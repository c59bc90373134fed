"""The provisioning document as it comes in: looked at piece by piece and never held whole in memory.

A small device has no room for sixteen megabytes, and expat keeps what a document makes it keep: each name it has not
seen before, each open element, each piece of markup until it is whole.
The invariant: what passes is well-formed, has the root element that was agreed, and no DOCTYPE; and looking at it
takes less than two megabytes, whatever is in it.
Must not live here: where it comes from (fetching), where it goes (state), what is in it (the hook).
"""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from delegator.device.messages import NAMESPACE

_ROOT = f"{NAMESPACE} Provisioning"
_FED = 64 * 1024
_MARKUP = 256 * 1024
"""Bytes of one piece of markup; text between elements may be as long as it likes."""
_NAMES, _DEPTH, _NAMESPACES = 64 * 1024, 200, 500
"""Characters of all names that differ; elements inside each other; prefixes that are declared at one moment."""


class Document:
    """One document that is being read. Every method raises ValueError, with words for a person."""

    def __init__(self) -> None:
        self._parser = parser = expat.ParserCreate(namespace_separator=" ", intern={})
        parser.ordered_attributes = True
        parser.buffer_text = False
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartNamespaceDeclHandler, parser.EndNamespaceDeclHandler = self._declared, self._undeclared
        self._names: set[str] = set()
        self._size = self._depth = self._declarations = self._fed = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes of it."""
        for at in range(0, len(piece), _FED):
            self._parse(piece[at:at + _FED], False)
            self._fed += len(piece[at:at + _FED])
            if self._fed - max(self._parser.CurrentByteIndex, 0) > _MARKUP + _FED:
                raise ValueError(f"it has markup of more than {_MARKUP} bytes in one piece")

    def close(self) -> None:
        """That was all of it."""
        self._parse(b"", True)

    def _parse(self, piece: bytes, final: bool) -> None:
        try:
            self._parser.Parse(piece, final)
        except expat.ExpatError as error:
            raise ValueError(f"not plain XML: {error}") from None
        except LookupError:
            raise ValueError("not plain XML: it is in an encoding that nobody here knows") from None

    def _doctype(self, *_: Any) -> None:
        raise ValueError("not plain XML: the document has a DOCTYPE")

    def _start(self, name: str, attributes: list[str]) -> None:
        if not self._size and name != _ROOT:
            raise ValueError(_another_root(name))
        self._depth += 1
        for one in (name, *attributes[::2]):
            if one not in self._names:
                self._names.add(one)
                self._size += len(one)
        if self._depth > _DEPTH or self._size > _NAMES:
            raise ValueError(f"it has more than {_DEPTH} elements inside each other, or too many different names")

    def _end(self, _name: str) -> None:
        self._depth -= 1

    def _declared(self, _prefix: str | None, _uri: str) -> None:
        self._declarations += 1
        if self._declarations > _NAMESPACES:
            raise ValueError(f"it declares more than {_NAMESPACES} prefixes at once")

    def _undeclared(self, _prefix: str | None) -> None:
        self._declarations -= 1


def _another_root(name: str) -> str:
    space, _, local = name.rpartition(" ")
    there = f"the namespace {space[:80]}" if space else "no namespace"
    return (f"the root element is {local[:80]} in {there}, and must be Provisioning in the namespace {NAMESPACE}")
