"""XML as it comes in: looked at piece by piece and never held whole in memory.

A small device has no room for sixteen megabytes, and expat keeps what a document makes it keep: each name it has not
seen before, each open element, each piece of markup until it is whole, and, where it resolves prefixes itself, the
whole namespace once for each attribute (60 kB of one and 20 000 attributes: 1.4 GB). So it does not resolve them here.
The invariant: what passes is well-formed, its prefixes are declared, it has no DOCTYPE and, where one was agreed, the
root element that was agreed; and looking at it takes less than four megabytes, whatever is in it.
Must not live here: where it comes from (fetching, exchange), what is in it (envelope, the hook).
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from xml.parsers import expat

from delegator.device.messages import NAMESPACE

_ROOT = "Provisioning"
_FED = 16 * 1024
_MARKUP = 64 * 1024
"""Bytes of one piece of markup; text between elements may be as long as it likes."""
_NAMES, _NAME = 256 * 1024, 100
"""Characters of all names that differ, and what each costs beside its own."""
_DEPTH, _OPEN = 200, 64 * 1024
"""Elements inside each other, and the characters of their names: expat keeps each, also equal ones."""
_NAMESPACES, _NAMESPACE = 500, 256
"""Prefixes that are declared at one moment; characters of a namespace's name."""


class Scan:
    """One document that is being read. Every method raises ValueError, with words for a person. `parts` are the
    elements and attributes it may have."""

    def __init__(self, parts: int | None = None) -> None:
        self._parser = parser = expat.ParserCreate(intern={})
        if hasattr(parser, "SetReparseDeferralEnabled"):  # it puts off what _MARKUP counts
            parser.SetReparseDeferralEnabled(False)
        parser.ordered_attributes = True
        parser.buffer_text = False
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        self._left = parts
        self._names: set[str] = set()
        self._size = self._open = self._fed = 0
        self._bound: Counter[str] = Counter({"xml": 1})
        self._scopes: list[list[str]] = []

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
        except (LookupError, TypeError):
            raise ValueError("not plain XML: it is in an encoding that nobody here knows") from None

    def _doctype(self, *_: Any) -> None:
        raise ValueError("not plain XML: the document has a DOCTYPE")

    def _root(self, name: str, declared: dict[str, str]) -> None:
        """What is asked of the first element, with the namespaces it declares."""

    def _start(self, name: str, attributes: list[str]) -> None:
        self._count(name, attributes[::2])
        declared = {key[6:]: said for key, said in zip(attributes[::2], attributes[1::2])  # noqa: B905 - Python 3.9
                    if key == "xmlns" or key.startswith("xmlns:")}
        if any(len(said) > _NAMESPACE for said in declared.values()):
            raise ValueError(f"the name of a namespace has more than {_NAMESPACE} characters")
        if not self._scopes:
            self._root(name, declared)
        self._scopes.append(list(declared))
        self._bound.update(self._scopes[-1])
        if len(self._scopes) > _DEPTH or self._open > _OPEN:
            raise ValueError(f"it has more than {_DEPTH} elements inside each other, or too long names of them")
        if sum(self._bound.values()) > _NAMESPACES:
            raise ValueError(f"it declares more than {_NAMESPACES} prefixes at once")
        for one in (name, *attributes[::2]):
            prefix, colon, _ = one.partition(":")
            if colon and prefix != "xmlns" and not self._bound[prefix]:
                raise ValueError(f"not plain XML: the prefix {prefix[:80]} is declared nowhere")

    def _count(self, name: str, attributes: list[str]) -> None:
        self._open += len(name)
        if self._left is not None:
            self._left -= 1 + len(attributes)
            if self._left < 0:
                raise ValueError("it has more elements and attributes than anybody asked for")
        for one in (name, *attributes):
            if one not in self._names:
                self._names.add(one)
                self._size += len(one) + _NAME
        if self._size > _NAMES:
            raise ValueError(f"it has too many different names: more than {_NAMES} characters of them, each counted "
                             f"with {_NAME} more")

    def _end(self, name: str) -> None:
        self._open -= len(name)
        for prefix in self._scopes.pop():
            self._bound[prefix] -= 1
            if not self._bound[prefix]:
                del self._bound[prefix]


class Document(Scan):
    """The provisioning document."""

    def _root(self, name: str, declared: dict[str, str]) -> None:
        prefix, _, local = name.rpartition(":")
        space = declared.get(prefix, "")
        if (local, space) != (_ROOT, NAMESPACE):
            there = f"the namespace {space[:80]}" if space else "no namespace"
            raise ValueError(f"the root element is {local[:80]} in {there}, and must be Provisioning in the namespace "
                             f"{NAMESPACE}")
