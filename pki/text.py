"""What a file of text is, for everyone who reads one: a list, a secret, settings. Bytes in, text out.

The rules, stated once. Text is UTF-8, and a byte-order mark in front of it is no part of it: Windows writes one, and
sent to a device as part of a password it would lock its owner out. What is no such text is refused by the name of what
it is, because "invalid byte" helps nobody who has saved a spreadsheet. A file of one secret holds exactly one line;
its end (LF or CRLF) is not part of the secret, and a second line is an error, never a part and never passed over: two
readers that differ there make two secrets of one file.
Must not live here: paths, permissions, what the text means (disk, tables and whoever reads it).
"""

from __future__ import annotations

import unicodedata
from typing import Final

MARK: Final = b"\xef\xbb\xbf"
"""The byte-order mark of UTF-8."""
LONGEST_SECRET: Final = 1024
"""Bytes. The longest password that a device takes has as many characters; whatever is longer is another file."""
SECRET_BYTES: Final = len(MARK) + LONGEST_SECRET + len(b"\r\n") + 1
"""So many need to be read of a file of one secret, to know that it is none where it is longer."""

_AS_UTF8 = "save it as UTF-8"
_UTF_16 = ("is UTF-16, which Notepad calls Unicode and PowerShell writes with >", _AS_UTF8)
_UTF_32 = ("is UTF-32", _AS_UTF8)
_STARTS: Final = (
    (b"\xff\xfe\0\0", *_UTF_32),
    (b"\0\0\xfe\xff", *_UTF_32),
    (b"\xff\xfe", *_UTF_16),
    (b"\xfe\xff", *_UTF_16),
    (b"PK\x03\x04", "is a zip archive, as Excel's .xlsx is", "save the sheet as CSV UTF-8, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "is a workbook of an old Excel (.xls)", "save the sheet as CSV UTF-8"),
    (b"\x1f\x8b", "is packed by gzip", "unpack it first: gunzip"),
    (b"BZh", "is packed by bzip2", "unpack it first: bunzip2"),
    (b"\xfd7zXZ\0", "is packed by xz", "unpack it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "is packed by zstd", "unpack it first: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "is packed by 7-Zip", "unpack it first"),
    (b"%PDF-", "is a PDF", "ask for the same as text"),
    (b"SQLite format 3\0", "is an SQLite database", "name the file of text that is meant"),
)
"""How files begin that are often given instead of text: what they are, and what to do."""
_SAMPLE = 64
"""Bytes in which UTF-16 without a mark shows itself: every second one is NUL in what people write; in UTF-32 three of
four are."""
_NOTHING = ("holds nothing but NUL bytes, as /dev/zero does, and a file whose content a crash has lost",
            "name the file of text that is meant, or write it anew")


class NotText(ValueError):
    """Why bytes are not the text that is wanted, in words that follow a file's name, and what to do."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint

    def of(self, what: str) -> str:
        """The sentence about a file that is called so."""
        return f"{what}{': ' if self.why.startswith('line ') else ' '}{self.why}"


def foreign(start: bytes) -> NotText | None:
    """What a file is that begins so, where that is something else than UTF-8 text."""
    for begin, why, hint in _STARTS:
        if start.startswith(begin):
            return NotText(why, hint)
    sample = start[:_SAMPLE]
    if sample and not any(sample):
        return NotText(*_NOTHING)
    lanes = [any(sample[lane::4]) for lane in range(4)]
    if len(sample) > 3 and sum(lanes) == 1:
        return NotText(*_UTF_32)
    if len(sample) > 3 and (not any(lanes[::2]) or not any(lanes[1::2])):
        return NotText(*_UTF_16)
    return None


def no_utf8(error: UnicodeDecodeError, line: int) -> NotText:
    """For a byte that is no UTF-8, on that line."""
    byte = error.object[error.start]
    return NotText(f"line {line} is not UTF-8: byte 0x{byte:02x}, as Latin-1 or Windows-1252 may write",
                   f"{_AS_UTF8}; from Latin-1: iconv -f LATIN1 -t UTF-8")


def nul(line: int) -> NotText:
    return NotText(f"line {line} is no text: it holds a NUL byte", "name the file of text that is meant")


def bare_return(line: int) -> NotText:
    return NotText(f"line {line} holds a carriage return without a line feed, as old Macintosh programs end lines",
                   "save it with line ends LF or CRLF; or: tr '\\r' '\\n' < FILE")


def decoded(content: bytes) -> str:
    """The text of a whole file, without its mark; its line ends stay. Raises NotText."""
    found = foreign(content)
    if found is not None:
        raise found
    try:
        text = content.removeprefix(MARK).decode()
    except UnicodeDecodeError as error:
        raise no_utf8(error, 1 + error.object.count(b"\n", 0, error.start)) from None
    if "\0" in text:
        raise nul(1 + text.count("\n", 0, text.index("\0")))
    if "\r" in text and "\n" not in text:
        raise bare_return(1)
    return text


def secret_in(content: bytes) -> str:
    """The one line of a file of one secret. Raises NotText, which never shows any of it."""
    found = foreign(content)
    if found is not None:
        raise found
    if len(content.removeprefix(MARK).rstrip(b"\r\n")) > LONGEST_SECRET:
        raise NotText(f"is longer than {LONGEST_SECRET} bytes", "put the secret there and nothing else")
    text = decoded(content)
    line = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if "\n" in line or "\u2028" in line or "\u2029" in line:
        raise NotText("has a second line", "put the secret on the only line, and notes elsewhere")
    if not line.strip():
        raise NotText("is empty", "put the secret there, on one line")
    if any(unicodedata.category(character) == "Cc" for character in line):
        raise NotText("holds a control character", "put the secret there as plain text, on one line")
    if any(unicodedata.category(character) == "Cf" for character in line):
        raise NotText("holds a character that nobody sees, such as a second byte-order mark or a zero-width space",
                      "type the secret anew, as plain text on one line")
    return line
