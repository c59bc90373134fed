"""The one error family of the certificate authority.

Lives here: `PkiError`, the kinds it comes in, and the table that turns a kind into an exit code.
Invariant: every error says what is wrong (`detail`) and the next useful action (`hint`); neither ever
holds a key, a passphrase or the text of a foreign file.
Must not live here: printing, or any decision about when something is an error.
"""

from __future__ import annotations

import enum
import os


class Kind(enum.Enum):
    """Why a command did not do what was asked; the value is the word shown in JSON."""

    FAILED = "failed"
    USAGE = "usage"
    CONFIGURATION = "configuration"
    REFUSED = "refused"
    CONFLICT = "conflict"


EXIT_CODES: dict[Kind, int] = {
    Kind.FAILED: 1,
    Kind.USAGE: 2,
    Kind.CONFIGURATION: 3,
    Kind.REFUSED: 5,
    Kind.CONFLICT: 6,
}


class PkiError(Exception):
    """Anything the certificate authority cannot or will not do, with the way out of it."""

    def __init__(self, kind: Kind, detail: str, hint: str) -> None:
        super().__init__(kind, detail, hint)
        self.kind = kind
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail}; {self.hint}"


def system_words(error: OSError) -> str:
    """What the system said, with the file it said it of, and without its number."""
    words = error.strerror or str(error) or "it failed"
    return f"{os.fsdecode(error.filename)}: {words}" if isinstance(error.filename, str | bytes) else words
