"""Replies of a mail relay before TLS: lines with a code (RFC 5321 section 4.2), until the last of a reply.

Only what STARTTLS needs; behind it the library reads them.
The invariant: what is no reply is refused at its first line; nothing is kept.
Must not live here: sockets, how much a relay may say (wire.ration).
"""

from __future__ import annotations

import re

import msgspec

_LINE = re.compile(rb"(\d{3})(?:([ -])([^\r\n]*))?\r?")


class Reply(msgspec.Struct, frozen=True):
    """A code, its lines without it, and what came behind."""

    code: int
    lines: tuple[str, ...]
    rest: bytes

    def offers(self, extension: str) -> bool:
        """Whether this reply to EHLO names an extension."""
        return any(line.upper().split()[:1] == [extension] for line in self.lines[1:])


def reply_in(said: bytes) -> Reply | None:
    """The reply that these bytes begin with, None where it is not whole yet. Raises ValueError for what is none."""
    lines = []
    while b"\n" in said:
        line, _, said = said.partition(b"\n")
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError("it does not speak SMTP")
        lines.append((found[3] or b"").decode("utf-8", "backslashreplace"))
        if found[2] != b"-":
            return Reply(int(found[1]), tuple(lines), said)
    return None
