"""Hostile bytes to a tiny tree of our own: the one XML reader, for whatever a stranger sent.

The invariant: `read` gives an `Element` tree within the limits below or raises `NotXml`, and nothing the bytes say is
ever looked up, expanded, fetched or kept. UTF-8 only; no byte-order mark, DOCTYPE, comment or processing instruction;
a value has no children and a parent no text. CDATA sections and the five built-in entities are text like any other.
An attribute decides nothing, with one exception: what says `xsi:nil` and holds something says two things at once, and
two readers would take it for two values.

Why expat and not lxml: libxml2 interns every name it meets and lxml shares that dictionary per thread for ever, with
every option and parser kind (measured with lxml 6.1.3: 3,000 requests of 64 KiB with fresh names leave 410 MB behind;
with expat nothing). For 1 KB envelopes, in one run: lxml target parser 47 us, lxml tree and walk 37, expat 42. And
expat lets us count while it parses. lxml builds what we publish ourselves (wire.wsdl).
Must not live here: SOAP (wire.soap), element names (wire.messages).
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.parsers import expat

MAX_BYTES = 64 * 1024
"""The whole document, whoever carries it (an SSH command's output comes without HTTP's limits)."""
MAX_ELEMENTS = 128
"""A full request has 30 elements, a WS-Security header about 20."""
MAX_ATTRIBUTES = 128
"""Namespace declarations count. Stacks send up to 8; gSOAP puts an xsi:type on every value."""
MAX_QUOTED = 2 * MAX_ATTRIBUTES
"""Places that look like the start of an attribute's value, whether they are or stand in a text. expat reads all of a
tag before it tells the first: 6 000 attributes took it 18 ms, many times the rest of a handshake (measured)."""
MAX_DEPTH = 16
"""Our deepest value lies at 6."""
MAX_NAMESPACE = 256
"""Bytes of a namespace name. expat hashes it once per attribute: 64 KiB with one long name took 650 ms."""

NIL = "http://www.w3.org/2001/XMLSchema-instance}nil"
SEPARATOR = "}"  # in no XML name, and expat refuses a namespace that holds it
_BLANK = " \t\r\n"  # XML 1.0 section 2.3; str.strip() alone would also take a no-break space for nothing
_PROLOG = re.compile(rb"(?:<\?xml[ \t\r\n][^<>]*\?>)?[ \t\r\n]*<[A-Za-z_\x80-\xff]")
"""Up to the first tag. DOCTYPE has no place after it, so that expat never sees one."""
_LONG_NAMESPACE = re.compile(rb"""xmlns(?::[^:=<>"' \t\r\n]*)?[ \t\r\n]*=[ \t\r\n]*["'][^"']{%d}""" % MAX_NAMESPACE)
"""Linear: no two starts share a run (an earlier form took 8 s for 64 KiB of `xmlnsxmlns`)."""


_QUOTED = re.compile(rb"""=[ \t\r\n]*["']""")


class NotXml(ValueError):
    """The bytes are not a document we take; the text says why."""


class Element(NamedTuple):
    """One element: its name, and either text or children. (A named tuple costs 0.5 us, a frozen dataclass 0.9.)"""

    namespace: str
    name: str
    text: str = ""
    children: tuple[Element, ...] = ()


def _name(tag: str) -> tuple[str, str]:
    namespace, _, name = tag.rpartition(SEPARATOR)
    return namespace, name


Marked = list[tuple[int, tuple[str, str], dict[str, str]]]
"""Every element that carried attributes: its depth (the root's is 0), its namespace and name, the attributes under
`namespace + SEPARATOR + name`. Namespace declarations are not among them."""


class Document(NamedTuple):
    """A document that was taken whole."""

    root: Element
    marked: Marked


class _Tree:
    """What expat calls back; after the first refusal it calls no more."""

    __slots__ = ("attributes", "elements", "marked", "nils", "open", "parents", "texts")

    def __init__(self) -> None:
        self.open: list[Element] = []
        self.parents: list[list[Element]] = []
        self.texts: list[str] = []
        self.marked: Marked = []
        self.nils: list[int] = []
        self.elements = MAX_ELEMENTS
        self.attributes = MAX_ATTRIBUTES

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.elements -= 1
        if self.elements < 0:
            raise NotXml(f"more than {MAX_ELEMENTS} elements")
        if self.texts:
            self.drop_blanks()
        parents = self.parents
        if len(parents) >= MAX_DEPTH:
            raise NotXml(f"elements nested deeper than {MAX_DEPTH}")
        if attributes:
            self.count_attributes(len(attributes))
            self.marked.append((len(parents), _name(tag), attributes))
            if attributes.get(NIL, "").strip(_BLANK) in ("true", "1"):
                self.nils.append(len(parents))
        parents.append(self.open)
        self.open = []

    def end(self, tag: str) -> None:
        texts, children, text = self.texts, self.open, ""
        if children:
            if texts:
                self.drop_blanks()
        elif texts:
            text = texts[0] if len(texts) == 1 else "".join(texts)
            texts.clear()
        namespace, _, name = tag.rpartition(SEPARATOR)
        self.open = self.parents.pop()
        if self.nils and self.nils[-1] == len(self.parents):
            self.nils.pop()
            if children or text.strip(_BLANK):
                raise NotXml("an element that says xsi:nil and holds something")
        self.open.append(Element(namespace, name, text, tuple(children)))

    def drop_blanks(self) -> None:
        if "".join(self.texts).strip(_BLANK):
            raise NotXml("text beside elements")
        self.texts.clear()

    def declared(self, prefix: str | None, namespace: str) -> None:
        self.count_attributes(1)

    def count_attributes(self, many: int) -> None:
        self.attributes -= many
        if self.attributes < 0:
            raise NotXml(f"more than {MAX_ATTRIBUTES} attributes")

    def prolog(self, version: str, encoding: str | None, standalone: int) -> None:
        if version != "1.0":
            raise NotXml(f"XML {version[:8]!a}, only 1.0 is taken")  # 1.1 has other blanks and line ends
        if encoding is not None and encoding.upper() != "UTF-8":
            raise NotXml(f"encoding {encoding[:32]!a} is declared, only UTF-8 is taken")

    def comment(self, text: str) -> None:
        raise NotXml("a comment")  # `ABC<!---->1234` was two values to two readers in six SAML products

    def instruction(self, target: str, data: str) -> None:
        raise NotXml("a processing instruction")


def read(body: bytes) -> Document:
    """Parse a whole document. Raises NotXml, whatever the bytes are."""
    if len(body) > MAX_BYTES:
        raise NotXml(f"more than {MAX_BYTES} bytes")
    if _PROLOG.match(body) is None:
        raise NotXml(f"starts with {body[:24]!r}; a UTF-8 element is wanted, no byte-order mark, DOCTYPE or comment")
    if _LONG_NAMESPACE.search(body) is not None:
        raise NotXml(f"a namespace of {MAX_NAMESPACE} bytes or more")
    if body.count(b"=") > MAX_QUOTED and len(_QUOTED.findall(body)) > MAX_QUOTED:
        raise NotXml(f"more than {MAX_ATTRIBUTES} attributes, or a text that looks like {MAX_QUOTED} of them")
    tree = _Tree()
    parser = expat.ParserCreate("utf-8", SEPARATOR)
    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.texts.append
    parser.StartNamespaceDeclHandler = tree.declared
    parser.XmlDeclHandler = tree.prolog
    parser.CommentHandler = tree.comment
    parser.ProcessingInstructionHandler = tree.instruction
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise NotXml(str(error)) from None
    return Document(tree.open[0], tree.marked)


# --- writing ------------------------------------------------------------------------------------------------------

_SPECIAL = re.compile("[^\t\n -%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
"""A carriage return written plain is read back as a line feed (XML 1.0 section 2.11); `>` for the sake of `]]>`."""


def _escape_one(match: re.Match[str]) -> str:
    character = match.group()
    if character not in _ESCAPED:
        raise NotXml(f"XML 1.0 cannot carry the character U+{ord(character):04X}")
    return _ESCAPED[character]


def escape(text: str) -> str:
    """Text as XML content, so that any reader gives back exactly this text. Raises NotXml where none could."""
    return _SPECIAL.sub(_escape_one, text)


def write(element: Element, around: str = "") -> str:
    """An element as text, to stand where `around` is the default namespace. Raises NotXml."""
    namespace, name, text, children = element
    opening = name
    if namespace != around:
        opening = f'{name} xmlns="{escape(namespace).replace(chr(34), "&quot;")}"'
    if children:
        return f"<{opening}>{''.join([write(child, namespace) for child in children])}</{name}>"
    return f"<{opening}>{escape(text)}</{name}>"
