"""What others say, made harmless where it comes in: one form for every text that a peer wrote.

A relay's reply, a fault string, an SSH message, a name in a certificate or in the DNS, a database's complaint: each
ends in a log, a trail, an audit or on a terminal, where a line end is a second line, an escape moves the cursor and a
mark of direction (Unicode TR 9) turns the words around it.
The invariant: what leaves here is one line of bounded length of printable characters alone, whatever came in; reading
it twice changes nothing.
Must not live here: what may be shown at all (a secret may not), who says it.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MOST: Final = 200
"""Characters of a peer's words in one place: a sentence, and no more room than that for whatever it is."""
_CUT: Final = "..."
_HARMFUL: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Controls, marks of format and direction, halves of characters, separators of lines and paragraphs."""


def said(words: object, most: int = MOST) -> str:
    """A peer's words, fit for any log. Bytes that are no UTF-8 are shown as such; blanks and line ends become one
    space; what is not printable is shown by its number; the rest is cut."""
    if isinstance(words, bytes | bytearray | memoryview):
        text = bytes(words[:4 * most]).decode("utf-8", "backslashreplace")  # no character has more bytes
    else:
        text = str(words)[:4 * most]
    shown = visible(" ".join(text.split()))
    return shown if len(shown) <= most else shown[:most - len(_CUT)] + _CUT


def visible(text: str) -> str:
    """The text with every character that is not printable shown by its number."""
    return text if text.isprintable() else "".join([one if one.isprintable() else _number(ord(one)) for one in text])


def _number(one: int) -> str:
    return f"\\x{one:02x}" if one < 0x100 else f"\\u{one:04x}" if one < 0x10000 else f"\\U{one:08x}"


def is_harmful(text: str) -> bool:
    """Whether a text has characters that nobody sees and that may change what is seen, or that a device's tools may
    mean something by. No name, and no password that people type, has any."""
    return not text.isprintable() and any(
        unicodedata.category(one) in _HARMFUL or _is_no_character(ord(one)) for one in text)


def _is_no_character(number: int) -> bool:
    """Unicode's 66 that never stand for anything (section 23.7)."""
    return number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF
