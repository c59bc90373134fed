"""SQLite's reading connection: it reads on the loop's thread, and never sleeps there.

A read takes 6 to 10 µs. Where another process is in the way SQLite would sleep: as long as the busy timeout says, which
is nothing here, so that we look again from the loop; and without any say of ours for ten seconds where the locks of the
log's index cannot be had (measured: SQLITE_PROTOCOL after 9.98 s). So after one read that was slow whoever asks is told
to try later, until a look from a thread of its own was quick again.
The invariant: nothing that is known to wait is done on the loop.
Must not live here: writing (driver), what is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import sqlite3
import threading
import time
from pathlib import Path

from delegator.clockwork.deadline import deadline
from delegator.errors import DelegatorError, Kind
from delegator.store.engines.slowness import Slowness
from delegator.store.engines.sqlite.soundness import RESTORE, is_broken
from delegator.store.transaction import Query, Row

SLOW = 0.5
"""Seconds from which on a read is no accident of a busy machine."""
PAUSE = 0.01
"""Seconds between two tries while somebody is in the way, and a hundred times that between two looks from a thread."""
_PROBE = "SELECT number FROM revision"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else is in the way; SQLite has extended codes for why."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def words(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def unavailable(path: Path, error: Exception) -> DelegatorError:
    """What a device is told of it: to come again where somebody is only in the way."""
    if isinstance(error, sqlite3.Error) and is_busy(error):
        return DelegatorError(Kind.TRY_LATER, f"database {path}: another process is in the way: {error}",
                              hint=f"who has it open: fuser {path}")
    return DelegatorError(Kind.UNAVAILABLE, f"database {path}: {words(error)}",
                          hint=RESTORE if is_broken(error) else "")


@functools.cache
def numbered(sql: str) -> str:
    """To SQLite `$1` is a name and `?1` a place; places take our tuples as they are (4 µs less a statement)."""
    return re.sub(r"\$(\d+)", r"?\1", sql)


class Reader:
    """Reads by `connection`, which is its own from here on, of the file `path`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA busy_timeout = 0")
        self._path, self.connection = path, connection
        self._slowness = Slowness(str(path), time.monotonic)
        self._took: float | None = None
        """Seconds of a read that was slow, until one is quick again."""

    def execute(self, sql: str) -> sqlite3.Cursor:
        return self.connection.execute(sql)

    def now(self, query: Query) -> list[Row]:
        """Rows. Raises sqlite3.Error, DelegatorError (TRY_LATER) while reads are slow."""
        if self._took is not None:
            raise self._late()
        began = time.monotonic()
        try:
            return self.connection.execute(numbered(query.sql), query.parameters).fetchall()
        finally:
            if time.monotonic() - began > SLOW and deadline() is not None:  # what others ask may be long
                self._is_slow(time.monotonic() - began)

    async def patiently(self, query: Query, patience: float) -> list[Row]:
        """Rows, as soon as nobody is in the way. Raises DelegatorError (TRY_LATER, UNAVAILABLE)."""
        loop = asyncio.get_running_loop()
        limit = deadline()
        until = loop.time() + patience if limit is None else limit
        while True:
            try:
                return self.now(query)
            except sqlite3.Error as error:
                if not is_busy(error) or loop.time() > until:
                    raise unavailable(self._path, error) from error
            await asyncio.sleep(PAUSE)

    def _late(self) -> DelegatorError:
        why = f"a read took {self._took or 0.0:.1f} s: another process is in the way, or the disk does not answer"
        self._slowness.late(why)
        return DelegatorError(Kind.TRY_LATER, f"database {self._path}: {why}",
                              hint=f"who has it open: fuser {self._path}")

    def _is_slow(self, took: float) -> None:
        self._took = took
        threading.Thread(target=self._look, args=(asyncio.get_running_loop(),), name="looking whether reads are quick",
                         daemon=True).start()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: until a read is quick on a connection of its own."""
        while True:
            began, quick = time.monotonic(), False
            with contextlib.suppress(sqlite3.Error), contextlib.closing(
                    sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=0)) as connection:
                connection.execute(_PROBE).fetchall()
                quick = time.monotonic() - began < SLOW
            if quick:
                break
            time.sleep(100 * PAUSE)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._is_quick)

    def _is_quick(self) -> None:
        self._took = None
        self._slowness.done()

    def close(self) -> None:
        self.connection.close()


def unusable(path: Path, error: Exception) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"database {path}: {words(error)}",
                          hint=RESTORE if is_broken(error) else "check [store] path and who owns that folder")
