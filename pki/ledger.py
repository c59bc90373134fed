"""The ledger: one line for every certificate that was signed and for every one that was revoked.

Lives here: `Entry`, and `Ledger` over the file `ledger.jsonl`.
Invariants: lines are only ever appended (the file may carry `chattr +a`); an append is on the disk before it
returns; a certificate's line is written before its file becomes visible, so a certificate that is not in the
ledger was not made here. The converse does not hold: after a crash a line may exist whose certificate nobody
ever saw. That is the harmless direction.
Must not live here: certificates themselves, or the decision to revoke.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki import disk
from pki.errors import Kind, PkiError

LEDGER = "ledger.jsonl"
"""What it is called in an authority's folder, beside `ca.crt`."""


class Event(enum.StrEnum):
    """What a line records."""

    ISSUED = "issued"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. Times are ISO 8601 UTC, serial and fingerprint (SHA-256) lower-case hexadecimal."""

    event: Event
    time: str
    serial: str
    profile: str
    name: str
    fingerprint: str = ""
    not_after: str = ""
    reason: str = ""


class TornLine(Exception):
    """A line that does not parse, with its number; `torn` if it looks cut off by a crash."""

    def __init__(self, line: int, torn: bool) -> None:
        super().__init__(line, torn)
        self.line = line
        self.torn = torn


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def serial_text(serial: int) -> str:
    """Hexadecimal as `openssl x509 -serial` prints it, in lower case."""
    text = f"{serial:x}"
    return text if len(text) % 2 == 0 else "0" + text


def issued(certificate: x509.Certificate, profile: str, name: str, now: datetime | None = None) -> Entry:
    """The line for a newly signed certificate."""
    return Entry(
        Event.ISSUED,
        stamp(now or datetime.now(UTC)),
        serial_text(certificate.serial_number),
        profile,
        name,
        certificate.fingerprint(hashes.SHA256()).hex(),
        stamp(certificate.not_valid_after_utc),
    )


class Ledger:
    """`ledger.jsonl` of one folder. Appending needs the folder's lock; reading does not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entries: Iterable[Entry]) -> None:
        """Writes all lines in one go and returns when they are on the disk."""
        lines = "".join(json.dumps(_sparse(entry), separators=(",", ":")) + "\n" for entry in entries)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        try:
            with os.fdopen(os.open(self.path, flags, disk.FILE_MODE), "r+b", buffering=0) as file:
                _write_all(file.fileno(), _separator(file.fileno()) + lines.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise disk.unusable(self.path, error) from error

    def __iter__(self) -> Iterator[Entry]:
        """All readable entries, oldest first, one at a time."""
        return (entry for entry in self.lines() if isinstance(entry, Entry))

    def issued_to(self, name: str) -> list[Entry]:
        """What was issued under a name, oldest first. Other lines are not parsed: there may be a million."""
        wanted = json.dumps(name).encode()
        try:
            with self.path.open("rb") as file:
                found = [_parse(number, line) for number, line in enumerate(file, 1) if wanted in line]
        except OSError as error:
            raise disk.unusable(self.path, error) from error
        return [one for one in found if isinstance(one, Entry) and one.event is Event.ISSUED and one.name == name]

    def lines(self) -> Iterator[Entry | TornLine]:
        """All lines, unreadable ones as `TornLine`."""
        try:
            with self.path.open("rb") as file:
                yield from (_parse(number, line) for number, line in enumerate(file, 1) if line.strip())
        except FileNotFoundError as error:
            raise PkiError(Kind.CONFIGURATION, f"{self.path} is missing", "restore it from a backup") from error
        except OSError as error:
            raise disk.unusable(self.path, error) from error


def _sparse(entry: Entry) -> dict[str, str]:
    return {name: value for name, value in asdict(entry).items() if value}


def _separator(descriptor: int) -> bytes:
    """A newline if the last line was torn by a crash: it is left as it is, never mended, never continued."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _parse(number: int, line: bytes) -> Entry | TornLine:
    try:
        values = json.loads(line)
        return Entry(**{**values, "event": Event(values["event"])})
    except (ValueError, TypeError, KeyError):
        return TornLine(number, torn=line.startswith(b"{") and not line.rstrip().endswith(b"}"))
