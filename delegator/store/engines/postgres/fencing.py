"""Which server of a PostgreSQL is the one to write to, where more than one would take it: the one promoted last.

Each promotion begins a new timeline, one higher. A primary that was thought dead and comes back beside the one that
took over knows nothing of that and takes writes, which are lost when it is put in its place. So of all servers that
answer, the highest timeline is taken; a lower one than was ever seen is not written to, whoever answers; neither is
another cluster, a database that was made anew, or one of two that were promoted side by side.
The invariant: what was seen never goes back for as long as this process lives, nor on this machine as long as its file
stands.
Must not live here: connections (connecting), statements but the question.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from delegator.errors import DelegatorError, Kind

log = logging.getLogger(__name__)
QUESTION = """SELECT (SELECT system_identifier FROM pg_control_system())::text AS system,
    CASE WHEN pg_is_in_recovery() THEN NULL
         ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS timeline,
    (SELECT oid FROM pg_database WHERE datname = current_database())::bigint AS database,
    (EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::bigint AS began"""
"""Asked of a server; a standby has no timeline of its own. The name of the log's file tells it at once: the control
file says that of the last checkpoint, which may be minutes before the promotion."""
UNTOLD = ("42501", "42883", "0A000")
"""What a server says that does not let us ask: it takes part in no fencing."""


class Writer(NamedTuple):
    """A server that takes writes: its cluster, the timeline, the database's number there, and when it was started,
    by which it is known again under another address."""

    system: str
    timeline: int
    database: int
    began: int


class Seen(msgspec.Struct, frozen=True):
    """The newest writer that this process or machine knows of."""

    system: str
    timeline: int
    database: int

    @classmethod
    def of(cls, writer: Writer) -> Seen:
        return cls(writer.system, writer.timeline, writer.database)


def refused(writer: Writer, seen: Seen | None) -> str:
    """Why a server is not written to, "" where it may be."""
    if seen is None:
        return ""
    if writer.system != seen.system:
        return f"it is another cluster ({writer.system}) than before ({seen.system})"
    if writer.timeline < seen.timeline:
        return (f"it is on timeline {writer.timeline}, and a server on timeline {seen.timeline} took over: what is "
                "written to it is lost")
    if writer.database != seen.database:
        return "the database was dropped and made anew under its name"
    return ""


def chosen(writers: Sequence[Writer], seen: Seen | None) -> int:
    """Which of the servers that take writes is the one, by its place. Raises DelegatorError (TRY_LATER) where none
    may be written to, or two have an equal right to it."""
    reasons = [refused(one, seen) for one in writers]
    fit = [place for place, why in enumerate(reasons) if not why]
    if not fit:
        raise fenced("; ".join(dict.fromkeys(reasons)))
    newest = max(writers[place].timeline for place in fit)
    equal = [place for place in fit if writers[place].timeline == newest]
    if len({(writers[place].system, writers[place].began) for place in equal}) > 1:
        raise fenced(f"two servers take writes, both on timeline {newest}")
    return equal[0]


def fenced(why: str) -> DelegatorError:
    return DelegatorError(
        Kind.TRY_LATER, f"the server is not written to: {why}",
        hint="stop the server that must not take writes; where the database was replaced on purpose, stop all "
             "delegators, remove the file that [store] path names with .seen behind it, and start them; see Fencing in "
             "docs/scale.md")


class Stale(OSError):
    """The connection leads to a server that another one took over from."""


class Fence:
    """What was seen, kept in this process and in a file that all on this machine share. `file` is None for none, `url`
    says of which database the file is to tell."""

    def __init__(self, file: Path | None = None, url: str = "") -> None:
        self._file = file
        self._url = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        self.seen: Seen | None = None
        self.split = ""
        """Why nobody is written to just now."""
        self.era = 0
        """Raised with each newer writer: a connection of an earlier era leads to the wrong server."""
        self._counts: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._unkept = False

    def belongs(self, connection: Any, writer: Writer) -> None:
        """This connection leads to the server that is written to from now on."""
        self.note(writer)
        self._counts[connection] = self.era

    def require(self, connection: Any) -> None:
        """Raises Stale for a connection to a server that another one took over from."""
        if not self.fits(connection):
            raise Stale("another server took over")

    def fits(self, connection: Any) -> bool:
        return self._counts.get(connection, self.era) == self.era

    def require_whole(self) -> None:
        """Raises DelegatorError (TRY_LATER) while two servers have an equal right to be written to."""
        if self.split:
            raise fenced(self.split)

    async def learn(self) -> None:
        """Take in what others on this machine have seen."""
        told = None if self._file is None else await asyncio.to_thread(self._read)
        if told is not None and (self.seen is None or (told.system == self.seen.system
                                                       and told.timeline > self.seen.timeline)):
            self._see(told)

    def note(self, writer: Writer) -> bool:
        """This one is written to from now on; whether that is news."""
        now = Seen.of(writer)
        if now == self.seen:
            return False
        self._see(now)
        return True

    async def share(self) -> None:
        """Tell the others on this machine, and whoever is started later. What one of them knows of a newer one counts
        here, and is never written over. Where that cannot be done it is said once."""
        await self.learn()
        if self._file is None or self.seen is None:
            return
        try:
            await asyncio.to_thread(self._write, self._file, self.seen)
            self._unkept = False
        except OSError as error:
            if not self._unkept:
                self._unkept = True
                log.warning("database: which server was promoted last cannot be kept in %s for the next start: %s",
                            self._file, error.strerror)

    def _write(self, file: Path, seen: Seen) -> None:
        told = self._read()
        if told is not None and (told == seen or (told.system == seen.system and told.timeline > seen.timeline)):
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(descriptor, "w") as made:
                json.dump({"url": self._url, "system": seen.system, "timeline": seen.timeline,
                           "database": seen.database}, made)
                os.fchmod(made.fileno(), 0o644)  # commands of other users read it
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _read(self) -> Seen | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            assert self._file is not None
            said: dict[str, Any] = json.loads(self._file.read_text())
            if said["url"] == self._url:
                return Seen(str(said["system"]), int(said["timeline"]), int(said["database"]))
        return None

    def _see(self, now: Seen) -> None:
        self.era += self.seen is not None
        self.seen = now
